"""``python -m benchmarks.tune``: the course's search against a full grid, and against NVIDIA's Model Analyzer on the same server.

``--write`` puts the report into benchmarks/TUNE.md. What is measured is kept in ``work/bench/tune``, so that each part may be measured in
a call of its own (``--part grid``, ``--part nvidia``), and an interrupted one goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import network, nvidia_search, report, tune_tables
from helpers import paths, repository
from helpers.measuring.measure import measure
from helpers.measuring.statistics import verdict
from helpers.measuring.table import plain
from helpers.server import Server, launch_server
from helpers.tuning.search import ROUNDS, Tuned, Workbench, compared, tune
from helpers.tuning.space import Axes, Candidate, Found, Goal, Traffic, place_of

# Away from the ports of a course that runs on the same machine.
BASE_PORT = 13200
MODEL = "onnx"
# The small space: 24 combinations. The grid measures each as well as the search measures its finalists.
GRID = Axes(instances=(1, 2, 3), threads=(1, 2), delays_ms=(None, 0.0, 0.5, 2.0))
GRID_TRAFFIC = Traffic(8, 4)
# Against Model Analyzer: limits for both; it chooses the concurrency up to the limit, and the course's search is given the limit.
LIMITS = nvidia_search.Limits(instances=2, batch=16, concurrency=16, p95_ms=200.0)


@contextmanager
def serving(max_batch_size: int) -> Iterator[Server]:
    """The course's AK4 ParticleNet as ONNX: one instance with one thread, no batching."""
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder) / "models"
        network.write_repository(models)
        repository.change_config(models / MODEL, max_batch_size=max_batch_size)
        with launch_server(models, load=[MODEL], base_port=BASE_PORT, name="bench-tune") as server:
            yield server


def against_grid(server: Server, folder: Path, _: dict[str, Any]) -> dict[str, Any]:
    """The search and the full grid on the same space; then both winners in turn."""
    found, seconds = _timed_search(server, folder / "search", GRID_TRAFFIC, None, axes=GRID)
    grid, begin = _bench(server, Goal(GRID_TRAFFIC), folder / "grid"), time.monotonic()
    candidates = list(GRID.candidates(MODEL))
    rows = _in_turn(grid, candidates)
    grid_s = time.monotonic() - begin
    best = max(candidates, key=lambda each: grid.goal.rank(rows[each]))
    ours = next(each for each in candidates if str(each) == found.best["candidate"])
    again = _in_turn(_bench(server, Goal(GRID_TRAFFIC), folder / "grid"), [best, ours])
    grid.restore()
    return {
        "traffic": str(GRID_TRAFFIC),
        "rounds": ROUNDS,
        "combinations": len(candidates),
        "grid_measurements": len(candidates) * ROUNDS,
        "grid_s": grid_s,
        "grid_best": str(best),
        "grid_best_rate": rows[best]["throughput_infer_per_s"],
        "measurements": sum(row["rounds"] or 1 for row in found.rows),
        "tried": len({row["candidate"] for row in found.rows}),
        "seconds": seconds,
        "best": str(ours),
        "rate": rows[ours]["throughput_infer_per_s"],
        "again_grid": again[best]["throughput_infer_per_s"],
        "again_search": again[ours]["throughput_infer_per_s"],
        "verdict": "the same configuration" if ours == best else str(compared(again[best], again[ours], grid.goal)),
        "text": list(found.text),
    }


def against_nvidia(server: Server, folder: Path, windows: dict[str, Any]) -> dict[str, Any]:
    """The search, Model Analyzer, and then both winners in turn, each with its own concurrency."""
    traffic = Traffic(1, LIMITS.concurrency)
    # Its time is compared, so none of it may be from an earlier call.
    shutil.rmtree(folder, ignore_errors=True)
    found, seconds = _timed_search(server, folder / "ours", traffic, LIMITS.p95_ms, max_instances=LIMITS.instances)
    original = server.config(MODEL)
    theirs = nvidia_search.search(server, MODEL, LIMITS, windows)
    best = theirs.best()
    answer = {
        "limits": asdict(LIMITS),
        "windows": windows,
        "rounds": ROUNDS,
        "ours_s": seconds,
        "ours_measurements": len(found.rows),
        "ours": found.best and {name: found.best[name] for name in ("candidate", "throughput_infer_per_s", "latency_p95_us")},
        "theirs_s": theirs.seconds,
        "theirs_measurements": theirs.measurements,
        "theirs": best,
        "text": list(found.text),
    }
    if best is None or found.best is None:
        server.load(MODEL, config=original)
        return answer
    # Its server was left with its last configuration; now both winners are measured by the same means.
    server.load(MODEL, config=original)
    winner = Candidate(*(found.best[name] for name in ("model", "instances", "threads", "delay_ms", "accelerator", "half_batches")))
    place = place_of(MODEL, original, len(os.sched_getaffinity(0)), embedded=True)
    config = {**original, "max_batch_size": int(best["max_batch_size"]), "dynamic_batching": {}}
    config["instance_group"] = [{"count": int(best["instances"].split(":")[0]), "kind": "KIND_CPU"}]
    sides = {
        # The configuration that it found, and tries first, has no batching.
        "theirs": (original if best["config"].endswith("default") else config, int(best["concurrency"])),
        "ours": (Found(MODEL, original, True, place).config_for(winner, traffic), LIMITS.concurrency),
    }
    rows: dict[str, list[dict[str, Any]]] = {"theirs": [], "ours": []}
    for number in range(ROUNDS):
        for who, (config, concurrency) in sides.items():
            server.load(MODEL, config=config)
            row = plain(measure(server, MODEL, 1, concurrency, windows=3))
            rows[who].append(row | {"turns": {f"round {number}": [row["throughput_infer_per_s"], row["latency_p95_us"]]}})
    server.load(MODEL, config=original)
    same = {"config": None, "instances": None, "concurrency": None}
    return answer | {
        "theirs_again": _rate(rows["theirs"]),
        "ours_again": _rate(rows["ours"]),
        "p95_ms": {who: max(row["latency_p95_us"] for row in each) / 1000 for who, each in rows.items()},
        "verdict": str(verdict(*([{**row, **same} for row in rows[who]] for who in ("theirs", "ours")))),
    }


