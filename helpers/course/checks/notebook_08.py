"""Checkers of notebook 08, Sweep batch size and concurrency: all limits come from the student's own rows and their spreads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from helpers.course import judge
from helpers.course.judge import CannotTell, Outcome, checker, correct, not_yet
from helpers.errors import InputError
from helpers.measuring import statistics as verdicts
from helpers.measuring.recorded import recorded
from helpers.measuring.table import LATENCY_ENDS, THROUGHPUT, THROUGHPUT_SPREAD, is_recorded, is_row, latency_words, plain, rows_of
from helpers.tables import Row

_ONNX, _TORCH = "particlenet_AK4", "particlenet_AK4_PT"
# The knee is where this fraction of the highest throughput is reached.
_KNEE = 0.9
# People round: a number counts as right within this fraction.
_ROUNDING = 0.02
# Little's law holds for whole requests; those cut in two by the ends of a window make it as inexact as this.
_LITTLE = 0.15
_BATCH_OF_VERDICT, _BATCH_OF_GPU = 16, 4


def _rows(rows: Any, what: str) -> list[Row]:
    """Rows with what the check needs, or no answer."""
    try:
        found = rows_of(rows, ("batch", THROUGHPUT), what)
    except InputError as error:
        raise CannotTell(f"The check needs the rows of your sweep. {error.happened} Run the cell with `sweep` again.") from error
    if any(row.get(THROUGHPUT) is None for row in found):
        raise CannotTell("A point of your sweep has no throughput. Run the cell with `sweep` again, with `again=True`.")
    return found


def _close(given: float, right: float) -> bool:
    return math.isclose(given, right, rel_tol=_ROUNDING)


def _percent(part: float) -> str:
    return f"{100 * part:.0f} %"


@checker("8.1")
def knee_read(onnx: Any, knee: Any, knee_ms: Any) -> Outcome:
    """The smallest batch size with 90 % of the highest throughput, and its latency."""
    rows = sorted(_rows(onnx, "the knee"), key=lambda row: row["batch"])
    if {row["model"] for row in rows} != {_ONNX} or len(rows) < 3:
        raise CannotTell(f"The check needs `onnx`, the rows of `{_ONNX}` at several batch sizes. Run the cell that makes it again.")
    batch, latency = judge.number(knee), judge.number(knee_ms)
    best = max(rows, key=lambda row: row[THROUGHPUT])
    right = next(row for row in rows if row[THROUGHPUT] >= _KNEE * best[THROUGHPUT])
    chosen = next((row for row in rows if row["batch"] == batch), None)
    if chosen is None:
        known = ", ".join(str(row["batch"]) for row in rows)
        return not_yet(f"`knee` is {judge.plain(batch) if batch else judge.kind(knee)}. Expected one of your batch sizes: {known}.")
    if chosen is not right and not _on_the_line(chosen, best):
        share = _percent(chosen[THROUGHPUT] / best[THROUGHPUT])
        if chosen["batch"] > right["batch"]:
            top = " It has the highest throughput, but" if chosen is best else f" It reaches {share} of the highest throughput, and"
            return not_yet(f"`knee` is {chosen['batch']}.{top} a smaller batch size is at 90 % or more already.")
        return not_yet(f"`knee` is {chosen['batch']}, which reaches {share} of the highest throughput. It should be 90 % or more.")
    milliseconds = chosen["latency_p95_us"] / 1e3
    if latency is None:
        return not_yet(f"The knee is right. `knee_ms` should be a number, and it is {judge.kind(knee_ms)}.")
    if not _close(latency, milliseconds):
        return not_yet(f"The knee is right. `knee_ms` is {latency:.4g}. {_why_latency(latency, chosen)}")
    unsure = [row["batch"] for row in rows if row is not chosen and _on_the_line(row, best)]
    remark = f" Your spreads would allow {unsure[0]} as well." if unsure else ""
    return correct(
        f"At batch size {chosen['batch']} you have {chosen[THROUGHPUT]:.0f} inferences/s, "
        f"{_percent(chosen[THROUGHPUT] / best[THROUGHPUT])} of the highest, and 95 % of the requests are answered within "
        f"{milliseconds:.3g} ms.{remark}"
    )


def _on_the_line(row: Row, best: Row) -> bool:
    """Whether its spread reaches over the 90 %: then nobody can tell on which side it is."""
    share, half = verdicts.ratio(row, best)
    return row is not best and half is not None and abs(share - _KNEE) < half


def _why_latency(given: float, row: Row) -> str:
    """The usual wrong latencies by name."""
    if _close(given, row["latency_p95_us"]):
        return "That is in microseconds; divide by 1000."
    if _close(given, row["latency_p95_us"] / 1e6):
        return "That is in seconds; we asked for milliseconds."
    others = {"latency_avg_us": "the mean", "latency_p50_us": "the median", "latency_p90_us": "the 90th", "latency_p99_us": "the 99th"}
    for column, name in others.items():
        if row.get(column) is not None and _close(given, row[column] / 1e3):
            return f"That is {name}; we asked for the 95th percentile."
    return f"Take `latency_p95_us` of the row with batch size {row['batch']}."


@checker("8.2")
def judged(by_batch: Any, gain: Any, answer: Any) -> Outcome:
    """The gain of PyTorch over ONNX at one batch size, and the verdict on it."""
    rows = _rows(by_batch, "the verdict")
    at = {(row["model"], row["batch"]): row for row in rows}
    before, after = at.get((_ONNX, _BATCH_OF_VERDICT)), at.get((_TORCH, _BATCH_OF_VERDICT))
    if before is None or after is None:
        raise CannotTell(f"Your sweep has no point at batch size {_BATCH_OF_VERDICT} for both models. Run its cell again.")
    right = verdicts.verdict(before, after)
    given, word = judge.number(gain), str(getattr(answer, "answer", answer)).strip().lower()
    if given is None:
        return not_yet(f"`gain` should be a number, and it is {judge.kind(gain)}.")
    ratio = after[THROUGHPUT] / before[THROUGHPUT]
    if not (_close(given, ratio) or _close(given, right.gain)):
        if _close(given, 1 / ratio):
            return not_yet(f"`gain` is {given:.3g}: that is ONNX over PyTorch. ONNX is the baseline, so divide by its throughput.")
        if _close(given, after[THROUGHPUT] - before[THROUGHPUT]):
            return not_yet(f"`gain` is {given:.4g}: that is the difference. We asked how many times the throughput it is.")
        return not_yet(f"`gain` is {given:.3g}. Divide the throughput of `{_TORCH}` by that of `{_ONNX}`, both at {_BATCH_OF_VERDICT}.")
    known = (verdicts.FASTER, verdicts.SLOWER, verdicts.SAME, verdicts.CANNOT_TELL)
    if word.removeprefix("the ") not in [one.removeprefix("the ") for one in known]:
        return not_yet(f"`answer` is `{answer!r}`. Expected one of {', '.join(f'`{one}`' for one in known)}.")
    if word.removeprefix("the ") != right.answer.removeprefix("the "):
        spread = "no spread" if right.half_width is None else f"a 95 % interval of ± {right.half_width:.2f}"
        return not_yet(f"The gain is {right.gain:.2f} with {spread}. By that, the answer is not `{word}`.")
    return correct(str(right))


@checker("8.3")
def littles_law(by_load: Any, under_way: Any) -> Outcome:
    """Requests under way, from throughput and mean latency, for each row."""
    rows = _rows(by_load, "Little's law")
    if any(row.get("latency_avg_us") is None or row.get("concurrency") is None for row in rows):
        raise CannotTell("A row has no mean latency or no concurrency. Run the cell that makes `by_load` again.")
    if isinstance(under_way, (str, bytes, Mapping)) or (not isinstance(under_way, Sequence) and not hasattr(under_way, "tolist")):
        return not_yet(f"`under_way` is {judge.kind(under_way)}. Expected a list with one number for each of the {len(rows)} rows.")
    given = [judge.number(value) for value in under_way]
    if len(given) != len(rows) or None in given:
        return not_yet(f"`under_way` has {len(given)} entries, not all of them numbers, or not {len(rows)}: one for each row.")
    right = [row[THROUGHPUT] / row["batch"] * row["latency_avg_us"] / 1e6 for row in rows]
    seen = [value for value in given if value is not None]
    if not all(_close(one, other) for one, other in zip(seen, right, strict=True)):
        return not_yet(f"The first number is {seen[0]:.4g}. {_why_law(seen, rows)}")
    pairs = ", ".join(f"{value:.2f} at concurrency {row['concurrency']}" for value, row in zip(right, rows, strict=True))
    apart = max(abs(value / row["concurrency"] - 1) for value, row in zip(right, rows, strict=True))
    holds = "the law holds on your numbers" if apart <= _LITTLE else "at one of them something was not steady: measure that one again"
    return correct(f"{pairs}: within {_percent(apart)}, so {holds}." if apart <= _LITTLE else f"{pairs}: {_percent(apart)} apart; {holds}.")


def _why_law(given: Sequence[float], rows: Sequence[Row]) -> str:
    """The usual wrong numbers by name."""

    def is_(number: Any) -> bool:
        return all(_close(value, number(row)) for value, row in zip(given, rows, strict=True))

    seconds = 1e-6
    if is_(lambda row: row[THROUGHPUT] * row["latency_avg_us"] * seconds):
        return "That counts jets: a request has 8 of them."
    if is_(lambda row: row[THROUGHPUT] / row["batch"] * row["latency_avg_us"]):
        return "The latency is in microseconds: divide by a million."
    if is_(lambda row: row[THROUGHPUT] / row["batch"] * row["latency_avg_us"] / 1e3):
        return "The latency is in microseconds, not in milliseconds: divide by a million."
    if is_(lambda row: row[THROUGHPUT] / row["batch"] * row["latency_p95_us"] * seconds):
        return "That takes the 95th percentile; the law is about the mean, `latency_avg_us`."
    if is_(lambda row: row[THROUGHPUT] / row["batch"] * row["latency_p50_us"] * seconds):
        return "That takes the median; the law is about the mean, `latency_avg_us`."
    if is_(lambda row: row["concurrency"]):
        return "That is the concurrency itself. Work it out from throughput and latency."
    return "Multiply requests per second by the mean latency in seconds."


@checker("8.4")
def baseline_beaten(server: Any, counted: Any, pair: Any, budget_ms: Any) -> Outcome:
    """A setting that is faster beyond doubt and inside the budget, measured in turn with the baseline on this very server."""
    budget = judge.number(budget_ms)
    if budget is None or budget <= 0:
        raise CannotTell(f"The check needs `budget_ms`, and got {judge.kind(budget_ms)}. Run the cell of the first sweep again.")
    if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not all(map(is_row, pair)):
        return not_yet(f"`pair` is {judge.kind(pair)}. Expected the two rows that `measure_in_turn(...)` returns for two loads.")
    baseline, best = map(plain, pair)
    if any(row.get(THROUGHPUT) is None or row.get("latency_p95_us") is None for row in (baseline, best)):
        return not_yet("A row of `pair` has no figures. Expected what `measure_in_turn(...)` returns.")
    if {baseline.get("model"), best.get("model")} != {_ONNX}:
        return not_yet(f"Both must be measured on `{_ONNX}`; these are `{baseline.get('model')}` and `{best.get('model')}`.")
    if (baseline["batch"], baseline["concurrency"]) != (1, 1):
        return not_yet("The first of `pair` is the baseline: batch size 1 at concurrency 1.")
    if differs := judge.other_inputs(baseline, best):
        return not_yet(f"{differs} A gain counts with the same inputs: change batch size and concurrency alone.")
    if not is_recorded(best):
        _measured_here(server, counted, best)
    setting = f"Batch size {best['batch']} at concurrency {best['concurrency']}"
    judged = verdicts.verdict(baseline, best)
    ends = [best.get(name) for name in LATENCY_ENDS]
    if None in ends:
        raise CannotTell(f"{setting}: its 95th percentile is not known, of {best.get('requests')} requests. Measure more: `turns=12`.")
    waits = f"95th percentile {latency_words(best, 95)} ms"
    low, high = (end / 1e3 for end in ends)
    if low > budget:
        return not_yet(f"{setting}: {waits}, over the budget of {budget:g} ms. Take fewer jets, or fewer requests at once.")
    if judged.answer in (verdicts.SLOWER, verdicts.SAME):
        return not_yet(f"{setting} is not faster than the baseline. {judged}")
    if judged.answer == verdicts.CANNOT_TELL:
        raise CannotTell(f"{setting}: {judged.text} Measure more pairs, `turns=12`, or choose a setting with a larger gain.")
    if high > budget:
        raise CannotTell(f"{setting}: {waits}. That may be over {budget:g} ms or not. Measure longer, or stay further away from it.")
    return correct(f"{setting} is {judged.factor} times as fast as the baseline, with a {waits}.")


def _measured_here(server: Any, counted: Any, best: Row) -> None:
    """Raises CannotTell when this server has not seen so many requests."""
    risen = judge.rise(server, counted, _ONNX)
    needed = best.get("requests") or 1
    if risen < needed:
        raise CannotTell(
            f"Your server has seen {judge.plain(risen)} requests since `counted`, and `best` is made of {needed}. Run your cell again from "
            "its first line, then this one."
        )


@checker("8.5")
def machines_counted(alike: Any, machines: Any) -> Outcome:
    """The recorded throughput of a T4 over the student's own, at the same load."""
    rows = {row["batch"]: row for row in _rows(alike, "the comparison")}
    own = rows.get(_BATCH_OF_GPU)
    if own is None or own["model"] != _ONNX or own["concurrency"] != 4:
        raise CannotTell(f"The check needs `alike`, with `{_ONNX}` at batch size {_BATCH_OF_GPU} and concurrency 4. Run its cell again.")
    gpu = {row["batch"]: row[THROUGHPUT] for row in rows_of(recorded("T4", _ONNX, "ONNX"))}
    right = gpu[_BATCH_OF_GPU] / own[THROUGHPUT]
    given = judge.number(machines)
    if given is None:
        return not_yet(f"`machines` should be a number, and it is {judge.kind(machines)}.")
    # Whole machines are an answer, too.
    if _close(given, right) or given == math.ceil(right):
        spread = f" ± {right * own[THROUGHPUT_SPREAD] / own[THROUGHPUT]:.1f}" if own.get(THROUGHPUT_SPREAD) else ""
        return correct(
            f"{gpu[_BATCH_OF_GPU]:.0f} inferences/s were recorded on a T4, and you have {own[THROUGHPUT]:.0f}: {right:.1f}{spread} "
            "machines. The spread is yours alone; theirs was not published."
        )
    if _close(given, 1 / right):
        return not_yet(f"`machines` is {given:.2g}: that is the part of a T4 that one machine is. Turn it round.")
    tensorrt = {row["batch"]: row[THROUGHPUT] for row in rows_of(recorded("T4", _ONNX, "ONNX with TensorRT"))}
    if _close(given, tensorrt[_BATCH_OF_GPU] / own[THROUGHPUT]):
        return not_yet(f"`machines` is {given:.3g}: that is with TensorRT. We asked for ONNX without it.")
    for batch, row in rows.items():
        if batch in gpu and _close(given, gpu[batch] / row[THROUGHPUT]):
            return not_yet(f"`machines` is {given:.3g}: that is at batch size {batch}. We asked for {_BATCH_OF_GPU}.")
    return not_yet(
        f"`machines` is {given:.3g}. Divide the T4's throughput at batch size {_BATCH_OF_GPU} by yours, both with concurrency 4."
    )
