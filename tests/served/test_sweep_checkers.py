"""The checkers of notebook 08 with right, wrong and untouched answers; the one that counts requests against a real server."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from helpers.client import Client
from helpers.course import ____
from helpers.course.judge import Kind
from helpers.measuring.statistics import verdict
from helpers.measuring.table import Row, Rows, recorded, rows_of
from helpers.metrics import scrape
from helpers.server import Server
from tests.support.judging import is_judged as _is
from tests.support.measured_rows import concurrency_rows, row, sweep_rows

MODEL, TORCH = "particlenet_AK4", "particlenet_AK4_PT"


# --- 8.1 -------------------------------------------------------------------------------------------------------------------


def _onnx(**shares: tuple[float, float]) -> list[dict[str, Any]]:
    return [row((share, spread, 1e4 * 2**n, 100), batch=int(batch[1:])) for n, (batch, (share, spread)) in enumerate(shares.items())]


def test_knee() -> None:
    rows = _onnx(b1=(200, 9), b4=(500, 9), b16=(592, 5), b64=(629, 5))
    _is("8.1", Kind.CORRECT, "At batch size 16 you have 592 inferences/s, and 95 %", rows, 16, 40.0)
    _is("8.1", Kind.CORRECT, "within 40 ms", rows, "16", 40.4)
    _is("8.1", Kind.CORRECT, "592 inferences/s", Rows.of(rows), np.int64(16), 40.0)
    _is("8.1", Kind.NOT_ATTEMPTED, "2 blanks", rows, ____, ____)
    _is("8.1", Kind.NOT_YET, "A smaller one, 16, is at 90 % or more already", rows, 64, 80.0)
    _is("8.1", Kind.NOT_YET, "reaches 79 % of the highest throughput; 90 % was asked", rows, 4, 20.0)
    _is("8.1", Kind.NOT_YET, "should be one of 1, 4, 16, 64, and it is `12`", rows, 12, 40.0)
    _is("8.1", Kind.NOT_YET, "and it is `None`", rows, None, 40.0)
    _is("8.1", Kind.NOT_YET, "microseconds", rows, 16, 40000.0)
    _is("8.1", Kind.NOT_YET, "in seconds", rows, 16, 0.04)
    _is("8.1", Kind.NOT_YET, "Take `latency_p95_us`", rows, 16, 36.0)
    _is("8.1", Kind.NOT_YET, "`knee_ms` should be one number", rows, 16, [40.0])
    _is("8.1", Kind.CANNOT_TELL, "Expected measured rows for the check", "rows", 16, 40.0)


def test_a_knee_that_the_spread_allows() -> None:
    rows = _onnx(b1=(200, 9), b4=(550, 60), b16=(592, 5), b64=(629, 40))
    _is("8.1", Kind.CORRECT, "At batch size 16", rows, 16, 40.0)
    _is("8.1", Kind.CORRECT, "At batch size 4", rows, 4, 20.0)


def test_a_large_spread_excuses_no_batch_far_from_the_knee() -> None:
    """A sweep on a crowded machine: 32 has 66 % of the highest throughput, and a spread that covers all."""
    rows = _onnx(b1=(200, 9), b4=(600, 9), b16=(620, 9), b32=(409, 300))
    _is("8.1", Kind.CORRECT, "At batch size 4", rows, 4, 20.0)
    _is("8.1", Kind.NOT_YET, "reaches 66 % of the highest throughput. A smaller one, 4", rows, 32, 80.0)


def test_the_last_batch_can_be_the_knee() -> None:
    _is("8.1", Kind.CORRECT, "At batch size 16", _onnx(b1=(10, 1), b4=(40, 1), b16=(160, 1)), 16, 40.0)


# --- 8.2 -------------------------------------------------------------------------------------------------------------------


def test_verdict() -> None:
    rows = sweep_rows()
    at = {(each["model"], each["batch"]): each for each in rows}
    right = verdict(at[MODEL, 16], at[TORCH, 16])
    assert right.answer == "slower"
    _is("8.2", Kind.CORRECT, "0.47 (0.40–0.55) times as fast", rows, right.gain, "slower")
    _is("8.2", Kind.CORRECT, "Slower", rows, 276 / 591, right)
    _is("8.2", Kind.NOT_ATTEMPTED, "2 blanks", rows, ____, ____)
    _is("8.2", Kind.NOT_YET, "the inverse; turn it round", rows, 591 / 276, "slower")
    _is("8.2", Kind.NOT_YET, "both at 16", rows, 362 / 629, "slower")
    _is("8.2", Kind.NOT_YET, "`gain` should be one number", rows, None, "slower")
    _is("8.2", Kind.NOT_YET, "the answer is not `faster`", rows, right.gain, "Faster")
    _is("8.2", Kind.NOT_YET, "Expected one of", rows, right.gain, "PyTorch")
    _is("8.2", Kind.CANNOT_TELL, "stumbled over this answer (KeyError", rows[:4], right.gain, "slower")


def test_an_honest_cannot_tell_is_right() -> None:
    rows = [row((500, 90, 1e4, 0), batch=16), row((560, 90, 1e4, 0), batch=16, model=TORCH)]
    _is("8.2", Kind.CORRECT, "measure both in turn", rows, 1.12, "cannot tell")
    _is("8.2", Kind.NOT_YET, "the answer is not `faster`", rows, 1.12, "faster")
    turns = [{f"turn {n}": rate + n for n in range(4)} for rate in (498.5, 503.5)]
    same = [row((500, 3, 1e4, 0), batch=16, turns=turns[0]), row((505, 3, 1e4, 0), batch=16, model=TORCH, turns=turns[1])]
    _is("8.2", Kind.CORRECT, "do not count", same, 1.01, "same")


# --- 8.3 -------------------------------------------------------------------------------------------------------------------


def test_littles_law() -> None:
    rows = concurrency_rows()
    jets = [each["throughput_infer_per_s"] for each in rows]
    mean = [each["latency_avg_us"] for each in rows]
    right = [rate / 8 * latency / 1e6 for rate, latency in zip(jets, mean, strict=True)]
    assert right == pytest.approx([1, 2, 4, 8])
    _is("8.3", Kind.CORRECT, "4.00 at concurrency 4, 8.00 at concurrency 8: 0 % apart at most", rows, right)
    _is("8.3", Kind.CORRECT, "0 % apart", Rows.of(rows), pd.Series(right))
    _is("8.3", Kind.NOT_ATTEMPTED, "4 blanks", rows, [____] * 4)
    wrong = {
        "counts jets": [8 * value for value in right],
        "by the mean latency in seconds": [1e6 * value for value in right],
        "the 95th percentile": [rate / 8 * each["latency_p95_us"] / 1e6 for rate, each in zip(jets, rows, strict=True)],
        "Multiply requests per second": [1.5, 7, 2, 3],
    }
    for words, numbers in wrong.items():
        _is("8.3", Kind.NOT_YET, words, rows, numbers)
    _is("8.3", Kind.NOT_YET, "`under_way` has no `3`. Expected 4 numbers", rows, right[:3])
    _is("8.3", Kind.NOT_YET, "Expected 4 numbers", rows, 1.0)
    _is("8.3", Kind.CANNOT_TELL, "No row has a value for 'latency_avg_us'", [row(latency_avg_us=None)], [1])


def test_the_concurrency_itself_is_no_check_of_the_law() -> None:
    rows = [each | {"latency_avg_us": 0.9 * each["latency_avg_us"]} for each in concurrency_rows()]
    _is("8.3", Kind.NOT_YET, "Multiply requests per second", rows, [1, 2, 4, 8])
    _is("8.3", Kind.CORRECT, "10 % apart", rows, [0.9, 1.8, 3.6, 7.2])
    unsteady = [each | {"latency_avg_us": 0.5 * each["latency_avg_us"]} for each in concurrency_rows()]
    _is("8.3", Kind.CORRECT, "50 % apart at most. Where it is more", unsteady, [0.5, 1, 2, 4])


# --- 8.4, against a real server ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_beating_the_baseline(server: Server) -> None:
    counted = scrape(server)
    with Client(server) as client:
        inputs = client.example(MODEL)
        for _ in range(40):
            client.infer(MODEL, inputs)
    baseline = row((193, 20, 11000, 900), batch=1)
    best = row((1088, 75, 23409, 2762), batch=4, concurrency=2, requests=40)

    def pair(first: dict[str, Any], second: Any) -> tuple[Any, Any]:
        return first, second

    _is("8.4", Kind.CORRECT, "Batch size 4 at concurrency 2 is 5.64 (4.82–6.59) times as fast", server, counted, pair(baseline, best), 150)
    _is("8.4", Kind.CORRECT, "times as fast", server, counted, pair(Row.of(baseline), Row.of(best)), 150)
    _is("8.4", Kind.NOT_ATTEMPTED, "blank", server, counted, ____, 150)
    _is("8.4", Kind.NOT_YET, "nothing (`None`)", server, counted, None, 150)
    _is("8.4", Kind.NOT_YET, "Expected the two rows", server, counted, best, 150)
    late = best | {"latency_p95_us": 2e5, "latency_low_us": 1.9e5, "latency_high_us": 2.1e5}
    _is("8.4", Kind.NOT_YET, "over the budget of 150 ms", server, counted, pair(baseline, late), 150)
    _is("8.4", Kind.NOT_YET, "not faster", server, counted, pair(baseline, row((100, 5, 11000, 900), batch=1, requests=40)), 150)
    _is("8.4", Kind.NOT_YET, "batch size 1 at concurrency 1", server, counted, pair(best, best), 150)
    usual, short = ({"shapes": f"pf_points:2,{length}"} for length in (50, 5))
    _is("8.4", Kind.CORRECT, "times as fast", server, counted, pair(baseline | usual, best | usual), 150)
    for other in (short, {"inputs": "zero"}, {"inputs_digest": "of other jets"}):
        _is("8.4", Kind.NOT_YET, "with other inputs", server, counted, pair(baseline | usual, best | usual | other), 150)
    _is("8.4", Kind.NOT_YET, "`particlenet_AK4_PT`", server, counted, pair(baseline, best | {"model": TORCH}), 150)
    noisy = row((230, 60, 11000, 900), batch=2, requests=40)
    _is("8.4", Kind.CANNOT_TELL, "`turns=12`", server, counted, pair(baseline, noisy), 150)
    over = best | {"latency_p95_us": 148e3, "latency_low_us": 139e3, "latency_high_us": 157e3}
    _is("8.4", Kind.CANNOT_TELL, "may be over 150 ms or not", server, counted, pair(baseline, over), 150)
    unknown = best | {"latency_high_us": None}
    _is("8.4", Kind.CANNOT_TELL, "percentile is not known, of 40 requests", server, counted, pair(baseline, unknown), 150)
    _is(
        "8.4",
        Kind.CANNOT_TELL,
        "has seen 40 requests since the reading, and 90 were expected",
        server,
        counted,
        pair(baseline, best | {"requests": 90}),
        150,
    )
    _is("8.4", Kind.CANNOT_TELL, "needs `server`", None, counted, pair(baseline, best), 150)
    _is("8.4", Kind.CANNOT_TELL, "stumbled", server, counted, pair(baseline, best), None)


# --- 8.5 -------------------------------------------------------------------------------------------------------------------


def test_machines() -> None:
    rows = [row((throughput, 10, 1e4, 0), batch=batch, concurrency=4) for batch, throughput in ((1, 250), (4, 200), (16, 150))]
    gpu = {each["batch"]: each["throughput_infer_per_s"] for each in rows_of(recorded("T4", MODEL, "ONNX"))}
    _is("8.5", Kind.CORRECT, "on a T4, without a spread, and you have 200: 7.9 machines", rows, gpu[4] / 200)
    _is("8.5", Kind.CORRECT, "7.9", rows, 8)
    _is("8.5", Kind.NOT_ATTEMPTED, "blank", rows, ____)
    _is("8.5", Kind.NOT_YET, "turn it round", rows, 200 / gpu[4])
    _is("8.5", Kind.NOT_YET, "with ONNX alone, by yours", rows, 2157 / 200)
    _is("8.5", Kind.NOT_YET, "Divide the T4's", rows, 42)
    _is("8.5", Kind.NOT_YET, "should be one number", rows, "ten")
