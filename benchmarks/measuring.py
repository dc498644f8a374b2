"""The measurements: the yardstick in one process and the server in turn, round after round, so that both see the same machine."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import network, perf_analyzer
from helpers import paths
from helpers.server import Server, launch_server

# Requests under way at any time.
CONCURRENCY = 4
# Seconds of each slice of the yardstick; there is one before and one after every measurement of the server.
SLICE_S = 0.7
# The yardstick's memory is managed as the PyTorch backend manages its own.
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(512 << 20), "MALLOC_TOP_PAD_": str(64 << 20)}


@dataclass(frozen=True)
class Pair:
    """One measurement of the server, and the yardstick just before and just after it; both in inferences per second.

    Attributes:
        in_process: the mean of the two slices of the yardstick.
        load: what perf_analyzer saw between them.
    """

    in_process: float
    load: perf_analyzer.Load


@dataclass
class Row:
    """All measurements of one kind of model at one batch size.

    Attributes:
        kind: ``onnx`` or ``torchscript``.
        batch: batch size of each request; a batch of 8 counts as 8 inferences.
        pairs: the measurements by model name suffix (``""`` and ``"_dynamic"``), one per round.
    """

    kind: str
    batch: int
    pairs: dict[str, list[Pair]] = field(default_factory=dict)

    def yardstick(self) -> float:
        """Median of the yardstick."""
        return statistics.median(pair.in_process for pairs in self.pairs.values() for pair in pairs)

    def throughput(self, suffix: str) -> float:
        """Median throughput of the server."""
        return statistics.median(pair.load.infer_per_s for pair in self.pairs[suffix])

    def latency_p50_us(self, suffix: str) -> float:
        """Median over the rounds of the median latency."""
        return statistics.median(pair.load.p50_us for pair in self.pairs[suffix])

    def ratio(self, suffix: str) -> float:
        """Median over the rounds of server over yardstick: neighbours in time, so that a busy machine slows both."""
        return statistics.median(pair.load.infer_per_s / pair.in_process for pair in self.pairs[suffix])


class Yardstick:
    """The network in a process of its own, without a server.

    Args:
        python: the server environment's Python.
        kind: of the model.
    """

    def __init__(self, python: Path, kind: str) -> None:
        source, file = network.MODELS[kind]
        command = [python, Path(__file__).with_name("in_process.py"), paths.models_dir() / source / "1" / file]
        environment = {**os.environ, **_ALLOCATOR}
        self._process = subprocess.Popen(
            [*command, json.dumps(network.inputs(kind))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def measure(self, batch: int) -> float:
        """Inferences per second over one slice."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{batch} {SLICE_S}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


@contextmanager
def yardsticks(kinds: Sequence[str]) -> Iterator[dict[str, Yardstick]]:
    """One yardstick for each kind of model, as long as the block lasts."""
    python = paths.server_env() / "bin" / "python"
    made = {kind: Yardstick(python, kind) for kind in kinds}
    try:
        yield made
    finally:
        for yardstick in made.values():
            yardstick.close()


def compare(server: Server, tool: perf_analyzer.Program, sticks: dict[str, Yardstick], batches: Sequence[int], rounds: int) -> list[Row]:
    """Measure all kinds of models at all batch sizes, so many rounds."""
    rows = [Row(kind, batch) for kind in sticks for batch in batches]
    for _ in range(rounds):
        for row in rows:
            before = sticks[row.kind].measure(row.batch)
            for suffix in network.BATCHING:
                load = perf_analyzer.measure(tool, server.grpc_url, row.kind + suffix, row.batch, CONCURRENCY)
                after = sticks[row.kind].measure(row.batch)
                row.pairs.setdefault(suffix, []).append(Pair((before + after) / 2, load))
                before = after
    return rows


def add_sub_ready_s(base_port: int, rounds: int) -> list[float]:
    """Seconds from the call of launch_server until add_sub of the course's own repository is READY."""
    seconds = []
    for _ in range(rounds):
        begin = time.perf_counter()
        with launch_server(paths.models_dir(), base_port=base_port, load=["add_sub"], name="bench-add-sub"):
            seconds.append(time.perf_counter() - begin)
    return seconds
