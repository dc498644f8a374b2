"""Students' copies of the notebooks: handed out, renewed, reset, never lost."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from helpers.errors import InputError, SetupError
from helpers.setup import notebook_copies


@pytest.fixture
def course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A course with two notebooks, and a work folder of its own."""
    root = tmp_path / "course"
    (root / "models").mkdir(parents=True)
    (root / "notebooks" / "solutions").mkdir(parents=True)
    for name in ("00_start_here", "03_run_inference"):
        (root / "notebooks" / f"{name}.ipynb").write_text(f"{name} first")
        (root / "notebooks" / "solutions" / f"{name}.ipynb").write_text("the answers")
    monkeypatch.setenv("COURSE_ROOT", str(root))
    monkeypatch.setenv("COURSE_WORK", str(tmp_path / "work"))
    return root


def mine(name: str = "03_run_inference.ipynb") -> Path:
    return notebook_copies.folder() / name


def names() -> list[str]:
    return sorted(path.name for path in notebook_copies.folder().glob("*.ipynb"))


def test_handed_out_without_the_solutions(course: Path) -> None:
    assert notebook_copies.hand_out() == []
    assert names() == ["00_start_here.ipynb", "03_run_inference.ipynb"]
    assert mine().read_text() == "03_run_inference first"


def test_a_changed_notebook_is_left_alone(course: Path) -> None:
    notebook_copies.hand_out()
    mine().write_text("my answers")
    assert notebook_copies.hand_out() == []
    assert mine().read_text() == "my answers"


def test_a_deleted_notebook_comes_back(course: Path) -> None:
    notebook_copies.hand_out()
    mine().unlink()
    notebook_copies.hand_out()
    assert mine().read_text() == "03_run_inference first"


def test_an_unchanged_notebook_is_renewed(course: Path) -> None:
    notebook_copies.hand_out()
    (course / "notebooks" / "03_run_inference.ipynb").write_text("second")
    assert notebook_copies.hand_out() == []
    assert mine().read_text() == "second"
    assert names() == ["00_start_here.ipynb", "03_run_inference.ipynb"]


def test_a_new_version_of_a_changed_notebook_goes_beside_it_once(course: Path) -> None:
    notebook_copies.hand_out()
    mine().write_text("my answers")
    (course / "notebooks" / "03_run_inference.ipynb").write_text("second")
    (said,) = notebook_copies.hand_out()
    (beside,) = set(names()) - {"00_start_here.ipynb", "03_run_inference.ipynb"}
    assert beside in said
    assert re.fullmatch(r"03_run_inference\.new-\d{4}-\d\d-\d\d\.ipynb", beside)
    assert (mine().read_text(), mine(beside).read_text()) == ("my answers", "second")
    # Not again for the same version, but for the next one, and neither copy is lost.
    assert notebook_copies.hand_out() == []
    mine(beside).write_text("answers in the new one")
    (course / "notebooks" / "03_run_inference.ipynb").write_text("third")
    assert len(notebook_copies.hand_out()) == 1
    assert {mine(name).read_text() for name in names()} == {"00_start_here first", "my answers", "answers in the new one", "third"}


def test_the_record_lost_means_theirs(course: Path) -> None:
    notebook_copies.hand_out()
    mine().write_text("my answers")
    (notebook_copies.folder() / notebook_copies.RECORD).write_text("no record")
    (course / "notebooks" / "03_run_inference.ipynb").write_text("second")
    notebook_copies.hand_out()
    assert mine().read_text() == "my answers"


@pytest.mark.parametrize(
    "which", ["03", "3", "03_run_inference", "03_run_inference.ipynb", "work/notebooks/03_run_inference.ipynb", " 03 "]
)
def test_reset_keeps_the_old_one(course: Path, which: str) -> None:
    notebook_copies.hand_out()
    mine().write_text("my answers")
    said = notebook_copies.reset(which)
    assert mine().read_text() == "03_run_inference first"
    (old,) = set(names()) - {"00_start_here.ipynb", "03_run_inference.ipynb"}
    assert re.fullmatch(r"03_run_inference\.\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.ipynb", old)
    assert old in said
    assert mine(old).read_text() == "my answers"


