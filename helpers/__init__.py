"""Helpers of the course: launch a Triton server, send it requests, read its metrics, check exercises.

Names are imported when they are first used, so that ``python -m helpers doctor`` works before anything is installed.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# module -> what notebooks import from it, or its own name where it is imported as a whole
_EXPORTS = {
    "client": ["Client"],
    "errors": ["CourseError"],
    "fleet.fleet": ["launch_fleet"],
    "measuring.experiments": ["Experiments"],
    "measuring.input_files": ["input_files"],
    "measuring.measure": ["measure", "measure_in_turn", "sweep"],
    "measuring.perf_analyzer": ["perf_analyzer"],
    "measuring.statistics": ["verdict"],
    "measuring.table": ["recorded"],
    "metrics.dashboard": ["dashboard"],
    "metrics.lives": ["trace"],
    "metrics.load": ["BackgroundLoad"],
    "metrics.metrics": ["scrape"],
    "physics.jets": ["jets"],
    "physics.taus": ["taus"],
    "physics.tracks": ["tracks"],
    "repository": ["checkout"],
    "server.connection": ["connect"],
    "server.server": ["launch_server"],
    "setup.doctor": ["doctor"],
    "tuning.search": ["tune"],
}
_MODULES = {name: module for module, names in _EXPORTS.items() for name in names}

__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'helpers' has no attribute {name!r}")
    module = importlib.import_module(f"helpers.{_MODULES[name]}")
    return getattr(module, name, module)
