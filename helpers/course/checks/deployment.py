"""Checkers of notebooks 09 to 11: the server's config and counters, and verdicts on the student's own rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd

from helpers import paths
from helpers.client import Client
from helpers.course import judge
from helpers.course.checks import measuring
from helpers.course.checks.measuring import MODEL
from helpers.course.judge import NotYet, checker, counted, must, must_be, must_be_number, must_be_right, must_choose, needs
from helpers.course.model_card import facts
from helpers.course.scoreboard import BUDGET
from helpers.errors import ConfigError, CourseError, InputError, quoted
from helpers.fleet import Fleet
from helpers.measuring.experiments import Experiments
from helpers.measuring.statistics import FASTER, verdict
from helpers.measuring.table import LATENCY_ENDS, THROUGHPUT, is_recorded, rows_of
from helpers.metrics import Snapshot, scrape
from helpers.repository import Comparison, read_config
from helpers.repository.configs import instances_of
from helpers.repository.syntax import parse
from helpers.scaling.capacity import plan
from helpers.server import Server
from helpers.tables import Row, cell

# Clients at once, as in the notebook, and how far apart two scores of one jet may be, in another batch.
_CLIENTS, _SAME = 8, 1e-4
# What the analysis of exercise 9.5 can bear.
_LOSS = 0.001
# A server that answered less than this part of what would be its own did not really share.
_FAIR = 0.5
# What exercise 11.2 asks for, and what a 16-bit number rounds by: a tolerance as wide as that notices nothing.
_JETS, _HALF = 64, 2.0**-11
# Batches and lengths that are tried where the model takes any.
_TRIED = ((1, 3), (2, 7))


@checker("9.1")
def _two_instances(server: Server, table: Experiments, text: Any) -> str:
    # The text only tells whether there was an attempt.
    served, written = instances_of(server.config(MODEL)), sum(group.count for group in read_config(MODEL).instance_group)
    todo = "Reload: `server.reload(MODEL)`." if written == 2 else "Write `count: 2` into the text, and reload."
    must(served == 2, f"Your config says {written} instance(s), and the server runs {served}. {todo}")
    return f"The server reports 2 instances. Seen from the baseline: {verdict(table['baseline'], table['2 instances'])}"


@checker("9.2")
def _batcher_written(server: Server, my_batcher: Any, requests: Any) -> str:
    must_be("my_batcher", my_batcher, Callable, "the function, without brackets")
    with Client(server) as client:
        right = [client.infer(MODEL, jet)["softmax"] for jet in requests]
    before = scrape(server)
    with ThreadPoolExecutor(_CLIENTS) as clients:
        try:
            given = list(clients.map(my_batcher, requests))
        except TimeoutError as error:
            lost = "A client waited 10 s for its answer. Has the last cell a line that hands it out, and did the thread end?"
            raise NotYet(lost) from error
    sent, *_ = counted(server, before, MODEL)
    for number, (own, seen) in enumerate(zip(right, given, strict=True)):
        shape, what = np.shape(seen), judge.kind(seen)
        wanted = f"it sent one jet, and expects {list(own.shape)}. Take its row alone"
        must(shape in (own.shape, own.shape[1:]), f"Client {number} got {what} of shape {list(shape)}; {wanted}.")
        whose = [other for other, scores in enumerate(right) if np.allclose(seen, scores, atol=_SAME)]
        of = f"jet {whose[0]}" if whose else "nobody's jet"
        must(number in whose, f"Client {number} got the scores of {of}. Its row is number `n` of the batch.")
    needs(sent < len(right), f"{len(right)} jets came in {sent} requests: none found company. Run the check again.")
    return f"Each client got its own scores, and {len(right)} jets came in {sent} requests."


@checker("9.3")
def _batching_proved(server: Server, jets_per_run: Any, equal_shapes: Any, own_shapes: Any) -> str:
    batching = "dynamic_batching" in server.config(MODEL)
    must(batching, "The server reports no `dynamic_batching` for this model. Run the cell that turns it on, and then yours.")
    must_be("jets_per_run", jets_per_run, Callable, "the function, without brackets")
    ratios = []
    for requests in (equal_shapes, own_shapes):
        before = scrape(server)
        returned = jets_per_run(requests)
        _, jets, runs = counted(server, before, MODEL)
        needs(jets == len(requests), f"The server counted {jets} jets for {len(requests)} requests. Does somebody else send any?")
        first = f"The server counted {jets} jets in {runs} runs. "
        ratios.append(must_be_right("jets_per_run(...)", returned, (jets, runs), None, "Divide the jets by the runs", first=first))
    one, other = ratios
    alone = "No run had two jets: your machine is so busy that requests arrive one by one. Run your cell again."
    needs(one >= 1 + judge.ROUNDING, alone)
    needs(other <= one, f"Ragged jets ({other:.2f}) shared more runs than padded ones ({one:.2f}). Run your cell again, once.")
    fits = "the server only puts together what fits"
    return f"{one:.2f} jets in each run when all have one shape, {other:.2f} when they do not: {fits}."


@checker("9.4")
def _missing_part(view: Comparison, needed: Any) -> str:
    remark = next((row.remark for row in view.rows if row.field.endswith("gpu_execution_accelerator[0].name")), None)
    needs(remark is not None, "Your view has no accelerator. Run the cell with the stanza again, and then yours.")
    needs("no effect" in str(remark), "On this server the accelerator has an effect: it runs on a GPU. Then nothing is missing; go on.")
    word = str(needed).lower().removeprefix("a ").strip(" .")
    must(word == "gpu", f"`{needed}` is not what the remark says: one word, in the last column, beside `tensorrt`.")
    return f"The view says: {remark}."


@checker("9.5")
def _physics_allows(costs: Any, safe: Any) -> str:
    changes = _changes(costs)
    why = {name: f"The interval of its change begins at {low:+.4f}, and for certain means all of it" for name, low in changes.items()}
    right = {name: low > -_LOSS for name, low in changes.items()}
    must_choose("safe", safe, right, why)
    facts = ", ".join(f"{name.removeprefix(MODEL + '_')} {low:+.4f}" for name, low in changes.items())
    return f"The intervals begin at: {facts}. {sum(right.values())} of {len(changes)} stay above {-_LOSS}."


def _changes(costs: Any) -> dict[str, float]:
    """For each variant where the interval of its change in the AUC of b_vs_light begins."""
    rows = [row for row in costs if row["discriminant"] == "b_vs_light" and row["largest_change"] > 0]
    return {row["model"]: row["auc_change"] - row["auc_change_half_width"] for row in rows}


@checker("9.6")
def _challenge(server: Server, counted: Snapshot, table: Experiments, best: Any, costs: Any) -> str:
    lowest = {MODEL: 0.0} | _changes(costs)
    row = measuring.must_be_row("best", best, "a row of your table", lowest)
    model = str(row["model"])
    lossy = f"`{model}` may lose {-lowest[model]:.4f} of the AUC, more than exercise 9.5 allows. Take another variant, or none."
    must(lowest[model] > -_LOSS, lossy)
    cached = server.config(model).get("response_cache", {}).get("enable")
    must(not cached, "The response cache is on: those are remembered answers. Take `response_cache` out of the config, and reload.")
    measuring.needs_measured_here(server, counted, row)
    again, budget_ms = "Measure it once more under the same name.", table.budget_for(BUDGET) or 0
    return measuring.must_be_faster(table["baseline"], row, budget_ms, "Your entry", again) + " Enter the scoreboard."


def _rows(one: Any) -> list[Row]:
    """Rows of the first fleet in the order of their concurrency, or no answer."""
    rows = rows_of(one, [THROUGHPUT, "servers", "concurrency", "queue_us"], "the check")
    needs(not any(map(is_recorded, rows)), "A row was not measured here. Run the cell with `by_concurrency` again.")
    return sorted(rows, key=lambda row: row["concurrency"])


@checker("10.1")
def _saturation_found(fleet: Fleet, one: Any, saturated: Any, in_queue: Any) -> str:
    rows = _rows(one)
    seen, made = (sum(row["requests"] or 0 for row in some) for some in (fleet.shares(model=MODEL), rows))
    needs(seen >= made, f"Your fleet has seen {seen} requests, and `one` is made of {made}: it is another fleet. Run `one` again.")
    chosen, last = measuring.must_be_knee("saturated", saturated, rows, "concurrency"), rows[-1]
    per_us = last[THROUGHPUT] / last["batch"] / 1e6
    waiting = per_us * last["queue_us"]
    slips = {
        f"That counts jets: a request has {last['batch']} of them": waiting * last["batch"],
        "`queue_us` is in microseconds: divide by a million": waiting * 1e6,
        "That is the concurrency: all that were under way. We asked for those in the queue": last["concurrency"],
        "That takes the whole latency; take the time in the queue, `queue_us`": per_us * (last.get("latency_p50_us") or math.nan),
    }
    otherwise = f"Multiply requests per second by seconds in the queue, both from the row with concurrency {last['concurrency']}"
    must_be_right("in_queue", in_queue, waiting, slips, otherwise, first="`saturated` is right. ")
    fastest = max(row[THROUGHPUT] for row in rows)
    queue = f"{waiting:.1f} stood in the queue, each for {last['queue_us'] / 1e3:.0f} ms: the server works on one, and the others wait"
    return f"Saturated from {chosen['concurrency']} on, at {fastest:.0f} jets/s. With {last['concurrency']} under way, {queue}."


@checker("10.2")
def _servers_chosen(fleet: Fleet, one: Any, traffic: Any, budget_ms: Any, servers: Any) -> str:
    found, given = plan(traffic, _rows(one), budget_ms), must_be_number("servers", servers, "a whole number of servers")
    must(given == int(given) >= 1, f"`servers` is {cell(given)}. It should be a whole number of servers.")
    fewest, most = found.servers_interval
    can, come, taken_ms = given * found.jets_per_s, found.traffic.jets_per_s, found.latency_p95_ms(int(given))
    grows = f"That is {can:.0f} jets/s at most, and {come:.0f} come: the queue grows without end"
    must(given >= fewest or can > come, f"`servers` is {given:.0f}. {grows}.")
    late = f"They can do it, but 95 of 100 requests take up to {taken_ms:.0f} ms, and the budget is {found.budget_ms:.0f}"
    must(given >= fewest, f"`servers` is {given:.0f}. {late}.")
    must(given <= most, f"`servers` is {given:.0f}. That would do, but {most} keep the budget, too, and cost less.")
    busy = f"{given:.0f} servers are busy {100 * come / can:.0f} % of the time"
    within = f"95 of 100 requests are expected within {taken_ms:.0f} ms of {found.budget_ms:.0f}"
    return f"{busy}, and {within}. Your fleet has {len(fleet.servers)} now; measure it."


@checker("10.3")
def _load_shared(fleet: Fleet, before: list, shares: Any) -> str:  # type: ignore[type-arg]
    needs(len(fleet.servers) == len(before) > 1, "The check needs two servers, and a reading `before` of each. Run your cell again.")
    counts = [counted(server, reading, MODEL)[0] for server, reading in zip(fleet.servers, before, strict=True)]
    needs(any(counts), "None of your servers has seen a request since `before`. Run your cell again from its first line.")
    return judge_shares(counts, shares)


def judge_shares(counts: Sequence[float], shares: Any) -> str:
    """Compare with what each server's own counter says."""
    rose = pd.Series(counts)
    right = rose / rose.sum()
    slips = {
        "Those are the numbers of requests. Divide each by the sum of both": rose,
        "That is the other order; the first is `fleet.servers[0]`": right[::-1].reset_index(drop=True),
    }
    otherwise = f"The servers' counters rose by {' and '.join(map(str, counts))} since `before`"
    judge.must_all_be_right("shares", shares, right, slips, otherwise, unit="fraction", relative=0, absolute=0.005)
    uneven = "Shared, but not evenly: one of them was slower, so it got fewer."
    even = "The load was shared." if right.min() >= _FAIR / len(counts) else uneven
    return f"{' : '.join(map(str, counts))} requests. {even}"


