"""The tables of the report on the search."""

from __future__ import annotations

from typing import Any

from benchmarks.nvidia_search import Limits

# What the course promises: within 5 % of the grid's best in a fifth of its measurements, and at least Model Analyzer's best in a quarter
# of its time.
NEAR, FIFTH, QUARTER = 0.95, 1 / 5, 1 / 4


def grid_text(found: dict[str, Any]) -> str:
    """The search against the grid."""
    near, part = found["rate"] / found["grid_best_rate"], found["measurements"] / found["grid_measurements"]
    again = found["again_search"] / found["again_grid"]
    few = "kept" if part <= FIFTH else "NOT kept"
    same = found["best"] == found["grid_best"]
    lines = [
        "## Against a full grid",
        "",
        f"{found['combinations']} combinations (instances 1, 2, 3; threads 1, 2; dynamic batching off, on, waiting up to 0.5 and 2 ms) for",
        f"{found['traffic']}. The grid measures each combination {found['rounds']} times, round by round, as the search measures its",
        "finalists. Then both winners are measured in turn.",
        "",
        "| | measurements | time (s) | best combination | infer/s in the grid | infer/s in turn |",
        "|---|--:|--:|---|--:|--:|",
        f"| grid | {found['grid_measurements']} | {found['grid_s']:.0f} | {found['grid_best']} | {found['grid_best_rate']:.0f} "
        f"| {found['again_grid']:.0f} |",
        f"| search | {found['measurements']} | {found['seconds']:.0f} | {found['best']} | {found['rate']:.0f} "
        f"| {found['again_search']:.0f} |",
        "",
        f"The search looked at {found['tried']} of the {found['combinations']} combinations. Its {found['measurements']} measurements, "
        f"finals included, are {part:.2f} of the grid's",
        f"{found['grid_measurements']} (limit {FIFTH:.2f}): {few}. Against one measurement of each of the {found['combinations']} "
        f"combinations they are {found['measurements'] / found['combinations']:.2f}.",
        f"Throughput: {near:.2f} of its best in the grid's own figures, {again:.2f} in turn (limit {NEAR:.2f}):",
        f"{'kept' if same else _answer(found['verdict'])}. Seen from the grid's best: {found['verdict']}",
    ]
    return "\n".join(lines)


def nvidia_text(found: dict[str, Any]) -> str:
    """The search against Model Analyzer."""
    limits = Limits(**found["limits"])
    lines = [
        "## Against Model Analyzer",
        "",
        "NVIDIA's `triton-model-analyzer` 1.58.0, quick search in remote mode, on the same server and model, with the same perf_analyzer:",
        f"up to {limits.instances} instances, batches of up to {limits.batch}, up to {limits.concurrency} requests of batch 1 under way,",
        f"p95 ≤ {limits.p95_ms:g} ms. It also chooses the number of requests under way; the course's search is given the limit. Its time",
        f"is without its reports, and it measures {_windows(found)}. Then both winners are measured in turn, {found['rounds']} times.",
        "",
    ]
    if found.get("theirs_again") is None:
        return "\n".join([*lines, f"No comparison. The search: {found['ours']}. Model Analyzer: {found['theirs']}."])
    theirs, ours = found["theirs"], found["ours"]
    part, gain = found["ours_s"] / found["theirs_s"], found["ours_again"] / found["theirs_again"]
    in_time = "kept" if part <= QUARTER else "NOT kept"
    late = [who for who, p95_ms in found["p95_ms"].items() if p95_ms > limits.p95_ms]
    what = f"{theirs['instances']}, max_batch_size {theirs['max_batch_size']}, {theirs['concurrency']} under way"
    lines += [
        "| | measurements | time (s) | best | infer/s, its own figure | infer/s in turn | highest p95 in turn (ms) |",
        "|---|--:|--:|---|--:|--:|--:|",
        f"| Model Analyzer | {found['theirs_measurements']} | {found['theirs_s']:.0f} | {what} | {float(theirs['throughput']):.0f} "
        f"| {found['theirs_again']:.0f} | {found['p95_ms']['theirs']:.0f} |",
        f"| search | {found['ours_measurements']} | {found['ours_s']:.0f} | {ours['candidate']} | {ours['throughput_infer_per_s']:.0f} "
        f"| {found['ours_again']:.0f} | {found['p95_ms']['ours']:.0f} |",
        "",
        f"Time: {part:.2f} of Model Analyzer's (limit {QUARTER:.2f}): {in_time}. Throughput: {gain:.2f} of its best (limit 1):",
        f"{_answer(found['verdict'])}. Seen from that: {found['verdict']}",
    ]
    if late:
        lines.append(f"In turn the p95 was above the limit for: {', '.join(late)}; both had kept it in their own measurements.")
    return "\n".join(lines)


def _windows(found: dict[str, Any]) -> str:
    return "in windows of 1 s that may differ by 30 %, shorter than by default" if found.get("windows") else "as it does by default"


def _answer(verdict: str) -> str:
    """Whether the promise "at least as fast" is kept, by the first word of a verdict."""
    return {"Faster": "kept", "The same": "kept", "Slower": "NOT kept"}.get(verdict.split(":")[0], "cannot tell")
