"""All notebooks run from top to bottom on a real server: solutions with their values, exercises with their blanks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from helpers import settings
from tests.notebooks.running import Run, run, text_of
from tests.notebooks.values import VALUES

ROOT = settings.root()
EXERCISES = sorted((ROOT / "notebooks").glob("*.ipynb"))
SOLUTIONS = sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb"))
pytestmark = pytest.mark.slow

# Seconds that all cells of one notebook may take together on a busy two-core machine; on a quiet one it is a quarter.
NOTEBOOK_LIMIT_S = 120
# Notebooks that measure stay longer at each point when the machine is busy, because the spread is larger then.
MEASURING_LIMIT_S = 300
MEASURING = ("07", "08", "09")

STOPPED = 'assert server.state() == "stopped", server'

# The errors that notebooks show on purpose, in order, each by words that the text beside it relies on.
ERRORS = {
    "03": ("unknown model", "Expected [16], got [1,16]", "expected FP32", "missing required input", "failed to connect", "restricted"),
    "05": ("millimetres",),
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A work folder of its own, and afterwards no server that uses it."""
    monkeypatch.setenv("COURSE_WORK", str(tmp_path / "work"))
    monkeypatch.delenv("COURSE_STRICT", raising=False)
    yield tmp_path
    left = [line for line in _command_lines() if "tritonserver" in line and str(tmp_path) in line]
    assert left == [], "a server was left behind"


def _command_lines() -> list[str]:
    lines = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(entry.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
        except OSError:  # the process ended meanwhile
            continue
    return lines


def _dedent(code: str) -> str:
    return "\n".join(line.strip() for line in code.strip().splitlines())


def _healthy(done: Run, number: str) -> None:
    assert done.stray_errors() == []
    assert done.stray_stderr() == []
    assert sum(done.seconds.values()) < (MEASURING_LIMIT_S if number in MEASURING else NOTEBOOK_LIMIT_S), done.seconds


def test_values_are_asserted_for_each_notebook() -> None:
    assert [path.name[:2] for path in SOLUTIONS] == sorted(VALUES)


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_solutions_run_and_their_values_are_right(path: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COURSE_STRICT", "1")
    done = run(path, place, then=f"{_dedent(VALUES[path.name[:2]])}\n{STOPPED}")
    _healthy(done, path.name[:2])
    checks = done.tagged("check")
    assert checks
    for cell in checks:
        assert text_of(cell).startswith("✔ Correct"), text_of(cell)


@pytest.mark.parametrize("path", EXERCISES, ids=lambda path: path.stem)
def test_exercises_run_with_their_blanks(path: Path, place: Path) -> None:
    # In notebook 01 the student kills the server, and the blank is the call that brings it back.
    done = run(path, place, then=STOPPED if path.name[:2] != "01" else 'assert server.state() == "died", server')
    _healthy(done, path.name[:2])
    _errors_say_what_the_text_says(done, ERRORS.get(path.name[:2], ()))
    for cell in done.tagged("check"):
        assert text_of(cell).startswith("○ Not attempted yet"), text_of(cell)
    assert not (place / "work" / "progress.json").exists(), "a blank is no attempt"


def _errors_say_what_the_text_says(done: Run, expected: tuple[str, ...]) -> None:
    failing = done.tagged("raises-exception")
    assert len(failing) == len(expected)
    for cell, words in zip(failing, expected, strict=True):
        error = next(output for output in cell.outputs if output.output_type == "error")
        assert words in error.evalue
        assert len(re.sub(r"\x1b\[[\d;]*m", "", "\n".join(error.traceback)).splitlines()) <= 3, "short tracebacks"


def test_a_wrong_solution_fails_in_strict_mode(place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The safety net itself: with a wrong answer in the solution, the run above does fail."""
    monkeypatch.setenv("COURSE_STRICT", "1")
    notebook = nbformat.read(SOLUTIONS[0], as_version=4)
    of_first = [cell for cell in notebook.cells if cell.metadata.get("exercise") == "0.1" and cell.cell_type == "code"]
    of_first[0].source = of_first[0].source.replace("z_mass = 91", "z_mass = 80")
    notebook.cells = [nbformat.v4.new_code_cell("from helpers.exercises import exercise"), *of_first]
    wrong = tmp_path / SOLUTIONS[0].name
    nbformat.write(notebook, wrong)
    done = run(wrong, place, allow_errors=True)
    assert any("NotSolved" in error and "W boson" in error for error in done.stray_errors())
