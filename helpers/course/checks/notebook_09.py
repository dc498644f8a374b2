"""Checkers of notebook 09, Optimise the deployment: the server's config and counters, and verdicts on the student's own rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from helpers.course import judge
from helpers.course.exercises import count_blanks
from helpers.course.judge import CannotTell, Outcome, checker, correct, not_attempted, not_yet
from helpers.course.scoreboard import BUDGET
from helpers.errors import InputError
from helpers.measuring import statistics as verdicts
from helpers.measuring.experiments import Experiments
from helpers.measuring.table import LATENCY_ENDS, THROUGHPUT, is_recorded, is_row, latency_words, plain
from helpers.metrics import scrape
from helpers.repository import Comparison
from helpers.tables import Row

_MODEL = "particlenet_AK4"
_BASELINE, _TWO, _THREADS = "baseline", "2 instances", "2 instances × 2 threads"
# People round: a number counts as right within this fraction.
_ROUNDING = 0.02
# What the analysis of exercise 9.5 can bear.
_LOSS = 0.001
_FIELD = "gpu_execution_accelerator[0].name"


def _row(table: Any, name: str) -> Row:
    """A row of the table, or no answer."""
    if not isinstance(table, Experiments):
        raise CannotTell(f"The check needs your `table`, and got {judge.kind(table)}. Run the cell that makes it again.")
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


def _instances(config: Mapping[str, Any]) -> int:
    return sum(int(group.get("count", 1)) for group in config.get("instance_group", []))


@checker("9.1")
def two_instances(server: Any, table: Any, text: Any) -> Outcome:
    """The server reports two instances, and they were measured; the text only tells whether there was an attempt."""
    if not isinstance(text, str):
        return not_yet(f"`TWO` is {judge.kind(text)}. Expected a text such as the one in `PLAIN`.")
    judge.must_be_server(server)
    served = _instances(server.config(_MODEL))
    if served != 2:
        from helpers.repository import read_config

        written = sum(group.count for group in read_config(_MODEL).instance_group)
        if written == 2:
            return not_yet(f"Your config says 2 instances, and the server still runs {served}. Reload: `server.reload(MODEL)`.")
        return not_yet(f"The server runs {served} instance{'s' * (served != 1)}. Write `count: 2` into the text, and reload.")
    row, first = _row(table, _TWO), _baseline(table)
    seen = verdicts.verdict(first, row)
    return correct(f"The server reports 2 instances. Seen from the baseline: {seen}")


@checker("9.2")
def threads_judged(table: Any, judged: Any) -> Outcome:
    """The verdict on threads that fight for the cores."""
    right = verdicts.verdict(_row(table, _TWO), _row(table, _THREADS))
    word = str(getattr(judged, "answer", judged)).strip().lower().removeprefix("the ")
    known = (verdicts.FASTER, verdicts.SLOWER, verdicts.SAME, verdicts.CANNOT_TELL)
    if word not in [one.removeprefix("the ") for one in known]:
        return not_yet(f"`judged` is {judged!r}. Expected one of {', '.join(f'`{one}`' for one in known)}, or what `verdict(...)` returns.")
    if word != right.answer.removeprefix("the "):
        turned = verdicts.verdict(_row(table, _THREADS), _row(table, _TWO)).answer
        hint = " Did you give the two rows in the other order?" if word == turned.removeprefix("the ") else ""
        return not_yet(f"By your rows the gain is {right.gain:.2f}, so the answer is not `{word}`.{hint}")
    return correct(str(right))


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
        given = judge.number(returned)
        seen = f"The server counted {judge.plain(jets)} jets in {judge.plain(runs)} runs"
        if given is None:
            return not_yet(f"Your function returned {judge.kind(returned)}. Expected one number: the jets divided by the runs.")
        if abs(given - jets / runs) > _ROUNDING * jets / runs:
            slip = "" if abs(given - runs / jets) > _ROUNDING else " You divided the runs by the jets; turn it round."
            return not_yet(f"{seen}, and your function returned {given:.4g}.{slip or ' Divide the jets by the runs of the model.'}")
        ratios.append(jets / runs)
    one, other = ratios
    if one < 1 + _ROUNDING:
        raise CannotTell("No run had two jets: your machine is so busy that requests arrive one by one. Run your cell again.")
    if other > one:
        raise CannotTell(f"Ragged jets ({other:.2f}) shared more runs than padded ones ({one:.2f}). Run your cell again, once.")
    return correct(
        f"{one:.2f} jets in each run when all have one shape, {other:.2f} when they do not: the server only puts together what fits."
    )


@checker("9.4")
def missing_part(view: Any, needs: Any) -> Outcome:
    """What the config view says that the accelerator lacks."""
    if not isinstance(view, Comparison):
        raise CannotTell(f"The check needs your `view`, and got {judge.kind(view)}. Run the cell that makes it again.")
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
    try:
        rows = [row for row in costs if row["discriminant"] == "b_vs_light" and row["largest_change"] > 0]
    except (TypeError, KeyError) as error:
        raise CannotTell("The check needs `costs`. Run the cell that makes it again.") from error
    if isinstance(safe, str):
        safe = [safe]
    if not isinstance(safe, Sequence):
        return not_yet(f"`safe` is {judge.kind(safe)}. Expected a list of names; an empty one is an answer, too.")
    low = {row["model"]: row["auc_change"] - row["auc_change_half_width"] for row in rows}
    right = {name for name, value in low.items() if value > -_LOSS}
    if unknown := [str(name) for name in safe if name not in low]:
        return not_yet(f"`{unknown[0]}` is no variant. Expected names among {', '.join(f'`{name}`' for name in low)}.")
    for name in low:
        if (name in safe) != (name in right):
            change = next(row["auc_change"] for row in rows if row["model"] == name)
            if name in safe:
                return not_yet(
                    f"`{name}`: its change is {change:+.4f}, but the interval begins at {low[name]:+.4f}. For certain means all of it."
                )
            return not_yet(f"`{name}` is missing: its interval begins at {low[name]:+.4f}, above {-_LOSS}.")
    facts = ", ".join(f"{name.removeprefix(_MODEL + '_')} {value:+.4f}" for name, value in low.items())
    return correct(f"The intervals begin at: {facts}. {len(right)} of {len(low)} stay above {-_LOSS}.")


@checker("9.6")
def challenge(server: Any, counted: Any, table: Any, best: Any) -> Outcome:
    """Faster than one's own baseline beyond doubt, inside the budget, measured on this server, and not from the cache."""
    baseline = _baseline(table)
    # Not that of the table: it is the same for everybody.
    budget = table.budget_for(BUDGET)
    if not is_row(best) or best.get(THROUGHPUT) is None or best.get("latency_p95_us") is None:
        return not_yet(f"`best` is {judge.kind(best)}, or has no figures. Expected a row of your table.")
    best = plain(best)
    model = str(best.get("model"))
    if not model.startswith(_MODEL):
        return not_yet(f"`best` is a measurement of `{model}`. Expected `{_MODEL}` or one of its variants.")
    if differs := judge.other_inputs(baseline, best):
        return not_yet(f"{differs} A gain counts with the same jets: `input_data=jets_file`.")
    if not is_recorded(best):
        judge.must_be_server(server)
        if server.config(model).get("response_cache", {}).get("enable"):
            return not_yet("The response cache is on: those are remembered answers. Take `response_cache` out of the config, and reload.")
        risen, needed = judge.rise(server, counted, model), best.get("requests") or 1
        if risen < needed:
            raise CannotTell(
                f"Your server has seen {judge.plain(risen)} requests since `counted`, and `best` is made of {needed}. Run it all again."
            )
    ends = [best.get(name) for name in LATENCY_ENDS]
    if None in ends:
        raise CannotTell(f"The 95th percentile of {best.get('requests')} requests is not known for certain. Measure it again.")
    low, high = (end / 1e3 for end in ends)
    seen = verdicts.verdict(baseline, best)
    waits = f"95th percentile {latency_words(best, 95)} ms"
    if low > budget:
        return not_yet(f"{waits}, over the budget of {budget:g} ms. Take fewer jets in a request, or fewer requests at once.")
    if seen.answer in (verdicts.SLOWER, verdicts.SAME):
        return not_yet(f"That is not faster than your baseline. {seen}")
    if seen.answer == verdicts.CANNOT_TELL:
        raise CannotTell(f"{seen.text} Measure it once more under the same name, or choose settings with a larger gain.")
    if high > budget:
        raise CannotTell(f"{waits}. That may be over {budget:g} ms or not. Stay further away from it.")
    return correct(f"{seen.factor} times your baseline, with a {waits}. Enter the scoreboard.")
