"""The notebooks are what their sources say, and the generator keeps its promises."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from helpers import paths
from tools import notebooks, solutions

SOURCE = """\
# %% [markdown]
# # Count
#
# ![a very small red dot on white](images/dot.png)

# %%
x = 1

# %%
x = 1

# %% [markdown] exercise="97.1"
# ### Exercise 97.1 (1 minute) — Count

# %% exercise="97.1" tags=["starter"]
given = 2
total = given + x  #: total = ____
for step in range(total):  #: ____
    print(step)  #:

# %% exercise="97.1" tags=["starter"]
# %%writefile {folder}/model.py
class Model:
    def run(self):
        return 3  #: return ____

# %% exercise="97.1" tags=["check"]
exercise("97.1").check(total)

# %% [markdown] exercise="97.1" tags=["hints"]
# 1. Add.

# %% [markdown] exercise="97.1" tags=["answer"]
# It is three.
"""


@pytest.fixture
def course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small course in a folder of its own."""
    (tmp_path / "models").mkdir()
    images = tmp_path / "notebooks" / "source" / "images"
    images.mkdir(parents=True)
    (images / "dot.png").write_bytes(b"\x89PNG")
    (tmp_path / "notebooks" / "source" / "97_count.py").write_text(SOURCE)
    (tmp_path / "CITATION.cff").write_text('repository-code: "https://example.org/course"\n')
    monkeypatch.setenv("COURSE_ROOT", str(tmp_path))
    return tmp_path


def _sources(path: Path) -> list[str]:
    return ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"]]


def test_notebooks_in_git_are_in_step_with_their_sources() -> None:
    stale = [path.relative_to(paths.root()).as_posix() for path in notebooks.out_of_step()]
    assert stale == [], "type: make notebooks"


@pytest.mark.slow
def test_the_strip_hook_leaves_the_notebooks_as_they_are() -> None:
    # Solutions hold the outputs of a run.
    books = [str(path) for path in sorted((paths.root() / "notebooks").rglob("*.ipynb")) if path.parent.name != "solutions"]
    hook = [sys.executable, "-m", "nbstripout", "--keep-id", "--verify", *books]
    done = subprocess.run(hook, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_exercise_and_solution_differ_only_where_marked(course: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert notebooks.main([]) == 0
    exercise, solution = _sources(course / "notebooks" / "97_count.ipynb"), _sources(course / "notebooks" / "solutions" / "97_count.ipynb")
    assert exercise[4] == "given = 2\ntotal = ____\n____"
    assert solution[4] == "given = 2\ntotal = given + x\nfor step in range(total):\n    print(step)"
    assert exercise[5] == "%%writefile {folder}/model.py\nclass Model:\n    def run(self):\n        return ____"
    assert solution[5].endswith("return 3")
    assert solution[0].startswith("# Count (with answers)\n") and exercise[0].startswith("# Count\n")
    assert not any("#:" in text for text in exercise + solution)
    assert len(solution) == len(exercise) + 2
    assert solution[-2:] == ["**Hints for exercise 97.1.**\n\n1. Add.", "**Answer.** It is three."]


def test_pictures_travel_inside(course: Path) -> None:
    cell = json.loads(notebooks.generate(notebooks.sources()[0])[course / "notebooks" / "97_count.ipynb"])["cells"][0]
    assert "(attachment:dot.png)" in "".join(cell["source"])
    assert list(cell["attachments"]["dot.png"]) == ["image/png"]


def test_nothing_changes_unless_the_source_does(course: Path) -> None:
    assert notebooks.main([]) == 0
    target = course / "notebooks" / "97_count.ipynb"
    before, stamp = target.read_bytes(), target.stat().st_mtime_ns
    assert notebooks.main([]) == 0
    assert target.stat().st_mtime_ns == stamp, "not even written"
    again = subprocess.run(
        [sys.executable, "-m", "tools.notebooks", "--check"],
        cwd=Path(notebooks.__file__).parent.parent,
        check=False,
        capture_output=True,
        text=True,
    )
    assert again.returncode == 0, again.stdout + again.stderr
    assert target.read_bytes() == before


def test_ids_stay_when_another_cell_changes(course: Path) -> None:
    def ids() -> list[str]:
        return [
            cell["id"] for cell in json.loads(notebooks.generate(notebooks.sources()[0])[course / "notebooks" / "97_count.ipynb"])["cells"]
        ]

    before = ids()
    assert len(set(before)) == len(before), "twins get different ids"
    source = course / "notebooks" / "source" / "97_count.py"
    source.write_text(SOURCE.replace("given = 2", "given = 4"))
    after = ids()
    assert sum(one != other for one, other in zip(before, after, strict=True)) == 1


def test_outputs_of_a_solution_stay_until_its_code_changes(course: Path) -> None:
    notebooks.main([])
    target, exercise = (course / "notebooks" / place / "97_count.ipynb" for place in ("solutions", ""))
    for path in (target, exercise):
        notebook = nbformat.read(path, as_version=4)
        notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text="1\n")]
        path.write_text(notebooks.text_of(notebook))
    kept = target.read_bytes()
    assert notebooks.out_of_step() == [exercise], "an exercise holds none"
    assert notebooks.main([]) == 0
    assert notebooks.out_of_step() == [] and target.read_bytes() == kept
    source = course / "notebooks" / "source" / "97_count.py"
    source.write_text(SOURCE.replace("# Count", "# Count again"))
    assert target in notebooks.out_of_step()
    assert notebooks.main([]) == 0
    again = nbformat.read(target, as_version=4).cells
    assert "Count again" in again[0].source and again[1].outputs[0].text == "1\n"
    source.write_text(SOURCE.replace("given = 2", "given = 4"))
    assert notebooks.main([]) == 0
    assert not any(cell.get("outputs") for cell in nbformat.read(target, as_version=4).cells)


