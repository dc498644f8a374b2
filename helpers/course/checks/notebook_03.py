"""Checkers of notebook 03, Run inference."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd

from helpers.client import http
from helpers.course import judge
from helpers.course.judge import Outcome, checker, correct, must_be_right, not_yet
from helpers.errors import RequestError
from helpers.measuring.statistics import CANNOT_TELL, FASTER, SLOWER

_TAGGER = "particlenet_AK4"
# What a network of 1 Gbit/s needs for a megabyte, and the way that ends with the machine.
_MS_PER_MB, _HERE_ALONE = 8.0, "shared memory"


@checker("3.1")
def moved_away(seen: Any, predicted: Any, there_ms: Any, fastest: Any) -> Outcome:
    """What a large request takes from another machine by each way, from the student's own table; and which way is the fastest."""
    judge.must_be_made("seen", seen, pd.DataFrame, "the cell that measures the five ways")
    # First the way for which the network matters most: there the slips are far apart.
    others = seen.drop(_HERE_ALONE)
    ways = others.loc[(others["MB"] / others["median"]).sort_values(ascending=False).index]
    right = ways["median"] + _MS_PER_MB * ways["MB"]
    for way, row in ways.iterrows():
        try:
            given = there_ms[way]
        except (TypeError, KeyError, IndexError):
            return not_yet(f"`there_ms` has no `{way}`. Expected one number for each way, as `seen` has them.")
        slips = {
            "That is the time on the network alone; add what the request takes here": _MS_PER_MB * row["MB"],
            "That is the time here; add what its bytes take on the network, in ms (`MB / 125` is in seconds)": row["median"],
            "1 Gbit/s is 125 MB/s: a byte has eight bits": row["median"] + row["MB"],
        }
        otherwise = f"Here it takes {row['median']:.4g} ms, and {row['MB']:.3g} MB travel"
        must_be_right(f"there_ms[{way!r}]", given, float(right[way]), slips, otherwise, unit="ms", relative=0.002)
    if fastest == _HERE_ALONE:
        return not_yet("Shared memory ends where the machine ends: no other machine can use it.")
    if fastest not in list(right.index):
        return not_yet(f"`fastest` is `{fastest!r}`. Expected one of the names in `seen`.")
    if right[fastest] > (1 + judge.ROUNDING) * right.min():
        return not_yet(f"By `{fastest}` it takes {right[fastest]:.4g} ms there, and another way takes less.")
    came_true = "`predicted` does not name each of the five ways once."
    if isinstance(predicted, list) and sorted(map(str, predicted)) == sorted(seen.index):
        pairs = list(itertools.combinations(predicted, 2))
        true = sum(seen["median"][faster] <= seen["median"][slower] for faster, slower in pairs)
        came_true = f"Of the {len(pairs)} pairs in the order that you predicted, {true} came out so."
    return correct(f"By `{fastest}` it would take {right[fastest]:.3g} ms, and {seen['median'][fastest]:.3g} ms here. {came_true}")


