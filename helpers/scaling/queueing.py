"""How long requests wait for a server: the formulas of queueing theory, and a simulation that needs fewer assumptions.

The formulas are for M/M/c: requests come at random (Poisson), all wait in one queue for the first of ``c`` equal servers that is free,
and the time of a request is exponential with the mean ``service_s``. A network takes about the same time for each batch, as in the
simulation, so real waits are shorter, down to half: the formulas are on the safe side.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import optimize

# Requests that a simulation of waiting plays through: known to a few per cent then, in a fraction of a second.
SIMULATED_REQUESTS = 20_000


class Simulated(NamedTuple):
    """What a simulation saw: the mean and the 95th percentile of the wait, and answers in a second."""

    mean_s: float
    p95_s: float
    served_per_s: float


def erlang_c(servers: int, busy: float) -> float:
    """Return the part of the requests that find all servers busy, where ``busy`` (requests/s × seconds of each) are busy on average."""
    if busy >= servers:
        return 1.0
    # By way of the loss formula, whose recursion has no large numbers in it.
    loss = 1.0
    for number in range(1, servers + 1):
        loss = busy * loss / (number + busy * loss)
    return loss / (1 - busy / servers * (1 - loss))


def latency_p95_s(arrivals_per_s: float, service_s: float, servers: int) -> float:
    """Return the 95th percentile of wait and service together in M/M/c; infinite when more comes than can be done.

    A percentile of a sum is no sum: with hardly any wait it is that of the service, three times its mean.
    """
    waits, rate, ends = erlang_c(servers, arrivals_per_s * service_s), 1 / service_s, servers / service_s - arrivals_per_s
    if ends <= 0:
        return math.inf
    if math.isclose(ends, rate, rel_tol=1e-9):
        ends *= 1 + 1e-6

    def later(seconds: float) -> float:
        """The part of the requests that take longer, less the 5 % that may."""
        waited = (ends * math.exp(-rate * seconds) - rate * math.exp(-ends * seconds)) / (ends - rate)
        return (1 - waits) * math.exp(-rate * seconds) + waits * waited - 0.05

    return float(optimize.brentq(later, 0, 4 * (service_s + 1 / ends) * math.log(20), xtol=1e-12 * service_s))


def simulate(arrivals_per_s: float, service_s: float, servers: int, requests: int = SIMULATED_REQUESTS, seed: int = 1) -> Simulated:
    """Play through requests that come at random, fewer than can be done; each keeps a server busy for ``service_s``."""
    chance = random.Random(seed)
    return _play([0.0], servers, service_s, requests, lambda came, _: came + chance.expovariate(arrivals_per_s))


def simulate_clients(
    clients: int, service_s: float, servers: int, think_s: float = 0.0, requests: int = SIMULATED_REQUESTS, seed: int = 1
) -> Simulated:
    """Play through clients that each send a request, wait for its answer, think for ``think_s`` on average, and send the next."""
    chance = random.Random(seed)

    def thought(end: float) -> float:
        return end + (chance.expovariate(1 / think_s) if think_s > 0 else 0.0)

    return _play([thought(0.0) for _ in range(clients)], servers, service_s, requests, lambda _, end: thought(end))


def _play(coming: list[float], servers: int, service_s: float, requests: int, following: Callable[[float, float], float]) -> Simulated:
    """Play through so many requests, first come first served; each calls for another, from when it came and when it ended."""
    heapq.heapify(coming)
    free, waits, ends = [0.0] * servers, [], []
    for _ in range(requests):
        came = heapq.heappop(coming)
        begin = max(came, free[0])
        end = begin + service_s
        heapq.heapreplace(free, end)
        heapq.heappush(coming, following(came, end))
        waits.append(begin - came)
        ends.append(end)
    # The beginning does not count: with an empty queue it is better than usual.
    skip = requests // 10
    # From the answer before the first wait that counts to the last one.
    ends = sorted(ends)[max(skip - 1, 0) :]
    return Simulated(float(np.mean(waits[skip:])), float(np.quantile(waits[skip:], 0.95)), (len(ends) - 1) / (ends[-1] - ends[0]))
