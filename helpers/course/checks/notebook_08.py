"""Checkers of notebook 08, Sweep batch size and concurrency: all limits come from the student's own rows and their spreads."""

from __future__ import annotations

import math
from typing import Any

from helpers.course import judge
from helpers.course.checks import measured
from helpers.course.judge import CannotTell, Outcome, checker, correct, must_be_right, not_yet
from helpers.measuring import statistics
from helpers.measuring.recorded import recorded
from helpers.measuring.table import THROUGHPUT, THROUGHPUT_SPREAD, rows_of

_ONNX, _TORCH = "particlenet_AK4", "particlenet_AK4_PT"
# Little's law holds for whole requests; those cut in two by the ends of a window make it as inexact as this.
_LITTLE = 0.15
_BATCH_OF_VERDICT, _BATCH_OF_GPU = 16, 4


@checker("8.1")
def knee_read(onnx: Any, knee: Any, knee_ms: Any) -> Outcome:
    """The smallest batch size with 90 % of the highest throughput, and its latency."""
    rows = sorted(measured.rows(onnx, ("latency_p95_us",), "onnx", "sweep"), key=lambda row: row["batch"])
    if {row["model"] for row in rows} != {_ONNX} or len(rows) < 3:
        raise CannotTell(f"The check needs `onnx`, the rows of `{_ONNX}` at several batch sizes. Run the cell that makes it again.")
    chosen = measured.must_be_knee("knee", knee, rows, "batch")
    others = {"mean": "avg", "median": "p50", "90th percentile": "p90", "99th percentile": "p99"}
    slips = {
        f"That is the {words}; we asked for the 95th percentile": chosen[f"latency_{name}_us"] / 1e3
        for words, name in others.items()
        if chosen.get(f"latency_{name}_us") is not None
    }
    otherwise, first = f"Take `latency_p95_us` of the row with batch size {chosen['batch']}", "The knee is right. "
    latency = must_be_right("knee_ms", knee_ms, chosen["latency_p95_us"] / 1e3, slips, otherwise, unit="ms", first=first)
    best = max(rows, key=lambda row: row[THROUGHPUT])
    unsure = [row["batch"] for row in rows if row is not chosen and measured.on_the_line(row, best)]
    remark = f" Your spreads would allow {unsure[0]} as well." if unsure else ""
    return correct(
        f"At batch size {chosen['batch']} you have {chosen[THROUGHPUT]:.0f} inferences/s, "
        f"{100 * chosen[THROUGHPUT] / best[THROUGHPUT]:.0f} % of the highest, and 95 % of the requests are answered within "
        f"{latency:.3g} ms.{remark}"
    )


@checker("8.2")
def judged(by_batch: Any, gain: Any, answer: Any) -> Outcome:
    """The gain of PyTorch over ONNX at one batch size, and the verdict on it."""
    at = {(row["model"], row["batch"]): row for row in measured.rows(by_batch, (), "by_batch", "sweep")}
    before, after = at.get((_ONNX, _BATCH_OF_VERDICT)), at.get((_TORCH, _BATCH_OF_VERDICT))
    if before is None or after is None:
        raise CannotTell(f"Your sweep has no point at batch size {_BATCH_OF_VERDICT} for both models. Run its cell again.")
    right = statistics.verdict(before, after)
    given = judge.must_be_number("gain", gain)
    if not math.isclose(given, right.gain, rel_tol=judge.ROUNDING):
        otherwise = f"Divide the throughput of `{_TORCH}` by that of `{_ONNX}`, both at {_BATCH_OF_VERDICT}"
        must_be_right("gain", gain, (after[THROUGHPUT], before[THROUGHPUT]), otherwise=otherwise)
    word = judge.must_be_verdict("answer", answer, measured.VERDICTS)
    if word != right.answer.removeprefix("the "):
        spread = "no spread" if right.half_width is None else f"a 95 % interval of ± {right.half_width:.2f}"
        return not_yet(f"The gain is {right.gain:.2f} with {spread}. By that, the answer is not `{word}`.")
    return correct(str(right))


