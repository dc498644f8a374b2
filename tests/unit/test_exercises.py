"""The exercise engine without a server: outcomes, blanks, hints and solutions, terminal and notebook."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import paths
from helpers.course import ____, course_map, exercise, exercises, judge, progress
from helpers.course.cells import count_blanks
from helpers.course.checks import basics
from helpers.course.judge import Kind, NotYet, Outcome
from helpers.errors import CourseError, InputError, ServerError
from tools import notebooks


def _fifteen(answer: Any) -> str:
    if answer == 0:
        raise CourseError("The two runs differ by 40 %, so measure longer.")
    if answer < 0:
        raise ServerError("No server answers at localhost:9000.", "", "Type: server.restart()")
    if answer == 2:
        Path("/nowhere/measured.csv").read_text()
    if answer != 15:
        raise NotYet(f"`nv_inference_count` rose by {answer}, not by 15.")
    return "15 requests arrived."


def _needs(rows: list, answer: Any) -> str:  # type: ignore[type-arg]
    return f"{len(rows)} rows."


@pytest.fixture(autouse=True)
def own_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Progress of these tests goes to a folder of their own, and two notebooks more have checkers."""
    monkeypatch.setenv("COURSE_WORK", str(tmp_path / "work"))
    for notebook, number, checker in (("99", 1, _fifteen), ("99", 2, _needs), ("98", 1, _fifteen)):
        monkeypatch.setitem(judge._MODULES, notebook, "basics")
        monkeypatch.setattr(basics, f"_check_{notebook}_{number}", checker, raising=False)
    return tmp_path / "work"


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (15, Kind.CORRECT, "15 requests"),
        (14, Kind.NOT_YET, "rose by 14"),
        (____, Kind.NOT_ATTEMPTED, "blank"),
        (0, Kind.CANNOT_TELL, "measure longer"),
        (-1, Kind.CANNOT_TELL, "No server answers"),
        (2, Kind.CANNOT_TELL, "stumbled over this answer (FileNotFoundError"),
        ("fifteen", Kind.CANNOT_TELL, "TypeError"),
    ],
)
def test_the_four_outcomes(answer: object, kind: Kind, words: str) -> None:
    outcome = exercise("99.1").judge(answer)
    assert outcome.kind is kind
    assert words in outcome.text


def test_check_shows_one_line_in_a_terminal_and_never_raises(capsys: pytest.CaptureFixture[str]) -> None:
    for answer in (14, ____, 0, "fifteen", 15):
        assert exercise("99.1").check(answer) is None
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert lines[0].startswith("✘ Not yet: `nv_inference_count` rose by 14")
    assert lines[1].startswith("○ Not attempted yet:")
    assert lines[4].startswith("✔ Correct: 15 requests arrived.")


def test_outcomes_read_without_colour() -> None:
    made = [Outcome(kind, "why") for kind in Kind]
    for outcome in made:
        page = outcome._repr_html_()
        assert outcome.kind.words in page and outcome.kind.symbol in page
        assert repr(outcome) == str(outcome)
    assert len({outcome.kind.symbol for outcome in made}) == 4


def test_answers_are_escaped_in_html() -> None:
    page = Outcome(Kind.NOT_YET, "you sent `<script>alert(1)</script>` & more")._repr_html_()
    assert "<script>" not in page
    assert "<code" in page and "&amp; more" in page


def test_what_a_checker_needs_is_asked_for() -> None:
    assert "1 rows" in exercise("99.2").judge([2], 3).text
    outcome = exercise("99.2").judge(None, 3)
    assert outcome.kind is Kind.CANNOT_TELL and "needs `rows`, and got nothing (`None`). Run the cell that makes it" in outcome.text
    assert exercise("99.2").judge().kind is Kind.CANNOT_TELL


def test_an_unknown_exercise_is_said() -> None:
    for unknown in ("99.7", "7.9", "seven"):
        with pytest.raises(InputError, match=f"no exercise '{unknown}'"):
            exercise(unknown)


def test_attempts_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    for answer in (____, 0, 14, 13, 15, 12):
        exercise("99.1").check(answer)
    assert progress.read()["99.1"] == [False, False, True, False], "blanks and 'cannot tell' are no attempts"
    assert "(Attempt 3.)" in capsys.readouterr().out


# --- the blank -------------------------------------------------------------------------------------------------------------


def test_the_blank_is_polite_wherever_it_is_used() -> None:
    for used in (
        ____(1, a=2),
        ____.anything.at_all,
        ____["x"],
        ____ + 1,
        1 - ____,
        ____ * 2 / 3 // 4 % 5,
        ____**2,
        -____,
        ____ @ ____,
        ____ < 3,
    ):
        assert used is ____
    assert not ____
    assert list(____) == [] and len(____) == 0 and 3 not in ____
    assert f"{____:.2f} {____}" == "____ ____"
    assert repr(____) == "____"
    with ____ as inside:
        assert inside is ____
    ____["x"] = 3
    assert np.isnan(float(____))
    assert np.isnan(np.array(____, dtype=np.float32)).all()


