"""The cell for students who came late: it brings the kernel to an exercise, and counts nothing as solved."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import pytest

from helpers import paths
from helpers.course.exercises import way_to
from helpers.errors import InputError
from tests.course.running import run, text_of

SOLUTIONS = sorted((paths.root() / "notebooks" / "solutions").glob("[0-9][0-9]_*.ipynb"))


def _exercises(path: Path) -> list[str]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return list(dict.fromkeys(cell["metadata"]["exercise"] for cell in cells if "exercise" in cell["metadata"]))


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_each_exercise_has_its_way(path: Path) -> None:
    """The solution notebooks run from top to bottom in other tests, so their first cells do; here: which cells are taken."""
    before: list[str] = []
    for number in _exercises(path):
        title, code = way_to(number)
        assert code[: len(before)] == before and len(code) > len(before), "each goes on where the last one ends"
        assert title.startswith(f"Exercise {number} ")
        assert re.search(r"launch_(server|fleet)\(", "\n".join(code)) and not [cell for cell in code if ").check(" in cell]
        before = code


@pytest.mark.parametrize("number", ["2.9", "77.1", "", "x.1"])
def test_a_wrong_number_is_said(number: str) -> None:
    with pytest.raises(InputError, match=f"no exercise '{number}'"):
        way_to(number)


@pytest.mark.slow
@pytest.mark.parametrize("number", ["0.2", pytest.param("3.3", marks=pytest.mark.nightly)])
def test_a_late_student_is_where_the_class_is(number: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a kernel of its own: the cell, then the exercise as the solution has it, and its check."""
    monkeypatch.setenv("COURSE_WORK", str(tmp_path / "work"))
    path = next(path for path in SOLUTIONS if path.name.startswith(number.split(".")[0].zfill(2)))
    cells = nbformat.read(path, as_version=4).cells
    mine = [cell for cell in cells if cell.metadata.get("exercise") == number and cell.cell_type == "code"]
    first = nbformat.v4.new_code_cell(f'from helpers.course import catch_up\ncatch_up("{number}")')
    late = tmp_path / path.name
    nbformat.write(nbformat.v4.new_notebook(cells=[first, *mine], metadata={"kernelspec": {"name": "python3", "display_name": "x"}}), late)
    done = run(late, tmp_path, then="server.stop()")
    assert done.stray_errors() == [] and done.stray_stderr() == []
    assert text_of(done.notebook.cells[0]).splitlines()[-1].startswith("You are there"), "what the cells show stands above"
    assert text_of(done.tagged("check")[0]).startswith("✔ Correct")
    assert re.findall(r"\"(\d+\.\d+)\"", (tmp_path / "work" / "progress.jsonl").read_text()) == [number], "only what was checked"