@checker("8.3")
def littles_law(by_load: Any, under_way: Any) -> Outcome:
    """Requests under way, from throughput and mean latency, for each row."""
    rows = measured.rows(by_load, ("latency_avg_us", "concurrency"), "by_load", "sweep")

    def law(column: str) -> list[float]:
        return [row[THROUGHPUT] / row["batch"] * (row.get(column) or math.nan) / 1e6 for row in rows]

    right = law("latency_avg_us")
    slips = {
        "That counts jets: a request has 8 of them": [value * row["batch"] for value, row in zip(right, rows, strict=True)],
        "The latency is in microseconds: divide by a million": [1e6 * value for value in right],
        "The latency is in microseconds, not in milliseconds: divide by a million": [1e3 * value for value in right],
        "That takes the 95th percentile; the law is about the mean, `latency_avg_us`": law("latency_p95_us"),
        "That takes the median; the law is about the mean, `latency_avg_us`": law("latency_p50_us"),
        "That is the concurrency itself. Work it out from throughput and latency": [row["concurrency"] for row in rows],
    }
    judge.must_all_be_right("under_way", under_way, right, slips, "Multiply requests per second by the mean latency in seconds")
    pairs = ", ".join(f"{value:.2f} at concurrency {row['concurrency']}" for value, row in zip(right, rows, strict=True))
    apart = max(abs(value / row["concurrency"] - 1) for value, row in zip(right, rows, strict=True))
    if apart <= _LITTLE:
        return correct(f"{pairs}: within {100 * apart:.0f} %, so the law holds on your numbers.")
    return correct(f"{pairs}: {100 * apart:.0f} % apart; at one of them something was not steady: measure that one again.")


@checker("8.4")
def baseline_beaten(server: Any, counted: Any, pair: Any, budget_ms: Any) -> Outcome:
    """A setting that is faster beyond doubt and inside the budget, measured in turn with the baseline on this very server."""
    baseline, best = measured.must_be_pair(pair)
    if {baseline["model"], best["model"]} != {_ONNX}:
        return not_yet(f"Both must be measured on `{_ONNX}`; these are `{baseline['model']}` and `{best['model']}`.")
    if (baseline["batch"], baseline["concurrency"]) != (1, 1):
        return not_yet("The first of `pair` is the baseline: batch size 1 at concurrency 1.")
    measured.must_be_measured_here(server, counted, best)
    setting = f"Batch size {best['batch']} at concurrency {best['concurrency']}"
    return measured.faster_within(baseline, best, budget_ms, setting, "Measure more pairs: `turns=12`.")


@checker("8.5")
def machines_counted(alike: Any, machines: Any) -> Outcome:
    """The recorded throughput of a T4 over the student's own, at the same load."""
    rows = {row["batch"]: row for row in measured.rows(alike, (), "alike", "measure")}
    own = rows.get(_BATCH_OF_GPU)
    if own is None or own["model"] != _ONNX or own["concurrency"] != 4:
        raise CannotTell(f"The check needs `alike`, with `{_ONNX}` at batch size {_BATCH_OF_GPU} and concurrency 4. Run its cell again.")
    gpu, tensorrt = (
        {row["batch"]: row[THROUGHPUT] for row in rows_of(recorded("T4", _ONNX, variant))} for variant in ("ONNX", "ONNX with TensorRT")
    )
    right = gpu[_BATCH_OF_GPU] / own[THROUGHPUT]
    # Whole machines are an answer, too.
    if judge.number(machines) != math.ceil(right):
        slips: dict[str, float | None] = {"That is with TensorRT. We asked for ONNX without it": tensorrt[_BATCH_OF_GPU] / own[THROUGHPUT]}
        for batch in (batch for batch in rows if batch in gpu and batch != _BATCH_OF_GPU):
            slips[f"That is at batch size {batch}. We asked for {_BATCH_OF_GPU}"] = gpu[batch] / rows[batch][THROUGHPUT]
        otherwise = f"Divide the T4's throughput at batch size {_BATCH_OF_GPU} by yours, both with concurrency 4"
        must_be_right("machines", machines, (gpu[_BATCH_OF_GPU], own[THROUGHPUT]), slips, otherwise)
    spread = f" ± {right * own[THROUGHPUT_SPREAD] / own[THROUGHPUT]:.1f}" if own.get(THROUGHPUT_SPREAD) else ""
    return correct(
        f"{gpu[_BATCH_OF_GPU]:.0f} inferences/s were recorded on a T4, and you have {own[THROUGHPUT]:.0f}: {right:.1f}{spread} "
        "machines. The spread is yours alone; theirs was not published."
    )
