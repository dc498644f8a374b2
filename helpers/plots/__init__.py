"""The figures of the course, such as ``plots.sweep_figure(rows)``, and ``plots.drawing()`` for those that a notebook draws itself.

Names are imported when they are first used: a figure of a sweep needs no awkward arrays.
"""

from __future__ import annotations

import importlib
from typing import Any

_FIGURES = {
    "style": "drawing decades",
    "performance": "capacity_figure latency_split_figure lives_figure scale_figure sweep_figure throughput_latency_figure",
    "physics": "efficiency_plot embedding_display event_display graph_display roc_curves show_jets",
}


def __getattr__(name: str) -> Any:
    for module, names in _FIGURES.items():
        if name in names.split():
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
