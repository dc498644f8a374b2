"""The student's progress, and the map of the course.

Each attempt is one line of ``work/progress.jsonl``. Nothing here stops an exercise: a line that is no attempt is passed over, and a full
disk is mentioned.
"""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from helpers import paths
from helpers.errors import SetupError


def path() -> Path:
    """Return the file that keeps the progress."""
    return paths.work_dir() / "progress.jsonl"


def read() -> dict[str, list[bool]]:
    """Return for each exercise whether its attempts were right, the first one first."""
    attempts: dict[str, list[bool]] = {}
    for attempt in paths.read_lines(path()):
        with contextlib.suppress(KeyError, TypeError):
            attempts.setdefault(str(attempt["exercise"]), []).append(bool(attempt["correct"]))
    return attempts


def record(number: str, *, solved: bool) -> str:
    """Count one attempt; return a sentence for the student, which says how many there were, or that this one could not be kept."""
    attempt = {"exercise": number, "correct": solved, "time": datetime.now(UTC).isoformat(timespec="seconds")}
    try:
        paths.append_line(path(), attempt)
    except SetupError as error:
        return f"Your progress cannot be saved, and the checks work all the same. {error}"
    return f"Attempt {len(read()[number])}."


@dataclass(frozen=True, repr=False)
class CourseMap:
    """The notebooks with their minutes and the exercises solved so far; shows itself at the end of a cell, as a table in Markdown."""

    # Number, title, file, minutes, exercises solved, exercises.
    rows: tuple[tuple[str, str, str, int, int, int], ...]

    def __repr__(self) -> str:
        head = f"{sum(row[3] for row in self.rows)} minutes in all.\n\n| | Notebook | Time | Your exercises |\n|---|:---|---:|:---|\n"
        lines = (f"| {n} | [{title}]({file}) | {minutes} min | {done} of {of} |" for n, title, file, minutes, done, of in self.rows)
        return head + "\n".join(lines)

    _repr_markdown_ = __repr__


def course_map() -> CourseMap:
    """Return the notebooks with their minutes, as they say themselves, and the exercises solved so far."""
    solved = {number for number, attempts in read().items() if any(attempts)}
    rows = []
    for file in sorted((paths.root() / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
        found = re.search(r"^# ([^\n]+)$.*\*\*Time:\*\* (\d+) minutes", "".join(cells[0]["source"]), re.MULTILINE | re.DOTALL)
        title, minutes = found.groups() if found else (file.stem, 0)
        numbers = {cell["metadata"]["exercise"] for cell in cells if "exercise" in cell["metadata"]}
        rows.append((file.stem[:2], title, file.name, int(minutes), len(numbers & solved), len(numbers)))
    return CourseMap(tuple(rows))
