"""Checkers of notebooks 06 to 08, and what all checkers of measurements share: rows, knees, and a gain inside a budget."""

from __future__ import annotations

import itertools
import math
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd

from helpers.course import judge
from helpers.course.judge import EXECUTIONS, INFERENCES, SUCCESS, CannotTell, checker, counted, must, must_be, must_be_right, needs
from helpers.measuring import statistics, table
from helpers.measuring.recorded import recorded
from helpers.measuring.table import INPUT_DATA, LATENCY_ENDS, THROUGHPUT, THROUGHPUT_SPREAD, is_recorded, plain, rows_of, shapes_of
from helpers.metrics import Difference, Snapshot, scrape
from helpers.server import Server
from helpers.tables import Row, cell

MODEL = "particlenet_AK4"
_TORCH = "particlenet_AK4_PT"
_VERDICTS = (statistics.FASTER, statistics.SLOWER, statistics.SAME.removeprefix("the "), statistics.CANNOT_TELL)
# A curve has its knee where this fraction of the highest throughput is reached, and a spread excuses no more than this.
_KNEE, _KNEE_MARGIN = 0.9, 0.1
# People round: half a per cent and the last of two digits.
_ROUNDED: dict[str, Any] = {"relative": 0.005, "absolute": 0.006}
# Requests that the notebook traces, and part by which trace and counters may differ.
_TRACED, _PICTURE = 8, 0.05
# From here on requests were put together, and not by chance.
_TOGETHER = 1.5
# Candidates of exercise 7.4.
_CANDIDATES = 20
# Little's law holds for whole requests; those cut in two by the ends of a window make it as inexact as this.
_LITTLE = 0.15
_BATCH_OF_VERDICT, _BATCH_OF_GPU = 16, 4


def must_be_row(name: str, given: Any, expected: str, models: Collection[str], **settings: int) -> Row:
    """A measured row of one of these models, with these settings."""
    whole = table.is_row(given) and all(given.get(column) is not None for column in (THROUGHPUT, "latency_p95_us"))
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
    """The row that a student chose as the first that reaches 90 % of the highest throughput.

    A row whose spread reaches over the 90 % is accepted, too, unless the spread is so large that it excuses anything.
    """
    best = max(found, key=lambda row: row[THROUGHPUT])
    right = next(row for row in found if row[THROUGHPUT] >= _KNEE * best[THROUGHPUT])
    chosen = {row[column]: row for row in found}.get(judge.number(given))
    if chosen is None:
        raise judge.NotYet(f"`{name}` should be one of {', '.join(str(row[column]) for row in found)}, and it is `{given!r}`.")
    share = f"`{name}` is {chosen[column]}, which reaches {100 * chosen[THROUGHPUT] / best[THROUGHPUT]:.0f} % of the highest throughput"
    why = f". A smaller one, {right[column]}, is at 90 % or more already." if chosen[column] > right[column] else "; 90 % was asked."
    must(chosen is right or on_the_line(chosen, best), share + why)
    return chosen


def on_the_line(row: Row, best: Row) -> bool:
    """True if a row's spread reaches over the 90 %: then it cannot be said on which side it is."""
    share, half = statistics.ratio(row, best)
    return row is not best and half is not None and abs(share - _KNEE) < min(half, _KNEE_MARGIN)


def must_be_inside(name: str, row: Row, budget_ms: float) -> str:
    """The 95th percentile of a row in words: not over the budget for certain, and inside it for certain or "cannot tell"."""
    low, high = (row.get(end) for end in LATENCY_ENDS)
    waits = table.latency_words(row, 95)
    seen = f"{name} has a 95th percentile of {waits} ms"
    if low is None or high is None:
        raise CannotTell(f"{seen}: its percentile is not known, of {row.get('requests')} requests. Measure it once more.")
    must(low <= 1e3 * budget_ms, f"{seen}, over the budget of {budget_ms} ms. Take fewer jets, or fewer requests at once.")
    needs(high <= 1e3 * budget_ms, f"{seen}: that may be over {budget_ms} ms or not. Choose one that is clearly inside, or measure again.")
    return waits


