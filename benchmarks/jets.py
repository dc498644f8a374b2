"""``python -m benchmarks.jets``: jets from ROOT file to scores, through a server and in one process without one.

Both read the same file with the same code and give the network one thread, and they run in turn, so that a busy machine disturbs
them alike. The server's client reads and pads while the network works; a process alone does one after the other. ``--write`` puts
the table into benchmarks/JETS.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.machine import machine
from helpers import jets, paths
from helpers.client import Client
from helpers.server import Server, launch_server
from helpers.tables import as_text

SCRIPT = Path(__file__).with_name("jets_in_process.py")
# Away from the ports of a course that runs on the same machine.
BASE_PORT = 12600
BATCHES = (1, 4, 16, 50)
# The model that is measured, its sample, and how many of its jets: a second or two for each measurement.
MODELS = {"particlenet_AK4": ("ak4", 2000), "particlenet": ("ak8", 300)}
# What the course promises: the server costs at most this share of the throughput, from this batch size on.
LIMIT_OVERHEAD, LIMIT_FROM_BATCH = 0.15, 16
# One instance with one thread, as the process without a server.
ALONE = """
instance_group { kind: KIND_CPU count: 1 }
parameters { key: "intra_op_thread_count" value { string_value: "1" } }
parameters { key: "inter_op_thread_count" value { string_value: "1" } }
"""


class InProcess:
    """The yardstick: a process that does everything by itself."""

    def __init__(self, model: str) -> None:
        sample, n_jets = MODELS[model]
        python = paths.server_env() / "bin" / "python"
        packages = subprocess.check_output([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True).strip()
        folder = paths.models_dir() / model
        self.process = subprocess.Popen(
            [sys.executable, SCRIPT, packages, folder / "1" / "model.onnx", folder / "preprocess.json", sample, str(n_jets)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        )

    def run(self, batch: int) -> tuple[float, float]:
        """Seconds, and the sum of the squares of all scores."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(batch, file=self.process.stdin, flush=True)
        answer = json.loads(self.process.stdout.readline())
        return answer["seconds"], answer["squares"]

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


def through_server(tagger: jets.Tagger, batch: int) -> tuple[float, float]:
    """As `InProcess.run`, with the network on the server."""
    sample, n_jets = MODELS[tagger.model]
    begin = time.perf_counter()
    scores = tagger.tag(jets.read(sample)[:n_jets], batch=batch)
    seconds = time.perf_counter() - begin
    return seconds, float(np.square(scores.probabilities, dtype=np.float64).sum())


def measure(server: Server, model: str, batches: list[int], rounds: int) -> list[dict[str, float | str]]:
    """One row for each batch size: jets per second both ways, and the median over the rounds of their ratio."""
    config = (paths.models_dir() / model / "config.pbtxt").read_text()
    server.load(model, config=config + ALONE)
    rows, yardstick, n_jets = [], InProcess(model), MODELS[model][1]
    try:
        with Client(server) as client:
            tagger = jets.Tagger(client, model)
            yardstick.run(batches[-1]), through_server(tagger, batches[-1])  # warm
            for batch in batches:
                pairs = []
                for _ in range(rounds):
                    (before, expected), (served, seen), (after, _) = (
                        yardstick.run(batch),
                        through_server(tagger, batch),
                        yardstick.run(batch),
                    )
                    assert abs(seen - expected) < 1e-4 * expected, "both ways must give the same scores"
                    pairs.append((n_jets / served, n_jets / ((before + after) / 2)))
                ratio = statistics.median(server_rate / alone for server_rate, alone in pairs)
                best = [max(rates) for rates in zip(*pairs, strict=True)]
                rows.append(
                    {
                        "model": model,
                        "batch": batch,
                        "server_jets_per_s": round(best[0]),
                        "in_process_jets_per_s": round(best[1]),
                        "server_over_in_process": round(ratio, 3),
                    }
                )
    finally:
        yardstick.close()
    return rows


def report(rows: list[dict[str, float | str]], rounds: int, load_average: float) -> str:
    """The table, and whether the course keeps its promise."""
    overheads = [1 - float(row["server_over_in_process"]) for row in rows if int(row["batch"]) >= LIMIT_FROM_BATCH]
    verdict = "kept" if max(overheads) <= LIMIT_OVERHEAD else "NOT kept"
    largest = f"{100 * max(overheads):.1f} % (limit {100 * LIMIT_OVERHEAD:.0f} %): {verdict}"
    return (
        f"# Jets from ROOT file to scores\n\nMade by `python -m benchmarks.jets`: best rates of {rounds} rounds, and the "
        "median of their ratios.\n\n"
        f"```\n{as_text(rows)}\n```\n\nLargest overhead from batch {LIMIT_FROM_BATCH} on: {largest}.\n\n{machine(load_average)}\n"
    )


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.jets", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is measured (default 5)")
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES), help="jets in one request")
    parser.add_argument("--models", nargs="+", choices=sorted(MODELS), default=list(MODELS), help="models to measure")
    parser.add_argument("--write", action="store_true", help="write the report to benchmarks/JETS.md")
    arguments = parser.parse_args()
    load_average, rows = os.getloadavg()[0], []
    with launch_server("models", load=arguments.models, base_port=BASE_PORT, name="bench-jets") as server:
        for model in arguments.models:
            rows += measure(server, model, arguments.batches, arguments.rounds)
    text = report(rows, arguments.rounds, load_average)
    print(text)
    if arguments.write:
        Path(__file__).with_name("JETS.md").write_text(text)


if __name__ == "__main__":
    main()