@checker("10.4")
def _nothing_lost(fleet: Fleet, tagged: Any, lost: Any, doubled: Any) -> str:
    seen = sum(row["inferences"] or 0 for row in fleet.shares(model=tagged.model))
    other = f"Your fleet has seen {seen} jets, and {tagged.tagged} were tagged by another one. Run `tag_files` with a new output."
    needs(seen >= tagged.tagged, other)
    right = tagged.check()
    slips = {"That is the number of jets that have scores": right["jets"] - right["lost"]}
    for name, given in (("lost", lost), ("doubled", doubled)):
        must_be_right(name, given, right[name], slips, f"In the files it is {right[name]}", relative=0)
    if right["lost"] or right["doubled"]:
        return f"{right['lost']} of {right['jets']} jets are lost, {right['doubled']} doubled: run `tag_files` again."
    sent = f"your fleet's counters saw {seen} jets" if tagged.tagged else "all of them were tagged before"
    return f"{right['jets']} jets, each with scores, each once; {sent}."


def _try(server: Server, model: str, batch: int, length: int) -> None:
    """Send one request of made-up numbers, which the server must answer."""
    with Client(server) as client:
        try:
            answer = client.infer(model, client.signature(model).example(batch, length))
        except CourseError as error:
            raise NotYet(f"A request of {batch} with a length of {length} failed: {error}") from error
    for name, array in answer.items():
        shape = f"`{name}` has the shape {list(array.shape)} for a request of {batch}; its first axis should count them."
        must(array.shape[:1] == (batch,), shape)


