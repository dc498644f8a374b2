"""Checkers of notebook 09, Optimise the deployment: the server's config and counters, and verdicts on the student's own rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

import numpy as np

from helpers.client.client import Client
from helpers.course import judge
from helpers.course.checks import measured
from helpers.course.exercises import count_blanks
from helpers.course.judge import CannotTell, Number, Outcome, checker, correct, not_attempted, not_yet
from helpers.course.scoreboard import BUDGET
from helpers.errors import InputError
from helpers.measuring.experiments import Experiments
from helpers.measuring.statistics import verdict
from helpers.measuring.table import THROUGHPUT, is_recorded, is_row, plain
from helpers.metrics import scrape
from helpers.repository import Comparison, read_config
from helpers.tables import Row

_MODEL = "particlenet_AK4"
_BASELINE, _TWO = "baseline", "2 instances"
# Clients at once, as in the notebook, and how far apart two scores of one jet may be, in another batch.
_CLIENTS, _SAME = 8, 1e-4
# What the analysis of exercise 9.5 can bear.
_LOSS = 0.001
_FIELD = "gpu_execution_accelerator[0].name"


def _row(table: Any, name: str) -> Row:
    """A row of the table, or no answer."""
    judge.must_be(table, Experiments, "table", "the cell that makes it")
    try:
        return plain(table[name])
    except InputError as error:
        raise CannotTell(f"Your table has no row `{name}`. Run the cell that measures it, under this very name.") from error


def _baseline(table: Any) -> Row:
    """The row of one's own baseline, which is the plain model."""
    row = _row(table, _BASELINE)
    if row["model"] != _MODEL:
        raise CannotTell(f"Your row `{_BASELINE}` is a measurement of `{row['model']}`, not of `{_MODEL}`. Measure it again, as above.")
    return row


@checker("9.1")
def two_instances(server: Any, table: Any, text: Any) -> Outcome:
    """The server reports two instances, and they were measured; the text only tells whether there was an attempt."""
    if not isinstance(text, str):
        return not_yet(f"`TWO` is {judge.kind(text)}. Expected a text such as the one in `PLAIN`.")
    groups = judge.must_be_server(server).config(_MODEL).get("instance_group", [])
    served = sum(int(group.get("count", 1)) for group in groups)
    if served != 2:
        if sum(group.count for group in read_config(_MODEL).instance_group) == 2:
            return not_yet(f"Your config says 2 instances, and the server still runs {served}. Reload: `server.reload(MODEL)`.")
        return not_yet(f"The server runs {served} instance{'s' * (served != 1)}. Write `count: 2` into the text, and reload.")
    return correct(f"The server reports 2 instances. Seen from the baseline: {verdict(_baseline(table), _row(table, _TWO))}")


@checker("9.2")
def batcher_written(server: Any, my_batcher: Any, requests: Any) -> Outcome:
    """Eight clients call the student's batcher at once: each must get its own scores, and the server fewer requests."""
    judge.must_be_server(server)
    if not callable(my_batcher):
        return not_yet(f"`my_batcher` is {judge.kind(my_batcher)}. Expected the function, without brackets.")
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
    return judge_batcher(sent, right, given)


def judge_batcher(sent: float, right: Sequence[Any], given: Sequence[Any]) -> Outcome:
    """Compare what the clients got with the scores of their own jets, which came in so many requests."""
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
        raise CannotTell(f"{len(right)} jets came in {judge.plain(sent)} requests: none found company. Run the check again.")
    return correct(f"Each client got its own scores, and {len(right)} jets came in {judge.plain(sent)} requests.")


