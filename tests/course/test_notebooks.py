"""Every notebook as a student has it: opened in JupyterLab, run with its blanks, looked at, one exercise answered wrong and then right."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from nbformat import NotebookNode

from helpers import settings
from tests.course.browser import examine, live_dashboard
from tests.course.browser.answers import ANSWERS, Answer
from tests.course.browser.lab import Lab, Notebook
from tests.course.notebooks.running import Run
from tests.course.notebooks.untouched import assert_untouched, limit_s, state_of_server

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NOTEBOOKS = sorted((settings.root() / "notebooks").glob("[0-9][0-9]_*.ipynb"))
# In notebook 10 a fleet takes the place of the server.
_SERVER = 'globals()["fleet" if "fleet" in globals() else "server"]'
_WIDGET = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(scope="module")
def desk(browser: Any) -> Iterator[Any]:
    """One page for all of these notebooks, as wide as a projector: they are opened one after the other in the same JupyterLab."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    yield context.new_page()
    context.close()


@pytest.fixture
def notebook(desk: Any, lab: Lab, request: pytest.FixtureRequest) -> Iterator[Notebook]:
    """A notebook, open with a kernel of its own, which is shut down afterwards."""
    opened = Notebook(desk, lab, f"notebooks/{request.param.name}")
    yield opened
    opened.close()


def test_each_notebook_has_an_answer_here() -> None:
    assert sorted(ANSWERS) == [path.name[:2] for path in NOTEBOOKS]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem, indirect=True)
def test_run_all_look_and_answer(notebook: Notebook, artefacts: Path) -> None:
    name = Path(notebook.path).stem
    number = name[:2]
    progress = notebook.lab.work / "progress.json"
    before = progress.read_bytes() if progress.exists() else b""

    notebook.run_all(limit_s(number))
    done = _as_run(notebook.content())
    (artefacts / f"{name}-seconds.json").write_text(json.dumps(done.seconds, indent=1))
    assert_untouched(done, number)
    assert all(cell.execution_count for cell in done.notebook.cells if cell.cell_type == "code"), "no cell was left out"
    assert (progress.read_bytes() if progress.exists() else b"") == before, "a blank is no attempt"

    _can_be_seen(notebook, done)
    notebook.page.screenshot(path=artefacts / f"{name}.png")
    said = notebook.run(notebook.add(f"print({_SERVER}.state())"))
    assert said.strip() == state_of_server(number)
    _answer(notebook, ANSWERS[number], artefacts / f"{name}.png")
    if number == "06":
        live_dashboard.look_and_touch(notebook, artefacts)
    notebook.run(notebook.add(f"{_SERVER}.stop()"))


def _as_run(content: NotebookNode) -> Run:
    """The notebook with the seconds of each cell, by JupyterLab's own clock."""
    seconds = {}
    for index, cell in enumerate(content.cells):
        timing = cell.metadata.get("execution", {})
        if {"iopub.status.busy", "shell.execute_reply"} <= set(timing):
            begin, end = (datetime.fromisoformat(timing[name]) for name in ("iopub.status.busy", "shell.execute_reply"))
            seconds[index] = round((end - begin).total_seconds(), 3)
    assert seconds, "JupyterLab has recorded no times"
    return Run(content, seconds)


def _can_be_seen(notebook: Notebook, done: Run) -> None:
    """Headings, pictures, widgets and contrast, as the page has them."""
    page = notebook.page
    widgets = sum(_WIDGET in output.get("data", {}) for cell in done.notebook.cells for output in cell.get("outputs", []))
    assert examine.dead_widgets(page, widgets) == []
    assert examine.faults_of_headings(page) == []
    pictures = examine.pictures(page)
    assert [picture for picture in pictures if not picture["loaded"] or len(picture["alt"].split()) < 5] == []
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        examine.use_theme(page, theme)
        seen, poor = examine.texts(page)
        assert seen > 20, "the course's output is there to be looked at"
        assert poor == [], f"contrast too low in {theme}"


def _answer(notebook: Notebook, answer: Answer, picture: Path) -> None:
    """Edit the cell of an exercise, run it and its check: a usual mistake first, then the right answer."""
    for words in answer.needs:
        notebook.run(notebook.find(words))
    starter, check = notebook.starter(answer.exercise), notebook.find(f'exercise("{answer.exercise}").check(')
    for text, kind, words in ((answer.mistaken(), "Not yet", answer.words), (answer.solution(), "Correct", "")):
        notebook.write(starter, text)
        notebook.run(starter)
        said = notebook.run(check)
        assert said[2:].startswith(f"{kind}: ") and words in said, said
        notebook.page.locator(f"[role=status]:has-text('{kind}.')").first.scroll_into_view_if_needed()
        notebook.page.screenshot(path=picture.with_stem(f"{picture.stem}-{kind.lower().replace(' ', '-')}"))
    assert f'"{answer.exercise}"' in (notebook.lab.work / "progress.json").read_text()
