"""Where a combination stands after the finals of a search: the means of its rounds, with their spreads."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from helpers.perf_results import COLUMNS, half_width
from helpers.plot_rows import latency_column
from helpers.tune_candidate import Candidate, Goal, Row


@dataclass(frozen=True)
class Standing:
    """One combination with all its measurements of the finals.

    Attributes:
        candidate: the combination.
        rows: its measurements.
        goal: what was looked for.
    """

    candidate: Candidate
    rows: tuple[Row, ...]
    goal: Goal

    def mean(self, column: str, spread: str) -> tuple[float, float | None]:
        """Mean, and half width of its 95 % interval: what the rows say of themselves or what they differ by, whichever is larger."""
        values = [row[column] for row in self.rows]
        known = [row.get(spread) for row in self.rows]
        own = None if None in known else math.sqrt(sum(each**2 for each in known)) / len(known)
        halves = [each for each in (own, half_width(values)) if each is not None]
        return statistics.fmean(values), max(halves, default=None)

    def row(self) -> Row:
        """One row: the means of everything that was measured, and of the spreads."""
        first = self.rows[0]
        means = {name: _mean([row.get(name) for row in self.rows]) for name in COLUMNS if name.endswith(("_us", "_per_s"))}
        means |= {
            name: _mean([row.get(name) for row in self.rows])
            for name in ("memory_mb", "executed_batch", "queue_share", "cpu_cores", "wanted_cores")
        }
        rate, rate_half = self.mean("throughput_infer_per_s", "throughput_spread_infer_per_s")
        _, latency_half = self.mean(latency_column(self.goal.percentile), "latency_spread_us")
        means |= {"throughput_infer_per_s": rate, "throughput_spread_infer_per_s": rate_half, "latency_spread_us": latency_half}
        return {**first, **means, "request_rate_per_s": first["request_rate_per_s"], "repeats": len(self.rows)}

    def within(self) -> bool | None:
        """Whether the latency is inside the budget: True, False, or None when the spread reaches over it."""
        if self.goal.budget_ms is None:
            return True
        latency, half = self.mean(latency_column(self.goal.percentile), "latency_spread_us")
        room_us = 1000 * self.goal.budget_ms - latency
        return None if half is None or abs(room_us) < half else room_us >= 0

    def words(self) -> str:
        """Throughput and latency with their spreads."""
        rate, rate_half = self.mean("throughput_infer_per_s", "throughput_spread_infer_per_s")
        return f"{rate:.0f}{_plus_minus(rate_half)} inferences/s, {self.latency_words()}"

    def latency_words(self) -> str:
        """The latency percentile with its spread."""
        latency, half = self.mean(latency_column(self.goal.percentile), "latency_spread_us")
        return f"p{self.goal.percentile} {latency / 1000:.3g}{_plus_minus(half and half / 1000)} ms"


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known and len(known) == len(values) else None


def _plus_minus(half: float | None) -> str:
    return "" if half is None else f" ± {half:.2g}" if half < 10 else f" ± {half:.0f}"
