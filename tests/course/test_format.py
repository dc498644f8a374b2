"""House style that a machine can check: sizes, opening, close, headings, alt text, tags, no outputs."""

from __future__ import annotations

import ast
import base64
import itertools
import json
import re
import statistics
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from helpers import paths
from helpers.course import course_map
from tools import solutions

ROOT = paths.root()
EXERCISES = sorted((ROOT / "notebooks").glob("*.ipynb"))
SOLUTIONS = sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb"))
ALL = EXERCISES + SOLUTIONS

CELLS = (22, 50)
WORDS = (500, 1500)
# Notebook 03 sends a request in nine ways, each by the raw tool.
CODE_LINES = 120
MEDIAN_CELL_LINES = 3
LONGEST_CELL_LINES = 25
# Characters that fit into a code cell on a projector without scrolling sideways.
LINE_WIDTH = 106
TAGS = {"starter", "check", "hints", "answer", "raises-exception"}
ERROR_BARS = re.compile(r"(sweep|throughput_latency|scale|capacity)_figure\(|[xy]err=")
HEADING = re.compile(r"^(#{1,6}) (.+)$", re.MULTILINE)


def _id(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def _markdown(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "markdown"]


def _code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _lines(cell: NotebookNode) -> int:
    return sum(bool(line.strip()) for line in cell.source.splitlines())


def _headings(notebook: NotebookNode) -> list[tuple[int, str]]:
    """Level and text of each heading, without what stands in code blocks."""
    found = []
    for cell in _markdown(notebook):
        text = re.sub(r"^```.*?^```", "", cell.source, flags=re.DOTALL | re.MULTILINE)
        found += [(len(level), title) for level, title in HEADING.findall(text)]
    return found


def _words(notebook: NotebookNode) -> int:
    text = "\n".join(cell.source for cell in _markdown(notebook))
    text = re.sub(r"\]\([^)]*\)", "]", text)
    return len(re.findall(r"[A-Za-z][A-Za-z'’-]*|\d[\d.,]*", text))


def test_each_notebook_has_its_solution() -> None:
    assert len(EXERCISES) >= 1
    assert [path.name for path in EXERCISES] == [path.name for path in SOLUTIONS]


@pytest.mark.parametrize("path", ALL, ids=_id)
def test_clean_in_git(path: Path) -> None:
    notebook = _read(path)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    for cell in _code(notebook):
        assert path in SOLUTIONS or (cell.outputs == [] and cell.execution_count is None)
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"tags", "exercise"}
        assert set(cell.metadata.get("tags", [])) <= TAGS
        assert cell.source.strip(), "an empty cell"


def test_what_solutions_show_is_small_and_names_its_machine_and_nobodys_folders() -> None:
    assert sum(path.stat().st_size for path in ROOT.rglob("notebooks/**/*.ipynb")) <= solutions.ALL
    for path in SOLUTIONS:
        outputs = [output for cell in _code(_read(path)) for output in cell.outputs]
        pictures = [base64.b64decode(output.data["image/png"]) for output in outputs if "image/png" in output.get("data", {})]
        assert all(len(picture) <= solutions.PICTURE for picture in pictures), path.name
        assert not outputs or outputs[0].data["text/plain"].startswith("What you see was made on "), path.name
        shown = json.dumps([output for output in outputs if "image/png" not in output.get("data", {})])
        assert not re.search(r"/home/|/root\b|widget-view", shown) and str(ROOT) not in shown, path.name


@pytest.mark.parametrize("path", EXERCISES, ids=_id)
def test_size(path: Path) -> None:
    notebook = _read(path)
    lines = [_lines(cell) for cell in _code(notebook)]
    assert CELLS[0] <= len(notebook.cells) <= CELLS[1], len(notebook.cells)
    assert WORDS[0] <= _words(notebook) <= WORDS[1], _words(notebook)
    assert sum(lines) <= CODE_LINES, sum(lines)
    assert statistics.median(lines) <= MEDIAN_CELL_LINES, lines
    assert 0.6 <= len(lines) / len(_markdown(notebook)) <= 1.6, "about one text cell per code cell"


