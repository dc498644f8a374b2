"""Checkers of notebook 09, Optimise the deployment: the server's config and counters, and verdicts on the student's own rows."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

import numpy as np

from helpers.client.client import Client
from helpers.course import judge
from helpers.course.checks import measured
from helpers.course.exercises import count_blanks
from helpers.course.judge import CannotTell, Outcome, checker, correct, must_be_right, not_attempted, not_yet, plain
from helpers.course.scoreboard import BUDGET
from helpers.errors import InputError
from helpers.measuring import table as measuring
from helpers.measuring.experiments import Experiments
from helpers.measuring.statistics import verdict
from helpers.metrics import scrape
from helpers.repository import Comparison, read_config
from helpers.repository.configs import instances_of
from helpers.tables import Row

_MODEL = "particlenet_AK4"
# Clients at once, as in the notebook, and how far apart two scores of one jet may be, in another batch.
_CLIENTS, _SAME = 8, 1e-4
# What the analysis of exercise 9.5 can bear.
_LOSS = 0.001
_FIELD = "gpu_execution_accelerator[0].name"


def _row(table: Any, name: str) -> Row:
    """A row of the table, or no answer."""
    judge.must_be_made("table", table, Experiments, "the cell that makes it")
    try:
        row = measuring.plain(table[name])
    except InputError as error:
        raise CannotTell(f"Your table has no row `{name}`. Run the cell that measures it, under this very name.") from error
    if row["model"] != _MODEL:
        raise CannotTell(f"Your row `{name}` is a measurement of `{row['model']}`, not of `{_MODEL}`. Measure it again, as above.")
    return row


@checker("9.1")
def two_instances(server: Any, table: Any, text: Any) -> Outcome:
    """The server reports two instances, and they were measured; the text only tells whether there was an attempt."""
    judge.must_be("TWO", text, str, "a text such as the one in `PLAIN`")
    served = instances_of(judge.must_be_server(server).config(_MODEL))
    if served != 2:
        if sum(group.count for group in read_config(_MODEL).instance_group) == 2:
            return not_yet(f"Your config says 2 instances, and the server still runs {served}. Reload: `server.reload(MODEL)`.")
        return not_yet(f"The server runs {served} instance{'s' * (served != 1)}. Write `count: 2` into the text, and reload.")
    return correct(
        f"The server reports 2 instances. Seen from the baseline: {verdict(_row(table, 'baseline'), _row(table, '2 instances'))}"
    )


@checker("9.2")
def batcher_written(server: Any, my_batcher: Any, requests: Any) -> Outcome:
    """Eight clients call the student's batcher at once: each must get its own scores, and the server fewer requests."""
    judge.must_be_server(server)
    judge.must_be_function("my_batcher", my_batcher)
    with Client(server) as client:
        right = [client.infer(_MODEL, jet)["softmax"] for jet in requests]
        before = scrape(server)
        with ThreadPoolExecutor(_CLIENTS) as clients:
            try:
                given = list(clients.map(my_batcher, requests))
            except FutureTimeoutError:
                return not_yet("A client waited 10 s for its answer. Has the last cell a line that hands it out, and did the thread end?")
    sent = judge.rise(server, before, _MODEL)
    if count_blanks(given):
        return not_attempted()
    for number, (own, seen) in enumerate(zip(right, given, strict=True)):
        shape = getattr(seen, "shape", None)
        if shape not in (own.shape, own.shape[1:]):
            what = f"an array of shape {list(shape)}" if shape is not None else judge.kind(seen)
            return not_yet(f"Client {number} got {what}; it sent one jet, and expects {list(own.shape)}. Take its row alone.")
        if not np.allclose(seen, own, atol=_SAME):
            whose = next((other for other, scores in enumerate(right) if np.allclose(seen, scores, atol=_SAME)), None)
            of = "nobody's jet" if whose is None else f"jet {whose}"
            return not_yet(f"Client {number} got the scores of {of}. Its row is number `n` of the batch.")
    if sent >= len(right):
        raise CannotTell(f"{len(right)} jets came in {plain(sent)} requests: none found company. Run the check again.")
    return correct(f"Each client got its own scores, and {len(right)} jets came in {plain(sent)} requests.")


