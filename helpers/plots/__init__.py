"""The figures of the course: ``plots.sweep_figure(rows)``, ``plots.event_display(event, labels)`` and so on.

Names are imported when they are first used: a figure of a sweep needs no awkward arrays.
"""

from __future__ import annotations

import importlib
from typing import Any

_FIGURES = {
    "performance": "capacity_figure experiments_figure latency_histogram_figure latency_split_figure lives_figure precision_figure "
    "scale_figure sweep_figure throughput_latency_figure warm_up_figure",
    "physics": "differences efficiency_plot embedding_display event_display graph_display mass_histogram roc_curves show_jets stage_bars",
}


def __getattr__(name: str) -> Any:
    for module, names in _FIGURES.items():
        if name in names.split():
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
