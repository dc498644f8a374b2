"""Verdicts: faster, slower, the same, or honestly "cannot tell"."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from helpers.errors import InputError
from helpers.recorded import recorded
from helpers.verdict import verdict
from tests.support.measured_rows import row


def at(throughput: float, spread: float | None, **changes: Any) -> dict[str, Any]:
    return row((throughput, 0, 1e4, 0)) | {"throughput_spread_infer_per_s": spread} | changes


@pytest.mark.parametrize(
    ("before", "after", "answer"),
    [
        ((500, 10), (600, 10), "faster"),
        ((600, 10), (500, 10), "slower"),
        ((500, 5), (505, 5), "the same"),
        ((500, 5), (515, 5), "the same"),  # clearly more, but less than counts
        ((500, 60), (600, 60), "cannot tell"),
        ((500, 20), (500, 20), "cannot tell"),
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


def test_the_half_width_is_that_of_a_ratio() -> None:
    seen = verdict(at(500, 30), at(1000, 40))
    assert seen.half_width == pytest.approx(2 * math.hypot(30 / 500, 40 / 1000))
    assert "2.00 ± 0.14 times as fast (500 ± 30 inferences/s → 1000 ± 40 inferences/s)" in seen.text


def test_less_latency_is_faster() -> None:
    slow, fast = row((500, 9, 20000, 500)), row((500, 9, 10000, 500))
    assert verdict(slow, fast, "latency").answer == "faster" and verdict(fast, slow, "latency").answer == "slower"
    assert verdict(slow, fast, "latency").gain == pytest.approx(2)
    assert "(20 ± 0.5 ms → 10 ± 0.5 ms)" in verdict(slow, fast, "latency").text
    assert verdict(slow, fast).answer == "the same", "the throughputs are"


def test_it_says_how_much_longer() -> None:
    seen = verdict(at(500, 30), at(560, 30), least=0.05)
    assert seen.answer == "cannot tell" and "about 2 times as long" in seen.text
    half, room = seen.half_width, seen.gain - 1.05
    assert 1 < (half / room) ** 2 <= 2
    hopeless = verdict(at(500, 60), at(526, 60), least=0.05)
    assert "hardly settle it" in hopeless.text


def test_measuring_longer_settles_it() -> None:
    """What it advises works: with as many times the windows as it says, noise of the same size gives an answer."""
    random = np.random.default_rng(5)

    def measured(mean: float, windows: int) -> dict[str, Any]:
        values = random.normal(mean, 40, windows)
        return at(values.mean(), 1.96 * values.std(ddof=1) / math.sqrt(windows))

    first = verdict(measured(500, 9), measured(550, 9), least=0.05)
    assert first.answer == "cannot tell"
    assert verdict(measured(500, 400), measured(550, 400), least=0.05).answer == "faster"


def test_the_same_thing_twice_is_rarely_called_different() -> None:
    random = np.random.default_rng(7)
    wrong = 0
    for _ in range(400):
        runs = [random.normal(500, 25, 9) for _ in range(2)]
        before, after = (at(run.mean(), 2.31 * run.std(ddof=1) / 3) for run in runs)
        wrong += verdict(before, after).answer in ("faster", "slower")
    assert wrong <= 8


def test_repeats_show_what_windows_hide() -> None:
    """Each run is sure of itself, but they disagree: the machine changed between them."""
    steady = [at(500, 3), at(501, 3), at(499, 3)]
    drifting = [at(540, 3), at(620, 3), at(500, 3)]
    assert verdict(steady[0], drifting[0]).answer == "faster", "one run alone promises too much"
    seen = verdict(steady, drifting)
    assert seen.answer == "cannot tell" and "mean of 3" in seen.text
    assert verdict(steady, [at(600, 3), at(603, 3), at(598, 3)]).answer == "faster"


def test_no_count_is_better_known_than_to_one_request() -> None:
    """Three windows with ten requests each agree perfectly, and still say nothing about half a request."""
    lucky = at(500, 0.0, requests=30)
    assert verdict(lucky, at(540, 0.0, requests=30)).answer == "cannot tell"
    assert verdict(lucky, lucky).half_width == pytest.approx(math.hypot(1 / 30, 1 / 30))
    assert verdict(at(500, 0.0, requests=3000), at(540, 0.0, requests=3000)).answer == "faster"


def test_what_differs_is_named() -> None:
    seen = verdict(at(500, 5, batch=1), at(900, 5, batch=8, concurrency=2, stable=False))
    assert "What differs: batch 1 → 8; concurrency 1 → 2." in seen.text
    assert "The second did not settle" in seen.text
    assert "What differs" not in verdict(at(500, 5), at(500, 5)).text


def test_recorded_rows_are_called_so_and_have_no_spread() -> None:
    t4 = recorded("T4", "particlenet_AK4", "ONNX")[1]
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
