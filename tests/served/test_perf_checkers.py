"""The checkers of notebook 07, with right, wrong and untouched answers, on a real server."""

from __future__ import annotations

from typing import Any

import pytest

from helpers.client import Client
from helpers.client.endpoint import Address
from helpers.course import ____
from helpers.course.judge import Kind
from helpers.measuring.input_files import write_jets
from helpers.measuring.perf_analyzer import Run
from helpers.measuring.table import COLUMNS, Row
from helpers.metrics import scrape
from helpers.server import Server
from tests.support.judging import is_judged as _is

pytestmark = pytest.mark.slow

MODEL = "particlenet_AK4"


def _dead() -> Server:
    return Server(*(Address("localhost", port) for port in (1030, 1031, 1032)))


def _row(**values: Any) -> dict[str, Any]:
    """A measured row, as a student has it."""
    usual = {"model": MODEL, "batch": 10, "concurrency": 1, "inputs": "random", "stable": True, "note": ""}
    usual |= {"throughput_infer_per_s": 500.0, "throughput_spread_infer_per_s": 10.0, "latency_avg_us": 20e3, "latency_p50_us": 19e3}
    usual |= {
        "latency_p95_us": 22e3,
        "queue_us": 100.0,
        "compute_infer_us": 18e3,
        "instances": 2,
        "requests": 0,
    }
    return dict.fromkeys(COLUMNS) | usual | values


def test_7_1_one_jet_in_a_request(server: Server) -> None:
    def send(batch: int, times: int) -> None:
        with Client(server) as client:
            for _ in range(times):
                client.infer(MODEL, client.example(MODEL, batch))

    before = scrape(server)
    command = f"perf_analyzer -m {MODEL} -p 1000 --concurrency-range 1:1 -b 10"
    said = (command, command.replace("-b 10", "-b 1"))
    _is("7.1", Kind.CANNOT_TELL, "has seen 0 requests", server, before, *said, 0)
    _is("7.1", Kind.NOT_ATTEMPTED, "blank", server, before, *said, ____)
    send(1, 3)
    _is("7.1", Kind.CORRECT, "3 requests, 3 inferences: one jet in each.", server, before, *said, 0)
    _is("7.1", Kind.CORRECT, "one jet in each", server, before, *said, 2)
    _is("7.1", Kind.NOT_YET, "ended with 99", server, before, *said, 99)
    send(4, 1)
    _is("7.1", Kind.NOT_YET, "1.75 jets in each", server, before, *said, 0)
    again = scrape(server)
    send(10, 2)
    _is("7.1", Kind.NOT_YET, "10 jets in each on average", server, again, *said, 0)
    _is("7.1", Kind.CANNOT_TELL, "does not answer", _dead(), again, *said, 0)
    _is("7.1", Kind.CANNOT_TELL, "needs `before`", server, 5, *said, 0)
    for wrong, words in {
        command.replace("10", "1"): "`1000` became `100`, too",
        command.replace("-b 10", ""): "`-b` became `nothing`, too",
        command.replace("-b 10", "-b 1").replace("1:1", "4:4"): "`1:1` became `4:4`, too",
        command.replace("-b 10", "-b 2"): "`10` became `2`, too",
        command + " -f out.csv": "`nothing` became `-f`, too",
    }.items():
        _is("7.1", Kind.NOT_YET, words, server, before, command, wrong, 0)
    _is("7.1", Kind.NOT_YET, "as text", server, before, command, 1, 0)
    _is("7.1", Kind.NOT_ATTEMPTED, "blank", server, before, command, ____, ____)


