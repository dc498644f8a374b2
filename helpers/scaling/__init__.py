"""Several servers: how many a traffic needs, what theory expects of them, and an analysis that keeps them busy."""

import importlib
from typing import Any

from helpers.scaling.capacity import Plan, Traffic, by_concurrency, expected, plan, under_load

__all__ = ["Plan", "Traffic", "by_concurrency", "expected", "plan", "under_load"]


def __getattr__(name: str) -> Any:
    # What the analysis has, when it is first used: Dask takes a second.
    return getattr(importlib.import_module(f"{__name__}.analysis"), name)
