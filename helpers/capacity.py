"""How many servers does a traffic need? From a measured throughput to a number, and to the load at which clients begin to wait.

Typical use::

    traffic = Traffic(jobs=40, events_per_s=5, jets_per_event=4)
    found = plan(traffic, measure(fleet, "particlenet_AK4", batch=4, concurrency=4), budget_ms=50)
    found                            # a table: how each number of servers would do
    found.servers                    # the smallest that keeps the budget
    plots.capacity_figure(found)

Each event is one request with all its jets, as CMSSW sends it. The waits are those of M/M/c (:mod:`helpers.queueing`): requests at random
in one queue before all servers. The limit beyond which they wait without end needs no such assumption: what comes in a second against
what can be done in a second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from helpers import queueing
from helpers.errors import InputError
from helpers.measuring.table import THROUGHPUT, plateau, rows_of
from helpers.queueing import Waiting
from helpers.tables import as_html, as_text

# How often the interval is halved in which the load is that just keeps a budget: to a millionth of a job.
CAPACITY_HALVINGS = 40

# A latency is worked out to this fraction.
_EXACT = 1e-6


@dataclass(frozen=True)
class Traffic:
    """What comes.

    Attributes:
        jobs: reconstruction jobs, or students, that ask at the same time.
        events_per_s: events of each job in a second; each event is one request.
        jets_per_event: jets in each request, on average.
    """

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
class Speed:
    """What one server can do.

    Attributes:
        jets_per_s: its highest throughput, with requests of about the traffic's size.
        half_width_per_s: half width of its 95 % interval; None where nobody said.
        parallel: requests that it works on at the same time: the instances of the model.
        source: who measured it, on what.
    """

    jets_per_s: float
    half_width_per_s: float | None = None
    parallel: int = 1
    source: str = "measured"

    @classmethod
    def of(cls, rows: Any) -> Speed:
        """Return it from a measured or a recorded row, or from several of one fleet under more and more load.

        Args:
            rows: what ``measure``, ``by_concurrency`` or ``recorded`` gives. A row with ``servers`` was measured with so many.

        Raises:
            InputError: no row has a throughput, or they are of several fleets.
        """
        known = [row for row in rows_of(rows, what="the plan") if row.get(THROUGHPUT)]
        if not known:
            raise InputError("The row has no throughput.", "Expected what measure(...) returns, or one of recorded(...).")
        counts = {(row.get("servers") or 1, row.get("instances") or 1) for row in known}
        if len(counts) > 1:
            raise InputError("These rows are of fleets with different numbers of servers or instances.", "Expected rows of one fleet.")
        servers, parallel = counts.pop()
        rate, spread = plateau(known)
        where = f"{known[0].get('source')}, {known[0].get('device') or 'device unknown'}"
        return cls(rate / servers, None if spread is None else spread / servers, int(parallel), where)


@dataclass(frozen=True, repr=False)
class Plan:
    """How each number of servers would do, and which is enough.

    Attributes:
        traffic: what comes.
        speed: what one server can do.
        budget_ms: within which 95 of 100 requests shall be answered.
    """

    traffic: Traffic
    speed: Speed
    budget_ms: float

    @property
    def service_s(self) -> float:
        """Seconds that one request keeps one instance busy."""
        return self.traffic.jets_per_event * self.speed.parallel / self.speed.jets_per_s

    def waiting(self, servers: int, jobs: float | None = None) -> Waiting:
        """The waits before so many servers, with the traffic's jobs or with another number of them."""
        traffic = self.traffic if jobs is None else replace(self.traffic, jobs=jobs)
        return queueing.waiting(traffic.requests_per_s, self.service_s, servers * self.speed.parallel)

    def latency_p95_ms(self, servers: int, jobs: float | None = None) -> float:
        """95th percentile of the wait and the time of the request itself together, in ms, the latter as random as the formula takes it."""
        traffic = self.traffic if jobs is None else replace(self.traffic, jobs=jobs)
        return 1e3 * queueing.latency_p95_s(traffic.requests_per_s, self.service_s, servers * self.speed.parallel)

    @property
    def servers(self) -> int:
        """The smallest number of servers that keeps the budget."""
        return self._needed(self.speed.jets_per_s)

    @property
    def servers_interval(self) -> tuple[int, float]:
        """The same at both ends of the throughput's 95 % interval; infinite where one request alone takes longer than the budget."""
        half = self.speed.half_width_per_s or 0.0
        slowest = self.speed.jets_per_s - half
        enough = slowest > 0 and self._alone_ms(slowest) <= self.budget_ms
        return self._needed(self.speed.jets_per_s + half), self._needed(slowest) if enough else math.inf

    def limit_jobs(self, servers: int) -> float:
        """Jobs whose traffic is all that so many servers can do: with more, the queue grows without end."""
        return servers * self.speed.jets_per_s / (self.traffic.events_per_s * self.traffic.jets_per_event)

    def knee_jobs(self, servers: int) -> float:
        """Jobs at which a request waits as long on average as it is worked on: from here on, clients notice the others."""
        return self._jobs_where(servers, lambda jobs: self.waiting(servers, jobs).mean_s <= self.service_s)

    def most_jobs(self, servers: int) -> float:
        """The most jobs with which so many servers keep the budget."""
        return self._jobs_where(servers, lambda jobs: self.latency_p95_ms(servers, jobs) <= self.budget_ms)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row for each number of servers: up to two more than needed.

        Columns: servers, utilisation, wait_mean_ms, latency_p95_ms, inside_budget, and jobs at the knee, within the budget and at the
        limit.
        """
        table = []
        for servers in range(max(1, self.servers - 2), self.servers + 3):
            seen, p95 = self.waiting(servers), self.latency_p95_ms(servers)
            row = {"servers": servers, "utilisation": round(self.traffic.jets_per_s / (servers * self.speed.jets_per_s), 2)}
            row |= {
                "wait_mean_ms": _ms(seen.mean_s * 1e3),
                "latency_p95_ms": _ms(p95),
                "inside_budget": "yes" if p95 <= self.budget_ms else "no",
            }
            row |= {"knee_jobs": int(self.knee_jobs(servers)), "most_jobs": int(self.most_jobs(servers))}
            table.append(row | {"limit_jobs": int(self.limit_jobs(servers))})
        return table

    def _alone_ms(self, jets_per_s: float) -> float:
        """The 95th percentile of what one request takes without any wait, in ms, on a server of such a throughput."""
        return 1e3 * math.log(20) * replace(self, speed=replace(self.speed, jets_per_s=jets_per_s)).service_s

    def _needed(self, jets_per_s: float) -> int:
        if (alone_ms := self._alone_ms(jets_per_s)) >= self.budget_ms:
            raise InputError(
                f"Of requests that wait for nothing, 95 of 100 take up to {alone_ms:.3g} ms, and the budget is {self.budget_ms:g} ms.",
                "More servers let requests wait less; they do not work faster.",
                "Take a faster server, smaller requests or a larger budget.",
            )
        other = replace(self, speed=replace(self.speed, jets_per_s=jets_per_s))
        servers = max(1, math.ceil(self.traffic.jets_per_s / jets_per_s))
        while other.latency_p95_ms(servers) > self.budget_ms * (1 + _EXACT):
            servers += 1
        return servers

    def _jobs_where(self, servers: int, fine: Any) -> float:
        """The largest number of jobs for which something holds that ends at some load, by halving the interval."""
        low, high = 0.0, self.limit_jobs(servers)
        for _ in range(CAPACITY_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if fine(middle) else (low, middle)
        return low

    def __str__(self) -> str:
        fewest, most = self.servers_interval
        spread = f"{fewest} {f'to {most}' if math.isfinite(most) else 'or more'} within the measurement's spread"
        spread = "no spread is known" if self.speed.half_width_per_s is None else spread
        half = "" if self.speed.half_width_per_s is None else f" ± {self.speed.half_width_per_s:.0f}"
        return (
            f"{self.traffic.jets_per_s:.0f} jets/s from {self.traffic.jobs:g} jobs; one server does {self.speed.jets_per_s:.0f}{half} "
            f"({self.speed.source}): {self.servers} server{'s' * (self.servers > 1)} for a 95th percentile of {self.budget_ms:g} ms, "
            f"{spread}."
        )

    def __repr__(self) -> str:
        return f"{self}\n{as_text(self.rows)}"

    def _repr_html_(self) -> str:
        return as_html(self.rows, caption=str(self), bold=lambda row: row["servers"] == self.servers)


def plan(traffic: Traffic, speed: Any, budget_ms: float) -> Plan:
    """Work out how many servers a traffic needs.

    Args:
        traffic: what comes.
        speed: what one server can do, or rows that say it, as :meth:`Speed.of` takes them.
        budget_ms: within which 95 of 100 requests shall be answered.

    Raises:
        InputError: a number is not positive, or the budget is shorter than one request alone takes.
    """
    numbers = {"jobs": traffic.jobs, "events_per_s": traffic.events_per_s, "jets_per_event": traffic.jets_per_event, "budget_ms": budget_ms}
    wrong = {name: value for name, value in numbers.items() if isinstance(value, bool) or not value > 0}
    if wrong:
        raise InputError(f"{', '.join(f'{name}={value!r}' for name, value in wrong.items())} was given.", "Expected numbers above 0.")
    made = Plan(traffic, speed if isinstance(speed, Speed) else Speed.of(speed), budget_ms)
    made._needed(made.speed.jets_per_s)  # says at once when no number of servers is enough
    return made


def _ms(value: float) -> float | str:
    return round(value, 1) if math.isfinite(value) else "without end"