def must_be_faster(baseline: Row, best: Row, budget_ms: float, name: str, again: str) -> str:
    """An entry that is faster than the baseline beyond doubt, with the same inputs and inside the budget, said in words."""
    _must_have_same_inputs(baseline, best)
    seen, waits = statistics.verdict(baseline, best), must_be_inside(name, best, budget_ms)
    must(seen.answer in (statistics.FASTER, statistics.CANNOT_TELL), f"{name} is not faster than the baseline. {seen}")
    needs(seen.answer == statistics.FASTER, f"{name}: {seen.text} {again} Or choose settings with a larger gain.")
    return f"{name} is {seen.factor} times as fast as the baseline, with a 95th percentile {waits} ms."


def needs_measured_here(server: Server, since: Snapshot, best: Row) -> None:
    """Raise "cannot tell" unless this server answered as many requests since a reading as the row is made of."""
    if not is_recorded(best):
        counted(server, since, str(best["model"]), least=best.get("requests") or 1)


def _must_have_same_inputs(baseline: Row, best: Row) -> None:
    """Shorter jets are answered sooner: both rows must have sent the same, by the shapes and, of files, by the digest."""
    before, after = shapes_of(baseline), shapes_of(best)
    shapes = {name: shape for name, shape in after.items() if before.get(name, shape) != shape}
    sent = [row["inputs"] if row.get("inputs") in INPUT_DATA else row.get("inputs_digest") or "unknown" for row in (baseline, best)]
    differs = f"`{best.get('inputs')}` inputs{f' {shapes}' if shapes else ''}, and the baseline with `{baseline.get('inputs')}` ones"
    must(not shapes and sent[0] == sent[1], f"`best` was measured with {differs}. A gain counts with the same inputs.")


@checker("6.1")
def _on_the_page(server: Any, page: str, number: Any) -> str:

    def on_page(metric: str, model: str = MODEL) -> float:
        return sum(float(value) for value in re.findall(rf'^{metric}{{[^}}]*model="{model}"[^}}]*}} (\S+)$', page, re.MULTILINE))

    needs(true := on_page(SUCCESS), f"The check needs the `page` with `{MODEL}`. Run the cell that gets it again.")
    slips = {
        f"That is `{INFERENCES}`, the jets in these requests": on_page(INFERENCES),
        f"That is `{EXECUTIONS}`, how often the model ran": on_page(EXECUTIONS),
        "That is the line of `add_sub`": on_page(SUCCESS, "add_sub"),
    }
    must_be_right("counted", number, true, slips, f"Look for `{SUCCESS}` with the label of `{MODEL}`", relative=0)
    return f"{cell(true)} requests, and none was yours: the warm-up in the model's config, before it was READY."


@checker("6.2")
def _moved(server: Server, before: Snapshot, answers: Any) -> str:
    requests, jets, runs = counted(server, before, MODEL)
    seen = f"The server counted {requests} requests and {jets} inferences since `before`"
    must((requests, jets) == (4, 40), f"{seen}; wanted are 4 with 10 jets in each. Run the whole cell again, once: it reads `before`, too.")
    return f"4 requests with 40 inferences, in {runs} executions."


@checker("6.3")
def _mean_latency(server: Server, change: Difference, mean_ms: Any) -> str:
    requests, jets = (change.value(name, model=MODEL) for name in (SUCCESS, INFERENCES))
    total_ms, infer_ms = (change.value(f"nv_inference_{name}_duration_us", model=MODEL) / 1e3 for name in ("request", "compute_infer"))
    needs(requests, "Between the two readings there was no request. Run the cell above again.")
    success = server.statistics(MODEL)["inference_stats"]["success"]
    slips = {
        "That is the time of all requests together; divide by their number": total_ms,
        "That is the time per jet; we asked for that of a request": total_ms / jets,
        "That is `compute_infer`, a part of it": infer_ms / requests,
        "That is since the model was loaded, with its warm-up; use `change`": int(success["ns"]) / int(success["count"]) / 1e6,
    }
    otherwise = "Take duration and requests from `change`, and divide"
    true = must_be_right("mean_ms", mean_ms, total_ms / requests, slips, otherwise, unit="ms", **_ROUNDED)
    return f"{true:.2f} ms: {1e3 * total_ms:.0f} µs in {cell(requests)} requests. What came before them plays no part."


