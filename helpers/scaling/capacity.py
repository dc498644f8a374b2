"""How many servers does a traffic need? Measure a fleet under more and more load, and go from a throughput to a number."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from helpers.errors import InputError
from helpers.measuring.measure import measure
from helpers.measuring.table import THROUGHPUT, THROUGHPUT_SPREAD, Row, Rows, plain, rows_of
from helpers.scaling.queueing import SIMULATED_REQUESTS, latency_p95_s, simulate_clients
from helpers.tables import Table


@dataclass(frozen=True)
class Traffic:
    """What comes: jobs that ask at the same time, the events of each in a second, each a request, and the jets in each event."""

    jobs: float
    events_per_s: float
    jets_per_event: float

    @property
    def requests_per_s(self) -> float:
        """Requests of all jobs together in a second."""
        return self.jobs * self.events_per_s

    @property
    def jets_per_s(self) -> float:
        """Jets of all jobs together in a second."""
        return self.requests_per_s * self.jets_per_event


@dataclass(frozen=True)
class Plan:
    """How each number of servers would do, and which is enough to answer 95 of 100 requests within the budget.

    The waits are those of M/M/c (:mod:`helpers.scaling.queueing`); that a queue grows without end needs no such assumption.

    Attributes:
        jets_per_s: what one server can do, and ``half_width_per_s`` that of its 95 % interval, None where it is not known.
        parallel: requests that one server works on at the same time: by the instances of the model.
        source: who measured it, on what.
    """

    traffic: Traffic
    budget_ms: float
    jets_per_s: float
    half_width_per_s: float | None
    parallel: int = 1
    source: str = "measured"

    @property
    def service_s(self) -> float:
        """Seconds that one request keeps one instance busy."""
        return self.traffic.jets_per_event * self.parallel / self.jets_per_s

    def latency_p95_ms(self, servers: int, jobs: float | None = None) -> float:
        """Return the 95th percentile of wait and request together, with the traffic's jobs or with another number of them."""
        rate = (self.traffic.jobs if jobs is None else jobs) * self.traffic.events_per_s
        return 1e3 * latency_p95_s(rate, self.service_s, servers * self.parallel)

    def limit_jobs(self, servers: int) -> float:
        """Return the jobs whose traffic is all that so many servers can do: with more, the queue grows without end."""
        return servers * self.jets_per_s / (self.traffic.events_per_s * self.traffic.jets_per_event)

    @property
    def servers(self) -> int:
        """The smallest number of servers that keeps the budget."""
        alone_ms = 1e3 * math.log(20) * self.service_s
        if alone_ms >= self.budget_ms:
            happened = f"Without any wait, 95 of 100 requests take up to {alone_ms:.3g} ms, and the budget is {self.budget_ms:g} ms."
            todo = "Take a faster server, smaller requests or a larger budget."
            raise InputError(happened, "More servers let requests wait less; they do not work faster.", todo)
        servers = max(1, math.ceil(self.traffic.jets_per_s / self.jets_per_s))
        while self.latency_p95_ms(servers) > self.budget_ms:
            servers += 1
        return servers

    @property
    def servers_interval(self) -> tuple[int, float]:
        """The same at both ends of the throughput's 95 % interval; infinite where one request alone takes longer than the budget."""
        half = self.half_width_per_s or 0.0
        most: float = math.inf
        if half < self.jets_per_s:
            with contextlib.suppress(InputError):
                most = replace(self, jets_per_s=self.jets_per_s - half).servers
        return replace(self, jets_per_s=self.jets_per_s + half).servers, most

    @property
    def table(self) -> Table:
        """One row for each number of servers, up to two more than needed: load and latency, and the jobs that they can bear."""
        come, half, (fewest, most) = self.traffic.jets_per_s, self.half_width_per_s, self.servers_interval
        rows = []
        for servers in range(max(1, self.servers - 2), self.servers + 3):
            p95_ms = self.latency_p95_ms(servers)
            row: dict[str, Any] = {"servers": servers, "utilisation": round(come / (servers * self.jets_per_s), 2)}
            row["latency_p95_ms"] = round(p95_ms, 1) if math.isfinite(p95_ms) else "without end"
            rows.append(row | {"inside_budget": "yes" if p95_ms <= self.budget_ms else "no", "limit_jobs": int(self.limit_jobs(servers))})
        does, known = f"{self.jets_per_s:.0f}", "no spread is known"
        if half is not None:
            does = f"{does} ± {half:.0f}"
            known = f"{fewest} {f'to {most}' if most < math.inf else 'or more'} within the measurement's spread"
        needed = f"{self.servers} server{'s' * (self.servers > 1)} for a 95th percentile of {self.budget_ms:g} ms, {known}"
        return Table(rows, f"{come:.0f} jets/s from {self.traffic.jobs:g} jobs; one server does {does} ({self.source}): {needed}.")


