"""Waits by formula against sums done by hand, and by simulation against the formulas, within the simulation's own uncertainty."""

from __future__ import annotations

import math
import statistics

import pytest

from helpers.scaling import queueing

SEEDS = range(1, 9)
# By Student's distribution for eight values, a mean of right ones is further away than this once or twice in a thousand; seeds are fixed.
STANDARD_ERRORS = 5.0


def test_erlangs_formula_by_hand() -> None:
    assert queueing.erlang_c(1, 0.3) == pytest.approx(0.3)
    # Two servers: C = 2 rho² / (1 + rho) with rho = busy / 2.
    assert queueing.erlang_c(2, 1.2) == pytest.approx(2 * 0.6**2 / 1.6)
    # The textbook sum, for five.
    terms = [3.5**k / math.factorial(k) for k in range(5)]
    last = 3.5**5 / math.factorial(5) * 5 / (5 - 3.5)
    assert queueing.erlang_c(5, 3.5) == pytest.approx(last / (sum(terms) + last))
    assert queueing.erlang_c(400, 380.0) == pytest.approx(0.23, abs=0.02), "no overflow"
    assert queueing.erlang_c(2, 2.0) == 1.0


def test_more_than_can_be_done_takes_without_end() -> None:
    assert queueing.latency_p95_s(60, 0.02, 1) == math.inf


def test_simulation_agrees_with_md1() -> None:
    """Pollaczek and Khinchine: requests of constant length wait half as long as exponential ones."""
    seen = [queueing.simulate(0.6, 1.0, 1, requests=10_000, seed=seed).mean_s for seed in SEEDS]
    error = statistics.stdev(seen) / math.sqrt(len(seen))
    right = 0.6 / (1 - 0.6) / 2
    assert abs(statistics.fmean(seen) - right) < STANDARD_ERRORS * error < 0.25 * right, "right, and precise enough to mean something"


@pytest.mark.parametrize("clients", [1, 2, 4, 8])
def test_clients_that_wait_for_each_answer_obey_littles_law(clients: int) -> None:
    seen = queueing.simulate_clients(clients, 0.02, 2, requests=2_000)
    assert seen.served_per_s == pytest.approx(min(clients, 2) / 0.02, rel=0.01)
    assert seen.mean_s == pytest.approx(max(0, clients / 2 - 1) * 0.02, abs=1e-9)


def test_clients_that_think_obey_littles_law() -> None:
    """Each of them is thinking, waiting or being served."""
    seen = queueing.simulate_clients(6, 1.0, 2, think_s=2.0)
    assert seen.served_per_s * (2.0 + seen.mean_s + 1.0) == pytest.approx(6, rel=0.02) and 0 < seen.mean_s < 1