@pytest.mark.slow
def test_solutions_run_and_are_kept_and_one_that_fails_is_named(course: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = course / "notebooks" / "source"
    (source / "96_runs.py").write_text("# %% [markdown]\n# # Runs\n\n# %%\nimport os\nprint(os.getcwd())\n")
    notebooks.main([])
    before = (course / "notebooks" / "solutions" / "97_count.ipynb").read_bytes()
    assert solutions.main([]) == 1
    said = capsys.readouterr()
    assert "97_count FAILED" in said.out and "FileNotFoundError" in said.out and 'make solutions NB="97"' in said.err
    cells = nbformat.read(course / "notebooks" / "solutions" / "96_runs.ipynb", as_version=4).cells
    line, printed = cells[1].outputs
    assert line.data["text/plain"].startswith("What you see was made on ") and printed.text == "work\n", "no place of this machine"
    assert (course / "notebooks" / "solutions" / "97_count.ipynb").read_bytes() == before
    assert notebooks.out_of_step() == []
    assert solutions.main(["96"]) == 0


@pytest.mark.parametrize("change", ["source", "notebook", "missing", "orphan"])
def test_check_notices_what_is_out_of_step(course: Path, change: str, capsys: pytest.CaptureFixture[str]) -> None:
    notebooks.main([])
    target = course / "notebooks" / "solutions" / "97_count.ipynb"
    if change == "source":
        (course / "notebooks" / "source" / "97_count.py").write_text(SOURCE.replace("Count", "Tell"))
    elif change == "notebook":
        target.write_text(target.read_text().replace("three", "four"))
    elif change == "missing":
        target.unlink()
    else:
        (course / "notebooks" / "96_orphan.ipynb").write_text("{}")
    capsys.readouterr()
    assert notebooks.main(["--check"]) == 1
    assert "out of step" in capsys.readouterr().out


def test_one_broken_source_does_not_hold_up_the_others(course: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (course / "notebooks" / "source" / "96_broken.py").write_text(SOURCE.replace("images/dot.png", "images/missing.png"))
    assert notebooks.main([]) == 1
    assert "96_broken.py: The picture missing.png is not in" in capsys.readouterr().err
    assert not (course / "notebooks" / "96_broken.ipynb").exists()
    assert (course / "notebooks" / "97_count.ipynb").is_file()
    assert notebooks.main(["--check"]) == 1