@checker("6.4")
def _picture_proved(server: Server, before: Snapshot, share: Any) -> str:
    requests, *_ = counted(server, before, MODEL)
    change, names = scrape(server) - before, ("queue", "request", "compute_infer", "compute_input", "compute_output")
    return judge_share(requests, {name: change.value(f"nv_inference_{name}_duration_us", model=MODEL) for name in names}, share)


def judge_share(requests: int, us: Mapping[str, float], share: Any) -> str:
    """Compare with the counters' durations, in µs, of so many requests."""
    needs(requests == _TRACED, f"The server counted {requests} requests since `before`, and {_TRACED} were traced. Run it again.")
    computed = us["compute_infer"] + us["compute_input"] + us["compute_output"]
    slips = {
        "That is the part of the network itself": us["compute_infer"] / us["request"],
        "That is the part of all computing": computed / us["request"],
        "That is the time in the queue in ms; divide it by the time of all requests": us["queue"] / 1000,
    }
    right = us["queue"] / us["request"]
    otherwise = f"The counters say {right:.3f}. Take the queue of all requests over the time of all"
    must_be_right("share", share, right, slips, otherwise, unit="fraction", relative=_PICTURE, absolute=0.01)
    return f"{100 * right:.0f} %: of {us['request'] / 1000:.1f} ms in {_TRACED} requests, {us['queue'] / 1000:.1f} ms were waiting."


@checker("6.5")
def _put_together(server: Any, busy: Difference, mean_batch: Any) -> str:
    requests, jets, runs = (busy.value(name, model=MODEL) for name in (SUCCESS, INFERENCES, EXECUTIONS))
    must(runs, "The model did not run in these seconds. Is the dashboard running, with *Concurrency* above 0?")
    seen = f"The server counted {cell(jets)} jets in {cell(requests)} requests, and {cell(runs)} executions."
    # Requests that were under way at a reading may be in one counter and not yet in the other.
    alone = "Set *Batch* back to 1, so that only the server can put jets together, and run the cell again."
    must(jets <= 1.5 * requests, f"{seen} {alone}")
    must(jets >= _TOGETHER * runs, f"{seen} Move *Concurrency* higher, wait for *Mean batch* to follow, and run the cell again.")
    otherwise = "Divide the inferences in `busy` by the executions in `busy`"
    true = must_be_right("mean_batch", mean_batch, (jets, runs), otherwise=otherwise, **_ROUNDED)
    return f"{cell(requests)} requests of one jet in {cell(runs)} executions: {true:.2f} jets at once."


@checker("7.1")
def _one_jet_a_request(server: Server, before: Snapshot, command: Any, one_jet: Any, status: Any) -> str:
    must_be("one_jet", one_jet, str, "the whole command, as text")
    old, new = (shlex.split(text) for text in (command, one_jet))
    for was, now in itertools.zip_longest(old, new, fillvalue="nothing"):
        must((was, now) == ("10", "1") or was == now, f"`{was}` became `{now}`, too. Replace the whole of `-b 10`, and nothing else.")
    ended = f"perf_analyzer ended with {status!r}; 0 means done. Read what it said above, and look at your command."
    must(judge.number(status) in (0, 2), ended)
    requests, jets, _ = counted(server, before, MODEL, least=1)
    seen, each = f"The server counted {requests} requests, {jets} inferences", jets / requests
    must(each == 1, f"{seen}: {each:.3g} jets in each on average. Change the number behind `-b`, and run the whole cell again, once.")
    return f"{seen}: one jet in each.{' The windows did not agree (status 2), but they were sent.' * (status == 2)}"


@checker("7.2")
def _gain_and_price(by_batch: Any, gain: Any, price: Any) -> str:
    rows = {batch: plain(row) for batch, row in by_batch.items()}
    one, ten, hundred = rows[1], rows[10], rows[100]
    columns = {"gain": THROUGHPUT, "price": "latency_p95_us"}
    factors = {name: hundred[column] / one[column] for name, column in columns.items()}
    for name, given, other in (("gain", gain, "price"), ("price", price, "gain")):
        column = columns[name]
        slips = {
            "It is the other way round: the gain is in throughput, the price is in latency": factors[other],
            "That is from 1 to 10 jets; we asked for 1 to 100": ten[column] / one[column],
            "That is of the median; we asked for the 95th percentile": hundred["latency_p50_us"] / one["latency_p50_us"],
        }
        otherwise = f"Your rows say something else. The column is `{column}`"
        must_be_right(name, given, (hundred[column], one[column]), slips, otherwise, relative=0.01)
    noisy = [batch for batch, row in rows.items() if not row.get("stable")]
    doubt = f" (The row of batch {noisy[0]} is not stable: the factors are rough.)" if noisy else ""
    return f"{factors['gain']:.2f} times the jets per second, and each request takes {factors['price']:.0f} times as long.{doubt}"


