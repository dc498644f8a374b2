"""Verdicts: faster, slower, the same, or honestly "cannot tell"."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from helpers.errors import InputError
from helpers.measuring.statistics import BETWEEN_RUNS, student, verdict
from helpers.measuring.table import recorded
from tests.support.measured_rows import row


def at(throughput: float, spread: float | None = 5.0, **changes: Any) -> dict[str, Any]:
    return row((throughput, 0, 1e4, 500)) | {"throughput_spread_infer_per_s": spread} | changes


def in_turn(rates: list[float], **changes: Any) -> dict[str, Any]:
    """A row of runs that were taken in turn with those of other such rows."""
    return at(float(np.mean(rates)), turns={f"turn {number}": rate for number, rate in enumerate(rates)}, **changes)


@pytest.mark.parametrize(
    ("before", "after", "answer"),
    [
        ((500, 10), (600, 10), "faster"),
        ((600, 10), (500, 10), "slower"),
        ((500, 60), (600, 60), "cannot tell"),
        ((500, 20), (500, 20), "cannot tell"),
        ((500, 2), (505, 2), "cannot tell"),  # two single runs do not know what the machine did in between
        ((500, 4), (527, 4), "cannot tell"),  # on the edge of what counts
        ((500, 10), (600, None), "cannot tell"),
        ((500, None), (600, 10), "cannot tell"),
    ],
)
def test_answers(before: tuple[float, float | None], after: tuple[float, float | None], answer: str) -> None:
    seen = verdict(at(*before), at(*after), least=0.05)
    assert seen.answer == answer, seen
    assert seen.gain == pytest.approx(after[0] / before[0])
    assert str(seen).startswith(answer.capitalize())
    assert answer.capitalize() in seen._repr_html_()


def test_the_same_takes_pairs() -> None:
    assert verdict(in_turn([500, 505, 498, 502]), in_turn([505, 509, 500, 508])).answer == "the same"
    more = verdict(in_turn([500, 505, 498, 502]), in_turn([515, 521, 513, 517]))
    assert more.answer == "the same" and "below 5 % do not count" in more.text, "clearly more, but less than counts"


def test_the_interval_is_that_of_a_ratio() -> None:
    seen = verdict(at(500, 30), at(1000, 40))
    own = [spread / value / student(8) for spread, value in ((30, 500), (40, 1000))]
    parts = [each**2 + BETWEEN_RUNS**2 for each in own]
    degrees = sum(parts) ** 2 / sum(each**4 / 8 for each in own)
    assert seen.half_width == pytest.approx(2 * math.sinh(student(degrees) * math.sqrt(sum(parts))), rel=1e-6)
    assert "2.00 (1.76–2.27) times as fast (500 ± 30 inferences/s → 1000 ± 40 inferences/s)" in seen.text


def test_few_windows_widen_it_as_welchs_test_does() -> None:
    """Against scipy's own, of windows whose scatter is far larger than what a machine changes between two runs."""
    random = np.random.default_rng(8)
    logs = [random.normal(math.log(rate), scatter, number) for rate, scatter, number in ((500, 0.5, 3), (900, 1.2, 4))]
    rows = []
    for each in logs:
        rate = math.exp(each.mean())
        half = student(len(each) - 1) * np.std(each, ddof=1) / math.sqrt(len(each))
        rows.append(at(rate, rate * half, windows=len(each)))
    right = stats.ttest_ind(logs[1], logs[0], equal_var=False).confidence_interval(0.95)
    seen = verdict(*rows)
    assert math.asinh(seen.half_width / seen.gain) == pytest.approx((right.high - right.low) / 2, rel=0.02)


def test_it_says_what_would_settle_it() -> None:
    alone = verdict(at(500, 30), at(560, 30), least=0.05)
    assert alone.answer == "cannot tell" and "measure both in turn, with measure_in_turn(...)" in alone.text
    pairs = in_turn([500, 520, 480, 500]), in_turn([560, 640, 500, 560])
    seen = verdict(*pairs)
    assert seen.answer == "cannot tell" and "measure more pairs" in seen.text


