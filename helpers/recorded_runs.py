"""What notebooks 07 and 09 gave on a machine of this course: whole runs of perf_analyzer, and experiments with changed configurations.

Made by ``python -m benchmarks.record --notebooks``, for those who cannot measure. Each line of the two files says in ``source``,
``cpu`` and ``time`` who recorded it, on what and when.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers import settings
from helpers.errors import InputError
from helpers.tune_files import read_rows

# Options whose value does not tell what was measured: where the server is.
_PLACES = ("-u", "--url")


class Status(int):
    """The exit status of a recorded run; ``batch`` is the number of entries in each of its requests."""

    batch: int


@dataclass(frozen=True)
class RecordedRun:
    """One run.

    Attributes:
        status: with which it ended.
        said: all that it wrote.
        cpu: of the machine.
    """

    status: Status
    said: str
    cpu: str


def commands_file() -> Path:
    """The file with the commands of notebook 07 and what they said."""
    return settings.root() / "notebooks" / "data" / "recorded_commands.jsonl"


def experiments_file() -> Path:
    """The file with the rows of notebook 09."""
    return settings.root() / "notebooks" / "data" / "recorded_experiments.jsonl"


def without_place(words: Sequence[str]) -> list[str]:
    """A command's words without the server's address."""
    return [word for before, word in itertools.pairwise(["", *words]) if word not in _PLACES and before not in _PLACES]


def recorded_command(words: Sequence[str]) -> RecordedRun:
    """The recorded run of a command.

    Args:
        words: its arguments, without the program's name.

    Raises:
        InputError: there is none; the message lists what there is.
    """
    lines = read_rows(commands_file())
    wanted = without_place(words)
    for line in lines:
        if line["words"] == wanted:
            status = Status(line["status"])
            status.batch = int(dict(itertools.pairwise(wanted)).get("-b", 1))
            return RecordedRun(status, line["said"], line["cpu"])
    there = "; ".join(" ".join(line["words"]) for line in lines)
    raise InputError("There is no recorded run of this command.", f"There are, each with any -u: {there}.", "Go on with the next cell.")


def recorded_experiments() -> list[dict[str, Any]]:
    """All rows of notebook 09, in order, and the best of its challenge."""
    return read_rows(experiments_file())


def recorded_experiment(model: str, batch: int, concurrency: int, inputs: str, config: str | None) -> dict[str, Any] | None:
    """The row of an experiment under this very configuration; None when there is none.

    Args:
        model: its name.
        batch: entries in each request.
        concurrency: requests under way at any time.
        inputs: ``random``, or the name of the file.
        config: the configuration's short name, as rows have it.
    """
    wanted = {"model": model, "batch": batch, "concurrency": concurrency, "inputs": inputs, "config": config}
    return next((row for row in recorded_experiments() if all(row[name] == value for name, value in wanted.items())), None)
