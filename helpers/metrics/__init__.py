"""What a server does: its own counters, a load to look at them under, and a live view of them."""

from __future__ import annotations

from helpers.metrics.metrics import Difference, Sample, Snapshot, parse, scrape

__all__ = ["Difference", "Sample", "Snapshot", "parse", "scrape"]