def test_more_pairs_settle_it() -> None:
    """What it advises works: with more pairs, noise of the same size gives an answer."""
    random = np.random.default_rng(5)

    def pairs(number: int) -> tuple[dict[str, Any], dict[str, Any]]:
        drift = random.normal(1, 0.1, number)
        return tuple(in_turn(list(mean * drift * random.normal(1, 0.06, number))) for mean in (500, 560))  # type: ignore[return-value]

    assert verdict(*pairs(4)).answer == "cannot tell"
    assert verdict(*pairs(60)).answer == "faster"


def test_repeats_make_no_verdict_worse() -> None:
    """Fewer than three pairs say nothing as pairs: what is known then is what the rows know without them."""
    alone = verdict(at(1000), at(1150))
    for number in range(1, 9):
        seen = verdict(in_turn([1000.0 + turn for turn in range(number)]), in_turn([1150.0 + turn for turn in range(number)]))
        if number < 3:
            assert (seen.answer, seen.pairs, seen.half_width) == (alone.answer, 0, pytest.approx(alone.half_width, rel=0.01))
        else:
            assert (seen.answer, seen.pairs) == ("faster", number) and seen.half_width < alone.half_width


def test_no_count_is_better_known_than_to_one_request() -> None:
    """Windows with ten requests each agree perfectly, and still say nothing about half a request."""
    lucky = [in_turn([rate] * 4, requests=12) for rate in (500, 560)]
    assert verdict(*lucky).answer == "cannot tell" and verdict(lucky[0], lucky[0]).half_width > 0.1
    assert verdict(*(in_turn([rate] * 4, requests=3000) for rate in (500, 560))).answer == "faster"
    assert verdict(at(500, 0.0, requests=3), at(640, 0.0, requests=3)).answer == "cannot tell"


def test_what_differs_is_named() -> None:
    seen = verdict(at(500, 5, batch=1), at(900, 5, batch=8, concurrency=2))
    assert "What differs: batch 1 → 8; concurrency 1 → 2." in seen.text
    assert "What differs" not in verdict(at(500, 5), at(500, 5)).text


def test_recorded_rows_are_called_so_and_have_no_spread() -> None:
    t4 = recorded("T4", "particlenet_AK4", "ONNX").iloc[1]
    seen = verdict(at(500, 5), t4)
    assert seen.answer == "cannot tell" and "There is no spread" in seen.text
    assert "CPU: AMD EPYC → Tesla T4 (recorded)" in seen.text and "inputs random → 100 candidates + 10 vertices" in seen.text


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ([], [row()], "not one row"),
        (row(), 580.0, "type float"),
        ([row(), row()], row(), "compares two rows, and 3 were given"),
        (row(), row(throughput_infer_per_s=None), "No row has a value for 'throughput_infer_per_s'"),
    ],
)
def test_what_cannot_be_compared(first: Any, second: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        verdict(first, second)


# --- by simulations with fixed seeds ----------------------------------------------------------------------------------------


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


def test_pairs_that_were_measured_in_turn_are_compared_as_pairs() -> None:
    """A true gain of 15 % under a common drift of 8 % between turns: four pairs settle it, and the same rows without pairs do not."""
    random = np.random.default_rng(11)
    paired = alone = 0
    for _ in range(200):
        drift = np.exp(0.08 * random.standard_normal(4))
        before, after = (list(rate * drift * np.exp(0.01 * random.standard_normal(4))) for rate in (500, 575))
        seen = verdict(in_turn(before), in_turn(after))
        paired += seen.answer == "faster" and seen.pairs == 4
        alone += verdict(at(float(np.mean(before))), at(float(np.mean(after)))).answer == "faster"
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


def test_a_verdict_names_the_figures_of_its_own_pairs() -> None:
    """A baseline is measured beside several changes; what it did at those other times is not what a change is compared with."""
    baseline, change = in_turn([500.0] * 4), in_turn([550.0, 551.0, 549.0, 550.0])
    baseline["turns"] |= {f"another time {turn}": 900.0 for turn in range(4)}
    baseline["throughput_infer_per_s"] = 700.0
    seen = verdict(baseline, change)
    assert seen.gain == pytest.approx(1.1, rel=0.01) and "(500 inferences/s → 550 inferences/s)" in seen.text
