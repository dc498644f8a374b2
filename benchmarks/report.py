"""The results as Markdown: tables, and below them the machine, the date and the versions."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from benchmarks import memory, network
from benchmarks.machine import machine
from benchmarks.measuring import CONCURRENCY, Row

# What the embedded server is meant to reach, as a ratio to the yardstick, by the smallest batch size for which it holds.
GOALS = {8: 0.97, 1: 0.80}
READY_GOAL_S = 3.0


def goal(batch: int) -> float:
    """The ratio to reach at a batch size."""
    return next(ratio for smallest, ratio in GOALS.items() if batch >= smallest)


def throughput_table(rows: Sequence[Row]) -> str:
    """One line per model and batch size."""
    lines = [
        "| model | batch | in process | server | ratio | p50 (ms) | with dynamic batching | ratio | p50 (ms) | goal |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        cells = [row.kind, str(row.batch), f"{row.yardstick():.0f}"]
        for suffix in network.BATCHING:
            cells += [f"{row.throughput(suffix):.0f}", f"{row.ratio(suffix):.2f}", f"{row.latency_p50_us(suffix) / 1000:.2f}"]
        lines.append("| " + " | ".join([*cells, f"{goal(row.batch):.2f}"]) + " |")
    return "\n".join(lines)


def memory_table(usages: Sequence[memory.Usage]) -> str:
    """One line per process."""
    lines = ["| process | RSS (MB) | PSS (MB) |", "|---|--:|--:|"]
    lines += [f"| {usage.name} | {usage.rss_mb:.0f} | {usage.pss_mb:.0f} |" for usage in usages]
    return "\n".join(lines)


def ready_line(seconds: Sequence[float]) -> str:
    """How long add_sub took."""
    times = ", ".join(f"{value:.1f}" for value in seconds)
    median = statistics.median(seconds)
    return f"`add_sub` is READY {median:.1f} s after the call of `launch_server` (goal {READY_GOAL_S:.0f} s; each time: {times})."


def document(rows: Sequence[Row], ready_s: Sequence[float], usages: Sequence[memory.Usage], rounds: int, load_average: float) -> str:
    """The whole report."""
    return f"""# How fast the embedded server is

Made by `make bench`; jets per second through the course's AK4 ParticleNet, a batch of 8 counting 8. The yardstick is the same
network in one process without a server, on one thread. The server runs one instance with one thread, and perf_analyzer keeps
{CONCURRENCY} requests under way, over gRPC. Both are measured in turn, {rounds} rounds; medians are shown. Each ratio is to the yardstick
just before and after.

{throughput_table(rows)}

{ready_line(ready_s)}

{memory_table(usages)}

RSS counts shared libraries in full for each process, PSS in parts, so the PSS column adds up to what all use together.

{machine(load_average)}
"""
