"""``python -m benchmarks.sweep``: the course's sweep against the loop of the course text, batch by batch in turn.

The loop measures each batch size with windows of 9 s, three at least. ``--write`` puts the table into benchmarks/SWEEP.md. Each batch
size is kept in ``work/bench`` as soon as it is measured, so that the seven may be measured in several calls.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import report
from helpers import paths
from helpers.measuring.measure import BATCHES, POINT_S, PRECISION, sweep
from helpers.measuring.perf_analyzer import execute, run_for
from helpers.measuring.program import find_perf_analyzer
from helpers.measuring.statistics import half_width
from helpers.measuring.table import rows_of
from helpers.server import Server, launch_server

# Away from the ports of a course that runs on the same machine.
BASE_PORT = 12900
MODEL, CONCURRENCY = "particlenet_AK4", 4
# The window of the loop in the course text.
WINDOW_MS = 9000
# The course's promise: at most this part of the loop's time, with throughputs that are equal within the spread.
LIMIT = 1 / 3


def compare(server: Server, batch: int, program: Any) -> dict[str, Any]:
    """One batch size by both: seconds, throughput and half width of its 95 % interval."""
    begin = time.perf_counter()
    run = run_for(server, MODEL, batch=batch, concurrency=CONCURRENCY, window_ms=WINDOW_MS)
    done = execute(run, program, server)
    loop_s = time.perf_counter() - begin
    # The tool's result is of its last three windows; with fewer that agree it gives none.
    rates = [window.throughput_infer_per_s for window in done.windows[-3:]]
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        (row,) = rows_of(sweep(server, MODEL, (batch,), (CONCURRENCY,), output=folder, silent=True))
        sweep_s = time.perf_counter() - begin
    return {
        "batch": batch,
        "loop_s": loop_s,
        "loop": done.figures.get("throughput_infer_per_s"),
        "loop_windows": len(done.windows),
        "loop_mean": sum(rates) / len(rates) if rates else None,
        "loop_spread": half_width(rates),
        "sweep_s": sweep_s,
        "sweep": row["throughput_infer_per_s"],
        "sweep_spread": row["throughput_spread_infer_per_s"],
        "sweep_windows": row["windows"],
    }


def equal(row: dict[str, Any]) -> bool | None:
    """Whether the two throughputs differ by no more than their spreads together; None where the loop has no stable result."""
    if row["loop"] is None or row["loop_spread"] is None or row["sweep_spread"] is None:
        return None
    return abs(row["loop_mean"] - row["sweep"]) <= math.hypot(row["loop_spread"], row["sweep_spread"])


def table(rows: Sequence[dict[str, Any]]) -> str:
    """One line per batch size, and the sums."""
    lines = [
        "| batch | loop (s) | windows | infer/s | sweep (s) | windows | infer/s | equal within the spread |",
        "|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    for row in rows:
        loop = f"{row['loop_mean']:.0f} ± {row['loop_spread']:.0f}" if row["loop_spread"] is not None else "none"
        loop += "" if row["loop"] is not None else " (not stable: no result)"
        verdict = {True: "yes", False: "NO", None: "cannot tell"}[equal(row)]
        lines.append(
            f"| {row['batch']} | {row['loop_s']:.1f} | {row['loop_windows']} | {loop} | {row['sweep_s']:.1f} | {row['sweep_windows']} "
            f"| {row['sweep']:.0f} ± {row['sweep_spread']:.0f} | {verdict} |"
        )
    loop_s, sweep_s = (sum(row[name] for row in rows) for name in ("loop_s", "sweep_s"))
    lines.append(f"| all | {loop_s:.0f} | | | {sweep_s:.0f} | | | |")
    kept = "kept" if sweep_s <= LIMIT * loop_s else "NOT kept"
    return "\n".join(lines) + f"\n\nThe sweep takes {sweep_s / loop_s:.2f} of the loop's time (limit {LIMIT:.2f}): {kept}."


def document(rows: Sequence[dict[str, Any]], load_average: float) -> str:
    """The whole report."""
    return f"""# How quick a sweep is

Made by `python -m benchmarks.sweep`: `{MODEL}`, {CONCURRENCY} requests under way over gRPC, jets of 50 candidates and 4 vertices. The
loop is that of the course text: perf_analyzer with `-p {WINDOW_MS}`, until three windows agree within 10 % or ten are over. The sweep
is `helpers.measuring.measure.sweep`, with its files and its warm-up: until the throughput is known to {PRECISION:.0%}, or
{POINT_S:.0f} s are over. Both were measured in turn at each batch size; ± is half of the 95 % interval of the windows'
mean, for the loop of its last three. Where those do not agree, the loop ends without a result; its windows are shown all the same, and
nobody can tell whether both are equal.

{table(rows)}

{report.machine(load_average)}
"""


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep", description=__doc__)
    parser.add_argument("--batches", type=int, nargs="*", default=list(BATCHES), help="batch sizes (default the seven)")
    parser.add_argument("--write", action="store_true", help="write all that is in work/bench to benchmarks/SWEEP.md")
    arguments = parser.parse_args()
    load_average = os.getloadavg()[0]
    kept = paths.work_dir() / "bench" / "sweep.json"
    kept.parent.mkdir(parents=True, exist_ok=True)
    rows = {row["batch"]: row for row in json.loads(kept.read_text())} if kept.exists() else {}
    program = find_perf_analyzer()
    with launch_server("models", load=[MODEL], base_port=BASE_PORT, name="bench-sweep") as server:
        for batch in arguments.batches:
            rows[batch] = compare(server, batch, program)
            kept.write_text(json.dumps([rows[number] for number in sorted(rows)], indent=1))
            print(table([rows[batch]]), flush=True)
    chosen = sorted(rows) if arguments.write else sorted(arguments.batches)
    text = document([rows[batch] for batch in chosen], load_average)
    print(text)
    if arguments.write:
        Path(__file__).with_name("SWEEP.md").write_text(text)


if __name__ == "__main__":
    main()
