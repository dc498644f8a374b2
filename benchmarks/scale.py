"""``python -m benchmarks.scale``: an analysis through Dask and one address, against what perf_analyzer gets from the same servers.

The analysis reads jets from ROOT files, sends them from Dask's workers, and writes their scores to ROOT files again. It goes to two servers
behind Envoy and to one, in turn, round after round, each time between two runs of perf_analyzer with the same model, the same jets, the
same batch and as many requests under way. ``--write`` puts the report into benchmarks/SCALE.md, ``--quick`` is a trial in a minute.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distributed import LocalCluster

from benchmarks import perf_analyzer, report, scale_stages
from benchmarks.jets import ALONE
from benchmarks.processor import ENDED, HERE, OTHERS, Watch
from helpers import paths, repository
from helpers.fleet import Fleet, launch_fleet
from helpers.measuring.inputs import write_jets
from helpers.measuring.perf_analyzer import LENGTHS
from helpers.physics.jets import BATCH_JETS
from helpers.scaling.analysis import ANALYSIS_JETS, CHUNK_JETS, IN_FLIGHT, local_workers, replicate, tag_files

# Away from the ports of a course that runs on the same machine.
BASE_PORT = 13300
# The faster of the two taggers: beside it the client's own work counts most.
MODEL, SAMPLE = "particlenet_AK4", "ak4"
ONE, TWO = "one server", "two servers"
# Jets per second of the analysis over those of perf_analyzer.
GOAL = 0.9
# Length of each of perf_analyzer's three windows in ms: some forty requests of 50 jets.
WINDOW_MS = 3000
# What a trial is made of.
QUICK_JETS, QUICK_ROUNDS = 8000, 2
_SERVERS, _ENVOY, _CLIENT = "servers", "Envoy", "client"


@dataclass(frozen=True)
class Load:
    """How the jets are sent.

    Attributes:
        workers: Dask's workers, each a process.
        threads: of each worker; each has a chunk of its own in hand.
        in_flight: requests under way from each thread.
        batch: jets in each request.
    """

    workers: int
    threads: int
    in_flight: int
    batch: int

    @property
    def concurrency(self) -> int:
        """Requests under way at once, at most."""
        return self.workers * self.threads * self.in_flight


@dataclass(frozen=True)
class Point:
    """One measurement.

    Attributes:
        jets_per_s: throughput.
        cores: that the servers, Envoy, the client and other programs used.
        us_per_jet: the client's CPU time for each jet in µs, by what the servers counted.
    """

    jets_per_s: float
    cores: dict[str, float]
    us_per_jet: float


@dataclass(frozen=True)
class Trio:
    """The analysis between two runs of perf_analyzer."""

    before: Point
    analysis: Point
    after: Point

    @property
    def ratio(self) -> float:
        """The analysis over the mean of both runs."""
        return 2 * self.analysis.jets_per_s / (self.before.jets_per_s + self.after.jets_per_s)


Round = dict[str, Trio]


class Bench:
    """The fleets, the cluster and what is sent, for as long as it is measured."""

    def __init__(self, fleets: Mapping[str, Fleet], cluster: LocalCluster, load: Load, folder: Path) -> None:
        self.fleets, self.cluster, self.load, self.folder = fleets, cluster, load, folder
        self.tool = perf_analyzer.find_perf_analyzer()
        self.inputs = write_jets(fleets[ONE], MODEL, path=folder / "jets.json")

    def _watch(self, fleet: Fleet) -> Callable[[float, Sequence[str]], Point]:
        """From now on; the function that this returns ends it and takes the throughput, and who the client is."""
        servers = [server.pid for fleet in self.fleets.values() for server in fleet.servers]
        workers = [worker.pid for worker in self.cluster.workers.values()]
        counted = fleet.snapshot()
        watch = Watch({_SERVERS: servers, _ENVOY: [each.pid for each in self.fleets.values()], _CLIENT: workers})

        def point(jets_per_s: float, client: Sequence[str]) -> Point:
            used = watch.used()
            jets = sum(row["inferences"] for row in fleet.shares(counted, MODEL))
            cores = {name: used.cores[name] for name in (_SERVERS, _ENVOY, OTHERS)} | {_CLIENT: sum(used.cores[name] for name in client)}
            return Point(jets_per_s, cores, 1e6 * cores[_CLIENT] * used.seconds / jets)

        return point

    def tool_run(self, fleet: Fleet) -> Point:
        """One run of perf_analyzer."""
        point, load = self._watch(fleet), self.load
        options: dict[str, Any] = {"input_data": self.inputs, "window_ms": WINDOW_MS}
        seen = perf_analyzer.measure(self.tool, fleet.grpc_url, MODEL, load.batch, load.concurrency, **options)
        return point(seen.infer_per_s, (ENDED,))

    def analysis(self, fleet: Fleet, files: Sequence[Path], output: Path) -> Point:
        """One run of the analysis; each jet must have its scores once."""
        jets = sum(scale_stages.entries(file) for file in files)
        # Chunks enough for all threads to end at about the same time.
        chunk = min(CHUNK_JETS, max(jets // (4 * self.load.workers * self.load.threads), self.load.batch))
        options: dict[str, Any] = {"batch": self.load.batch, "max_in_flight": self.load.in_flight, "jets_per_chunk": chunk}
        lengths = {"candidates": LENGTHS["pf"], "vertices": LENGTHS["sv"]}
        point = self._watch(fleet)
        done = tag_files(files, self.cluster, fleet, MODEL, output=output, silent=True, **options, **lengths)
        # Dask's scheduler is in this process.
        seen = point(done.jets_per_s, (_CLIENT, HERE))
        assert done.check() == {"jets": jets, "lost": 0, "doubled": 0}
        return seen

    def rounds(self, files: Sequence[Path], rounds: int) -> list[Round]:
        """All rounds: two servers get twice the jets, so that both take as long. Every second round in the opposite order."""
        for fleet in self.fleets.values():
            self.tool_run(fleet)
            self.analysis(fleet, files[:1], self.folder / "warm" / str(len(fleet.servers)))
        done: list[Round] = []
        for number in range(rounds):
            mine = files[2 * number : 2 * number + 2]
            order = list(self.fleets) if number % 2 == 0 else list(reversed(self.fleets))
            one_round: Round = {}
            for what in order:
                fleet = self.fleets[what]
                before = self.tool_run(fleet)
                point = self.analysis(fleet, mine[: len(fleet.servers)], self.folder / "scores" / f"{number}-{len(fleet.servers)}")
                one_round[what] = Trio(before, point, self.tool_run(fleet))
            done.append(one_round)
        return done


def _points(rounds: Sequence[Round], what: str) -> dict[str, list[Point]]:
    trios = [one[what] for one in rounds]
    return {"perf_analyzer": [point for trio in trios for point in (trio.before, trio.after)], "Dask": [trio.analysis for trio in trios]}


def _median(points: Sequence[Point], who: str) -> float:
    return statistics.median(point.cores[who] for point in points)


def table(rounds: Sequence[Round]) -> str:
    """Two lines for each address; medians over the rounds."""
    lines = [
        "| behind the address | client | jets/s | ratio | from – to | servers | Envoy | client | others | µs of client a jet |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for what in (TWO, ONE):
        ratios = [one[what].ratio for one in rounds]
        spread = {"perf_analyzer": ["", ""], "Dask": [f"{statistics.median(ratios):.2f}", f"{min(ratios):.2f} – {max(ratios):.2f}"]}
        for client, points in _points(rounds, what).items():
            cores = [f"{_median(points, who):.2f}" for who in (_SERVERS, _ENVOY, _CLIENT, OTHERS)]
            of_jet = statistics.median(point.us_per_jet for point in points)
            rate = f"{statistics.median(point.jets_per_s for point in points):.0f}"
            lines.append("| " + " | ".join([what, client, rate, *spread[client], *cores, f"{of_jet:.0f}"]) + " |")
    return "\n".join(lines)


def verdicts(rounds: Sequence[Round], cores: int) -> str:
    """The goal for each address, and where it is missed by how much and what the processor did meanwhile."""
    lines = []
    for what in (TWO, ONE):
        ratio = statistics.median(one[what].ratio for one in rounds)
        sentence = f"- {what.capitalize()} behind the address: the analysis does {ratio:.2f} of perf_analyzer's throughput (goal {GOAL})"
        if ratio >= GOAL:
            lines.append(f"{sentence}: kept.")
            continue
        points = _points(rounds, what)
        theirs, ours = ({who: _median(some, who) for who in (_SERVERS, _ENVOY, _CLIENT, OTHERS)} for some in points.values())
        idle = [max(cores - sum(used.values()), 0.0) for used in (ours, theirs)]
        lines.append(
            f"{sentence}: **missed by {GOAL - ratio:.2f}**. Of {cores} cores the servers had {ours[_SERVERS]:.2f} (with perf_analyzer "
            f"{theirs[_SERVERS]:.2f}), the client {ours[_CLIENT]:.2f} ({theirs[_CLIENT]:.2f}), other programs {ours[OTHERS]:.2f} "
            f"({theirs[OTHERS]:.2f}); {idle[0]:.2f} ({idle[1]:.2f}) were idle."
        )
    return "\n".join(lines)


def document(rounds: Sequence[Round], load: Load, jets: int, stages: str, load_average: float) -> str:
    """The whole report."""
    return f"""# What an analysis with Dask gets out of one address

