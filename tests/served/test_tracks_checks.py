"""The checkers of notebook 05 with right, wrong and untouched answers, on a real server."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

from helpers.course import ____, exercise
from helpers.course.judge import Kind, Outcome
from helpers.physics.tracks import STAGES, Quality, quality
from helpers.server import Server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cut(server: Server) -> Iterator[Server]:
    """The server with another cut, and with two instances of that stage."""
    config = server.config("ExaTrk_tracks")
    config["parameters"]["cut"]["string_value"] = "0.75"
    config["instance_group"][0]["count"] = 2
    server.reload("ExaTrk_tracks", config)
    yield server
    server.reload("ExaTrk_tracks")


def made_quality(lost: int, mixed: int) -> Quality:
    """Three particles of ten hits: of the first, so many hits are lost, and so many go to the second's track."""
    from tests.unit.test_tracks import made_event

    event = made_event([0] * 10 + [1] * 10 + [2] * 10, [30.0 + 10 * (i % 10) for i in range(30)])
    labels = event.particle.astype(np.int64)
    labels[:lost] = -1
    labels[20 : 20 + mixed] = 1
    return quality([event], [labels])


GOOD, IMPURE, LOSING = (made_quality(*counts) for counts in ((0, 0), (0, 3), (6, 0)))


@pytest.mark.parametrize(
    ("chosen", "best", "kind", "words"),
    [
        (0.75, GOOD, Kind.CORRECT, "the efficiency is 1.0000"),
        ("0.75", GOOD, Kind.CORRECT, "Every client of this server"),
        (0.75, IMPURE, Kind.NOT_YET, "cut higher"),
        (0.75, LOSING, Kind.NOT_YET, "cut lower"),
        (0.7, GOOD, Kind.NOT_YET, "The server's cut is 0.75 now, and yours is 0.7"),
        (0.75, 0.99, Kind.NOT_YET, "Expected what `with_cut(chosen)` returns"),
        ("high", GOOD, Kind.NOT_YET, "`chosen` should be one number"),
        (____, ____, Kind.NOT_ATTEMPTED, "2 blanks"),
    ],
)
def test_5_1_right_wrong_and_untouched(cut: Server, chosen: object, best: object, kind: Kind, words: str):
    outcome = exercise("5.1").judge(cut, chosen, best)
    assert outcome.kind is kind and words in outcome.text, outcome


def test_5_1_needs_a_server():
    assert exercise("5.1").judge("my server", 0.75, GOOD).kind is Kind.CANNOT_TELL


def times(*totals: float) -> pd.DataFrame:
    rows = [
        {"stage": stage, "total_ms": total, "queue_ms": 0.0, "infer_ms": total, "other_ms": 0.0}
        for stage, total in zip(STAGES, totals, strict=True)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("slowest", "part", "kind", "words"),
    [
        ("ExaTrk_gnn", 0.5, Kind.CORRECT, "50.0 ms of 100.0 ms, 50%"),
        ("ExaTrk_gnn", 0.49, Kind.CORRECT, "50%"),
        ("ExaTrk_graph", 0.5, Kind.NOT_YET, "another stage takes 50.0 ms"),
        ("ExaTrk", 0.5, Kind.NOT_YET, "name of a stage"),
        ("ExaTrk_gnn", 50, Kind.NOT_YET, "percent"),
        ("ExaTrk_gnn", 0.2, Kind.NOT_YET, "Divide 50.0 ms by 100.0 ms"),
        ("ExaTrk_gnn", "half", Kind.NOT_YET, "should be one number"),
        (____, 0.5, Kind.NOT_ATTEMPTED, "blank"),
    ],
)
def test_5_2_right_wrong_and_untouched(server: Server, slowest: object, part: object, kind: Kind, words: str):
    outcome = exercise("5.2").judge(server, times(10, 20, 15, 50, 5), slowest, part)
    assert outcome.kind is kind and words in outcome.text, outcome


def test_5_2_milliseconds_are_recognised_and_times_are_needed(server: Server):
    assert "milliseconds" in exercise("5.2").judge(server, times(100, 200, 150, 500, 50), "ExaTrk_gnn", 500).text
    assert exercise("5.2").judge(server, None, "ExaTrk_gnn", 0.5).kind is Kind.CANNOT_TELL


def rate(mean: float) -> list[float]:
    return [mean * factor for factor in (0.98, 0.99, 1.0, 1.01, 1.02)]


def test_5_3_right_wrong_and_untouched(cut: Server):
    def judge(*answers: object) -> Outcome:
        return exercise("5.3").judge(cut, *answers)

    stage = "ExaTrk_tracks"
    assert judge(stage, rate(50), rate(80), "faster").kind is Kind.CORRECT
    assert judge(stage, rate(50), rate(51), "cannot tell").kind is Kind.CORRECT
    assert judge(stage, rate(50), rate(30), "slower").kind is Kind.CORRECT
    said = judge(stage, rate(50), rate(80), "cannot tell").text
    assert "The interval of the gain goes from 1.56 to 1.64, so that is not `cannot tell`" in said
    assert "from 1.00 to 1.04, so that is not `faster`" in judge(stage, rate(50), rate(51), "faster").text
    assert "Expected one of 'faster'" in judge(stage, rate(50), rate(80), "yes").text
    assert judge(stage, rate(50), 80.0, "faster").kind is Kind.CANNOT_TELL
    assert judge(stage, [50.0], rate(80), "faster").kind is Kind.CANNOT_TELL
    assert judge(stage, rate(50), rate(80), ____).kind is Kind.NOT_ATTEMPTED
    assert "reports 1 instance(s) of" in judge("ExaTrk_gnn", rate(50), rate(80), "faster").text
    assert judge("ExaTrk_nothing", rate(50), rate(80), "faster").kind is Kind.CANNOT_TELL
