"""Waits by formula against sums done by hand, and by simulation against the formulas, within the simulation's own uncertainty."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable

import pytest

from helpers.errors import InputError
from helpers.scaling import queueing
from helpers.scaling.queueing import Waiting

SEEDS = range(1, 9)
# By Student's distribution for eight values, a mean of right ones is further away than this once or twice in a thousand; seeds are fixed.
STANDARD_ERRORS = 5.0


def _agrees(simulate: Callable[[int], Waiting], expected: dict[str, float]) -> None:
    """Independent simulations scatter about the expected value; how much they do says how far their mean may be away from it."""
    seen = [simulate(seed) for seed in SEEDS]
    for name, right in expected.items():
        values = [getattr(one, name) for one in seen]
        error = statistics.stdev(values) / math.sqrt(len(values))
        assert abs(statistics.fmean(values) - right) < STANDARD_ERRORS * error, (name, values, right)
        assert error < 0.05 * right, "precise enough to mean something"


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


def test_waits_of_one_server_by_hand() -> None:
    seen = queueing.waiting(40, 0.02, 1)
    assert (seen.utilisation, seen.waits) == pytest.approx((0.8, 0.8))
    assert seen.mean_s == pytest.approx(0.8 / (50 - 40))
    assert 0.8 * math.exp(-(50 - 40) * seen.p95_s) == pytest.approx(0.05)
    assert queueing.waiting(1, 0.02, 1).p95_s == 0, "so few wait that 95 of 100 do not"
    over = queueing.waiting(60, 0.02, 1)
    assert over.mean_s == math.inf and over.utilisation == 1 and over.served_per_s == 50


@pytest.mark.parametrize(("rate", "servers"), [(0.5, 1), (2.8, 4)])
def test_simulation_agrees_with_mm1_and_mmc(rate: float, servers: int) -> None:
    theory = queueing.waiting(rate, 1.0, servers)
    expected = {"mean_s": theory.mean_s, "waits": theory.waits, "utilisation": theory.utilisation, "p95_s": theory.p95_s}
    _agrees(lambda seed: queueing.simulate(rate, 1.0, servers, requests=25_000, seed=seed), expected)


def test_simulation_agrees_with_md1() -> None:
    """Pollaczek and Khinchine: requests of constant length wait half as long as exponential ones."""
    expected = {"mean_s": queueing.waiting(0.6, 1.0, 1).mean_s / 2}
    _agrees(lambda seed: queueing.simulate(0.6, 1.0, 1, service="constant", requests=10_000, seed=seed), expected)


def test_the_stated_interval_is_honest() -> None:
    """95 of 100 intervals should hold the true mean; of 16, fewer than 11 would do so once in a thousand."""
    right = queueing.waiting(0.5, 1.0, 1).mean_s
    seen = [queueing.simulate(0.5, 1.0, 1, requests=6_000, seed=seed) for seed in range(16)]
    assert sum(abs(one.mean_s - right) < one.mean_half_width_s for one in seen) >= 11
    assert all(0 < one.p95_half_width_s < 2 for one in seen)


@pytest.mark.parametrize("clients", [1, 2, 4, 8])
def test_clients_that_wait_for_each_answer_obey_littles_law(clients: int) -> None:
    seen = queueing.simulate_clients(clients, 0.02, 2, requests=2_000)
    assert seen.served_per_s == pytest.approx(min(clients, 2) / 0.02, rel=0.01)
    assert seen.mean_s == pytest.approx(max(0, clients / 2 - 1) * 0.02, abs=1e-9)


def test_clients_that_think_agree_with_the_machine_repairman() -> None:
    clients, think, service = 6, 2.0, 1.0
    weights = [math.factorial(clients) / math.factorial(clients - n) * (service / think) ** n for n in range(clients + 1)]
    busy = 1 - weights[0] / sum(weights)
    _agrees(
        lambda seed: queueing.simulate_clients(clients, service, 1, think_s=think, service="exponential", requests=6_000, seed=seed),
        {"served_per_s": busy / service},
    )


def test_numbers_that_make_no_sense_are_named() -> None:
    with pytest.raises(InputError, match="servers=0"):
        queueing.waiting(1, 1, 0)
    with pytest.raises(InputError, match="wait grows"):
        queueing.simulate(2, 1, 1)
    with pytest.raises(InputError, match="exponential, constant"):
        queueing.simulate(0.5, 1, 1, service="normal")
    with pytest.raises(InputError, match="clients=-1"):
        queueing.simulate_clients(-1, 1, 1)
