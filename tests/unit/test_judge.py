"""What checkers share, as tables: numbers with their usual slips, and the logic of checkers that otherwise need a server."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest

from helpers.course.checks import basics, deployment, measuring, physics
from helpers.course.judge import CannotTell, NotYet, must_be_right
from helpers.physics.tracks import STAGES


@pytest.mark.parametrize("given", [0.25, "0.25", 0.2549, 0.246])
def test_a_number_that_people_round_is_right(given: Any) -> None:
    assert must_be_right("share", given, (2, 8)) == 0.25


@pytest.mark.parametrize(
    ("unit", "right", "given", "words"),
    [
        ("ms", 12.0, 12_000, "`t` is 12000. That is in microseconds; divide by 1000."),
        ("ms", 12.0, 0.012, "in seconds; we asked for milliseconds"),
        ("s", 0.7, 700, "in milliseconds; we asked for seconds"),
        ("fraction", 0.15, 15, "in percent; we asked for a fraction from 0 to 1"),
        ("", (2, 8), 4, "the inverse; turn it round"),
        ("", (2, 8), -6, "the difference"),
        ("", (2, 8), 2, "Divide it by the other number"),
        ("", 3, 5, "That is five."),
        ("", 3, 7, "That is another number."),
        ("", 3, math.nan, "should be one number"),
        ("", 3, None, "should be one number, and it is nothing (`None`)"),
        ("", 3, True, "should be one number, and it is `True`"),
        ("", 3, [3, 4], "type `list`"),
        ("", 3, "three", "and it is `'three'`"),
        ("", (0, 8), 1, "another number"),
    ],
)
def test_usual_slips_have_a_name(unit: str, right: Any, given: Any, words: str) -> None:
    with pytest.raises(NotYet) as wrong:
        must_be_right("t", given, right, {"That is five": 5, "That cannot be had": math.nan}, unit=unit)
    assert words in str(wrong.value)


LOG = """\
I1128 09:00:00.100000 1 model_lifecycle.cc:473] "loading: add_sub:1"
I1128 09:00:00.300000 1 python_be.cc:1912] "TRITONBACKEND_ModelInstanceInitialize: add_sub_0_0 (CPU device 0)"
I1128 09:00:00.800000 1 model_lifecycle.cc:849] "successfully loaded 'add_sub'"
"""


def _log(loading_s: Any) -> str:
    report = {"loading_s": loading_s, "instances": 1, "metrics_port": "localhost:9002"}
    return basics.judge_log(LOG, report, {"HTTP": 9000, "gRPC": 9001, "metrics": 9002})


def test_1_2_a_loading_time_is_read_to_a_tenth_of_a_second() -> None:
    for right in (0.7, "0.7", 0.69, 0.72):
        assert "0.7 s, 1 instance" in _log(right)
    for wrong in (0.1, 0.5, 0.9, 1.0, 1.3, 700):
        with pytest.raises(NotYet, match="milliseconds" if wrong == 700 else "Compare the lines"):
            _log(wrong)
    with pytest.raises(CannotTell, match="does not show"):
        basics.judge_log("", {}, {})


@pytest.mark.parametrize(
    ("ratios", "judged", "words"),
    [
        ((1.2, 1.1, 1.3), "faster", "Faster. Of 3 ratios, 3 are above 1: from 1.10 to 1.30. Triton's counters say 2.50 jets"),
        ((0.5, 0.9, 0.8), "slower", "Slower."),
        ((0.5, 1.1, 0.8), "Cannot tell", "Cannot tell. Of 3 ratios, 1 are above 1"),
    ],
)
def test_3_4_rates_are_judged_turn_by_turn(ratios: tuple[float, ...], judged: str, words: str) -> None:
    turns = [{("Triton", 8): 100 * ratio, ("web", 8): 100.0} for ratio in ratios]
    assert words in basics.judge_turns(turns, judged, 2.5)
    for wrong in ("the same", 1.2, None):
        with pytest.raises(NotYet, match="Expected one of"):
            basics.judge_turns(turns, wrong, 2.5)
    with pytest.raises(NotYet, match="so the answer is not `slower`"):
        basics.judge_turns([{("Triton", 8): 100.0 * ratio, ("web", 8): 100.0} for ratio in (1.2, 0.9, 1.3)], "slower", 2.5)


SAME = {"careful": 1.0, "by length": 0.04, "put back": 0.993, "ones": 0.55, "random": 0.0}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (("by length", "random"), "`ones` gives 55 % of the jets their own score. So `ones` belongs into `wrong`."),
        ("random", "`by length` gives 4 %"),
        (["by length", "put back", "ones", "random"], "`put back` gives 99 % of the jets their own score. So `put back` does not belong"),
        (["masks"], "has `masks` in it"),
        (None, "Expected a list of names"),
        (dict.fromkeys(SAME, 1), "Expected a list of names"),
    ],
)
def test_4_6_clients_are_judged_jet_by_jet(wrong: Any, words: str) -> None:
    said = physics.judge_clients(SAME, SAME, ["random", "by length", "ones"])
    assert "careful 100 %, by length 4 %, put back 99 %, ones 55 %, random 0 %" in said
    with pytest.raises(NotYet, match=words):
        physics.judge_clients(SAME, SAME, wrong)


@pytest.mark.parametrize(
    ("same", "words"),
    [
        (SAME | {"ones": 55}, r"in percent"),
        (SAME | {"ones": 0.8}, r"`same\['ones'\]` is 0.8"),
        (SAME | {"ones": None}, r"should be one number"),
        ({"careful": 1.0}, "has no `by length`. Expected 5 numbers"),
        (0.5, "has no `careful`"),
    ],
)
def test_4_6_a_wrong_part_has_a_name(same: Any, words: str) -> None:
    with pytest.raises(NotYet, match=words):
        physics.judge_clients(SAME, same, ["random", "by length", "ones"])


def test_5_2_the_stage_is_judged_from_the_table_alone() -> None:
    times = pd.DataFrame({"stage": STAGES, "total_ms": [10.0, 20, 15, 50, 5]})
    assert "50.0 ms of 100.0 ms" in physics._slowest_stage(None, times, "ExaTrk_gnn", 0.5)
    for stage, part, words in (("ExaTrk_graph", 0.5, "another stage"), ("ExaTrk_gnn", 50, "in percent")):
        with pytest.raises(NotYet, match=words):
            physics._slowest_stage(None, times, stage, part)


# Of eight requests: queue, all, network, input, output.
LIVES_US = dict(zip(("queue", "request", "compute_infer", "compute_input", "compute_output"), (60e3, 100e3, 30e3, 4e3, 5e3), strict=True))


def test_6_4_the_picture_is_judged_by_the_counters() -> None:
    for right in (0.6, "0.6", 0.62):
        assert "60 %: of 100.0 ms in 8 requests, 60.0 ms were waiting" in measuring.judge_share(8, LIVES_US, right)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (60, "in percent"),
        (0.3, "the network itself"),
        (0.39, "all computing"),
        (0.9, "The counters say 0.600"),
        (None, "should be one number"),
    ],
)
def test_6_4_usual_slips(given: Any, words: str) -> None:
    with pytest.raises(NotYet, match=words):
        measuring.judge_share(8, LIVES_US, given)
    with pytest.raises(CannotTell, match="counted 9 requests since"):
        measuring.judge_share(9, LIVES_US, given)


def test_10_3_shares_are_judged_from_the_counters_alone() -> None:
    assert "6 : 4 requests. The load was shared" in deployment.judge_shares([6, 4], [0.6, 0.4])
    for given, words in {(60, 40): "percent", (6, 4): "Divide each", (0.4, 0.6): "other order", (0.9, 0.1): "rose by 6 and 4"}.items():
        with pytest.raises(NotYet, match=words):
            deployment.judge_shares([6, 4], list(given))
