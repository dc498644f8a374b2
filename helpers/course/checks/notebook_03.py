"""Checkers of notebook 03, Run inference."""

from __future__ import annotations

from typing import Any

import numpy as np

from helpers.client import http
from helpers.course import judge
from helpers.course.judge import CannotTell, Number, Outcome, checker, correct, not_yet
from helpers.errors import RequestError
from helpers.measuring.statistics import CANNOT_TELL, FASTER, SLOWER

_TAGGER = "particlenet_AK4"


@checker("3.1")
def one_output(server: Any, before: Any, difference: Any, expected: Any) -> Outcome:
    """One request, and an answer that holds OUTPUT1 only."""
    if not hasattr(difference, "as_numpy"):
        return not_yet(f"`difference` is {judge.kind(difference)}. Keep the whole answer of `by_grpc.infer(...)`: the check looks into it.")
    present = [name for name in ("OUTPUT0", "OUTPUT1") if difference.as_numpy(name) is not None]
    if present != ["OUTPUT1"]:
        return not_yet(
            f"The answer holds {' and '.join(f'`{name}`' for name in present)}. Ask for `OUTPUT1` and nothing else, with `outputs=[...]`."
        )
    values = difference.as_numpy("OUTPUT1")
    if not np.array_equal(values, expected):
        return not_yet(
            f"The first number is {values.flat[0]:.2f}, and `ecal - hcal` begins with {np.ravel(expected)[0]:.2f}. Are the inputs the same?"
        )
    sent = judge.must_have_risen(server, before, "add_sub")
    return correct(
        f"The server counted {judge.plain(sent)} request{'s' if sent > 1 else ''}, "
        f"and {values.nbytes} bytes came back in place of {2 * values.nbytes}."
    )


@checker("3.2")
def hot_tower(server: Any, before: Any, stream: Any, answers: Any, hottest: Any) -> Outcome:
    """All requests of the stream arrived once, the answers are in order, and the hottest one was found."""
    return judge_stream(judge.rise(server, before, "add_sub"), stream, answers, hottest)


def judge_stream(sent: float, stream: Any, answers: Any, hottest: Any) -> Outcome:
    """Compare with the stream, of which the server counted so many requests."""
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
        return not_yet(
            f"The server counted {judge.plain(sent)} requests since `before`; expected {len(sums)}. Run the whole cell again, once."
        )
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
    Number("hottest", hottest, float(index), slips, otherwise, relative=0, absolute=0.1).must_be_right()
    return correct(
        f"{len(sums)} requests arrived, and number {index} has the hottest tower: {sums[index, tower]:.1f} GeV in tower {tower}."
    )


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
        return not_yet(
            f"The server answers, but with other sums: they begin with {sums[:1]}, "
            f"and `ecal + hcal` with {wanted[0]:.2f}. Send the same numbers."
        )
    return correct(f"The server answers: {len(sums)} sums, all as NumPy has them. Your colleague owes you a coffee.")


@checker("3.4")
def both_servers(server: Any, before: Any, turns: Any, judged: Any) -> Outcome:
    """The verdict on the rates of both servers; how many jets Triton had in each run, by its own counters."""
    sent = judge.must_have_risen(server, before, _TAGGER)
    return judge_turns(turns, judged, sent / judge.rise(server, before, _TAGGER, "nv_inference_exec_count"))


def judge_turns(turns: Any, judged: Any, jets_per_run: float) -> Outcome:
    """Compare with the rates of each turn, with eight clients."""
    try:
        gains = [turn["Triton", 8] / turn["web", 8] for turn in turns]
    except (TypeError, KeyError) as error:
        raise CannotTell("The check needs the rates in `turns`. Run the cell that measures them again.") from error

    def answer(ratios: list[float]) -> str:
        return FASTER if min(ratios) > 1 else SLOWER if max(ratios) < 1 else CANNOT_TELL

    word, right = judge.must_be_verdict("judged", judged, (FASTER, SLOWER, CANNOT_TELL)), answer(gains)
    seen = f"Of {len(gains)} ratios, {sum(gain > 1 for gain in gains)} are above 1: from {min(gains):.2f} to {max(gains):.2f}"
    if word != right:
        turned = " Did you divide the other way round?" if word == answer([1 / gain for gain in gains]) else ""
        return not_yet(f"{seen}, so the answer is not `{word}`.{turned}")
    return correct(f"{right.capitalize()}. {seen}. Triton's counters say {jets_per_run:.2f} jets in each run of the network.")