@checker("11.1")
def _exported(server: Server, model: str, done: Any, script: Any) -> str:
    about = server.metadata(model)
    # Another file, also another format, is the student's own: then it does not matter what became of the script.
    file = server.repository / model / about["versions"][-1] / "model.onnx"
    ours = paths.root() / "notebooks" / "data" / "jet_transformer" / "exported.onnx"
    if done.returncode and file.is_file() and file.read_bytes() == ours.read_bytes():
        last = done.stderr.strip().splitlines()[-1]
        needs("No module named 'torch'" not in last, "The server's environment has no PyTorch. Type: make setup TORCH=yes")
        raise NotYet(f"Your script ended with an error, so the server has the course's own export. Its last line: `{last[:300]}`")
    for each in about["inputs"]:
        fixed = [f"axis {axis} is {size}" for axis, size in enumerate(each["shape"]) if axis in (0, 2) and size > 0]
        free = not fixed or (each["shape"][0] < 0 and not each["name"].endswith(("_mask", "_features")))
        must(free, f"`{each['name']}` has the shape {each['shape']}: {' and '.join(fixed)} for ever. Name that axis in the export.")
    for batch, length in _TRIED:
        _try(server, model, batch, length)
    shapes = ", ".join(f"`{each['name']}` {each['shape']}" for each in about["inputs"])
    return f"The server has {shapes}, and answered requests of other sizes than the example's."