def test_7_2_gain_and_price() -> None:
    rows = {
        1: _row(batch=1, throughput_infer_per_s=400.0, latency_p50_us=2.4e3, latency_p95_us=3e3),
        10: _row(throughput_infer_per_s=500.0, latency_p95_us=24e3),
        100: _row(batch=100, throughput_infer_per_s=600.0, latency_p50_us=170e3, latency_p95_us=180e3),
    }
    _is("7.2", Kind.CORRECT, "1.50 times the jets per second, and each request takes 60 times as long", rows, 1.5, 60.0)
    _is("7.2", Kind.CORRECT, "1.50 times", rows, "1.5", 60)
    _is("7.2", Kind.CORRECT, "Not all rows are stable", {**rows, 1: {**rows[1], "stable": False}}, 1.5, 60.0)
    _is("7.2", Kind.NOT_YET, "The column is `throughput_infer_per_s`", rows, 60.0, 1.5)
    _is("7.2", Kind.NOT_YET, "the inverse", rows, 1 / 1.5, 60.0)
    _is("7.2", Kind.NOT_YET, "from 1 to 10", rows, 1.25, 60.0)
    _is("7.2", Kind.NOT_YET, "The column is `latency_p95_us`", rows, 1.5, 170 / 2.4)
    _is("7.2", Kind.NOT_YET, "something else", rows, 3.0, 60.0)
    _is("7.2", Kind.NOT_YET, "should be one number", rows, None, 60.0)
    _is("7.2", Kind.NOT_ATTEMPTED, "2 blanks", rows, ____, ____)
    _is("7.2", Kind.CANNOT_TELL, "stumbled over this answer (KeyError: 10)", {1: rows[1]}, 1.5, 60.0)
    _is("7.2", Kind.CANNOT_TELL, "stumbled", None, 1.5, 60.0)


def test_7_3_the_share_of_the_queue(server: Server) -> None:
    busy = _row(concurrency=8, queue_us=12e3, compute_infer_us=60e3, latency_avg_us=80e3)
    _is("7.3", Kind.CORRECT, "15 % are spent in the queue and 75 % in inference", server, busy, 0.15)
    _is("7.3", Kind.CORRECT, "15 % are spent in the queue", server, Row.of(busy), 0.15)
    _is("7.3", Kind.NOT_YET, "we asked for a fraction from 0 to 1", server, busy, 15)
    _is("7.3", Kind.NOT_YET, "Divide it by the other number", server, busy, 12e3)
    _is("7.3", Kind.NOT_YET, "share of the inference", server, busy, 0.75)
    _is("7.3", Kind.NOT_YET, "another fraction", server, busy, 0.5)
    _is("7.3", Kind.NOT_YET, "should be one number", server, busy, "much")
    _is("7.3", Kind.NOT_YET, "concurrency of 4; we asked for 8", server, {**busy, "concurrency": 4}, 0.15)
    _is("7.3", Kind.NOT_YET, "batch of 1; we asked for 10", server, {**busy, "batch": 1}, 0.15)
    _is("7.3", Kind.NOT_YET, "`add_sub`", server, {**busy, "model": "add_sub"}, 0.15)
    _is("7.3", Kind.NOT_YET, "Expected the row", server, [busy], 0.15)
    _is("7.3", Kind.NOT_ATTEMPTED, "blank", server, busy, ____)
    _is("7.3", Kind.CANNOT_TELL, "does not answer", _dead(), busy, 0.15)


def test_7_4_less_padding(server: Server) -> None:
    def padded(length: int, rate: float, spread: float = 10.0) -> dict[str, Any]:
        file = write_jets(server, MODEL, lengths={"pf": length})
        sent = Run(MODEL, "localhost:9001", input_data=file).sent()
        return _row(**sent, throughput_infer_per_s=rate, throughput_spread_infer_per_s=spread)

    real = padded(50, 500)
    _is("7.4", Kind.CORRECT, "2.40 times as many jets per second with 20 candidates", server, (real, padded(20, 1200)))
    _is("7.4", Kind.CORRECT, "2.40 times", server, [Row.of(real), Row.of(padded(20, 1200))])
    _is("7.4", Kind.CANNOT_TELL, "measure_in_turn(..., turns=12)", server, (real, padded(20, 600, 300)))
    _is("7.4", Kind.CORRECT, "Measured: slower", server, (real, padded(20, 250)))
    _is("7.4", Kind.NOT_YET, "padded to 30 candidates; we asked for 20", server, (real, padded(30, 900)))
    _is("7.4", Kind.NOT_YET, "the jets of the first. Use the new file", server, (real, real))
    _is("7.4", Kind.NOT_YET, "`random`, are padded to None candidates", server, (real, _row()))
    _is("7.4", Kind.NOT_YET, "batch of 1", server, (real, {**padded(20, 900), "batch": 1}))
    _is("7.4", Kind.NOT_YET, "Expected the two rows", server, padded(20, 900))
    _is("7.4", Kind.NOT_YET, "`pair[0]` is nothing", server, (None, padded(20, 900)))
    _is("7.4", Kind.NOT_ATTEMPTED, "blank", server, ____)