@checker("9.3")
def batching_proved(server: Any, jets_per_run: Any, equal_shapes: Any, own_shapes: Any) -> Outcome:
    """The student's function is called, for requests of one shape and for requests of many, and compared with the counters."""
    if "dynamic_batching" not in judge.must_be_server(server).config(_MODEL):
        return not_yet("The server reports no `dynamic_batching` for this model. Run the cell that turns it on, and then yours.")
    judge.must_be_function("jets_per_run", jets_per_run)
    ratios = []
    for requests in (equal_shapes, own_shapes):
        before = scrape(server)
        returned = jets_per_run(requests)
        jets, runs = (judge.rise(server, before, _MODEL, f"nv_inference_{name}") for name in ("count", "exec_count"))
        if count_blanks(returned):
            return not_attempted()
        if jets != len(requests):
            raise CannotTell(f"The server counted {plain(jets)} jets for {len(requests)} requests. Does somebody else send any?")
        first = f"The server counted {plain(jets)} jets in {plain(runs)} runs. "
        ratios.append(must_be_right("jets_per_run(...)", returned, (jets, runs), None, "Divide the jets by the runs", first=first))
    one, other = ratios
    if one < 1 + judge.ROUNDING:
        raise CannotTell("No run had two jets: your machine is so busy that requests arrive one by one. Run your cell again.")
    if other > one:
        raise CannotTell(f"Ragged jets ({other:.2f}) shared more runs than padded ones ({one:.2f}). Run your cell again, once.")
    return correct(
        f"{one:.2f} jets in each run when all have one shape, {other:.2f} when they do not: the server only puts together what fits."
    )


@checker("9.4")
def missing_part(view: Any, needs: Any) -> Outcome:
    """What the config view says that the accelerator lacks."""
    judge.must_be_made("view", view, Comparison, "the cell that makes it")
    remark = next((row.remark for row in view.rows if row.field.endswith(_FIELD)), None)
    if remark is None:
        raise CannotTell("Your view has no accelerator. Run the cell with the stanza again, and then yours.")
    if "no effect" not in remark:
        raise CannotTell("On this server the accelerator has an effect: it runs on a GPU. Then nothing is missing; go on.")
    judge.must_be("needs", needs, str, "a word in quotes")
    words = set(re.findall(r"[a-z]+", needs.lower()))
    if "gpu" in words and not {"no", "not", "without", "none", "never"} & words:
        return correct(f"The view says: {remark}.")
    if {"cpu", "tensorrt", "onnx"} & words:
        return not_yet(f"`{needs}` is there. Read the remark: what does the stanza need that this machine does not have?")
    return not_yet(f"`{needs}` is not what the remark says. It stands in the last column, beside `tensorrt`.")


@checker("9.5")
def physics_allows(costs: Any, safe: Any) -> Outcome:
    """The variants whose loss is small enough for certain."""
    changes = _changes(costs)
    names = [safe] if isinstance(safe, str) else safe
    judge.must_be("safe", names, (list, tuple), "a list of names; an empty one is an answer, too")
    if unknown := [str(name) for name in names if name not in changes]:
        return not_yet(f"`{unknown[0]}` is no variant. Expected names among {', '.join(f'`{name}`' for name in changes)}.")
    for name, (low, change) in changes.items():
        if name in names and low <= -_LOSS:
            return not_yet(f"`{name}`: its change is {change:+.4f}, but the interval begins at {low:+.4f}. For certain means all of it.")
        if name not in names and low > -_LOSS:
            return not_yet(f"`{name}` is missing: its interval begins at {low:+.4f}, above {-_LOSS}.")
    facts = ", ".join(f"{name.removeprefix(_MODEL + '_')} {low:+.4f}" for name, (low, _) in changes.items())
    return correct(f"The intervals begin at: {facts}. {len(names)} of {len(changes)} stay above {-_LOSS}.")


def _changes(costs: Any) -> dict[str, tuple[float, float]]:
    """For each variant where the interval of its change in the AUC of b_vs_light begins, and the change."""
    rows = [row for row in costs if row["discriminant"] == "b_vs_light" and row["largest_change"] > 0]
    return {row["model"]: (row["auc_change"] - row["auc_change_half_width"], row["auc_change"]) for row in rows}


@checker("9.6")
def challenge(server: Any, counted: Any, table: Any, best: Any, costs: Any) -> Outcome:
    """Faster than one's own baseline beyond doubt, inside the budget, measured on this server, not from the cache, with its physics."""
    baseline = _row(table, "baseline")
    best = measured.must_be_row("best", best, "a row of your table")
    model = str(best["model"])
    if not model.startswith(_MODEL):
        return not_yet(f"`best` is a measurement of `{model}`. Expected `{_MODEL}` or one of its variants.")
    if model != _MODEL and (low := _changes(costs).get(model, (0.0, 0.0))[0]) <= -_LOSS:
        return not_yet(f"`{model}` may lose {-low:.4f} of the AUC, more than exercise 9.5 allows. Take another variant, or none.")
    if not measuring.is_recorded(best):
        if judge.must_be_server(server).config(model).get("response_cache", {}).get("enable"):
            return not_yet("The response cache is on: those are remembered answers. Take `response_cache` out of the config, and reload.")
        measured.must_be_measured_here(server, counted, best)
    again = "Measure it once more under the same name."
    return measured.faster_within(baseline, best, table.budget_for(BUDGET), "Your entry", again, " Enter the scoreboard.")
