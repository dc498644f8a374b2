"""Checkers of notebooks 06 to 11: they look at counters, at the server's config, and at the student's own measured rows."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd

from helpers import paths
from helpers.client import Client
from helpers.course import judge
from helpers.course.judge import EXECUTIONS, INFERENCES, SUCCESS, NotYet, counted, must, must_be, must_be_number, must_be_right, needs
from helpers.course.scoreboard import BUDGET
from helpers.errors import CourseError, quoted
from helpers.fleet import Fleet
from helpers.measuring import statistics
from helpers.measuring.experiments import Experiments
from helpers.measuring.statistics import FASTER, verdict
from helpers.measuring.table import LATENCY_ENDS, THROUGHPUT, latency_words, plain, recorded, rows_of
from helpers.metrics import Difference, Snapshot, scrape
from helpers.metrics import parse as parse_page
from helpers.repository import Comparison, read_config
from helpers.repository.configs import instances_of
from helpers.repository.syntax import parse
from helpers.scaling.capacity import plan
from helpers.server import Server
from helpers.tables import Row, cell

MODEL = "particlenet_AK4"
_TORCH = "particlenet_AK4_PT"
_VERDICTS = (FASTER, statistics.SLOWER, statistics.SAME.removeprefix("the "), statistics.CANNOT_TELL)
# A curve has its knee where this fraction of the highest throughput is reached, and a spread excuses no more than this.
_KNEE, _KNEE_MARGIN = 0.9, 0.1
# Requests that the notebook traces, and part by which trace and counters may differ.
_TRACED, _PICTURE = 8, 0.05
# From here on requests were put together, and not by chance.
_TOGETHER = 1.5
_CANDIDATES, _BATCH_OF_VERDICT, _BATCH_OF_GPU = 20, 16, 4
# Clients at once, as in the notebook, and how far apart two scores of one jet may be, in another batch.
_CLIENTS, _SAME = 8, 1e-4
# What the analysis of exercise 9.5 can bear.
_LOSS = 0.001
# What exercise 11.2 asks for, and what a 16-bit number rounds by: a tolerance as wide as that notices nothing.
_JETS, _HALF = 64, 2.0**-11
# Batches and lengths that are tried where the model takes any.
_TRIED = ((1, 3), (2, 7))


def must_be_row(name: str, given: Any, expected: str, models: Collection[str], **settings: int) -> Row:
    """A measured row of one of these models, with these settings."""
    whole = isinstance(given, (Mapping, pd.Series)) and all(given.get(column) is not None for column in (THROUGHPUT, "latency_p95_us"))
    must(whole, f"`{name}` is {judge.kind(given)}, or has no figures. Expected {expected}.")
    row = plain(given)
    must(row["model"] in models, f"`{name}` is a measurement of `{row['model']}`; we asked for {' or '.join(models)}.")
    for setting, asked in settings.items():
        must(row[setting] == asked, f"`{name}` was measured with a {setting} of {row[setting]}; we asked for {asked}.")
    return row


def must_be_pair(pair: Any, model: str, **settings: int) -> tuple[Row, Row]:
    """What ``measure_in_turn(...)`` returns for two loads of a model."""
    expected = "the two rows that `measure_in_turn(...)` returns for two loads"
    must(isinstance(pair, (tuple, list)) and len(pair) == 2, f"`pair` is {judge.kind(pair)}. Expected {expected}.")
    first, second = (must_be_row(f"pair[{place}]", each, expected, [model], **settings) for place, each in enumerate(pair))
    return first, second


def must_be_knee(name: str, given: Any, found: Sequence[Row], column: str) -> Row:
    """The row that a student chose as the first that reaches 90 % of the highest throughput, or one whose spread reaches over the 90 %."""
    best = max(found, key=lambda row: row[THROUGHPUT])
    right = next(row for row in found if row[THROUGHPUT] >= _KNEE * best[THROUGHPUT])
    chosen = {row[column]: row for row in found}.get(judge.number(given))
    if chosen is None:
        raise NotYet(f"`{name}` should be one of {', '.join(str(row[column]) for row in found)}, and it is `{given!r}`.")
    share, half = chosen[THROUGHPUT] / best[THROUGHPUT], (chosen.get("throughput_spread_infer_per_s") or 0.0) / best[THROUGHPUT]
    on_the_line = chosen is not best and abs(share - _KNEE) < min(half, _KNEE_MARGIN)
    seen = f"`{name}` is {chosen[column]}, which reaches {100 * share:.0f} % of the highest throughput"
    why = f". A smaller one, {right[column]}, is at 90 % or more already." if chosen[column] > right[column] else "; 90 % was asked."
    must(chosen is right or on_the_line, seen + why)
    return chosen


def must_be_inside(name: str, row: Row, budget_ms: float) -> str:
    """The 95th percentile of a row in words: not over the budget for certain, and inside it for certain or "cannot tell"."""
    low, high = (row.get(end) for end in LATENCY_ENDS)
    waits = latency_words(row, 95)
    seen = f"{name} has a 95th percentile of {waits} ms"
    if low is None or high is None:
        raise CourseError(f"{seen}: its percentile is not known, of {row.get('requests')} requests. Measure it once more.")
    must(low <= 1e3 * budget_ms, f"{seen}, over the budget of {budget_ms} ms. Take fewer jets, or fewer requests at once.")
    needs(high <= 1e3 * budget_ms, f"{seen}: that may be over {budget_ms} ms or not. Choose one that is clearly inside, or measure again.")
    return waits


def must_be_faster(baseline: Row, best: Row, budget_ms: float, name: str, again: str) -> str:
    """An entry that is faster than the baseline beyond doubt, with the same inputs and inside the budget, said in words."""
    # Shorter jets are answered sooner.
    sent = [(row.get("inputs_digest") or row["inputs"], row.get("shapes") or "") for row in (baseline, best)]
    other = f"`best` was measured with other inputs, {sent[1]}, than the baseline, {sent[0]}. A gain counts with the same inputs."
    must(sent[0] == sent[1], other)
    seen, waits = verdict(baseline, best), must_be_inside(name, best, budget_ms)
    must(seen.answer in (FASTER, statistics.CANNOT_TELL), f"{name} is not faster than the baseline. {seen}")
    needs(seen.answer == FASTER, f"{name}: {seen.text} {again} Or choose settings with a larger gain.")
    return f"{name} is {seen.factor} times as fast as the baseline, with a 95th percentile {waits} ms."


def _check_6_1(server: Any, page: str, number: Any) -> str:
    read = Snapshot(0.0, tuple(parse_page(page))).value
    slips = {f"That is `{INFERENCES}`": read(INFERENCES, model=MODEL), "That is the line of `add_sub`": read(SUCCESS, model="add_sub")}
    otherwise = f"Look for `{SUCCESS}` with the label of `{MODEL}`"
    true = must_be_right("counted", number, read(SUCCESS, model=MODEL), slips, otherwise, relative=0)
    return f"{cell(true)} requests, and none was yours: the warm-up in the model's config, before it was READY."


def _check_6_2(server: Server, before: Snapshot, answers: Any) -> str:
    requests, jets, runs = counted(server, before, MODEL)
    seen = f"The server counted {requests} requests and {jets} inferences since `before`"
    must((requests, jets) == (4, 40), f"{seen}; wanted are 4 with 10 jets in each. Run the whole cell again, once: it reads `before`, too.")
    return f"4 requests with 40 inferences, in {runs} executions."


def _check_6_3(server: Server, change: Difference, mean_ms: Any) -> str:
    requests, jets = (change.value(name, model=MODEL) for name in (SUCCESS, INFERENCES))
    total_ms = change.value("nv_inference_request_duration_us", model=MODEL) / 1e3
    needs(requests, "Between the two readings there was no request. Run the cell above again.")
    slips = {"That is the time per jet; we asked for that of a request": total_ms / jets}
    otherwise = "Take duration and requests from `change`"
    true = must_be_right("mean_ms", mean_ms, (total_ms, requests), slips, otherwise, unit="ms", absolute=0.006)
    return f"{true:.2f} ms: {1e3 * total_ms:.0f} µs in {cell(requests)} requests. What came before them plays no part."


def _check_6_4(server: Server, before: Snapshot, share: Any) -> str:
    requests, *_ = counted(server, before, MODEL)
    needs(requests == _TRACED, f"The server counted {requests} requests since `before`, and {_TRACED} were traced. Run it again.")
    change = scrape(server) - before
    queue, whole = (change.value(f"nv_inference_{name}_duration_us", model=MODEL) / 1000 for name in ("queue", "request"))
    otherwise = f"The counters say {queue / whole:.3f}. Take the queue of all requests over the time of all"
    right = must_be_right("share", share, queue / whole, {}, otherwise, unit="fraction", relative=_PICTURE, absolute=0.01)
    return f"{100 * right:.0f} %: of {whole:.1f} ms in {_TRACED} requests, {queue:.1f} ms were waiting."


def _check_6_5(server: Any, busy: Difference, mean_batch: Any) -> str:
    requests, jets, runs = (busy.value(name, model=MODEL) for name in (SUCCESS, INFERENCES, EXECUTIONS))
    must(runs, "The model did not run in these seconds. Is the dashboard running, with *Concurrency* above 0?")
    seen = f"The server counted {cell(jets)} jets in {cell(requests)} requests, and {cell(runs)} executions."
    # Requests that were under way at a reading may be in one counter and not yet in the other.
    alone = "Set *Batch* back to 1, so that only the server can put jets together, and run the cell again."
    must(jets <= 1.5 * requests, f"{seen} {alone}")
    must(jets >= _TOGETHER * runs, f"{seen} Move *Concurrency* higher, wait for *Mean batch* to follow, and run the cell again.")
    otherwise = "Divide the inferences in `busy` by the executions in `busy`"
    true = must_be_right("mean_batch", mean_batch, (jets, runs), otherwise=otherwise)
    return f"{cell(requests)} requests of one jet in {cell(runs)} executions: {true:.2f} jets at once."


def _check_7_1(server: Server, before: Snapshot, command: Any, one_jet: Any, status: Any) -> str:
    must_be("one_jet", one_jet, str, "the whole command, as text")
    old, new = (shlex.split(text) for text in (command, one_jet))
    for was, now in itertools.zip_longest(old, new, fillvalue="nothing"):
        must((was, now) == ("10", "1") or was == now, f"`{was}` became `{now}`, too. Replace the whole of `-b 10`, and nothing else.")
    # Of status 2 the windows did not agree, but the requests were sent.
    must(status in (0, 2), f"perf_analyzer ended with {status!r}; 0 means done. Read what it said above, and look at your command.")
    requests, jets, _ = counted(server, before, MODEL, least=1)
    seen, each = f"The server counted {requests} requests, {jets} inferences", jets / requests
    must(each == 1, f"{seen}: {each:.3g} jets in each on average. Change the number behind `-b`, and run the whole cell again, once.")
    return f"{seen}: one jet in each."


def _check_7_2(by_batch: Any, gain: Any, price: Any) -> str:
    rows = {batch: plain(row) for batch, row in by_batch.items()}
    factors = []
    for name, given, column in (("gain", gain, THROUGHPUT), ("price", price, "latency_p95_us")):
        one, ten, hundred = (rows[batch][column] for batch in (1, 10, 100))
        slips = {"That is from 1 to 10 jets; we asked for 1 to 100": ten / one}
        otherwise = f"Your rows say something else. The column is `{column}`"
        factors.append(must_be_right(name, given, (hundred, one), slips, otherwise, relative=0.01))
    doubt = "" if all(row.get("stable") for row in rows.values()) else " (Not all rows are stable: the factors are rough.)"
    return f"{factors[0]:.2f} times the jets per second, and each request takes {factors[1]:.0f} times as long.{doubt}"


def _check_7_3(server: Server, busy: Any, share: Any) -> str:
    row = must_be_row("busy", busy, "the row that `measure(...)` returns", [MODEL], batch=10, concurrency=8)
    queue, infer, total = row["queue_us"], row["compute_infer_us"], row["latency_avg_us"]
    slips = {"That is the share of the inference, `compute_infer_us`; the queue is `queue_us`": infer / total}
    otherwise = "Your row says another fraction: `queue_us` over `latency_avg_us`"
    true = must_be_right("share", share, (queue, total), slips, otherwise, unit="fraction", relative=0.01)
    spent = f"{100 * true:.0f} % are spent in the queue and {100 * infer / total:.0f} % in inference"
    return f"Of {total / 1000:.1f} ms, {spent}, in batches that the server made of several requests."


def _check_7_4(server: Any, pair: Any) -> str:
    reference, row = must_be_pair(pair, MODEL, batch=10)
    must(row["inputs"] != reference["inputs"], "The second was measured with the jets of the first. Use the new file.")
    candidates = next(iter(re.findall(r"pf_points:2,(\d+)", row.get("shapes") or "")), None)
    padded = f"The jets of the second, `{row['inputs']}`, are padded to {candidates} candidates"
    must(candidates == str(_CANDIDATES), f"{padded}; we asked for {_CANDIDATES}: `lengths={{'pf': {_CANDIDATES}, 'sv': 4}}`.")
    found = verdict(reference, row)
    needs(found.answer != statistics.CANNOT_TELL, f"{found.text} For more pairs, type: measure_in_turn(..., turns=12)")
    if found.answer == FASTER:
        return f"{found.gain:.2f} times as many jets per second with {_CANDIDATES} candidates as with 50: padding costs time."
    return f"Measured: {found.answer}. On most machines fewer candidates are faster; yours is busy, or has idle units."


def _check_8_1(onnx: Any, knee: Any, knee_ms: Any) -> str:
    rows = sorted(rows_of(onnx, [THROUGHPUT, "latency_p95_us"], "the check"), key=lambda row: row["batch"])
    chosen = must_be_knee("knee", knee, rows, "batch")
    otherwise = f"Take `latency_p95_us` of the row with batch size {chosen['batch']}"
    latency = must_be_right("knee_ms", knee_ms, chosen["latency_p95_us"] / 1e3, otherwise=otherwise, unit="ms")
    within = f"95 % of the requests are answered within {latency:.3g} ms"
    return f"At batch size {chosen['batch']} you have {chosen[THROUGHPUT]:.0f} inferences/s, and {within}."


def _check_8_2(by_batch: Any, gain: Any, answer: Any) -> str:
    at = {(row["model"], row["batch"]): row for row in rows_of(by_batch, [THROUGHPUT], "the check")}
    before, after = at[MODEL, _BATCH_OF_VERDICT], at[_TORCH, _BATCH_OF_VERDICT]
    right = verdict(before, after)
    if judge.number(gain) != right.gain:  # of pairs it differs a little from the quotient of the means
        otherwise = f"Divide the throughput of `{_TORCH}` by that of `{MODEL}`, both at {_BATCH_OF_VERDICT}"
        must_be_right("gain", gain, (after[THROUGHPUT], before[THROUGHPUT]), otherwise=otherwise)
    word = judge.must_be_one_of("answer", answer, _VERDICTS)
    spread = "no spread" if right.half_width is None else f"a 95 % interval of ± {right.half_width:.2f}"
    same = word == right.answer.removeprefix("the ")
    must(same, f"The gain is {right.gain:.2f} with {spread}. By that, the answer is not `{word}`.")
    return str(right)


def _check_8_3(by_load: Any, under_way: Any) -> str:
    rows = pd.DataFrame(rows_of(by_load, [THROUGHPUT, "latency_avg_us", "concurrency"], "the check"))
    per_us = rows[THROUGHPUT] / rows["batch"] / 1e6
    right = per_us * rows["latency_avg_us"]
    slips = {
        "That counts jets: a request has 8 of them": right * rows["batch"],
        "That takes the 95th percentile; the law is about the mean, `latency_avg_us`": per_us * rows["latency_p95_us"],
    }
    judge.must_all_be_right("under_way", under_way, right, slips, "Multiply requests per second by the mean latency in seconds")
    pairs = ", ".join(f"{value:.2f} at concurrency {load}" for value, load in zip(right, rows["concurrency"], strict=True))
    apart = (right / rows["concurrency"] - 1).abs().max()
    return f"{pairs}: {100 * apart:.0f} % apart at most. Where it is more than 15 %, something was not steady: measure again."


def _check_8_4(server: Server, counted: Snapshot, pair: Any, budget_ms: Any) -> str:
    baseline, best = must_be_pair(pair, MODEL)
    alone = (baseline["batch"], baseline["concurrency"]) == (1, 1)
    must(alone, "The first of `pair` is the baseline: batch size 1 at concurrency 1.")
    judge.counted(server, counted, MODEL, least=best.get("requests") or 1)
    setting = f"Batch size {best['batch']} at concurrency {best['concurrency']}"
    return must_be_faster(baseline, best, budget_ms, setting, "Measure more pairs: `turns=12`.")


def _check_8_5(alike: Any, machines: Any) -> str:
    own = next(row for row in rows_of(alike, [THROUGHPUT], "the check") if row["batch"] == _BATCH_OF_GPU)
    gpu = next(row[THROUGHPUT] for row in rows_of(recorded("T4", MODEL, "ONNX")) if row["batch"] == _BATCH_OF_GPU)
    right = gpu / own[THROUGHPUT]
    # Whole machines are an answer, too.
    if judge.number(machines) != math.ceil(right):
        otherwise = f"Divide the T4's throughput at batch size {_BATCH_OF_GPU}, with ONNX alone, by yours"
        must_be_right("machines", machines, (gpu, own[THROUGHPUT]), {}, otherwise)
    return f"{gpu:.0f} inferences/s were recorded on a T4, without a spread, and you have {own[THROUGHPUT]:.0f}: {right:.1f} machines."


def _check_9_1(server: Server, table: Experiments, text: Any) -> str:
    served, written = instances_of(server.config(MODEL)), sum(group.count for group in read_config(MODEL).instance_group)
    todo = "Reload: `server.reload(MODEL)`." if written == 2 else "Write `count: 2` into the text, and reload."
    must(served == 2, f"Your config says {written} instance(s), and the server runs {served}. {todo}")
    return f"The server reports 2 instances. Seen from the baseline: {verdict(table['baseline'], table['2 instances'])}"


def _check_9_2(server: Server, my_batcher: Any, requests: Any) -> str:
    must_be("my_batcher", my_batcher, Callable, "the function, without brackets")
    with Client(server) as client:
        right = [client.infer(MODEL, jet)["softmax"] for jet in requests]
    before = scrape(server)
    with ThreadPoolExecutor(_CLIENTS) as clients:
        try:
            given = list(clients.map(my_batcher, requests))
        except TimeoutError as error:
            raise NotYet("A client waited 10 s for its answer. Has the last cell a line that hands it out?") from error
    sent, *_ = counted(server, before, MODEL)
    for number, (own, seen) in enumerate(zip(right, given, strict=True)):
        got = f"Client {number} got {judge.kind(seen)} of shape {list(np.shape(seen))}. It sent one jet, and expects its row alone."
        must(np.shape(seen) in (own.shape, own.shape[1:]), got)
        whose = f"Client {number} got the scores of another jet. Its row is number `n` of the batch."
        must(np.allclose(seen, own, atol=_SAME), whose)
    needs(sent < len(right), f"{len(right)} jets came in {sent} requests: none found company. Run the check again.")
    return f"Each client got its own scores, and {len(right)} jets came in {sent} requests."


def _check_9_3(server: Server, jets_per_run: Any, equal_shapes: Any, own_shapes: Any) -> str:
    batching = "dynamic_batching" in server.config(MODEL)
    must(batching, "The server reports no `dynamic_batching` for this model. Run the cell that turns it on, and then yours.")
    must_be("jets_per_run", jets_per_run, Callable, "the function, without brackets")
    ratios = []
    for requests in (equal_shapes, own_shapes):
        before = scrape(server)
        returned = jets_per_run(requests)
        _, jets, runs = counted(server, before, MODEL)
        needs(jets == len(requests), f"The server counted {jets} jets for {len(requests)} requests. Does somebody else send any?")
        ratios.append(must_be_right("jets_per_run(...)", returned, (jets, runs), otherwise=f"Divide the {jets} jets by the {runs} runs"))
    one, other = ratios
    seen = f"{one:.2f} jets in each run when all have one shape, {other:.2f} when they do not"
    needs(one >= 1 + judge.ROUNDING and other <= one, f"{seen}: your machine is so busy that this says nothing. Run your cell again.")
    return f"{seen}: the server only puts together what fits."


def _check_9_4(view: Comparison, needed: Any) -> str:
    remark = next((row.remark for row in view.rows if row.field.endswith("gpu_execution_accelerator[0].name")), "")
    needs("no effect" in str(remark), "Your view says of no accelerator that it has no effect. On a GPU nothing is missing: go on.")
    word = str(needed).lower().removeprefix("a ")
    must(word == "gpu", f"`{needed}` is not what the remark says: one word, in the last column, beside `tensorrt`.")
    return f"The view says: {remark}."


def _check_9_5(costs: Any, safe: Any) -> str:
    changes = _changes(costs)
    why = {name: f"The interval of its change begins at {low:+.4f}, and for certain means all of it" for name, low in changes.items()}
    right = {name: low > -_LOSS for name, low in changes.items()}
    judge.must_choose("safe", safe, right, why)
    facts = ", ".join(f"{name.removeprefix(MODEL + '_')} {low:+.4f}" for name, low in changes.items())
    return f"The intervals begin at: {facts}. {sum(right.values())} of {len(changes)} stay above {-_LOSS}."


def _changes(costs: Any) -> dict[str, float]:
    """For each variant where the interval of its change in the AUC of b_vs_light begins."""
    rows = [row for row in costs if row["discriminant"] == "b_vs_light" and row["largest_change"] > 0]
    return {row["model"]: row["auc_change"] - row["auc_change_half_width"] for row in rows}


def _check_9_6(server: Server, counted: Snapshot, table: Experiments, best: Any, costs: Any) -> str:
    lowest = {MODEL: 0.0} | _changes(costs)
    row = must_be_row("best", best, "a row of your table", lowest)
    model = str(row["model"])
    lossy = f"`{model}` may lose {-lowest[model]:.4f} of the AUC, more than exercise 9.5 allows. Take another variant, or none."
    must(lowest[model] > -_LOSS, lossy)
    cached = server.config(model).get("response_cache", {}).get("enable")
    must(not cached, "The response cache is on: those are remembered answers. Take `response_cache` out of the config, and reload.")
    judge.counted(server, counted, model, least=row.get("requests") or 1)
    again, budget_ms = "Measure it once more under the same name.", round(BUDGET * table["baseline"]["latency_p95_us"] / 1000, 1)
    return must_be_faster(table["baseline"], row, budget_ms, "Your entry", again) + " Enter the scoreboard."


def _rows(one: Any) -> list[Row]:
    """Rows of the first fleet in the order of their concurrency, or no answer."""
    rows = rows_of(one, [THROUGHPUT, "servers", "concurrency", "queue_us"], "the check")
    return sorted(rows, key=lambda row: row["concurrency"])


def _check_10_1(fleet: Fleet, one: Any, saturated: Any, in_queue: Any) -> str:
    rows = _rows(one)
    seen, made = (sum(row["requests"] or 0 for row in some) for some in (fleet.shares(model=MODEL), rows))
    needs(seen >= made, f"Your fleet has seen {seen} requests, and `one` is made of {made}: it is another fleet. Run `one` again.")
    chosen, last = must_be_knee("saturated", saturated, rows, "concurrency"), rows[-1]
    waiting = last[THROUGHPUT] / last["batch"] * last["queue_us"] / 1e6
    slips = {f"That counts jets: a request has {last['batch']} of them": waiting * last["batch"]}
    otherwise = f"Multiply requests per second by seconds in the queue, both from the row with concurrency {last['concurrency']}"
    must_be_right("in_queue", in_queue, waiting, slips, otherwise)
    queue = f"{waiting:.1f} stood in the queue, each for {last['queue_us'] / 1e3:.0f} ms: the server works on one, and the others wait"
    return f"Saturated from {chosen['concurrency']} on. With {last['concurrency']} under way, {queue}."


def _check_10_2(fleet: Fleet, one: Any, traffic: Any, budget_ms: Any, servers: Any) -> str:
    found, given = plan(traffic, _rows(one), budget_ms), must_be_number("servers", servers, "a whole number of servers")
    must(given == int(given) >= 1, f"`servers` is {cell(given)}. It should be a whole number of servers.")
    fewest, most = found.servers_interval
    can, come, taken_ms = given * found.jets_per_s, found.traffic.jets_per_s, found.latency_p95_ms(int(given))
    seen = f"`servers` is {given:.0f}. They can do {can:.0f} jets/s, and {come:.0f} come"
    must(given >= fewest or can > come, f"{seen}: the queue grows without end.")
    must(given >= fewest, f"{seen}, but 95 of 100 requests take up to {taken_ms:.0f} ms, and the budget is {found.budget_ms:.0f}.")
    must(given <= most, f"{seen}. That would do, but {most} keep the budget, too, and cost less.")
    within = f"95 of 100 requests are expected within {taken_ms:.0f} ms of {found.budget_ms:.0f}"
    return f"{seen}; {within}. Your fleet has {len(fleet.servers)} now; measure it."


def _check_10_3(fleet: Fleet, before: list, shares: Any) -> str:  # type: ignore[type-arg]
    needs(len(fleet.servers) == len(before) > 1, "The check needs two servers, and a reading `before` of each. Run your cell again.")
    counts = [counted(server, reading, MODEL)[0] for server, reading in zip(fleet.servers, before, strict=True)]
    needs(any(counts), "None of your servers has seen a request since `before`. Run your cell again from its first line.")
    right = {place: count / sum(counts) for place, count in enumerate(counts)}
    slips = {"Those are the numbers of requests. Divide each by the sum of both": counts}
    otherwise = f"The servers' counters rose by {' and '.join(map(str, counts))} since `before`"
    judge.must_all_be_right("shares", shares, right, slips, otherwise, unit="fraction", relative=0, absolute=0.005)
    return f"{' : '.join(map(str, counts))} requests: shared. A server that is slower gets fewer."


def _check_10_4(fleet: Fleet, tagged: Any, lost: Any, doubled: Any) -> str:
    seen = sum(row["inferences"] or 0 for row in fleet.shares(model=tagged.model))
    other = f"Your fleet has seen {seen} jets, and {tagged.tagged} were tagged by another one. Run `tag_files` with a new output."
    needs(seen >= tagged.tagged, other)
    right = tagged.check()
    for name, given in (("lost", lost), ("doubled", doubled)):
        must_be_right(name, given, right[name], otherwise=f"In the files it is {right[name]}", relative=0)
    return f"{right['jets']} jets, {right['lost']} lost, {right['doubled']} doubled; your fleet's counters saw {seen} jets."


def _try(server: Server, model: str, batch: int, length: int) -> None:
    """Send one request of made-up numbers, which the server must answer."""
    with Client(server) as client:
        answer = client.infer(model, client.signature(model).example(batch, length))
    for name, array in answer.items():
        shape = f"`{name}` has the shape {list(array.shape)} for a request of {batch}; its first axis should count them."
        must(array.shape[:1] == (batch,), shape)


def _check_11_1(server: Server, model: str, done: Any, script: Any) -> str:
    about = server.metadata(model)
    # Another file, also another format, is the student's own: then it does not matter what became of the script.
    file = server.repository / model / about["versions"][-1] / "model.onnx"
    ours = paths.root() / "notebooks" / "data" / "jet_transformer" / "exported.onnx"
    if done.returncode and file.is_file() and file.read_bytes() == ours.read_bytes():
        last = done.stderr.strip().splitlines()[-1]
        needs("No module named 'torch'" not in last, "The server's environment has no PyTorch. Type: make setup TORCH=yes")
        raise NotYet(f"Your script ended with an error, so the server has the course's own export. Its last line: `{last[:300]}`")
    for each in about["inputs"]:
        # Of another network than ours only the axis of requests must vary.
        for axis in (0, 2) if each["name"].endswith(("_mask", "_features")) else (0,):
            fixed = f"`{each['name']}` has the shape {each['shape']}: axis {axis} is the same for ever. Name that axis in the export."
            must(each["shape"][axis] < 0, fixed)
    for batch, length in _TRIED:
        _try(server, model, batch, length)
    shapes = ", ".join(f"`{each['name']}` {each['shape']}" for each in about["inputs"])
    return f"The server has {shapes}, and answered requests of other sizes than the example's."


def _check_11_2(server: Server, model: str, text: Any) -> str:
    about, served, written = server.metadata(model), server.config(model)["max_batch_size"], parse(str(text))
    reason = server.refusals.get(model, "").rstrip(".")
    must(not reason, f"The server refused your config, and still has the one from before. It said: {reason}.")
    missing = {each["name"] for each in [*about["inputs"], *about["outputs"]]} - {entry.name for entry in [*written.input, *written.output]}
    must(not missing, f"Your file has no {quoted(sorted(missing))}, which the model has. Write it by hand.")
    same = written.max_batch_size == served
    must(same, f"Your file says {written.max_batch_size} in a request, and the server still {served}. Reload.")
    must(served >= _JETS, f"`max_batch_size` is {served}; up to {_JETS} in a request were asked for.")
    _try(server, model, _JETS, _TRIED[-1][1])
    return f"The server has your config, and answered {_JETS} in one request."


def _check_11_3(server: Server, model: str, inputs: Any, local: Any, tolerance: Any) -> str:
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


def _check_11_4(table: Experiments, best: Any) -> str:
    chosen, budget_ms = dict(table[best]), table.budget_ms or 0
    waits = must_be_inside(f"`{best}`", chosen, budget_ms)
    for row in table.rows:
        if row["model"] == chosen["model"] and (row.get(LATENCY_ENDS[1]) or np.inf) <= 1e3 * budget_ms and row["experiment"] != best:
            seen = verdict(chosen, row)
            must(seen.answer != FASTER, f"`{row['experiment']}` is inside the budget, too, and faster. {seen.text}")
    return f"`{best}` has a 95th percentile of {waits} ms, within {budget_ms} ms, and no row inside the budget is faster for certain."


def _check_11_5(server: Server, model: str, table: Experiments, count: Any) -> str:
    served, asked = instances_of(server.config(model)), must_be_number("count", count, "1 or 2")
    two, seen = table["2 instances"], table.judged("2 instances")
    # Where its interval reaches over the budget, it may be inside or not: then either will do.
    sides = {two.get(end) is not None and two[end] <= 1e3 * (table.budget_ms or 0) for end in LATENCY_ENDS}
    possible = {2 if inside else 1 for inside in sides} if seen and seen.answer == FASTER else {1}
    must(asked in possible, f"`count` is {cell(asked)}. {seen} If the verdict cannot tell, take the simpler one.")
    must(served == asked, f"`count` is right, and the server runs {served}. Write it into `config.pbtxt`, and reload.")
    return f"The server runs {served}. {seen}"


def _check_11_6(server: Server, model: str, purpose: Any, limits: Any) -> str:
    for name, text in (("purpose", purpose), ("limits", limits)):
        must(len(str(text).split()) >= 5, f"`{name}` is `{text}`. Say it in a sentence, of five words at least.")
    folder = server.repository / model
    file = folder / "1" / server.config(model)["default_model_filename"]
    facts = {"purpose": purpose, "limits": limits, "SHA-256 of the file": hashlib.sha256(file.read_bytes()).hexdigest()}
    written, facts["config"] = (folder / "MODEL_CARD.md").read_text(encoding="utf-8"), (folder / "config.pbtxt").read_text()
    for what, now in facts.items():
        must(now in written, f"The card does not have the {what} as it is now. Run the cell that writes the card again.")
    return "`MODEL_CARD.md`, in the model's folder, says what you say, and has the file and the config that are there now."