def test_two_resets_within_a_second_keep_both(course: Path) -> None:
    for text in ("my first answers", "my second answers"):
        notebook_copies.hand_out()
        mine().write_text(text)
        notebook_copies.reset("03")
    texts = {mine(name).read_text() for name in names()}
    assert {"my first answers", "my second answers", "03_run_inference first"} <= texts


def test_reset_before_anything_was_handed_out(course: Path) -> None:
    notebook_copies.reset("03")
    assert names() == ["03_run_inference.ipynb"]


@pytest.mark.parametrize("which", ["", "07", "33", "run", "../../etc/passwd"])
def test_reset_of_what_is_not_there(course: Path, which: str) -> None:
    with pytest.raises(InputError, match="'00_start_here' and '03_run_inference'"):
        notebook_copies.reset(which)


def test_after_reset_the_next_version_comes_by_itself(course: Path) -> None:
    notebook_copies.hand_out()
    mine().write_text("my answers")
    notebook_copies.reset("03")
    (course / "notebooks" / "03_run_inference.ipynb").write_text("second")
    notebook_copies.hand_out()
    assert mine().read_text() == "second"


def test_data_is_at_hand(course: Path) -> None:
    (course / "notebooks" / "data").mkdir()
    (course / "notebooks" / "data" / "jets.txt").write_text("jets")
    notebook_copies.hand_out()
    notebook_copies.hand_out()
    assert (notebook_copies.folder() / "data" / "jets.txt").read_text() == "jets"


def test_a_folder_that_cannot_be_written(course: Path) -> None:
    Path(os.environ["COURSE_WORK"]).write_text("a file, no folder")
    with pytest.raises(SetupError, match="COURSE_WORK"):
        notebook_copies.hand_out()


def notebook(*sources: str | list[str], **beside: object) -> str:
    """A notebook with these cells of code; ``beside`` is what JupyterLab writes into each."""
    cell = {"cell_type": "code", "execution_count": None, "id": "x", "metadata": {}, "outputs": [], **beside}
    return json.dumps({"cells": [{**cell, "source": source} for source in sources], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


OPENED = {"metadata": {"trusted": True}}
RUN = {"execution_count": 7, "outputs": [{"output_type": "stream", "name": "stdout", "text": ["2\n"]}]}


@pytest.mark.parametrize("beside", [OPENED, RUN], ids=["opened", "run"])
def test_a_notebook_that_was_only_opened_or_run_is_renewed(course: Path, beside: dict) -> None:
    source = course / "notebooks" / "03_run_inference.ipynb"
    source.write_text(notebook("1 + 1"))
    notebook_copies.hand_out()
    mine().write_text(notebook(["1 +", " 1"], **beside))
    source.write_text(notebook("1 + 2"))
    assert notebook_copies.hand_out() == []
    assert mine().read_text() == notebook("1 + 2")


def test_an_answer_in_a_cell_is_the_students(course: Path) -> None:
    source = course / "notebooks" / "03_run_inference.ipynb"
    source.write_text(notebook("1 + 1"))
    notebook_copies.hand_out()
    mine().write_text(notebook("1 + 3"))
    source.write_text(notebook("1 + 2"))
    assert len(notebook_copies.hand_out()) == 1
    assert mine().read_text() == notebook("1 + 3")


def test_reset_takes_outputs_away(course: Path) -> None:
    (course / "notebooks" / "03_run_inference.ipynb").write_text(notebook("1 + 1"))
    notebook_copies.hand_out()
    mine().write_text(notebook("1 + 1", **RUN))
    assert "yours is beside it" in notebook_copies.reset("03")
    assert mine().read_text() == notebook("1 + 1")
