"""The student's progress, of which each attempt is one line of ``work/progress.jsonl``, and the map of the course."""

from __future__ import annotations

import contextlib
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from helpers import paths
from helpers.errors import SetupError
from helpers.tables import Table


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


def course_map() -> Table:
    """Return the notebooks with their minutes, as they say themselves, and the exercises solved so far."""
    solved = {number for number, attempts in read().items() if any(attempts)}
    rows: list[dict[str, Any]] = []
    for file in sorted((paths.root() / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
        found = re.match(r"# (.+)(?s:.*)\*\*Time:\*\* (\d+) minutes", "".join(cells[0]["source"]))
        title, minutes = found.groups() if found else ("", 0)
        numbers = {cell["metadata"]["exercise"] for cell in cells if "exercise" in cell["metadata"]}
        done = f"{len(numbers & solved)} of {len(numbers)}"
        rows.append({"notebook": file.name, "what": title, "minutes": int(minutes), "your exercises": done})
    return Table(rows, f"{sum(row['minutes'] for row in rows)} minutes in all.")