@pytest.mark.parametrize(
    ("value", "blanks"),
    [
        (____, 1),
        ({"a": ____, "b": [____, 2]}, 2),
        (np.array([____, 1], dtype=object), 1),
        ("dims: [ ____ ]", 1),
        ((1, "two", np.zeros(3), None), 0),
        (np.asarray(____), 1),
        ([[[{"a": [____]}]]], 1),
    ],
)
def test_blanks_are_found_inside_answers(value: object, blanks: int) -> None:
    assert count_blanks(value) == blanks


def test_several_blanks_are_counted_for_the_student() -> None:
    assert "2 blanks" in exercise("99.1").judge([____, ____]).text


# --- hints and solutions come from the solution notebook --------------------------------------------------------------------

SOURCE = """\
# %% [markdown]
# # Count requests
#
# **Time:** 5 minutes: 3 for reading, 2 for exercises.

# %% [markdown] exercise="98.1"
# ### Exercise 98.1 (2 minutes) — Count

# %% exercise="98.1" tags=["starter"]
n = 15  #: n = ____

# %% exercise="98.1" tags=["check"]
exercise("98.1").check(n)

# %% [markdown] exercise="98.1" tags=["hints"]
# 1. Look at the metrics.
# 2. `nv_inference_count`
#    it is.

# %% [markdown] exercise="98.1" tags=["answer"]
# The counter says so.
"""


@pytest.fixture
def small_course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A course of one notebook, generated into a folder of its own."""
    (tmp_path / "models").mkdir()
    (tmp_path / "notebooks" / "source").mkdir(parents=True)
    (tmp_path / "notebooks" / "source" / "98_count.py").write_text(SOURCE)
    monkeypatch.setenv("COURSE_ROOT", str(tmp_path))
    assert notebooks.main([]) == 0
    return tmp_path


def test_hint_and_solution_show_what_the_solution_notebook_says(small_course: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = exercise("98.1")
    capsys.readouterr()
    asked.hint(1)
    assert capsys.readouterr().out == "**Hint 1 of 2.** Look at the metrics.\n"
    asked.hint(2)
    assert "`nv_inference_count`\n   it is." in capsys.readouterr().out
    asked.solution()
    assert capsys.readouterr().out == "**Solution of exercise 98.1.** The counter says so.\n\n```python\nn = 15\n```\n"
    for wrong in (0, 3, "1", -1):
        asked.hint(wrong)  # type: ignore[arg-type]
        assert "from 1 to 2" in capsys.readouterr().out


def test_the_map_counts_what_was_solved(small_course: Path) -> None:
    exercise("98.1").check(14)
    assert "0 of 1" in repr(course_map())
    exercise("98.1").check(15)
    text = repr(course_map())
    assert "5 minutes in all" in text and text.split()[-7:] == ["98_count.ipynb", "Count", "requests", "5", "1", "of", "1"], text
    assert "Count requests" in course_map()._repr_html_()


def test_the_map_says_what_the_notebooks_say() -> None:
    rows = course_map()
    assert [row["notebook"][:2] for row in rows] == [f"{number:02d}" for number in range(len(rows))] and len(rows) >= 11
    assert all(row["minutes"] >= 10 and int(row["your exercises"].split()[-1]) >= 2 for row in rows)
    assert rows[0]["what"] == "Start here"


def test_the_syllabi_fit_their_time() -> None:
    minutes = {row["notebook"][:2]: row["minutes"] for row in course_map()}
    text = (paths.root() / "notebooks" / "source" / "00_start_here.py").read_text()
    syllabi = re.findall(r"^# \| (90 minutes|Half a day|On your own) \| ([\d, to]+) \| (\d+) min \|", text, re.MULTILINE)
    assert [name for name, _, _ in syllabi] == ["90 minutes", "Half a day", "On your own"]
    for name, chosen, said in syllabi:
        numbers = list(minutes) if "to" in chosen else chosen.split(", ")
        assert sum(minutes[number] for number in numbers) == int(said), name
    spans = {name: int(said) for name, _, said in syllabi}
    assert spans["90 minutes"] <= 90 and 180 <= spans["Half a day"] <= 240


def test_the_pages_tell_the_same_minutes() -> None:
    """The README's table of notebooks, and the instructors' plan of a whole day, in which each takes all of its time."""
    minutes = {row["notebook"][:2]: row["minutes"] for row in course_map()}
    readme, plans = ((paths.root() / name).read_text() for name in ("README.md", "INSTRUCTORS.md"))
    assert {number: int(said) for number, said in re.findall(r"^\| \[?(\d\d) [^|]*\| (\d+) \|", readme, re.MULTILINE)} == minutes
    day = plans.partition("### A day")[2].partition("\n## ")[0]
    hours = re.findall(r"^\| (\d+):(\d\d) \| (\d+):(\d\d) \| (\d\d) ", day, re.MULTILINE)
    assert {number: 60 * (int(to) - int(begin)) + int(end) - int(first) for begin, first, to, end, number in hours} == minutes


def _exercises(notebook: Path) -> list[str]:
    cells = json.loads(notebook.read_text())["cells"]
    return list(dict.fromkeys(cell["metadata"]["exercise"] for cell in cells if "exercise" in cell["metadata"]))


def test_every_exercise_of_the_course_has_a_checker_hints_and_a_solution() -> None:
    found = 0
    for notebook in sorted((paths.root() / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        for number in _exercises(notebook):
            found += 1
            judge.find(number)
            assert exercises._hints(number), number
            assert "```python" in exercises._solution(number), number
    assert found >= 2
