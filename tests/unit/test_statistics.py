"""Intervals that hold and verdicts that can be trusted, by simulations with fixed seeds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from helpers.measuring.statistics import (
    LEAST_WINDOWS,
    half_width,
    inflation,
    interval,
    percentile_interval,
    student,
    verdict,
    windows_needed,
)
from tests.support.measured_rows import row

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
        mean, half = interval(windows(random, number, scatter, correlation))
        assert mean is not None and half is not None and number >= LEAST_WINDOWS
        inside += abs(mean - 500) <= half
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
    assert half_width([5.0]) is None and interval([5.0]) == (5.0, None) and interval([]) == (None, None)
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
    told = [({each: reported(run, each) for each in PERCENTILES}, len(run)) for run in runs]
    return percentile_interval(95, [(reported(one, 95), len(one)) for one in latencies], told)


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
        told = [({each: reported(run, each) for each in PERCENTILES}, size) for run in runs]
        low, high = percentile_interval(95, [(reported(run, 95), size) for run in runs], told)
        assert (high is not None) == known, f"{3 * size} requests"
        assert low is None or low < max(max(run) for run in runs)


# --- verdicts --------------------------------------------------------------------------------------------------------------


def at(throughput: float, spread: float | None = 5.0, **changes: Any) -> dict[str, Any]:
    return row((throughput, 0, 1e4, 500)) | {"throughput_spread_infer_per_s": spread} | changes


def in_turn(rates: list[float], latencies: list[float] | None = None) -> dict[str, Any]:
    turns = {f"t{turn}": [rate, latency] for turn, (rate, latency) in enumerate(zip(rates, latencies or [1e4] * len(rates), strict=True))}
    return at(float(np.mean(rates)), turns=turns)


def test_the_answer_from_the_other_side_is_the_opposite_one() -> None:
    opposite = {"faster": "slower", "slower": "faster", "the same": "the same", "cannot tell": "cannot tell"}
    random, seen = np.random.default_rng(3), set()
    for _ in range(300):
        gain = float(np.exp(random.normal(0, 0.15)))
        base = random.normal(1000, 10, 4)
        pair = in_turn(list(base)), in_turn(list(base * gain * random.normal(1, 0.01, 4)))
        if random.random() < 0.3:
            pair = at(1000, float(random.uniform(0, 40))), at(1000 * gain, float(random.uniform(0, 40)))
        one, other = verdict(*pair), verdict(*pair[::-1])
        assert other.answer == opposite[one.answer], (one, other)
        assert one.gain * other.gain == pytest.approx(1)
        seen.add(one.answer)
    assert seen == set(opposite), "all four answers were met"
    assert (verdict(in_turn([1000.0] * 4), in_turn([1052.0] * 4)).answer, verdict(in_turn([1052.0] * 4), in_turn([1000.0] * 4)).answer) == (
        "faster",
        "slower",
    )


def test_repeats_never_make_a_verdict_worse() -> None:
    before, after = at(1000), at(1250)
    assert verdict(before, after).answer == "faster"
    for number in (2, 3, 5):
        repeats = verdict([before] * number, [after] * number)
        assert repeats.answer == "faster" and repeats.half_width < verdict(before, after).half_width
    slightly = [at(1000 + 10 * n) for n in range(2)], [at(1250 + 10 * n) for n in range(2)]
    assert verdict(*slightly).answer == "faster", "repeats that differ by what a machine does between two runs"


def test_pairs_that_were_measured_in_turn_are_compared_as_pairs() -> None:
    """A true gain of 15 % under a common drift of 8 % between turns: four pairs settle it, and the same rows without pairs do not."""
    random = np.random.default_rng(11)
    paired = alone = 0
    for _ in range(200):
        drift = np.exp(0.08 * random.standard_normal(4))
        before, after = (list(rate * drift * np.exp(0.01 * random.standard_normal(4))) for rate in (500, 575))
        seen = verdict(in_turn(before), in_turn(after))
        paired += seen.answer == "faster" and seen.pairs == 4
        alone += verdict([at(rate) for rate in before], [at(rate) for rate in after]).answer == "faster"
    assert paired >= 190 and alone <= 150


def test_equal_work_is_not_called_different() -> None:
    """Forty times A against A, on a machine that drifts by 10 % between turns and scatters by 4 % in them."""
    random, answers = np.random.default_rng(2), []
    for _ in range(40):
        drift = np.exp(np.cumsum(0.1 * random.standard_normal(4)))
        answers.append(verdict(*(in_turn(list(500 * drift * np.exp(0.04 * random.standard_normal(4)))) for _ in range(2))).answer)
    assert sum(answer in ("faster", "slower") for answer in answers) <= 2
    # And rows of two runs, each of which knows its own windows alone.
    alone = [verdict(*(at(float(500 * np.exp(0.045 * random.standard_normal())), 12) for _ in range(2))).answer for _ in range(400)]
    assert sum(answer in ("faster", "slower") for answer in alone) <= 20


def test_latencies_in_turn() -> None:
    slow, fast = in_turn([500.0] * 4, [20e3, 21e3, 19e3, 20e3]), in_turn([500.0] * 4, [10e3, 10.4e3, 9.6e3, 10.1e3])
    seen = verdict(slow, fast, "latency")
    assert seen.answer == "faster" and seen.gain == pytest.approx(2, rel=0.02) and "By 4 pairs, measured in turn." in seen.text
    assert verdict(slow, fast).answer == "the same"


def test_a_verdict_names_the_figures_of_its_own_pairs() -> None:
    """A baseline is measured beside several changes; what it did at those other times is not what a change is compared with."""
    baseline, change = in_turn([500.0] * 4), in_turn([550.0, 551.0, 549.0, 550.0])
    baseline["turns"] |= {f"another time {turn}": [900.0, 1e4] for turn in range(4)}
    baseline["throughput_infer_per_s"] = 700.0
    seen = verdict(baseline, change)
    assert seen.gain == pytest.approx(1.1, rel=0.01) and "(500 inferences/s → 550 inferences/s)" in seen.text