@checker("11.2")
def _configured(server: Server, model: str, text: Any) -> str:
    about, served = server.metadata(model), server.config(model)["max_batch_size"]
    try:
        written = parse(str(text))
    except ConfigError as error:
        raise NotYet(str(error)) from error
    reason = server.refusals.get(model, "").rstrip(".")
    must(not reason, f"The server refused your config, and still has the one from before. It said: {reason}.")
    for role, entries in (("input", written.input), ("output", written.output)):
        missing = {each["name"] for each in about[f"{role}s"]} - {entry.name for entry in entries}
        must(not missing, f"Your file has no {role} {quoted(sorted(missing))}, which the model has. Write it by hand.")
    same = written.max_batch_size == served
    must(same, f"Your file says {written.max_batch_size} in a request, and the server still {served}. Reload.")
    must(served >= _JETS, f"`max_batch_size` is {served}; up to {_JETS} in a request were asked for.")
    _try(server, model, _JETS, _TRIED[-1][1])
    return f"The server has your config, and answered {_JETS} in one request."


@checker("11.3")
def _agrees(server: Server, model: str, inputs: Any, local: Any, tolerance: Any) -> str:
    given = must_be_number("tolerance", tolerance)
    with Client(server) as client:
        served = client.infer(model, inputs)
    seen = max(float(np.abs(served[name] - local[name]).max() / np.abs(local[name]).max()) for name in served)
    differ = f"The answers differ by {seen:.1e} of the largest one. That is no rounding: are they of the same file and inputs?"
    must(seen <= _HALF, differ)
    wide = f"`tolerance` is {given:.1e}. A network that computes with 16 bits would pass: those round by {_HALF:.0e}."
    must(given < _HALF, wide)
    must(given >= seen, f"`tolerance` is {given:.1e}, and the rounding seen is {seen:.1e}. How many additions are there?")
    return f"{seen:.1e} seen, {given:.1e} allowed; 16-bit numbers would round by {_HALF:.0e}."


