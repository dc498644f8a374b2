"""Intervals that hold, by simulations with fixed seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from helpers.measuring.statistics import (
    LEAST_WINDOWS,
    half_width,
    inflation,
    interval,
    percentile_interval,
    student,
    windows_needed,
)

PERCENTILES = (50, 90, 95, 99)


def windows(random: np.random.Generator, number: int, scatter: float, correlation: float) -> np.ndarray:
    """Rates of windows around 500, each like the one before it as far as the correlation says."""
    moods = random.standard_normal(number)
    for place in range(1, number):
        moods[place] = correlation * moods[place - 1] + math.sqrt(1 - correlation**2) * moods[place]
    return 500 * (1 + scatter * moods)


@pytest.mark.parametrize("correlation", [0.0, 0.3])
@pytest.mark.parametrize("scatter", [0.02, 0.05, 0.08])
def test_an_interval_of_95_percent_covers_as_a_measurement_makes_it(scatter: float, correlation: float) -> None:
    """A warm-up of three windows decides how many there are, then all of them count: the true rate is inside in 93 % and more."""
    random = np.random.default_rng(17)
    inside, trials = 0, 1000
    for _ in range(trials):
        number = windows_needed(windows(random, 3, scatter, correlation), 0.05, 12)
        rates = windows(random, number, scatter, correlation)
        half = interval(rates)
        assert half is not None and number >= LEAST_WINDOWS
        inside += abs(np.mean(rates) - 500) <= half
    assert inside / trials >= 0.93


def test_how_many_windows_is_decided_before() -> None:
    quiet, busy = [500, 502, 498], [500, 600, 400]
    assert windows_needed(quiet, 0.05, 12) == 6 and windows_needed(busy, 0.05, 12) == 12
    assert 6 < windows_needed([500, 527, 473], 0.05, 30) < 30
    assert windows_needed([500], 0.05, 12) == 12, "one window says nothing about the scatter"
    assert windows_needed(quiet, 0.05, 2) == 6, "and never fewer than six"


def test_half_width_is_that_of_students_distribution() -> None:
    # Three values 1, 2, 3: s = 1, t(2) = 4.303, so 4.303 / sqrt(3).
    assert half_width([1, 2, 3]) == pytest.approx(2.484, abs=0.001)
    assert half_width([5.0]) is None and interval([5.0]) is None and interval([]) is None
    assert student(math.inf) == pytest.approx(1.96, abs=0.001)


def test_windows_that_are_alike_widen_the_interval() -> None:
    slow = [490, 492, 495, 505, 508, 510]
    by_turns = [490, 510, 492, 508, 495, 505]
    assert inflation(slow) > inflation(by_turns) == pytest.approx(math.sqrt(1.2 / 0.8))
    assert inflation([7.0] * 6) == pytest.approx(inflation(by_turns)), "no scatter, nothing to see"


def reported(latencies: np.ndarray, percentile: int) -> float:
    """A percentile as perf_analyzer reports it: one of the requests, in order."""
    return float(np.sort(latencies)[int(percentile / 100 * (len(latencies) - 1) + 0.5)])


def p95(latencies: list[np.ndarray]) -> tuple[float | None, float | None]:
    runs = [np.concatenate(latencies[place : place + 3]) for place in range(0, len(latencies), 3)]
    told = [({f"latency_p{each}_us": reported(run, each) for each in PERCENTILES}, len(run)) for run in runs]
    return percentile_interval([(reported(one, 95), len(one)) for one in latencies], told)


@pytest.mark.parametrize(("number", "size"), [(6, 15), (6, 60), (9, 30), (12, 15), (12, 240)])
def test_the_interval_of_a_percentile_covers_whatever_the_distribution(number: int, size: int) -> None:
    random = np.random.default_rng(5)
    truth, inside, trials = math.exp(0.4 * 1.6448536), 0, 300
    for _ in range(trials):
        low, high = p95([np.exp(0.4 * random.standard_normal(size)) for _ in range(number)])
        assert low is not None and high is not None
        inside += low <= truth <= high
    assert inside / trials >= 0.93


def test_a_95th_percentile_of_fewer_than_72_requests_has_no_upper_end() -> None:
    random = np.random.default_rng(9)
    for size, known in ((15, False), (24, True)):
        runs = [random.exponential(1, size) for _ in range(3)]
        told = [({f"latency_p{each}_us": reported(run, each) for each in PERCENTILES}, size) for run in runs]
        low, high = percentile_interval([(reported(run, 95), size) for run in runs], told)
        assert (high is not None) == known, f"{3 * size} requests"
        assert low is None or low < max(max(run) for run in runs)
