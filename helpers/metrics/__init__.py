"""What a server does: its own counters, a load to look at them under, and a live view of them."""

from __future__ import annotations

from typing import Any

__all__ = ["Difference", "Sample", "Snapshot", "parse", "scrape"]


def __getattr__(name: str) -> Any:
    # Imported when first used: the process of a load needs no parser.
    if name not in __all__:
        raise AttributeError(f"module 'helpers.metrics' has no attribute {name!r}")
    from helpers.metrics import metrics

    return getattr(metrics, name)