@checker("7.3")
def _waiting(server: Server, busy: Any, share: Any) -> str:
    row = must_be_row("busy", busy, "the row that `measure(...)` returns", [MODEL], batch=10, concurrency=8)
    queue, infer, total = row["queue_us"], row["compute_infer_us"], row["latency_avg_us"]
    served = int(server.statistics(MODEL)["inference_stats"]["success"]["count"])
    needs(queue is not None and (is_recorded(row) or served >= row["requests"]), "This row is not of this server. Measure again.")
    slips = {"That is the share of the inference, `compute_infer_us`; the queue is `queue_us`": infer / total}
    otherwise = "Your row says another fraction: `queue_us` over `latency_avg_us`"
    true = must_be_right("share", share, (queue, total), slips, otherwise, unit="fraction", relative=0.01)
    spent = f"{100 * true:.0f} % are spent in the queue and {100 * infer / total:.0f} % in inference"
    return f"Of {total / 1000:.1f} ms, {spent}, in batches that the server made of several requests."


@checker("7.4")
def _less_padding(server: Any, pair: Any) -> str:
    reference, row = must_be_pair(pair, MODEL, batch=10)
    must(row["inputs"] != reference["inputs"], "The second was measured with the jets of the first. Use the new file.")
    candidates, wanted = shapes_of(row).get("pf_points", (None,))[-1], f"`lengths={{'pf': {_CANDIDATES}, 'sv': 4}}`"
    padded = f"The jets of the second, `{row['inputs']}`, are padded to {candidates} candidates"
    must(candidates == _CANDIDATES, f"{padded}; we asked for {_CANDIDATES}: {wanted}.")
    found = statistics.verdict(reference, row)
    needs(found.answer != statistics.CANNOT_TELL, f"{found.text} For more pairs, type: measure_in_turn(..., turns=12)")
    if found.answer == statistics.FASTER:
        return f"{found.gain:.2f} times as many jets per second with {_CANDIDATES} candidates as with 50: padding costs time."
    return f"Measured: {found.answer}. On most machines fewer candidates are faster; yours is busy, or has idle units."


@checker("8.1")
def _knee_read(onnx: Any, knee: Any, knee_ms: Any) -> str:
    rows = sorted(rows_of(onnx, [THROUGHPUT, "latency_p95_us"], "the check"), key=lambda row: row["batch"])
    chosen = must_be_knee("knee", knee, rows, "batch")
    slips = {
        f"That is the {words}; we asked for the 95th percentile": (chosen.get(f"latency_{name}_us") or math.nan) / 1e3
        for words, name in {"mean": "avg", "median": "p50", "99th percentile": "p99"}.items()
    }
    otherwise, first = f"Take `latency_p95_us` of the row with batch size {chosen['batch']}", "The knee is right. "
    latency = must_be_right("knee_ms", knee_ms, chosen["latency_p95_us"] / 1e3, slips, otherwise, unit="ms", first=first)
    best = max(rows, key=lambda row: row[THROUGHPUT])
    unsure = [row["batch"] for row in rows if row is not chosen and on_the_line(row, best)]
    remark = f" Your spreads would allow {unsure[0]} as well." if unsure else ""
    rate = f"{chosen[THROUGHPUT]:.0f} inferences/s, {100 * chosen[THROUGHPUT] / best[THROUGHPUT]:.0f} % of the highest"
    within = f"95 % of the requests are answered within {latency:.3g} ms"
    return f"At batch size {chosen['batch']} you have {rate}, and {within}.{remark}"


