"""A short table of measured rows, for a notebook and for a terminal: what most people want to see of thirty columns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from helpers.tables import as_html, as_text

_SHOWN = (
    *("model", "variant", "device", "inputs", "servers", "instances", "batch", "concurrency"),
    *("throughput_infer_per_s", "throughput_spread_infer_per_s"),
    *("latency_p50_us", "latency_p95_us", "latency_p99_us", "queue_us", "compute_infer_us", "stable", "note"),
)
# Shown only where rows differ in it.
_VARIED = frozenset(("variant", "device", "inputs", "servers", "instances", "concurrency", "note"))


class Rows(list[dict[str, Any]]):
    """Measured rows that show themselves as a table; a list of dictionaries otherwise.

    Args:
        rows: what ``measure`` returns.
        caption: a sentence above the table.
    """

    def __init__(self, rows: Iterable[dict[str, Any]] = (), caption: str = "") -> None:
        super().__init__(rows)
        self.caption = caption

    def _columns(self) -> list[str]:
        differ = {name for name in _VARIED if len({row.get(name) for row in self}) > 1}
        return [name for name in _SHOWN if name not in _VARIED or name in differ]

    def __repr__(self) -> str:
        return "\n".join(filter(None, [self.caption, as_text(self, self._columns())]))

    def _repr_html_(self) -> str:
        return as_html(self, self._columns(), caption=self.caption)
