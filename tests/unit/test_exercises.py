"""The exercise engine without a server: outcomes, blanks, strict mode, hints and solutions, terminal and notebook."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from helpers import checks, coursemap, exercises, progress, settings
from helpers.checks.outcome import Kind, Outcome, cannot_tell, correct, not_yet
from helpers.checks.placeholder import count_blanks
from helpers.errors import InputError, ServerError
from helpers.exercises import ____, exercise
from tools import notebooks


@pytest.fixture(autouse=True)
def own_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Progress of these tests goes to a folder of their own; what was said once may be said again."""
    monkeypatch.setenv("COURSE_WORK", str(tmp_path / "work"))
    monkeypatch.delenv("COURSE_STRICT", raising=False)
    monkeypatch.setattr(progress, "_said", set())
    monkeypatch.setattr(progress, "_unsaved", {})
    return tmp_path / "work"


@checks.checker("99.1")
def _fifteen(answer: float) -> Outcome:
    if answer == 0:
        raise checks.CannotTell("The two runs differ by 40 %, so measure longer.")
    if answer < 0:
        raise ServerError("No server answers at localhost:9000.", "", "Type: server.restart()")
    if answer == 1:
        raise ConnectionRefusedError
    return correct("15 requests arrived.") if answer == 15 else not_yet(f"`nv_inference_count` rose by {answer}, not by 15.")


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (15, Kind.CORRECT, "15 requests"),
        (14, Kind.NOT_YET, "rose by 14"),
        (____, Kind.NOT_ATTEMPTED, "blank"),
        (0, Kind.CANNOT_TELL, "measure longer"),
        (-1, Kind.CANNOT_TELL, "No server answers"),
        (1, Kind.CANNOT_TELL, "server does not answer"),
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
    made = [correct("a"), not_yet("b"), checks.not_attempted(), cannot_tell("c")]
    for outcome in made:
        page = outcome._repr_html_()
        assert outcome.kind.words in page and outcome.kind.symbol in page
        assert outcome._repr_mimebundle_()["text/plain"] == str(outcome)
    assert len({outcome.kind.symbol for outcome in made}) == 4


def test_answers_are_escaped_in_html() -> None:
    page = not_yet("you sent `<script>alert(1)</script>` & more")._repr_html_()
    assert "<script>" not in page
    assert "<code" in page and "&amp; more" in page


def test_a_call_that_does_not_fit_is_explained() -> None:
    outcome = exercise("99.1").judge()
    assert outcome.kind is Kind.CANNOT_TELL
    assert 'exercise("99.1").check(answer)' in outcome.text


def test_unknown_exercise_names_the_known_ones() -> None:
    with pytest.raises(InputError, match=re.escape("99.1")):
        exercise("99.7")
    with pytest.raises(InputError, match="notebook, then exercise"):
        exercise("seven")


def test_strict_mode_raises_for_all_but_correct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COURSE_STRICT", "1")
    exercise("99.1").check(15)
    for answer in (14, ____, 0):
        with pytest.raises(checks.NotSolved, match=r"99\.1"):
            exercise("99.1").check(answer)
    with pytest.raises(TypeError):
        exercise("99.1").check("fifteen")


def test_attempts_are_counted_and_hints_offered(capsys: pytest.CaptureFixture[str]) -> None:
    for answer in (____, 0, 14, 13, 15, 12):
        exercise("99.1").check(answer)
    entry = json.loads(progress.path().read_text())["exercises"]["99.1"]
    assert entry["attempts"] == 4, "blanks and 'cannot tell' are no attempts"
    assert entry["correct"] is True, "once solved, always solved"
    assert entry["first_correct"]
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
        ([[[[[[[____]]]]]]], 0),
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
    checks.checker("98.1")(_fifteen)
    assert notebooks.main([]) == 0
    return tmp_path


def test_hint_and_solution_show_what_the_solution_notebook_says(small_course: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = exercise("98.1")
    capsys.readouterr()
    asked.hint(1)
    assert capsys.readouterr().out == '**Hint 1 of 2.** Look at the metrics. One more: exercise("98.1").hint(2)\n'
    asked.hint(2)
    assert "`nv_inference_count`\n   it is." in capsys.readouterr().out
    asked.solution()
    assert capsys.readouterr().out == "**Solution of exercise 98.1.** The counter says so.\n\n```python\nn = 15\n```\n"
    for wrong in (0, 3, "1", -1):
        asked.hint(wrong)  # type: ignore[arg-type]
        assert "from 1 to 2" in capsys.readouterr().out
    asked.check(14)
    asked.check(14)
    assert "hint(1)" in capsys.readouterr().out.splitlines()[-1]


def test_the_map_counts_what_was_solved(small_course: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coursemap, "PARTS", (coursemap.Part("98", "Count requests", 5), coursemap.Part("97", "Later", 40)))
    exercise("98.1").check(14)
    assert "0 of 1" in str(coursemap.course_map())
    exercise("98.1").check(15)
    text, page = str(coursemap.course_map()), coursemap.course_map()._repr_html_()
    assert "1 of 1" in text and "not in this copy yet" in text and "45 minutes in all" in text
    assert 'href="98_count.ipynb"' in page and "1 of 1" in page


def test_the_syllabi_fit_their_time() -> None:
    minutes = {part.number: part.minutes for part in coursemap.PARTS}
    spans = {name: sum(minutes[number] for number in numbers) for name, _, numbers in coursemap.SYLLABI}
    assert spans["90 minutes"] <= 90
    assert 180 <= spans["Half a day"] <= 240
    assert spans["On your own"] == sum(minutes.values())
    assert "90 min" in str(coursemap.syllabi()) and "00 to 10" in coursemap.syllabi()._repr_html_()


def test_every_exercise_of_the_course_has_a_checker_hints_and_a_solution() -> None:
    found = 0
    for notebook in sorted((settings.root() / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        for number in coursemap._exercises(notebook):
            found += 1
            checks.find(number)
            assert exercises._hints(number), number
            assert "```python" in exercises._solution(number), number
    assert found >= 2
