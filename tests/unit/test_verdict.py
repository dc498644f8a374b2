"""Verdicts: faster, slower, the same, or honestly "cannot tell"."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from helpers.errors import InputError
from helpers.measuring.recorded import recorded
from helpers.measuring.statistics import BETWEEN_RUNS, student, verdict
from tests.support.measured_rows import row


def at(throughput: float, spread: float | None, **changes: Any) -> dict[str, Any]:
    return row((throughput, 0, 1e4, 0)) | {"throughput_spread_infer_per_s": spread} | changes


def in_turn(rates: list[float], **changes: Any) -> dict[str, Any]:
    """A row of runs that were taken in turn with those of other such rows."""
    return at(float(np.mean(rates)), 5.0, turns={f"turn {number}": [rate, 1e4] for number, rate in enumerate(rates)}, **changes)


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
    assert seen.half_width == pytest.approx(2 * math.sinh(student(degrees) * math.sqrt(sum(parts))), rel=0.01)
    assert "2.00 (1.76–2.27) times as fast (500 ± 30 inferences/s → 1000 ± 40 inferences/s)" in seen.text


def test_less_latency_is_faster() -> None:
    slow, fast = row((500, 9, 20000, 500)), row((500, 9, 10000, 500))
    assert verdict(slow, fast, "latency").answer == "faster" and verdict(fast, slow, "latency").answer == "slower"
    assert verdict(slow, fast, "latency").gain == pytest.approx(2)
    assert "(20.00 (19.50–20.50) ms → 10.00 (9.50–10.50) ms)" in verdict(slow, fast, "latency").text


def test_it_says_what_would_settle_it() -> None:
    alone = verdict(at(500, 30), at(560, 30), least=0.05)
    assert alone.answer == "cannot tell" and "measure both in turn, with measure_in_turn(...)" in alone.text
    pairs = in_turn([500, 520, 480, 500]), in_turn([560, 640, 500, 560])
    seen = verdict(*pairs)
    assert seen.answer == "cannot tell" and "measure more pairs, about 3 times as many" in seen.text
    hopeless = verdict(at(500, 60), at(526, 60), least=0.05)
    assert "hardly settle it" in hopeless.text


def test_more_pairs_settle_it() -> None:
    """What it advises works: with more pairs, noise of the same size gives an answer."""
    random = np.random.default_rng(5)

    def pairs(number: int) -> tuple[dict[str, Any], dict[str, Any]]:
        drift = random.normal(1, 0.1, number)
        return tuple(in_turn(list(mean * drift * random.normal(1, 0.06, number))) for mean in (500, 560))  # type: ignore[return-value]

    assert verdict(*pairs(4)).answer == "cannot tell"
    assert verdict(*pairs(60)).answer == "faster"


def test_repeats_show_what_windows_hide() -> None:
    """Each run is sure of itself, but they disagree by more than a machine does: something changed between them."""
    steady = [at(500, 3), at(501, 3), at(499, 3)]
    drifting = [at(640, 3), at(820, 3), at(480, 3)]
    assert verdict(steady[0], drifting[0]).answer == "faster", "one run alone promises too much"
    seen = verdict(steady, drifting)
    assert seen.answer == "cannot tell" and "mean of 3" in seen.text
    assert verdict(steady, [at(600, 3), at(603, 3), at(598, 3)]).answer == "faster"


def test_no_count_is_better_known_than_to_one_request() -> None:
    """Windows with ten requests each agree perfectly, and still say nothing about half a request."""
    lucky = [in_turn([rate] * 4, requests=12) for rate in (500, 560)]
    assert verdict(*lucky).answer == "cannot tell" and verdict(lucky[0], lucky[0]).half_width > 0.1
    assert verdict(*(in_turn([rate] * 4, requests=3000) for rate in (500, 560))).answer == "faster"
    assert verdict(at(500, 0.0, requests=3), at(640, 0.0, requests=3)).answer == "cannot tell"


def test_what_differs_is_named() -> None:
    seen = verdict(at(500, 5, batch=1), at(900, 5, batch=8, concurrency=2, stable=False))
    assert "What differs: batch 1 → 8; concurrency 1 → 2." in seen.text
    assert "The second did not settle" in seen.text
    assert "What differs" not in verdict(at(500, 5), at(500, 5)).text


def test_recorded_rows_are_called_so_and_have_no_spread() -> None:
    t4 = recorded("T4", "particlenet_AK4", "ONNX").iloc[1]
    seen = verdict(at(500, 5), t4)
    assert seen.answer == "cannot tell" and "There is no spread" in seen.text
    assert "CPU: AMD EPYC → Tesla T4 (recorded)" in seen.text and "inputs random → 100 candidates + 10 vertices" in seen.text


@pytest.mark.parametrize(
    ("first", "second", "options", "words"),
    [
        ([], [row()], {}, "not one row"),
        (row(), 580.0, {}, "type float"),
        (row(), row(), {"quantity": "speed"}, "'speed'"),
        ([row(batch=1), row(batch=2)], row(), {}, "differ in batch: 1, 2"),
        (row(), row(percentile=99), {"quantity": "latency"}, "different percentiles: 95, 99"),
        (row(), row(throughput_infer_per_s=None), {}, "has no throughput_infer_per_s"),
    ],
)
def test_what_cannot_be_compared(first: Any, second: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        verdict(first, second, **options)
