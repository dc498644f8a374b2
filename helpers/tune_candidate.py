"""What is given and what is searched: the clients' traffic, what counts as best, and one combination of what a server can be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from helpers import settings
from helpers.plot_rows import latency_column

Row = dict[str, Any]
# What may become of a combination.
OK, OVER_BUDGET, OVER_MEMORY, REFUSED, FAILED = "ok", "over the budget", "over the memory limit", "refused by the server", "failed"


@dataclass(frozen=True)
class Traffic:
    """What the clients send: given, not searched.

    Attributes:
        batch: entries in each request.
        concurrency: requests under way at any time; None for a rate.
        request_rate_per_s: requests sent each second; None for a concurrency.
    """

    batch: int
    concurrency: int | None
    request_rate_per_s: float | None = None

    def __str__(self) -> str:
        load = f"{self.concurrency} under way" if self.concurrency else f"{self.request_rate_per_s:g} each second"
        return f"requests of batch {self.batch}, {load}"


@dataclass(frozen=True)
class Candidate:
    """One combination.

    Attributes:
        model: name of the model.
        instances: how many in all.
        threads: of each instance; None where the backend has no such number.
        delay_ms: the longest that a request waits for others to make a batch with; 0 takes those that wait anyway, None is no
            dynamic batching.
        accelerator: name in :data:`STANZAS`, or empty.
        halves: batches hold at most half of the requests that an instance has, ``preferred_batch_size``: while one half is worked on, the
            other waits, complete. Only without a delay, and for clients that keep a number of requests under way.
    """

    model: str
    instances: int
    threads: int | None
    delay_ms: float | None
    accelerator: str = ""
    halves: bool = False

    @property
    def batching(self) -> str:
        """Dynamic batching in words."""
        if self.halves:
            return "on, half batches"
        return "off" if self.delay_ms is None else f"on, waits {self.delay_ms:g} ms" if self.delay_ms else "on"

    def __str__(self) -> str:
        threads = "" if self.threads is None else f" × {_count(self.threads, 'thread')}"
        accelerator = f", {self.accelerator}" if self.accelerator else ""
        return f"{self.model}, {_count(self.instances, 'instance')}{threads}, batching {self.batching}{accelerator}"


@dataclass(frozen=True)
class Goal:
    """What is best: the highest throughput whose latency percentile is within the budget; for a request rate the lowest latency.

    Attributes:
        traffic: what the clients send.
        budget_ms: for the latency percentile, in ms; None for none.
        percentile: which one.
    """

    traffic: Traffic
    budget_ms: float | None = None
    percentile: int = settings.PERF_PERCENTILE

    @property
    def quantity(self) -> str:
        """What a verdict compares: a given rate is served or not, so there latency tells candidates apart."""
        return "throughput" if self.traffic.concurrency else "latency"

    def latency_ms(self, row: Mapping[str, Any]) -> float | None:
        """The latency that the budget is for, in ms."""
        value = row.get(latency_column(self.percentile))
        return None if value is None else value / 1000

    def over(self, row: Mapping[str, Any]) -> bool:
        """Whether a row is over the budget beyond its spread."""
        latency = self.latency_ms(row)
        return self.budget_ms is not None and (latency is None or latency - (row.get("latency_spread_us") or 0) / 1000 > self.budget_ms)

    def within(self, row: Mapping[str, Any]) -> bool:
        """Whether a row's value is inside the budget."""
        latency = self.latency_ms(row)
        return self.budget_ms is None or (latency is not None and latency <= self.budget_ms)

    def served(self, row: Mapping[str, Any]) -> bool:
        """Whether the server keeps up with a request rate, as far as the spread allows to tell."""
        rate = self.traffic.request_rate_per_s
        most = (row.get("throughput_infer_per_s") or 0) + (row.get("throughput_spread_infer_per_s") or 0)
        return rate is None or most >= (1 - settings.PERF_PRECISION) * rate * self.traffic.batch

    def rank(self, row: Mapping[str, Any]) -> tuple[float, ...]:
        """Larger is better; first whatever is inside the budget, and outside of it whatever is closer to it."""
        latency = self.latency_ms(row)
        if row.get("outcome", OK) not in (OK, OVER_BUDGET) or latency is None:
            return (-1.0, 0.0)
        if not self.within(row) or not self.served(row):
            return (0.0, -latency if self.served(row) else (row.get("throughput_infer_per_s") or 0) - 1e9)
        return (1.0, row["throughput_infer_per_s"] if self.traffic.concurrency else -latency)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' * (number != 1)}"