@pytest.mark.parametrize("path", ALL, ids=_id)
def test_no_long_cell(path: Path) -> None:
    for cell in _code(_read(path)):
        assert _lines(cell) <= LONGEST_CELL_LINES, cell.source
        long = [line for line in cell.source.splitlines() if len(line) > LINE_WIDTH and not line.startswith("from ")]
        assert long == []


@pytest.mark.parametrize("path", ALL, ids=_id)
def test_opening(path: Path) -> None:
    first = _read(path).cells[0]
    assert first.cell_type == "markdown" and first.source.startswith("# ")
    for part in ("What you'll do", "What you'll learn", "What you'll need", "Time"):
        assert f"**{part}:**" in first.source, part
    do = re.search(r"\*\*What you'll do:\*\* (.+)", first.source)
    assert do and do[1].rstrip(".").count(". ") == 0, "one sentence"
    learn = re.search(r"\*\*What you'll learn:\*\* (.+)", first.source)
    assert learn and 3 <= len(learn[1].split(" · ")) <= 5


@pytest.mark.parametrize("path", ALL, ids=_id)
def test_time_adds_up_and_agrees_with_the_map(path: Path) -> None:
    notebook = _read(path)
    found = re.search(r"\*\*Time:\*\* (\d+) minutes: (\d+) for reading, (\d+) for exercises", notebook.cells[0].source)
    assert found, notebook.cells[0].source
    total, reading, exercises = map(int, found.groups())
    row = next(row for row in course_map() if path.name == row["notebook"])
    assert total == reading + exercises == row["minutes"]
    clocks = [int(minutes) for _, title in _headings(notebook) for minutes in re.findall(r"\((\d+) minutes?\)", title)]
    assert sum(clocks) == exercises, clocks
    title = _headings(notebook)[0][1].removesuffix(" (with answers)")
    assert title == row["what"]


@pytest.mark.parametrize("path", ALL, ids=_id)
def test_close(path: Path) -> None:
    notebook = _read(path)
    assert re.search(r"\b(server|fleet)\.stop\(\)", notebook.cells[-1].source), "the last cell stops the student's own server"
    end = "\n".join(cell.source for cell in notebook.cells[-4:])
    assert "## Remember" in end and "**In practice…**" in end and "**Next:**" in end
    points = re.findall(r"^- ", end, re.MULTILINE)
    assert 3 <= len(points) <= 5, "key points"
    for link in re.findall(r"\]\(([\w]+\.ipynb)\)", end):
        assert (path.parent / link).is_file() or int(link[:2]) > int(EXERCISES[-1].name[:2]), link


@pytest.mark.parametrize("path", ALL, ids=_id)
def test_headings(path: Path) -> None:
    headings = _headings(_read(path))
    levels = [level for level, _ in headings]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels)), "a skipped level"
    for _, title in headings:
        words = title.split(" — ")[-1].split()
        assert not any(word.istitle() and word[1:].islower() and word not in NAMES for word in words[1:]), f"sentence case: {title}"
    assert all(not title.endswith((".", ":")) for _, title in headings)


# Words that keep their capital inside a heading.
NAMES = {"Triton", "Python", "Exercise", "Apptainer", "Docker", "NumPy", "JupyterLab", "Z", "Dask"}


@pytest.mark.parametrize("path", ALL, ids=_id)
def test_exercises_have_a_clock_a_task_a_blank_and_a_check(path: Path) -> None:
    notebook = _read(path)
    part = str(int(path.name[:2]))
    numbers = list(dict.fromkeys(cell.metadata.exercise for cell in notebook.cells if "exercise" in cell.metadata))
    assert numbers == [f"{part}.{n}" for n in range(1, len(numbers) + 1)] and numbers
    assert not any(re.search(r"#:( |$)", cell.source, re.MULTILINE) for cell in notebook.cells), "a mark outside of code"
    for number in numbers:
        cells = [cell for cell in notebook.cells if cell.metadata.get("exercise") == number]
        assert re.match(rf"### Exercise {re.escape(number)} \(\d+ minutes?\) — \S", cells[0].source), cells[0].source
        starters = [cell for cell in cells if "starter" in cell.metadata.get("tags", [])]
        check = next(cell.source for cell in cells if "check" in cell.metadata.get("tags", []))
        name = re.escape(f'exercise("{number}")')
        assert re.fullmatch(rf"{name}\.check\([^\n]*\)\n# {name}\.hint\(1\)\n# {name}\.solution\(\)", check), check
        has_blank = any("____" in cell.source for cell in starters)
        assert has_blank is (path in EXERCISES), f"{number}: a blank in the exercise, none in the solution"