Made by `python -m benchmarks.scale`: {jets} jets through two servers behind Envoy and {jets // 2} through one, in {len(rounds)} rounds.
Dask's LocalCluster has {load.workers} workers, threads of each: {load.threads}; each thread has {load.in_flight} requests of {load.batch}
jets under way. Model: {MODEL} in ONNX, one instance with one thread on each server. Each run of the analysis (reading ROOT files, sending,
writing ROOT files; each jet is counted afterwards) stands between two runs of perf_analyzer, which keeps {load.concurrency} requests under
way, with jets of the same sample in batches of {load.batch}; both pad to 50 candidates and 4 vertices. Medians are shown, and the ratio is
to the mean of both runs beside it. The next columns say how many cores the servers, Envoy, the client (Dask's workers and scheduler, or
perf_analyzer) and other programs of this machine used meanwhile; the last one is the client's CPU time for each jet.

{table(rounds)}

{verdicts(rounds, len(os.sched_getaffinity(0)))}

Where the client's CPU time goes, for each jet, one process without Dask:

{stages}

{report.machine(load_average)}
"""


def _write_repository(folder: Path) -> Path:
    model = Path(shutil.copytree(paths.models_dir() / MODEL, folder / MODEL))
    repository.change_config(model, ALONE, dynamic_batching=None)
    return folder


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--jets", type=int, default=ANALYSIS_JETS, help="jets through two servers (default 200000)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default 5)")
    parser.add_argument("--workers", type=int, default=2, help="Dask's workers (default 2)")
    parser.add_argument("--threads", type=int, default=1, help="threads of each (default 1)")
    parser.add_argument("--in-flight", type=int, default=IN_FLIGHT, help="requests under way from each (default 3)")
    parser.add_argument("--batch", type=int, default=BATCH_JETS, help="jets in a request (default 50)")
    parser.add_argument("--quick", action="store_true", help="a trial: few jets, two rounds")
    parser.add_argument("--write", action="store_true", help="write the report to benchmarks/SCALE.md")
    arguments = parser.parse_args()
    jets, rounds = (QUICK_JETS, QUICK_ROUNDS) if arguments.quick else (arguments.jets, arguments.rounds)
    load = Load(arguments.workers, arguments.threads, arguments.in_flight, arguments.batch)
    load_average = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        files = replicate(SAMPLE, jets, jets_per_file=-(-jets // (2 * rounds)), folder=folder / "jets")
        models, options = _write_repository(folder / "models"), {"load": [MODEL], "base_port": BASE_PORT}
        with (
            launch_fleet(models, servers=1, name="bench-scale-one", **options) as one,
            launch_fleet(models, servers=2, name="bench-scale-two", **options) as two,
        ):
            with local_workers(load.workers, threads=load.threads) as cluster:
                seen = Bench({TWO: two, ONE: one}, cluster, load, folder).rounds(files, rounds)
            # Dask is closed: its scheduler is in this process, and its CPU time would count.
            stages = scale_stages.table(one, MODEL, files[0], folder, load.batch)
    text = document(seen, load, jets, stages, load_average)
    print(text)
    if arguments.write:
        Path(__file__).with_name("SCALE.md").write_text(text)


if __name__ == "__main__":
    main()