@checker("9.3")
def batching_proved(server: Any, jets_per_run: Any, equal_shapes: Any, own_shapes: Any) -> Outcome:
    """The student's function is called, for requests of one shape and for requests of many, and compared with the counters."""
    judge.must_be_server(server)
    config = server.config(_MODEL)
    if "dynamic_batching" not in config:
        return not_yet("The server reports no `dynamic_batching` for this model. Run the cell that turns it on, and then yours.")
    if not callable(jets_per_run):
        return not_yet(f"`jets_per_run` is {judge.kind(jets_per_run)}. Expected the function, without brackets.")
    ratios = []
    for requests in (equal_shapes, own_shapes):
        before = scrape(server)
        returned = jets_per_run(requests)
        jets, runs = (judge.rise(server, before, _MODEL, f"nv_inference_{name}") for name in ("count", "exec_count"))
        if count_blanks(returned):
            return not_attempted()
        if jets != len(requests):
            raise CannotTell(f"The server counted {judge.plain(jets)} jets for {len(requests)} requests. Does somebody else send any?")
        first = f"The server counted {judge.plain(jets)} jets in {judge.plain(runs)} runs. "
        otherwise = "Divide the jets by the runs of the model"
        ratios.append(Number("jets_per_run(...)", returned, (jets, runs), otherwise=otherwise, first=first).must_be_right())
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
    judge.must_be(view, Comparison, "view", "the cell that makes it")
    remark = next((row.remark for row in view.rows if row.field.endswith(_FIELD)), None)
    if remark is None:
        raise CannotTell("Your view has no accelerator. Run the cell with the stanza again, and then yours.")
    if "no effect" not in remark:
        raise CannotTell("On this server the accelerator has an effect: it runs on a GPU. Then nothing is missing; go on.")
    if not isinstance(needs, str) or not needs.strip():
        return not_yet(f"`needs` is {judge.kind(needs)}. Expected a word in quotes.")
    words = re.findall(r"[a-z]+", needs.lower())
    if "gpu" in words and not {"no", "not", "without", "none", "never"} & set(words):
        return correct(f"The view says: {remark}.")
    if {"cpu", "tensorrt", "onnx"} & set(words):
        return not_yet(f"`{needs}` is there. Read the remark: what does the stanza need that this machine does not have?")
    return not_yet(f"`{needs}` is not what the remark says. It stands in the last column, beside `tensorrt`.")


@checker("9.5")
def physics_allows(costs: Any, safe: Any) -> Outcome:
    """The variants whose loss is small enough for certain."""
    changes = _changes(costs)
    if isinstance(safe, str):
        safe = [safe]
    if not isinstance(safe, Sequence):
        return not_yet(f"`safe` is {judge.kind(safe)}. Expected a list of names; an empty one is an answer, too.")
    low = {name: interval[0] for name, interval in changes.items()}
    right = {name for name, value in low.items() if value > -_LOSS}
    if unknown := [str(name) for name in safe if name not in low]:
        return not_yet(f"`{unknown[0]}` is no variant. Expected names among {', '.join(f'`{name}`' for name in low)}.")
    for name in low:
        if (name in safe) != (name in right):
            if name in safe:
                seen = f"`{name}`: its change is {changes[name][1]:+.4f}, but the interval begins at {low[name]:+.4f}."
                return not_yet(f"{seen} For certain means all of it.")
            return not_yet(f"`{name}` is missing: its interval begins at {low[name]:+.4f}, above {-_LOSS}.")
    facts = ", ".join(f"{name.removeprefix(_MODEL + '_')} {value:+.4f}" for name, value in low.items())
    return correct(f"The intervals begin at: {facts}. {len(right)} of {len(low)} stay above {-_LOSS}.")


def _changes(costs: Any) -> dict[str, tuple[float, float]]:
    """For each variant where the interval of its change in the AUC of b_vs_light begins, and the change."""
    try:
        rows = [row for row in costs if row["discriminant"] == "b_vs_light" and row["largest_change"] > 0]
        return {row["model"]: (row["auc_change"] - row["auc_change_half_width"], row["auc_change"]) for row in rows}
    except (TypeError, KeyError) as error:
        raise CannotTell("The check needs `costs`. Run the cell that makes it again.") from error


@checker("9.6")
def challenge(server: Any, counted: Any, table: Any, best: Any, costs: Any) -> Outcome:
    """Faster than one's own baseline beyond doubt, inside the budget, measured on this server, not from the cache, with its physics."""
    baseline = _baseline(table)
    if not is_row(best) or best.get(THROUGHPUT) is None or best.get("latency_p95_us") is None:
        return not_yet(f"`best` is {judge.kind(best)}, or has no figures. Expected a row of your table.")
    best = plain(best)
    model = str(best.get("model"))
    if not model.startswith(_MODEL):
        return not_yet(f"`best` is a measurement of `{model}`. Expected `{_MODEL}` or one of its variants.")
    if model != _MODEL and (low := _changes(costs).get(model, (0.0, 0.0))[0]) <= -_LOSS:
        return not_yet(f"`{model}` may lose {-low:.4f} of the AUC, more than exercise 9.5 allows. Take another variant, or none.")
    if not is_recorded(best):
        if judge.must_be_server(server).config(model).get("response_cache", {}).get("enable"):
            return not_yet("The response cache is on: those are remembered answers. Take `response_cache` out of the config, and reload.")
        measured.must_be_measured_here(server, counted, best)
    return judge_entry(baseline, best, table.budget_for(BUDGET))


def judge_entry(baseline: Row, best: Row, budget_ms: float) -> Outcome:
    """Judge the row of an entry; the budget is that of one's own baseline."""
    again = "Measure it once more under the same name."
    return measured.faster_within(baseline, best, budget_ms, "Your entry", again, " Enter the scoreboard.")
