"""The student's progress, and the map of the course.

Each attempt is one line of ``work/progress.jsonl``, which outlives kernels. Nothing here ever stops an exercise: a damaged line is passed
over, a disk that is full is mentioned once, and what could not be saved is kept in memory.
"""

from __future__ import annotations

import html
import json
import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from helpers import paths

_GREEN = "#2e9e44"
_said: set[str] = set()
_unsaved: list[dict[str, Any]] = []


def path() -> Path:
    """Return the file that keeps the progress."""
    return paths.work_dir() / "progress.jsonl"


def read() -> tuple[dict[str, dict[str, Any]], str]:
    """Read what has been done so far.

    Returns:
        exercise number -> ``attempts``, ``correct``, ``first_correct`` (an ISO time, or None); and a sentence for the student when the
        file cannot be read or some of its lines are damaged (else empty).
    """
    said, damaged = "", 0
    try:
        lines = path().read_bytes().splitlines()
    except FileNotFoundError:
        lines = []
    except OSError as error:
        lines, said = [], _once(f"Your earlier progress cannot be read ({_reason(error)}); the checks work all the same.")
    records: dict[str, dict[str, Any]] = {}
    attempts: list[bytes | dict[str, Any]] = [*lines, *_unsaved]
    for line in attempts:
        try:
            attempt = json.loads(line) if isinstance(line, bytes) else line
            number, correct, when = str(attempt["exercise"]), bool(attempt["correct"]), str(attempt["time"])
        except (ValueError, KeyError, TypeError):
            damaged += 1
            continue
        record = records.setdefault(number, {"attempts": 0, "correct": False, "first_correct": None})
        record["attempts"] += 1
        if correct and not record["correct"]:
            record |= {"correct": True, "first_correct": when}
    if damaged:
        said = _once(f"{damaged} damaged line{'s' * (damaged > 1)} of {path().name} cannot be read; all others count.")
    return records, said


def record(number: str, *, solved: bool) -> tuple[dict[str, Any], str]:
    """Count one attempt.

    Args:
        number: the exercise, such as ``"1.2"``.
        solved: whether the answer was right. An exercise once solved stays solved.

    Returns:
        The record after this attempt, and a sentence for the student when it could not be kept (else empty).
    """
    said = ""
    _unsaved.append({"exercise": number, "correct": solved, "time": datetime.now(UTC).isoformat(timespec="seconds")})
    try:
        path().parent.mkdir(parents=True, exist_ok=True)
        _append("".join(json.dumps(attempt) + "\n" for attempt in _unsaved))
        _unsaved.clear()
    except OSError as error:
        said = _once(f"Your progress cannot be saved in {path()} ({_reason(error)}); the checks work all the same.")
    records, damage = read()
    return records[number], said or damage


def _append(lines: str) -> None:
    """Append whole lines by one write, which several notebooks may do at once; a line that was cut off before gets its end first."""
    handle = os.open(path(), os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        size = os.fstat(handle).st_size
        cut_off = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
        text = ("\n" * cut_off + lines).encode()
        try:
            # The first of these writes takes everything, or as much as there is room for; then the next says why it takes no more.
            while text:
                text = text[os.write(handle, text) :]
        except OSError:
            # What does not fit is taken back: it stays in memory, and would be counted twice.
            os.ftruncate(handle, size)
            raise
        os.fsync(handle)
    finally:
        os.close(handle)


def _once(sentence: str) -> str:
    """The sentence the first time, nothing after that."""
    if sentence in _said:
        return ""
    _said.add(sentence)
    return sentence


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__


@dataclass(frozen=True)
class CourseMap:
    """The notebooks with their minutes and the exercises solved so far; shows itself at the end of a cell.

    Attributes:
        rows: number, title, file, minutes, exercises solved, exercises, for each notebook.
        said: a sentence about the progress that could not be read, if there is one.
    """

    rows: tuple[tuple[str, str, str, int, int, int], ...]
    said: str = ""

    @property
    def caption(self) -> str:
        """The sum of the minutes."""
        return f"{sum(row[3] for row in self.rows)} minutes in all. {self.said}".strip()

    def __repr__(self) -> str:
        width = max(len(row[1]) for row in self.rows)
        lines = (
            f"{number}  {title:{width}}  {minutes:3d} min  {'#' * done}{'.' * (of - done)} {done} of {of}"
            for number, title, _, minutes, done, of in self.rows
        )
        return "\n".join([self.caption, *lines])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{number}</td><td style='text-align:left'><a href='{html.escape(file)}'>{html.escape(title)}</a></td>"
            f"<td>{minutes} min</td><td style='text-align:left'>{_bar(done, of)}</td></tr>"
            for number, title, file, minutes, done, of in self.rows
        )
        head = "".join(f"<th scope='col' style='text-align:left'>{title}</th>" for title in ("", "Notebook", "Time", "Your exercises"))
        caption = f"<caption style='caption-side:top;text-align:left'>{html.escape(self.caption)}</caption>"
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def course_map() -> CourseMap:
    """Return the notebooks with their minutes, as they say themselves, and the exercises solved so far."""
    records, said = read()
    rows = []
    for file in sorted((paths.root() / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
        first = "".join(cells[0]["source"])
        title, minutes = re.search(r"^# (.+)$", first, re.MULTILINE), re.search(r"\*\*Time:\*\* (\d+) minutes", first)
        numbers = list(dict.fromkeys(cell["metadata"]["exercise"] for cell in cells if "exercise" in cell["metadata"]))
        solved = sum(number in records and records[number]["correct"] for number in numbers)
        rows.append((file.stem[:2], title[1] if title else file.stem, file.name, int(minutes[1]) if minutes else 0, solved, len(numbers)))
    return CourseMap(tuple(rows), said)


def _bar(done: int, of: int) -> str:
    """``2 of 3`` as a bar with the same words beside it."""
    share = round(100 * done / of) if of else 0
    frame = f"display:inline-block;width:7em;height:0.7em;border:1px solid {_GREEN};border-radius:2px;vertical-align:middle"
    return f"<span style='{frame}'><span style='display:block;width:{share}%;height:100%;background:{_GREEN}'></span></span> {done} of {of}"
