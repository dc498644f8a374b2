"""``python -m benchmarks.fleet``: two servers behind Envoy against one server, and Envoy before one server against none.

All are measured in turn, round after round in changing order, so that a busy machine slows them alike; each ratio is to the single
server of the same round. What the processor did meanwhile stands beside them. ``--write`` puts the report into benchmarks/FLEET.md.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import network, perf_analyzer, report
from benchmarks.processor import ENDED, OTHERS, Watch
from helpers.fleet import Fleet, launch_fleet

# Away from the ports of a course that runs on the same machine.
BASE_PORT = 13200
# The course's AK4 ParticleNet in ONNX, one instance with one thread.
MODEL = "onnx"
# Batch and concurrency: the load of the goals, and single jets one after the other, where a detour shows most.
LOADS = ((8, 4), (1, 1))
# What is measured, the yardstick first.
DIRECT, ONE, TWO = "one server, directly", "one server behind Envoy", "two servers behind Envoy"
# The goals: throughput of two over that of one; throughput that Envoy may cost before one; and what it may add to the median latency.
GAIN_GOAL, COST_GOAL, DELAY_GOAL_MS = 1.7, 0.05, 0.5


@dataclass(frozen=True)
class Point:
    """One measurement, and what the processor did meanwhile, in cores.

    Attributes:
        load: throughput and latency.
        servers: cores that the servers used.
        envoy: cores that Envoy used.
        tool: cores that perf_analyzer used.
        others: cores that other programs used.
    """

    load: perf_analyzer.Load
    servers: float
    envoy: float
    tool: float
    others: float


def measure(tool: perf_analyzer.Program, url: str, batch: int, concurrency: int, fleets: Sequence[Fleet]) -> Point:
    """One measurement at an address, with the CPU time of all servers and fronts that there are."""
    watch = Watch({"servers": [server.pid for fleet in fleets for server in fleet.servers], "envoy": [fleet.pid for fleet in fleets]})
    load = perf_analyzer.measure(tool, url, MODEL, batch, concurrency)
    cores = watch.used().cores
    return Point(load, cores["servers"], cores["envoy"], cores[ENDED], cores[OTHERS])


Round = dict[tuple[str, int, int], Point]


def compare(tool: perf_analyzer.Program, one: Fleet, two: Fleet, rounds: int) -> list[Round]:
    """All variants under all loads, so many rounds; every second round in the opposite order."""
    places = {DIRECT: one.servers[0].grpc_url, ONE: one.grpc_url, TWO: two.grpc_url}
    done: list[Round] = []
    for batch, concurrency in LOADS:
        for url in places.values():
            perf_analyzer.measure(tool, url, MODEL, batch, concurrency)  # the first requests of a shape are slow
    for number in range(rounds):
        order = list(places) if number % 2 == 0 else list(reversed(places))
        done.append({(what, *load): measure(tool, places[what], *load, (one, two)) for load in LOADS for what in order})
    return done


def ratios(rounds: Sequence[Round], what: str, load: tuple[int, int]) -> list[float]:
    """Throughput of a variant over that of the single server of the same round."""
    return [one[what, *load].load.infer_per_s / one[DIRECT, *load].load.infer_per_s for one in rounds]


def delays_ms(rounds: Sequence[Round], load: tuple[int, int]) -> list[float]:
    """What Envoy before one server added to the median latency, in ms."""
    return [(one[ONE, *load].load.p50_us - one[DIRECT, *load].load.p50_us) / 1000 for one in rounds]


def _median(rounds: Sequence[Round], what: str, load: tuple[int, int], name: str) -> float:
    return statistics.median(getattr(one[what, *load], name) for one in rounds)


def table(rounds: Sequence[Round]) -> str:
    """One line per variant and load; medians over the rounds."""
    lines = [
        "| batch | concurrency | | infer/s | ratio | from – to | p50 (ms) | servers | Envoy | perf_analyzer | others |",
        "|--:|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for load in LOADS:
        for what in (DIRECT, ONE, TWO):
            loads = [one[what, *load].load for one in rounds]
            ratio = ratios(rounds, what, load)
            cores = [f"{_median(rounds, what, load, name):.2f}" for name in ("servers", "envoy", "tool", "others")]
            numbers = [f"{statistics.median(one.infer_per_s for one in loads):.0f}", f"{statistics.median(ratio):.2f}"]
            numbers += [f"{min(ratio):.2f} – {max(ratio):.2f}", f"{statistics.median(one.p50_us for one in loads) / 1000:.2f}"]
            lines.append("| " + " | ".join([*map(str, load), what, *numbers, *cores]) + " |")
    return "\n".join(lines)


def _verdict(sentence: str, missed_by: float, unit: str, why: str) -> str:
    return f"- {sentence}: " + ("kept." if missed_by <= 0 else f"**missed by {missed_by:.2f}{unit}**. {why}")


def verdicts(rounds: Sequence[Round]) -> str:
    """The goals, and where one is missed by how much and what the processor did meanwhile."""
    load = LOADS[0]
    gain = statistics.median(ratios(rounds, TWO, load))
    cost = 1 - statistics.median(ratios(rounds, ONE, load))

    def why(what: str, load: tuple[int, int]) -> str:
        parts = {name: _median(rounds, what, load, name) for name in ("servers", "envoy", "tool", "others")}
        idle = max(len(os.sched_getaffinity(0)) - sum(parts.values()), 0.0)
        return (
            f"Of {len(os.sched_getaffinity(0))} cores the servers had {parts['servers']:.2f}, Envoy {parts['envoy']:.2f}, perf_analyzer "
            f"{parts['tool']:.2f}, other programs {parts['others']:.2f}; {idle:.2f} were idle."
        )

    lines = [
        _verdict(f"Two servers behind Envoy: {gain:.2f} times one server (goal {GAIN_GOAL})", GAIN_GOAL - gain, "", why(TWO, load)),
        _verdict(
            f"Envoy before one server costs {cost:.1%} of its throughput (goal {COST_GOAL:.0%})",
            100 * (cost - COST_GOAL),
            " percentage points",
            why(ONE, load),
        ),
    ]
    for batch, concurrency in LOADS:
        delay = statistics.median(delays_ms(rounds, (batch, concurrency)))
        sentence = f"and adds {delay:.2f} ms to the median latency at batch {batch}, concurrency {concurrency} (goal {DELAY_GOAL_MS} ms)"
        lines.append(_verdict(sentence, delay - DELAY_GOAL_MS, " ms", why(ONE, (batch, concurrency))))
    return "\n".join(lines)


def document(rounds: Sequence[Round], load_average: float) -> str:
    """The whole report."""
    return f"""# What a second server behind Envoy gives, and what Envoy costs

