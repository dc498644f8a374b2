"""The student's progress, and the map of the course.

Each attempt is one line of ``work/progress.jsonl``, which outlives kernels. Nothing here ever stops an exercise: a line that is no attempt
is passed over, a disk that is full is mentioned once, and what could not be saved is kept in memory.
"""

from __future__ import annotations

import html
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from helpers import paths
from helpers.errors import SetupError
from helpers.measuring.table import append_row

_said: set[str] = set()
_unsaved: list[dict[str, Any]] = []


def path() -> Path:
    """Return the file that keeps the progress."""
    return paths.work_dir() / "progress.jsonl"


def read() -> dict[str, dict[str, Any]]:
    """Return by exercise number ``attempts``, ``correct``, and ``first_correct``, an ISO time or None."""
    try:
        lines = path().read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    records: dict[str, dict[str, Any]] = {}
    for line in [*lines, *map(json.dumps, _unsaved)]:
        try:
            attempt = json.loads(line)
            number, correct, when = str(attempt["exercise"]), bool(attempt["correct"]), str(attempt["time"])
        except (ValueError, KeyError, TypeError):
            continue
        record = records.setdefault(number, {"attempts": 0, "correct": False, "first_correct": None})
        record["attempts"] += 1
        if correct and not record["correct"]:
            record |= {"correct": True, "first_correct": when}
    return records


def record(number: str, *, solved: bool) -> tuple[int, str]:
    """Count one attempt; return their number, and a sentence for the student when it could not be kept (else empty, as the second time)."""
    _unsaved.append({"exercise": number, "correct": solved, "time": datetime.now(UTC).isoformat(timespec="seconds")})
    said = ""
    try:
        while _unsaved:
            append_row(path(), _unsaved[0])
            del _unsaved[0]
    except SetupError as error:
        sentence = f"Your progress cannot be saved, and the checks work all the same. {error}"
        said = "" if sentence in _said else sentence
        _said.add(sentence)
    return read()[number]["attempts"], said


@dataclass(frozen=True, repr=False)
class CourseMap:
    """The notebooks with their minutes and the exercises solved so far; shows itself at the end of a cell.

    Attributes:
        rows: number, title, file, minutes, exercises solved, exercises, for each notebook.
    """

    rows: tuple[tuple[str, str, str, int, int, int], ...]

    @property
    def caption(self) -> str:
        """The sum of the minutes."""
        return f"{sum(row[3] for row in self.rows)} minutes in all."

    def __repr__(self) -> str:
        width = max(len(row[1]) for row in self.rows)
        lines = (f"{number}  {title:{width}}  {minutes:3d} min  {done} of {of}" for number, title, _, minutes, done, of in self.rows)
        return "\n".join([self.caption, *lines])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{number}</td><td style='text-align:left'><a href='{file}'>{html.escape(title)}</a></td><td>{minutes} min</td>"
            f"<td style='text-align:left'><progress value='{done}' max='{of}'></progress> {done} of {of}</td></tr>"
            for number, title, file, minutes, done, of in self.rows
        )
        head = "".join(f"<th scope='col' style='text-align:left'>{title}</th>" for title in ("", "Notebook", "Time", "Your exercises"))
        caption = f"<caption style='caption-side:top;text-align:left'>{self.caption}</caption>"
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def course_map() -> CourseMap:
    """Return the notebooks with their minutes, as they say themselves, and the exercises solved so far."""
    solved = {number for number, record in read().items() if record["correct"]}
    rows = []
    for file in sorted((paths.root() / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
        found = re.search(r"^# ([^\n]+)$.*\*\*Time:\*\* (\d+) minutes", "".join(cells[0]["source"]), re.MULTILINE | re.DOTALL)
        title, minutes = found.groups() if found else (file.stem, 0)
        numbers = {cell["metadata"]["exercise"] for cell in cells if "exercise" in cell["metadata"]}
        rows.append((file.stem[:2], title, file.name, int(minutes), len(numbers & solved), len(numbers)))
    return CourseMap(tuple(rows))