@pytest.mark.parametrize("path", ALL, ids=_id)
def test_pictures_have_alt_text_and_come_along(path: Path) -> None:
    for cell in _markdown(_read(path)):
        assert "<img" not in cell.source
        for alt, target in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", cell.source):
            assert len(alt.split()) >= 5, f"alt text for {target}"
            assert target.removeprefix("attachment:") in cell.attachments


# What begins a list, a heading, a quotation or a table; in the middle of a paragraph it is an accident of wrapping.
_BEGINS = re.compile(r"(\d+[.)]|[-+*]|#{1,6}|=+|-+) |[>|]|(=+|-+)$")
_ITEM = re.compile(r"\s*(\d+[.)]|[-+*]) |\s*\|")
PAGES = sorted(path for place in ("*.md", "docs/*.md", "containers/*.md", "notebooks/data/*.md") for path in ROOT.glob(place))


def _accidents(text: str) -> list[str]:
    """Lines that Markdown takes out of their paragraph: they begin like an item, and the line above is none and not empty."""
    text = re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.DOTALL | re.MULTILINE)
    found, in_list = [], False
    for above, line in itertools.pairwise(["", *text.splitlines()]):
        in_list = bool(_ITEM.match(above)) or (in_list and above.startswith(" "))
        if above.strip() and not in_list and not above.startswith("#") and _BEGINS.match(line):
            found.append(line)
    return found


@pytest.mark.parametrize("path", EXERCISES, ids=_id)
def test_error_bars_say_which_interval_they_are(path: Path) -> None:
    """In the cell that draws the first ones, or in the text before or after it."""
    cells = _read(path).cells
    drawn = (place for place, cell in enumerate(cells) if cell.cell_type == "code" and ERROR_BARS.search(cell.source))
    if first := next(drawn, None):
        around = " ".join(cell.source for cell in cells[first - 1 : first + 2])
        assert "95 % interval" in " ".join(around.split())


def test_a_line_that_wraps_into_an_item_is_noticed() -> None:
    assert _accidents("the fraction of jets between 0 and\n1) at or above it") == ["1) at or above it"]
    assert _accidents("a sum of a\n+ b is") == ["+ b is"] and _accidents("minus\n- b") == ["- b"] and _accidents("no\n# 4") == ["# 4"]
    assert _accidents("# A heading\n\nText\n\n- one\n  goes on\n- two\n\n1. a\n2. b\n\n| a |\n|---|\n| b |") == []


@pytest.mark.parametrize("path", [*ALL, *PAGES], ids=_id)
def test_no_line_is_taken_out_of_its_paragraph(path: Path) -> None:
    texts = [cell.source for cell in _markdown(_read(path))] if path.suffix == ".ipynb" else [path.read_text(encoding="utf-8")]
    assert [line for text in texts for line in _accidents(text)] == []


@pytest.mark.parametrize("path", ALL, ids=_id)
def test_asks_before_and_after(path: Path) -> None:
    text = "\n".join(cell.source for cell in _markdown(_read(path)))
    assert "What do you expect" in text
    assert "What stands out?" in text


@pytest.mark.parametrize("path", ALL, ids=_id)
def test_code_is_python_and_uses_no_fixed_port_or_path(path: Path) -> None:
    for cell in _code(_read(path)):
        if not cell.source.startswith(("%%", "!", "%")):
            ast.parse("\n".join(line for line in cell.source.splitlines() if not line.startswith(("%", "!"))))
        # Port 0 is any that is free.
        assert not re.search(r"""["'](localhost|127\.0\.0\.1):?(?!0["'])\d*["']|/home/|/tmp""", cell.source), cell.source


@pytest.mark.parametrize("path", ALL, ids=_id)
def test_runs_alone(path: Path) -> None:
    """Restart & Run All needs no other notebook: the imports and the server are made here."""
    code = [cell.source for cell in _code(_read(path))]
    assert any(re.search(r"\blaunch_(server|fleet)\(", source) for source in code)
    assert any("from helpers" in source for source in code[:2])