@checker("8.2")
def _judged(by_batch: Any, gain: Any, answer: Any) -> str:
    at = {(row["model"], row["batch"]): row for row in rows_of(by_batch, [THROUGHPUT], "the check")}
    before, after = at.get((MODEL, _BATCH_OF_VERDICT)), at.get((_TORCH, _BATCH_OF_VERDICT))
    if before is None or after is None:
        raise CannotTell(f"Your sweep has no point at batch size {_BATCH_OF_VERDICT} for both models. Run its cell again.")
    right = statistics.verdict(before, after)
    otherwise = f"Divide the throughput of `{_TORCH}` by that of `{MODEL}`, both at {_BATCH_OF_VERDICT}"
    if judge.number(gain) is None or not math.isclose(judge.number(gain) or 0, right.gain, rel_tol=judge.ROUNDING):
        must_be_right("gain", gain, (after[THROUGHPUT], before[THROUGHPUT]), otherwise=otherwise)
    word = judge.must_be_one_of("answer", answer, _VERDICTS)
    spread = "no spread" if right.half_width is None else f"a 95 % interval of ± {right.half_width:.2f}"
    same = word == right.answer.removeprefix("the ")
    must(same, f"The gain is {right.gain:.2f} with {spread}. By that, the answer is not `{word}`.")
    return str(right)


@checker("8.3")
def _littles_law(by_load: Any, under_way: Any) -> str:
    rows = pd.DataFrame(rows_of(by_load, [THROUGHPUT, "latency_avg_us", "concurrency"], "the check"))
    per_us = rows[THROUGHPUT] / rows["batch"] / 1e6
    right = per_us * rows["latency_avg_us"]
    slips = {
        "That is the concurrency itself. Work it out from throughput and latency": rows["concurrency"],
        "That counts jets: a request has 8 of them": right * rows["batch"],
        "The latency is in microseconds: divide by a million": 1e6 * right,
        "That takes the 95th percentile; the law is about the mean, `latency_avg_us`": per_us * rows["latency_p95_us"],
    }
    judge.must_all_be_right("under_way", under_way, right, slips, "Multiply requests per second by the mean latency in seconds")
    pairs = ", ".join(f"{value:.2f} at concurrency {load}" for value, load in zip(right, rows["concurrency"], strict=True))
    apart = (right / rows["concurrency"] - 1).abs().max()
    if apart <= _LITTLE:
        return f"{pairs}: within {100 * apart:.0f} %, so the law holds on your numbers."
    return f"{pairs}: {100 * apart:.0f} % apart; at one of them something was not steady: measure that one again."


@checker("8.4")
def _baseline_beaten(server: Server, counted: Snapshot, pair: Any, budget_ms: Any) -> str:
    baseline, best = must_be_pair(pair, MODEL)
    alone = (baseline["batch"], baseline["concurrency"]) == (1, 1)
    must(alone, "The first of `pair` is the baseline: batch size 1 at concurrency 1.")
    needs_measured_here(server, counted, best)
    setting = f"Batch size {best['batch']} at concurrency {best['concurrency']}"
    return must_be_faster(baseline, best, budget_ms, setting, "Measure more pairs: `turns=12`.")


@checker("8.5")
def _machines_counted(alike: Any, machines: Any) -> str:
    own = next(row for row in rows_of(alike, [THROUGHPUT], "the check") if row["batch"] == _BATCH_OF_GPU)
    gpu, tensorrt = (
        next(row[THROUGHPUT] for row in rows_of(recorded("T4", MODEL, variant)) if row["batch"] == _BATCH_OF_GPU)
        for variant in ("ONNX", "ONNX with TensorRT")
    )
    right = gpu / own[THROUGHPUT]
    # Whole machines are an answer, too.
    if judge.number(machines) != math.ceil(right):
        slips = {"That is with TensorRT. We asked for ONNX without it": tensorrt / own[THROUGHPUT]}
        otherwise = f"Divide the T4's throughput at batch size {_BATCH_OF_GPU} by yours, both with concurrency 4"
        must_be_right("machines", machines, (gpu, own[THROUGHPUT]), slips, otherwise)
    spread = f" ± {right * own[THROUGHPUT_SPREAD] / own[THROUGHPUT]:.1f}" if own.get(THROUGHPUT_SPREAD) else ""
    yours = f"you have {own[THROUGHPUT]:.0f}: {right:.1f}{spread} machines. The spread is yours alone; theirs was not published."
    return f"{gpu:.0f} inferences/s were recorded on a T4, and {yours}"
