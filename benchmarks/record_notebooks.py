"""What notebooks 07 and 09 give where perf_analyzer runs, for those who have none: ``python -m benchmarks.record --notebooks``.

The solutions' own cells run here, in a working folder of their own, so what is recorded is what the notebooks ask for. The search of
notebook 09 is left out: it is not recorded.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from helpers import paths
from helpers.machine import cpu
from helpers.measuring.perf_analyzer import words_of
from helpers.measuring.program import find_perf_analyzer
from helpers.measuring.recorded import data_file, without_place
from helpers.measuring.table import append_row, plain

# The name under which the notebooks keep their server.
_SERVER = "server"


def record(source: str) -> None:
    """Run both notebooks, and replace both files.

    Args:
        source: what the rows say of who recorded them.
    """
    with _work_folder() as work:
        said: list[dict[str, Any]] = []
        _run("07", {"perf_analyzer": lambda *arguments: _typed(arguments, said, source)}, work)
        _write(data_file("commands"), said)
        found = _run("09", {"tune": lambda *arguments, **options: None, "enter": lambda *arguments, **options: None}, work)
        rows = [*found["table"].rows[:-1], {**plain(found["best"]), "experiment": "challenge"}]
        _write(data_file("experiments"), [_public(row, work, source) for row in rows])


@contextmanager
def _work_folder() -> Iterator[Path]:
    """A working folder for the notebooks: what is in the course's own is somebody's."""
    before = os.environ.get("COURSE_WORK")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["COURSE_WORK"] = folder
        try:
            yield Path(folder)
        finally:
            os.environ.pop("COURSE_WORK")
            if before is not None:
                os.environ["COURSE_WORK"] = before


def _run(number: str, replaced: dict[str, Callable[..., Any]], work: Path) -> dict[str, Any]:
    """The names that a solution's cells define, checks left out."""
    (path,) = (paths.root() / "notebooks" / "solutions").glob(f"{number}_*.ipynb")
    names: dict[str, Any] = {"__name__": "notebook"}
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    try:
        for cell in cells:
            if cell["cell_type"] == "code" and "check" not in cell["metadata"].get("tags", []):
                exec(compile("".join(cell["source"]), f"{path.name}", "exec"), names)  # the course's own notebook
                names |= replaced
    finally:
        if _SERVER in names:
            names[_SERVER].stop()
    return names


def _typed(arguments: tuple[str, ...], said: list[dict[str, Any]], source: str) -> int:
    """Run a command as it was typed, and keep what it says."""
    words = words_of(*arguments)
    done = find_perf_analyzer().run(*words)
    line = {"words": without_place(words), "status": done.returncode, "said": done.stdout + done.stderr, "cpu": cpu(), "source": source}
    said.append(line | {"time": datetime.now(UTC).isoformat(timespec="seconds")})
    return done.returncode


def _public(row: dict[str, Any], work: Path, source: str) -> dict[str, Any]:
    # A file of inputs has a place on this machine only.
    return row | {"source": source, "command": row["command"].replace(f"{work.resolve()}/", "work/")}


def _write(path: Path, lines: list[dict[str, Any]]) -> None:
    path.unlink(missing_ok=True)
    for line in lines:
        append_row(path, line)
    print(f"{path} is new")
