"""Several servers: how many a traffic needs, what theory expects of them, and an analysis that keeps them busy.

Names are imported when they are first used: Dask takes a second.
"""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = {
    "analysis": ("Analysis", "local_workers", "replicate", "tag_files"),
    "capacity": ("Plan", "Traffic", "by_concurrency", "expected", "plan", "under_load"),
}

__all__ = sorted(name for names in _MODULES.values() for name in names)


def __getattr__(name: str) -> Any:
    module = next((module for module, names in _MODULES.items() if name in names), None)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
