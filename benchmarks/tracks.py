"""``python -m benchmarks.tracks``: ExaTrk on the shipped events, as an ensemble, as BLS, and in one process without a server.

Each event is sent to all three one after the other, so that a busy machine disturbs them alike. ``--write`` puts the table into
benchmarks/TRACKS.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import machine
from helpers import paths
from helpers.client import Client
from helpers.metrics import scrape
from helpers.physics.tracks import Event, load_events, stage_times
from helpers.server import Server, launch_server
from helpers.tables import as_text

SCRIPT = Path(__file__).with_name("tracks_in_process.py")
# Away from the ports of a course that runs on the same machine.
BASE_PORT = 12300
SAMPLES = {"no pile-up": False, "15 pile-up": True}
# What the course promises: ms per event on two cores, and the ensemble's time over that in one process.
LIMIT_MS = {"no pile-up": 20.0, "15 pile-up": 130.0}
LIMIT_RATIO = 1.15


class InProcess:
    """The yardstick: a process that runs all stages by itself."""

    def __init__(self, server: Server) -> None:
        parameters = [self._parameters(server, model) for model in ("ExaTrk_graph", "ExaTrk_tracks")]
        command = [
            paths.server_env() / "bin" / "python",
            SCRIPT,
            paths.models_dir(),
            *map(json.dumps, parameters),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    @staticmethod
    def _parameters(server: Server, model: str) -> dict[str, str]:
        return {name: value["string_value"] for name, value in server.config(model)["parameters"].items()}

    def run(self, path: Path) -> dict[str, Any]:
        """One event: milliseconds, the same by stage, and a checksum of the labels."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(path, file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)


def measure(client: Client, yardstick: InProcess, events: Sequence[Event], folder: Path, rounds: int) -> dict[str, np.ndarray]:
    """Milliseconds by way and event: the shortest of all rounds, which noise disturbs least."""
    times = {way: np.full((rounds + 1, len(events)), np.inf) for way in ("in process", "ensemble", "BLS")}
    for index, event in enumerate(events):
        np.save(folder / f"{index}.npy", event.features)
    for round_ in range(rounds + 1):
        for index, event in enumerate(events):
            alone = yardstick.run(folder / f"{index}.npy")
            times["in process"][round_, index] = alone["ms"]
            for way, model in (("ensemble", "ExaTrk"), ("BLS", "ExaTrk_bls")):
                start = time.perf_counter()
                labels = client.infer(model, FEATURES=event.features)["LABELS"]
                times[way][round_, index] = 1000 * (time.perf_counter() - start)
                assert zlib.crc32(labels.tobytes()) == alone["checksum"], "all ways must give the same labels"
    return {way: table[1:].min(axis=0) for way, table in times.items()}


def report(server: Server, rounds: int) -> str:
    """Measure everything and put it into words."""
    yardstick = InProcess(server)
    load_average = os.getloadavg()[0]
    parts = [f"# ExaTrk on the shipped events\n\nMade by `python -m benchmarks.tracks`: the shortest of {rounds} rounds for each event.\n"]
    try:
        with Client(server) as client, tempfile.TemporaryDirectory() as name:
            for sample, pile_up in SAMPLES.items():
                events = load_events(pile_up=pile_up)
                before = scrape(server)
                times = measure(client, yardstick, events, Path(name), rounds)
                after = scrape(server)
                hits = np.mean([event.n_hits for event in events])
                ratio = times["ensemble"].sum() / times["in process"].sum()
                rows = [{"way": way, "median ms": float(np.median(ms)), "events/s": float(1000 / ms.mean())} for way, ms in times.items()]
                excess_ms = float((times["ensemble"] - LIMIT_RATIO * times["in process"]).mean())
                parts += [
                    f"## {sample}: {len(events)} events, {hits:.0f} hits each\n\n```\n{as_text(rows)}\n```\n",
                    f"- Ensemble over in process: {ratio:.3f}, goal {LIMIT_RATIO}: {_verdict(excess_ms)}.",
                    f"- Median: goal {LIMIT_MS[sample]:.0f} ms: {_verdict(float(np.median(times['ensemble'])) - LIMIT_MS[sample])}.\n",
                    f"By stage, ensemble and BLS together:\n\n```\n{stage_times(after - before)}\n```\n",
                ]
    finally:
        yardstick.close()
    return "\n".join([*parts, f"{machine(load_average)}\n"])


def _verdict(excess_ms: float) -> str:
    """Whether a goal is reached, and how far off it is."""
    return f"missed by {excess_ms:.1f} ms per event" if excess_ms > 0 else f"reached, {-excess_ms:.1f} ms to spare"


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tracks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each event is measured (default 5)")
    parser.add_argument("--write", action="store_true", help="write the report to benchmarks/TRACKS.md")
    arguments = parser.parse_args()
    with launch_server("models", load=["ExaTrk", "ExaTrk_bls"], base_port=BASE_PORT, name="bench-tracks") as server:
        text = report(server, arguments.rounds)
    print(text)
    if arguments.write:
        Path(__file__).with_name("TRACKS.md").write_text(text)


if __name__ == "__main__":
    main()
