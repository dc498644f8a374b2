"""Two ways to do the same work, measured in turn, so that a busy machine slows both; what came out, and on which machine.

A result is a line of ``results.csv``. A ratio is the mean of paired log-ratios with the half width of its 95 % interval, so that "twice
as fast" and "half as fast" are the same distance from "equally fast".
"""

from __future__ import annotations

import csv
import datetime
import json
import math
import os
import statistics
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from helpers import paths
from helpers.machine import description
from helpers.measuring.perf_analyzer import find_perf_analyzer
from helpers.measuring.statistics import half_width
from helpers.setup.environments import EMBEDDED_TRITON

T = TypeVar("T")
TABLE = Path(__file__).with_name("results.csv")
_VERSIONS = "import sys, onnxruntime, torch; print(sys.version.split()[0], onnxruntime.__version__, torch.__version__)"
# The yardsticks' memory is managed as the PyTorch backend manages its own.
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(512 << 20), "MALLOC_TOP_PAD_": str(64 << 20)}


@dataclass(frozen=True)
class Result:
    """One figure: its case, what it is, and its unit (empty for a ratio).

    ``spread`` is the half width of its 95 % interval, where that is known; a goal is such as ``≥ 0.97``; the note has the figures behind a
    ratio, or whatever else is worth to know. Then when it was measured, the commit that can measure it again, and on what machine.
    """

    case: str
    what: str
    value: float
    spread: float | None = None
    unit: str = ""
    goal: str = ""
    note: str = ""
    date: str = ""
    commit: str = ""
    machine: str = ""

    def verdict(self) -> str:
        """Return ``kept``, ``missed by …``, or ``cannot tell`` where the interval reaches over the goal; empty without a goal."""
        if not self.goal:
            return ""
        sign, limit = self.goal.split()
        missing = float(limit) - self.value if sign == "≥" else self.value - float(limit)
        if self.spread and abs(missing) < self.spread:
            return "cannot tell"
        return f"missed by {short(missing)}" if missing > 0 else "kept"


def short(number: float) -> str:
    """Return a number with three digits."""
    return f"{number:.3g}" if abs(number) < 1000 else f"{number:.0f}"


def in_turn(rounds: int, *ways: Callable[[], T]) -> list[list[T]]:
    """Return the figures of each way: all in every round, every second round in the opposite order."""
    found: list[list[T]] = [[] for _ in ways]
    for number in range(rounds):
        order = range(len(ways)) if number % 2 == 0 else reversed(range(len(ways)))
        for place in order:
            found[place].append(ways[place]())
    return found


def ratio(case: str, what: str, ours: Sequence[float], theirs: Sequence[float], goal: str = "", unit: str = "/s") -> Result:
    """Return how many times the yardstick's figures ours are, pair by pair."""
    logs = [math.log(mine / other) for mine, other in zip(ours, theirs, strict=True)]
    value, half = math.exp(statistics.mean(logs)), half_width(logs)
    note = f"{short(statistics.median(ours))} over {short(statistics.median(theirs))}{unit}"
    return Result(case, what, value, None if half is None else value * math.sinh(half), goal=goal, note=note)


def figure(case: str, what: str, values: Sequence[float], unit: str, goal: str = "") -> Result:
    """Return the mean of repeats."""
    return Result(case, what, statistics.mean(values), half_width(values), unit, goal)


def with_machine(result: Result, load_average: float) -> Result:
    """Return a result with date, commit and the line that names the machine."""
    commit = subprocess.run(["git", "rev-parse", "--short=7", "HEAD"], capture_output=True, text=True, check=False, cwd=paths.root())
    words = subprocess.check_output([paths.server_env() / "bin" / "python", "-c", _VERSIONS], text=True).split()
    versions = ", ".join(f"{name} {version}" for name, version in zip(("Python", "ONNX Runtime", "PyTorch"), words, strict=True))
    tool = f"perf_analyzer {find_perf_analyzer().version}"
    machine = f"{description()}; tritonserver {EMBEDDED_TRITON}, {versions}, {tool}; load average before {load_average:.1f}"
    date = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    return replace(result, date=date, commit=commit.stdout.strip(), machine=machine)


def read(table: Path = TABLE) -> list[Result]:
    """Return all results that are kept."""
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    numbers = [{"value": float(row["value"]), "spread": float(row["spread"]) if row["spread"] else None} for row in rows]
    return [Result(**{**row, **both}) for row, both in zip(rows, numbers, strict=True)]  # type: ignore[arg-type]


def append(results: Sequence[Result], table: Path = TABLE) -> None:
    """Write results below those that are kept."""
    with table.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [each.name for each in fields(Result)], lineterminator="\n")
        writer.writerows(
            {name: f"{cell:.5g}" if isinstance(cell, float) else cell for name, cell in asdict(row).items()} for row in results
        )


class Yardstick:
    """A process that does the work of a case without a server: ``network`` or ``tracks``, as :mod:`benchmarks.yardsticks` has it."""

    def __init__(self, kind: str, *arguments: object) -> None:
        program = [paths.server_env() / "bin" / "python", Path(__file__).with_name("yardsticks.py"), kind, *arguments]
        environment = {**os.environ, **_ALLOCATOR, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(list(map(str, program)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def __enter__(self) -> Yardstick:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate()

    def begin(self, **question: Any) -> None:
        """Ask, and do not wait: several yardsticks may work at once."""
        assert self._process.stdin is not None
        print(json.dumps(question), file=self._process.stdin, flush=True)

    def answer(self) -> dict[str, Any]:
        """Return the answer to what was asked."""
        assert self._process.stdout is not None
        return dict(json.loads(self._process.stdout.readline()))

    def ask(self, **question: Any) -> dict[str, Any]:
        """Ask and wait."""
        self.begin(**question)
        return self.answer()