def plan(traffic: Traffic, speed: Any, budget_ms: float) -> Plan:
    """Work out how many servers a traffic needs to answer 95 of 100 requests within the budget; an InputError where none is enough.

    ``speed`` has the rows that say what a server can do: one, or several of one fleet under more and more load.
    """
    known = rows_of(speed, (THROUGHPUT,), "the plan")
    counts = {(row.get("servers") or 1, row.get("instances") or 1) for row in known}
    if len(counts) > 1:
        raise InputError("These rows are of fleets with different numbers of servers or instances.", "Expected rows of one fleet.")
    servers, parallel = counts.pop()
    rate, spread = _plateau(known)
    where = f"{known[0].get('source')}, {known[0].get('device') or 'device unknown'}"
    made = Plan(traffic, budget_ms, rate / servers, None if spread is None else spread / servers, int(parallel), where)
    assert made.servers, "says at once when no number of servers is enough"
    return made


def _plateau(rows: list[dict[str, Any]]) -> tuple[float, float | None]:
    """The throughput at which something is saturated, and its half width: the mean of the rows that reach nine tenths of the highest."""
    # The highest alone is the one that chance made highest, so a plan made with it promises too much.
    known = [row for row in rows if row.get(THROUGHPUT)]
    near = [row for row in known if row[THROUGHPUT] >= 0.9 * max(row[THROUGHPUT] for row in known)]
    spreads = [row.get(THROUGHPUT_SPREAD) for row in near]
    half = None if None in spreads else math.hypot(*spreads) / len(spreads)  # type: ignore[arg-type]
    return sum(row[THROUGHPUT] for row in near) / len(near), half


def by_concurrency(fleet: Any, model: str, concurrencies: Iterable[int] = (1, 2, 4, 8), batch: int = 1, **options: Any) -> Rows:
    """Measure a fleet under more and more requests at once; rows and arguments are those of :func:`under_load`."""
    return Rows.of([under_load(fleet, model, batch, concurrency, **options) for concurrency in concurrencies])


def under_load(fleet: Any, model: str, batch: int = 1, concurrency: int = 1, **options: Any) -> Row:
    """Measure a fleet under one load, with the arguments of :func:`helpers.measuring.measure.measure`.

    The row has ``servers`` (how many answered) and ``queue_us`` (mean time of a request in the queue, by the counters of all).
    """
    before = fleet.snapshot()
    row = measure(fleet, model, batch, concurrency, **options)
    asked = [each for each in fleet.shares(before, model) if each["requests"]]
    total = sum(each["requests"] for each in asked)
    queue_us = sum(each["queue_us"] * each["requests"] for each in asked) / total if total else None
    return Row.of(plain(row) | {"servers": len(asked), "queue_us": queue_us})


def expected(rows: Any) -> Rows:
    """Return what a simulation expects of the same fleets under the same loads, from the rows of the smallest fleet alone.

    The time of a request comes from the throughput at which that fleet is saturated, the time between answer and next request from its
    slowest load. More servers are taken to be as fast as the first; where they share its cores they are not. All rows are of one model
    and batch size, from :func:`by_concurrency`.
    """
    found = rows_of(rows, (THROUGHPUT, "servers", "concurrency"), "what a simulation expects")
    fewest = min(row["servers"] for row in found)
    small = [row for row in found if row["servers"] == fewest]
    batch, instances = small[0]["batch"], small[0].get("instances") or 1
    service_s = batch * fewest * instances / _plateau(small)[0]
    least = min(small, key=lambda row: row["concurrency"])
    # Between answer and next request a client is neither waiting nor being worked on.
    away_s = max(least["concurrency"] * batch / least[THROUGHPUT] - service_s, 0.0)
    made = []
    for row in found:
        requests = SIMULATED_REQUESTS // 10
        seen = simulate_clients(row["concurrency"], service_s, row["servers"] * instances, away_s, requests)
        same = {name: row.get(name) for name in ("model", "batch", "concurrency", "servers", "device", "cpu")}
        made.append(same | {THROUGHPUT: batch * seen.served_per_s, "queue_us": 1e6 * seen.mean_s, "source": "simulated"})
    return Rows.of(made)