@checker("11.4")
def _batch_chosen(table: Experiments, best: Any) -> str:
    try:
        chosen = dict(table[best])
    except InputError as error:
        raise NotYet(f"{error.happened} {error.expected}") from error
    budget_ms = table.budget_ms or 0
    waits = measuring.must_be_inside(f"`{best}`", chosen, budget_ms)
    for row in table.rows:
        if row["model"] == chosen["model"] and (row.get(LATENCY_ENDS[1]) or np.inf) <= 1e3 * budget_ms and row["experiment"] != best:
            seen = verdict(chosen, row)
            must(seen.answer != FASTER, f"`{row['experiment']}` is inside the budget, too, and faster. {seen.text}")
    return f"`{best}` has a 95th percentile of {waits} ms, within {budget_ms} ms, and no row inside the budget is faster for certain."


@checker("11.5")
def _instances_kept(server: Server, model: str, table: Experiments, count: Any) -> str:
    served, asked = instances_of(server.config(model)), must_be_number("count", count, "1 or 2")
    two, seen = table["2 instances"], table.judged("2 instances")
    # Where its interval reaches over the budget, it may be inside or not: then either will do.
    sides = {two.get(end) is not None and two[end] <= 1e3 * (table.budget_ms or 0) for end in LATENCY_ENDS}
    possible = {2 if inside else 1 for inside in sides} if seen and seen.answer == FASTER else {1}
    must(asked in possible, f"`count` is {cell(asked)}. {seen} If the verdict cannot tell, take the simpler one.")
    must(served == asked, f"`count` is right, and the server runs {served}. Write it into `config.pbtxt`, and reload.")
    return f"The server runs {served}. {seen}"


@checker("11.6")
def _card_handed_in(server: Server, model: str, card: Any, purpose: Any, limits: Any) -> str:
    for name, text in (("purpose", purpose), ("limits", limits)):
        must(len(str(text).split()) >= 5, f"`{name}` is `{text}`. Say it in a sentence, of five words at least.")
    must(purpose.strip() != limits.strip(), "`purpose` and `limits` are the same sentence. Where does the purpose end?")
    written = (server.repository / model / "MODEL_CARD.md").read_text(encoding="utf-8")
    for what, value in (("purpose", purpose), ("limits", limits), *facts(server, model)):
        must(value in written, f"The card does not have the {what} as it is now: {value}. Make the card again.")
    return "`MODEL_CARD.md`, in the model's folder, agrees with the server."