@checker("3.2")
def hot_tower(server: Any, before: Any, stream: Any, answers: Any, hottest: Any) -> Outcome:
    """All requests of the stream arrived once, the answers are in order, and the hottest one was found."""
    sent = judge.rise(server, before, "add_sub")
    sums = np.array([event["INPUT0"] + event["INPUT1"] for event in stream])
    if not isinstance(answers, list) or len(answers) != len(sums):
        length = f"{len(answers)} answers" if isinstance(answers, list) else judge.kind(answers)
        return not_yet(f"Expected a list of {len(sums)} answers, and got {length}. `client.infer_many` returns it.")
    try:
        seen = np.array([answer["OUTPUT0"] for answer in answers])
    except (TypeError, KeyError, IndexError):
        return not_yet("Each answer should be a dictionary with `OUTPUT0`, as `client.infer_many` returns it.")
    if not np.allclose(seen, sums):
        return not_yet("The answers are not the sums of the stream, in its order. Send `stream` as it is, and run the whole cell.")
    if sent != len(sums):
        return not_yet(f"The server counted {judge.plain(sent)} requests since `before`; expected {len(sums)}. Run the whole cell again.")
    index, tower = np.unravel_index(np.argmax(sums), sums.shape)
    slips = {
        "You seem to count from 1, and Python counts from 0": index + 1,
        "That is the number of the tower; we asked for the request": tower,
        "That is an index over all towers of all requests; divide it by 16": np.argmax(sums),
        "That request has the largest total; we asked for the largest single tower": np.argmax(sums.sum(axis=1)),
        "That is the coldest one": np.argmin(sums.max(axis=1)),
        "That is the energy of the tower; we asked for the index of its request": sums.max(),
    }
    otherwise = "That request's hottest tower is not the largest of all"
    must_be_right("hottest", hottest, float(index), slips, otherwise, relative=0, absolute=0.1)
    seen_of = f"number {index} has the hottest tower: {sums[index, tower]:.1f} GeV in tower {tower}"
    return correct(f"{len(sums)} requests arrived, and {seen_of}.")


@checker("3.3")
def mended_request(server: Any, mended: Any, ecal: Any, hcal: Any) -> Outcome:
    """A request written by hand that the server answers with the right sums."""
    judge.must_be_server(server)
    if not isinstance(mended, dict) or not isinstance(mended.get("inputs"), list):
        return not_yet("Expected a dictionary with the key `inputs` and a list of two inputs, like `body` above.")
    try:
        outputs = http.ask(server.http, "/v2/models/add_sub/infer", mended, access=server.access)["outputs"]
    except RequestError as error:
        return not_yet(f"The server says: {error} It tells one fault at a time.")
    except (TypeError, ValueError) as error:
        return not_yet(f"This cannot be written as JSON: {error}. Use `.tolist()` for arrays.")
    sums: list[float] = next((output["data"] for output in outputs if output["name"] == "OUTPUT0"), [])
    wanted = np.asarray(ecal, dtype=np.float64) + np.asarray(hcal, dtype=np.float64)
    if len(sums) != len(wanted) or not np.allclose(sums, wanted, rtol=1e-5):
        seen = f"they begin with {sums[:1]}, and `ecal + hcal` with {wanted[0]:.2f}"
        return not_yet(f"The server answers, but with other sums: {seen}. Send the same numbers.")
    return correct(f"The server answers: {len(sums)} sums, all as NumPy has them. Your colleague owes you a coffee.")


@checker("3.4")
def both_servers(server: Any, before: Any, turns: Any, judged: Any) -> Outcome:
    """The verdict on the rates of both servers; how many jets Triton had in each run, by its own counters."""
    sent = judge.must_have_risen(server, before, _TAGGER)
    return judge_turns(turns, judged, sent / judge.rise(server, before, _TAGGER, "nv_inference_exec_count"))


def judge_turns(turns: Any, judged: Any, jets_per_run: float) -> Outcome:
    """Compare with the rates of each turn, with eight clients."""
    gains = [turn["Triton", 8] / turn["web", 8] for turn in turns]

    def answer(ratios: list[float]) -> str:
        return FASTER if min(ratios) > 1 else SLOWER if max(ratios) < 1 else CANNOT_TELL

    word, right = judge.must_be_verdict("judged", judged, (FASTER, SLOWER, CANNOT_TELL)), answer(gains)
    seen = f"Of {len(gains)} ratios, {sum(gain > 1 for gain in gains)} are above 1: from {min(gains):.2f} to {max(gains):.2f}"
    if word != right:
        turned = " Did you divide the other way round?" if word == answer([1 / gain for gain in gains]) else ""
        return not_yet(f"{seen}, so the answer is not `{word}`.{turned}")
    return correct(f"{right.capitalize()}. {seen}. Triton's counters say {jets_per_run:.2f} jets in each run of the network.")
