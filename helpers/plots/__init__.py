"""The figures of the course: ``plots.sweep_figure(rows)``, ``plots.event_display(event, labels)`` and so on.

Names are imported when they are first used: a figure of a sweep needs no awkward arrays.
"""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = {
    "performance": (
        *("capacity_figure", "experiments_figure", "latency_histogram_figure", "latency_split_figure", "lives_figure", "precision_figure"),
        *("scale_figure", "sweep_figure", "throughput_latency_figure", "warm_up_figure"),
    ),
    "physics": (
        *("differences", "mass_histogram", "roc_curves", "show_jets"),
        *("efficiency_plot", "embedding_display", "event_display", "graph_display", "stage_bars"),
    ),
}

__all__ = sorted(name for names in _MODULES.values() for name in names)


def __getattr__(name: str) -> Any:
    module = next((module for module, names in _MODULES.items() if name in names), None)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