def _timed_search(server: Server, folder: Path, traffic: Traffic, budget_ms: float | None, **options: Any) -> tuple[Tuned, float]:
    begin = time.monotonic()
    found = tune(server, MODEL, traffic.batch, concurrency=traffic.concurrency, budget_ms=budget_ms, output=folder, **options)
    return found, time.monotonic() - begin


def _bench(server: Server, goal: Goal, folder: Path) -> Workbench:
    bench = Workbench(server, goal, folder, {"input_data": "random", "lengths": None, "protocol": None})
    bench.find(MODEL, len(os.sched_getaffinity(0)))
    return bench


def _in_turn(bench: Workbench, candidates: Sequence[Candidate]) -> dict[Candidate, dict[str, Any]]:
    """The rows of candidates, each of all rounds."""
    rows: dict[Candidate, dict[str, Any]] = {}
    for number in range(ROUNDS):
        for each in candidates if number % 2 == 0 else candidates[::-1]:
            rows[each] = bench.measure_again(each, f"round {number}")
    return rows


def _rate(rows: list[dict[str, Any]]) -> float:
    rates = [row["throughput_infer_per_s"] for row in rows if row["throughput_infer_per_s"]]
    return sum(rates) / len(rates)


def document(results: dict[str, Any]) -> str:
    """The whole report."""
    head = [
        "# How good and how quick the search is",
        "A shared machine moves these figures more than configurations do when its load average is above its cores: look at it first, and "
        "at the ± of the verdicts, which then say that nobody can tell.",
        "Made by `make -C benchmarks tune`: the course's AK4 ParticleNet as ONNX, jets of 50 candidates and 4 vertices, gRPC.",
    ]
    texts = {"grid": tune_tables.grid_text, "nvidia": tune_tables.nvidia_text}
    parts = [f"{text(results[part])}\n\n{results[part]['machine']}" for part, text in texts.items() if part in results]
    return "\n\n".join([*head, *parts]) + "\n"


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tune", description=__doc__)
    parser.add_argument("--part", choices=("grid", "nvidia"), action="append", help="only this part")
    parser.add_argument("--only-report", action="store_true", help="measure nothing, make the report of what is kept")
    parser.add_argument("--again", action="store_true", help="measure also what an earlier call measured, which may have been interrupted")
    parser.add_argument(
        "--short-windows", action="store_true", help="let Model Analyzer measure for shorter than it does by default, for a busy machine"
    )
    parser.add_argument("--write", action="store_true", help="write all that is in work/bench/tune to benchmarks/TUNE.md")
    arguments = parser.parse_args()
    folder = paths.work_dir() / "bench" / "tune"
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "results.json"
    results = json.loads(kept.read_text()) if kept.exists() else {}
    measures = {"grid": (against_grid, 64), "nvidia": (against_nvidia, LIMITS.batch)}
    for part in () if arguments.only_report else arguments.part or measures:
        measured, max_batch_size = measures[part]
        if arguments.again:
            shutil.rmtree(folder / part, ignore_errors=True)
        machine = report.machine(os.getloadavg()[0])
        with serving(max_batch_size) as server:
            results[part] = measured(server, folder / part, nvidia_search.SHORT_WINDOWS if arguments.short_windows else {}) | {
                "machine": machine
            }
        kept.write_text(json.dumps(results, indent=1))
    text = document(results)
    print(text)
    if arguments.write:
        Path(__file__).with_name("TUNE.md").write_text(text)


if __name__ == "__main__":
    main()