Made by `python -m benchmarks.fleet`: the course's AK4 ParticleNet in ONNX, one instance with one thread on each server, jets of 50
candidates and 4 vertices over gRPC. The variants were measured in turn, {len(rounds)} rounds, every second one in the opposite order;
medians are shown, and each ratio is to the single server of the same round. The last columns say how many cores the servers, Envoy,
perf_analyzer and other programs of this machine used meanwhile.

{table(rounds)}

{verdicts(rounds)}

{report.machine(load_average)}
"""


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description=__doc__)
    parser.add_argument("--rounds", type=int, default=6, help="rounds (default 6)")
    parser.add_argument("--write", action="store_true", help="write the report to benchmarks/FLEET.md")
    arguments = parser.parse_args()
    load_average = os.getloadavg()[0]
    tool = perf_analyzer.find_perf_analyzer()
    with tempfile.TemporaryDirectory() as folder:
        network.write_repository(Path(folder))
        options = {"load": [MODEL], "base_port": BASE_PORT}
        with (
            launch_fleet(folder, servers=1, name="bench-one", **options) as one,
            launch_fleet(folder, servers=2, name="bench-two", **options) as two,
        ):
            rounds = compare(tool, one, two, arguments.rounds)
    text = document(rounds, load_average)
    print(text)
    if arguments.write:
        Path(__file__).with_name("FLEET.md").write_text(text)


if __name__ == "__main__":
    main()
