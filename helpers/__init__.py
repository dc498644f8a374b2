"""Helpers of the course: launch a Triton server, send it requests, read its metrics, check exercises.

Names are imported when they are first used, so that ``python -m helpers doctor`` works before anything is installed.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# name -> module that defines it
_EXPORTS = {
    "launch_server": "helpers.server.server",
    "connect": "helpers.server.connection",
    "launch_fleet": "helpers.fleet.fleet",
    "Server": "helpers.server.server",
    "Fleet": "helpers.fleet.fleet",
    "Client": "helpers.client",
    "CourseError": "helpers.errors",
    "checkout": "helpers.repository",
    "scrape": "helpers.metrics.metrics",
    "BackgroundLoad": "helpers.metrics.load",
    "dashboard": "helpers.metrics.dashboard",
    "machine": "helpers.machine",
    "trace": "helpers.metrics.lives",
    "doctor": "helpers.setup.doctor",
    "jets": "helpers.physics.jets",
    "tracks": "helpers.physics.tracks",
    "taus": "helpers.physics.taus",
    "measure": "helpers.measuring.measure",
    "measure_in_turn": "helpers.measuring.measure",
    "sweep": "helpers.measuring.measure",
    "perf_analyzer": "helpers.measuring.measure",
    "verdict": "helpers.measuring.statistics",
    "recorded": "helpers.measuring.table",
    "write_inputs": "helpers.measuring.inputs",
    "write_jets": "helpers.measuring.inputs",
    "write_taus": "helpers.measuring.inputs",
    "Experiments": "helpers.measuring.experiments",
    "Rows": "helpers.measuring.table",
    "tune": "helpers.tuning.search",
}

__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'helpers' has no attribute {name!r}")
    module = importlib.import_module(_EXPORTS[name])
    # A module has no name like its own, but for those of a function.
    return getattr(module, name, module)
