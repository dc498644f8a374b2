"""How long requests wait for a server: the formulas of queueing theory, and a simulation that needs fewer assumptions.

Typical use::

    waiting(arrivals_per_s=40, service_s=0.02, servers=1)              # M/M/c: Erlang's formula
    simulate(arrivals_per_s=40, service_s=0.02, servers=1)             # the same, played through
    simulate_clients(clients=8, service_s=0.02, servers=2)             # clients that wait for each answer

The formulas are for M/M/c: requests come at random (Poisson), all wait in one queue for the first of ``c`` equal servers that is free,
and the time of a request is exponential with the mean ``service_s``. A network takes about the same time for each batch, so real waits
are shorter, down to half: the formulas are on the safe side, and ``service="constant"`` shows by how much.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize

from helpers.errors import InputError
from helpers.measuring.statistics import half_width

# Requests that a simulation of waiting plays through: known to a few per cent then, in a fraction of a second.
SIMULATED_REQUESTS = 20_000
_SERVICES = ("exponential", "constant")
# Parts into which a simulation is cut: waits next to each other are alike, means of long parts hardly are, so their spread can be trusted.
_PARTS = 20
# Part of a simulation that does not count: it begins with an empty queue, which is better than usual.
_BEGINNING = 0.1


@dataclass(frozen=True)
class Waiting:
    """How requests wait.

    Attributes:
        utilisation: part of the time that each server is busy.
        waits: part of the requests that find all servers busy.
        mean_s: mean wait in seconds, those that do not wait included; infinite when more comes than can be done.
        p95_s: 95 of 100 requests wait no longer.
        served_per_s: requests that are answered in a second.
        mean_half_width_s: half width of the mean's 95 % interval; 0 for a formula. So are the next two.
        p95_half_width_s: of the 95th percentile.
        served_half_width_per_s: of the requests in a second.
    """

    utilisation: float
    waits: float
    mean_s: float
    p95_s: float
    served_per_s: float
    mean_half_width_s: float = 0.0
    p95_half_width_s: float = 0.0
    served_half_width_per_s: float = 0.0


def erlang_c(servers: int, busy: float) -> float:
    """Return the part of the requests that find all servers busy, where ``busy`` (requests/s × seconds of each) are busy on average."""
    if busy >= servers:
        return 1.0
    # By way of the loss formula, whose recursion has no large numbers in it.
    loss = 1.0
    for number in range(1, servers + 1):
        loss = busy * loss / (number + busy * loss)
    return loss / (1 - busy / servers * (1 - loss))


def waiting(arrivals_per_s: float, service_s: float, servers: int) -> Waiting:
    """Return the waits of M/M/c.

    Args:
        arrivals_per_s: requests that come in a second.
        service_s: mean time of one request on one server, in seconds.
        servers: how many work side by side.

    Raises:
        InputError: a number is not positive.
    """
    must_be_positive(arrivals_per_s=arrivals_per_s, service_s=service_s, servers=servers)
    busy = arrivals_per_s * service_s
    if busy >= servers:
        return Waiting(1.0, 1.0, math.inf, math.inf, servers / service_s)
    # Those that wait do so for an exponential time.
    waits, rate = erlang_c(servers, busy), servers / service_s - arrivals_per_s
    p95_s = math.log(waits / 0.05) / rate if waits > 0.05 else 0.0
    return Waiting(busy / servers, waits, waits / rate, p95_s, arrivals_per_s)


def latency_p95_s(arrivals_per_s: float, service_s: float, servers: int) -> float:
    """Return the 95th percentile of wait and service together in M/M/c, in seconds; infinite when more comes than can be done.

    A percentile of a sum is no sum: with hardly any wait it is that of the service, three times its mean. Arguments and errors are those
    of :func:`waiting`.
    """
    seen, rate = waiting(arrivals_per_s, service_s, servers), 1 / service_s
    if not math.isfinite(seen.mean_s):
        return math.inf
    ends = servers * rate - arrivals_per_s
    if math.isclose(ends, rate, rel_tol=1e-9):
        ends *= 1 + 1e-6

    def later(seconds: float) -> float:
        """The part of the requests that take longer, less the 5 % that may."""
        waited = (ends * math.exp(-rate * seconds) - rate * math.exp(-ends * seconds)) / (ends - rate)
        return (1 - seen.waits) * math.exp(-rate * seconds) + seen.waits * waited - 0.05

    return float(optimize.brentq(later, 0, 4 * (service_s + 1 / ends) * math.log(20), xtol=1e-12 * service_s))


def simulate(
    arrivals_per_s: float,
    service_s: float,
    servers: int,
    *,
    service: str = "exponential",
    requests: int = SIMULATED_REQUESTS,
    seed: int = 1,
) -> Waiting:
    """Play through requests that come at random, whatever became of those before them.

    Args:
        arrivals_per_s: requests that come in a second.
        service_s: mean time of one request on one server, in seconds.
        servers: how many work side by side.
        service: ``exponential``, or ``constant`` when each request takes the same time.
        requests: how many are played through.
        seed: of the random numbers.

    Raises:
        InputError: a number is not positive, no such service, or more comes than can be done: then the wait only grows.
    """
    must_be_positive(arrivals_per_s=arrivals_per_s, service_s=service_s, servers=servers, requests=requests)
    if arrivals_per_s * service_s >= servers:
        raise InputError(
            f"{arrivals_per_s:g} requests/s come and {servers / service_s:g} can be answered.",
            "Expected fewer than that: otherwise the wait grows for as long as one looks.",
        )
    chance = random.Random(seed)
    return _play([0.0], servers, service, service_s, requests, chance, lambda came, _: came + chance.expovariate(arrivals_per_s))


def simulate_clients(
    clients: int,
    service_s: float,
    servers: int,
    *,
    think_s: float = 0.0,
    service: str = "constant",
    requests: int = SIMULATED_REQUESTS,
    seed: int = 1,
) -> Waiting:
    """Play through clients that each send a request, wait for its answer, think, and send the next.

    Args:
        clients: how many; perf_analyzer calls it concurrency.
        service_s: as for :func:`simulate`, and so are the others.
        servers: how many work side by side.
        think_s: mean time between an answer and the next request, in seconds.
        service: ``exponential`` or ``constant``.
        requests: how many are played through.
        seed: of the random numbers.
    """
    must_be_positive(clients=clients, service_s=service_s, servers=servers, requests=requests)
    chance = random.Random(seed)

    def thought(end: float) -> float:
        return end + (chance.expovariate(1 / think_s) if think_s > 0 else 0.0)

    coming = [thought(0.0) for _ in range(clients)]
    return _play(coming, servers, service, service_s, requests, chance, lambda _, end: thought(end))


def _play(
    coming: list[float],
    servers: int,
    service: str,
    service_s: float,
    requests: int,
    chance: random.Random,
    following: Callable[[float, float], float],
) -> Waiting:
    """Play through so many requests, first come first served; each calls for another, from when it came and when it ended."""
    if service not in _SERVICES:
        raise InputError(f"service={service!r} was given.", f"Expected one of {', '.join(_SERVICES)}.")
    heapq.heapify(coming)
    free, waits, ends = [0.0] * servers, [], []
    for _ in range(requests):
        came = heapq.heappop(coming)
        begin = max(came, free[0])
        end = begin + (service_s if service == "constant" else chance.expovariate(1 / service_s))
        heapq.heapreplace(free, end)
        heapq.heappush(coming, following(came, end))
        waits.append(begin - came)
        ends.append(end)
    skip = int(_BEGINNING * requests)
    return _summary(waits[skip:], sorted(ends)[max(skip - 1, 0) :], servers, service_s)


def _summary(waits: Sequence[float], ends: Sequence[float], servers: int, service_s: float) -> Waiting:
    """What waits, and moments of answers, of which the first is that before the first wait, say together."""
    size = max(len(waits) // _PARTS, 2)
    parts = np.reshape(waits[: len(waits) // size * size], (-1, size))
    took = np.diff(ends[::size])
    rates = size / took[took > 0]
    return Waiting(
        utilisation=float(rates.mean()) * service_s / servers,
        waits=float(np.mean(np.asarray(waits) > 0)),
        mean_s=float(np.mean(waits)),
        p95_s=float(np.quantile(waits, 0.95)),
        served_per_s=float(rates.mean()),
        mean_half_width_s=half_width(list(parts.mean(axis=1))) or 0.0,
        p95_half_width_s=half_width(list(np.quantile(parts, 0.95, axis=1))) or 0.0,
        served_half_width_per_s=half_width(list(rates)) or 0.0,
    )


def must_be_positive(**numbers: float) -> None:
    """Raise InputError, with their names, for numbers that are not above 0."""
    wrong = {name: value for name, value in numbers.items() if isinstance(value, bool) or not value > 0}
    if wrong:
        raise InputError(f"{', '.join(f'{name}={value!r}' for name, value in wrong.items())} was given.", "Expected numbers above 0.")
