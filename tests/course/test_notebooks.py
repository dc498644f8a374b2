"""Each notebook runs twice: solved in JupyterLab, with a wrong answer on the way, and with its blanks where perf_analyzer is missing.

Where there is no Chromium, the solution runs under nbclient instead, with the same values.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import NotebookNode

from helpers import paths
from tests.course import examine, live_dashboard
from tests.course.chromium import chromium
from tests.course.lab import Lab, Notebook, processes_of, shown, source_of
from tests.course.mistakes import MISTAKES, Mistake
from tests.course.outcomes import BY_SPEED, assert_healthy, assert_untouched, checks_of, ended, silent
from tests.course.running import Run, run, text_of
from tests.course.values import FEWER, VALUES, WITHOUT_THE_TOOL, python, replaced
from tests.support.course_copy import server_without

NOTEBOOKS = sorted((paths.root() / "notebooks").glob("[0-9][0-9]_*.ipynb"))
SOLUTIONS = paths.root() / "notebooks" / "solutions"
# One that has recorded figures where the tool is missing; the others' blanks are for the night.
_BLANK_EACH_DAY = ("07",)
# What takes long and has nothing to do with blanks: physics, here of fewer jets.
_FEWER = {
    "[256:2256]": "[256:384]",
    'sample = jets.read("ak8")': 'sample = jets.read("ak8")[::4]',
    "4000, jets_per_file=2000": "400, jets_per_file=200",
}
_WIDGET = "application/vnd.jupyter.widget-view+json"


def test_each_notebook_has_its_values_and_a_mistake() -> None:
    assert [path.name[:2] for path in NOTEBOOKS] == sorted(VALUES) == sorted(MISTAKES)
    for path in NOTEBOOKS:
        mistake = MISTAKES[path.name[:2]]
        (answer,) = _answers(SOLUTIONS / path.name, mistake.exercise)
        assert answer.count(mistake.right) == 1, f"the solution of {mistake.exercise} has {mistake.right!r} no more"


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "fewer"),
    [pytest.param(path, FEWER.get(path.name[:2], {}), id=path.stem) for path in NOTEBOOKS]
    + [pytest.param(path, {}, id=f"{path.stem} as it is", marks=pytest.mark.nightly) for path in NOTEBOOKS if path.name[:2] in FEWER],
)
def test_a_student_solves_it(path: Path, fewer: dict[str, str], request: pytest.FixtureRequest) -> None:
    """Every answer is right, every value is, and nothing goes to stderr; with private inference on."""
    number = path.name[:2]
    # Without Chromium it is the solution itself that runs, without a browser.
    done = (_in_jupyterlab if chromium() else _under_nbclient)(path, fewer, request.getfixturevalue)
    assert_healthy(done, number)
    assert silent(done) == []
    for exercise, said in checks_of(done).items():
        assert said.startswith(("✔ Correct", *BY_SPEED.get(exercise, ()))), f"{exercise}: {said}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path.stem, marks=[] if path.name[:2] in _BLANK_EACH_DAY else [pytest.mark.nightly]) for path in NOTEBOOKS],
)
def test_blanks_where_the_tool_is_missing(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every check says kindly that nothing was attempted, and where something should be measured there are recorded figures."""
    number = path.name[:2]
    # Nothing is recorded of fleets and networks of one's own (notebooks 10, 11), nor of what notebook 09 configures where its
    # first blank is left.
    hidden = {} if number in ("09", "10", "11") else _without_the_tool(tmp_path)
    for name, value in {"COURSE_WORK": str(tmp_path / "work"), "COURSE_QUICK": "1", **hidden}.items():
        monkeypatch.setenv(name, value)
    blank = tmp_path / path.name
    changes = {json.dumps(many)[1:-1]: json.dumps(few)[1:-1] for many, few in _FEWER.items()}
    blank.write_text(replaced(path.read_text(encoding="utf-8"), changes), encoding="utf-8")
    done = run(blank, tmp_path, then=python(WITHOUT_THE_TOOL.get(number, ""), ended(number, blanks=True)))
    assert_untouched(done, number)
    said = "\n".join(text_of(cell) for cell in done.notebook.cells if cell.cell_type == "code")
    assert ("was recorded on another machine" in said) == (number in ("07", "08"))
    assert not (tmp_path / "work" / "progress.jsonl").exists(), "a blank is no attempt"
    assert processes_of(tmp_path / "work") == [], "a server was left behind"


# What somebody changes in notebook 11 for a network of theirs: one tensor of 4 × 5 numbers in, and one out.
_THEIRS = {
    'OWN, MODEL = "", "jet_transformer"': 'OWN, MODEL = "{file}", "sigmoid"',
    'inputs = {name: tensor for name, tensor in six.items() if "points" not in name}': (
        'inputs = {"x": np.linspace(-4, 4, 1280, dtype=np.float32).reshape(64, 4, 5)}'
    ),
    '  { name: "pf_features"  data_type: TYPE_FP32  dims: [ 20, -1 ] },': '  { name: "x" data_type: TYPE_FP32 dims: [ 4, 5 ] }',
    '  { name: "pf_mask"      data_type: TYPE_FP32  dims: [ 1, -1 ] },': "",
    '  { name: "sv_features"  data_type: TYPE_FP32  dims: [ 11, -1 ] },': "",
    '  { name: "sv_mask"      data_type: TYPE_FP32  dims: [ 1, -1 ] }': "",
    '  { name: "softmax"      data_type: TYPE_FP32  dims: [ 8 ] }': '  { name: "y" data_type: TYPE_FP32 dims: [ 4, 5 ] }',
}


@pytest.mark.nightly
def test_a_network_that_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Notebook 11 with a file that ONNX Runtime carries, its first axis opened: the checks look at what the server does with it."""
    onnx = pytest.importorskip("onnx")
    from onnx.tools.update_model_dims import update_inputs_outputs_dims

    (carried,) = paths.server_env().glob("lib/python3*/site-packages/onnxruntime/datasets/sigmoid.onnx")
    file, shape = tmp_path / "theirs.onnx", ["batch", 4, 5]
    onnx.save(update_inputs_outputs_dims(onnx.load(carried), {"x": shape}, {"y": shape}), file)
    for name, value in {"COURSE_WORK": str(tmp_path / "work"), "COURSE_QUICK": "1"}.items():
        monkeypatch.setenv(name, value)
    text = (SOLUTIONS / "11_serve_your_own_network.ipynb").read_text(encoding="utf-8")
    for ours, theirs in _THEIRS.items():
        assert text.count(json.dumps(ours)[1:-1]) == 1, ours
        text = text.replace(json.dumps(ours)[1:-1], json.dumps(theirs.replace("{file}", str(file)))[1:-1])
    (notebook := tmp_path / "11_theirs.ipynb").write_text(text, encoding="utf-8")
    true = 'assert physics == [] and 0 <= difference < tolerance and \'name: "x"\' in (folder / "MODEL_CARD.md").read_text()'
    done = run(notebook, tmp_path, then=python(true, ended("11")))
    assert_healthy(done, "11")
    for exercise, said in checks_of(done).items():
        assert said.startswith(("✔ Correct", *BY_SPEED.get(exercise, ()))), f"{exercise}: {said}"


def _without_the_tool(folder: Path) -> dict[str, str]:
    """Variables under which perf_analyzer is not found."""
    path = [place for place in os.environ["PATH"].split(os.pathsep) if not (Path(place) / "perf_analyzer").exists()]
    server = server_without(folder / "server", "perf_analyzer")
    return {"COURSE_SERVER_ENV": str(server), "PATH": os.pathsep.join(path)}


def _values(number: str, fewer: dict[str, str]) -> str:
    """What must be so in the kernel at the end, as Python."""
    return python(replaced(VALUES[number], fewer), ended(number))


def _under_nbclient(path: Path, fewer: dict[str, str], fixture: Callable[[str], Any]) -> Run:
    """The solution, from top to bottom, and what must be so in its kernel at the end."""
    place, patch = fixture("tmp_path"), fixture("monkeypatch")
    for name, value in {"COURSE_WORK": str(place / "work"), "COURSE_QUICK": "1", "COURSE_PRIVATE": "yes"}.items():
        patch.setenv(name, value)
    solution = place / path.name
    solution.write_text(replaced((SOLUTIONS / path.name).read_text(encoding="utf-8"), fewer), encoding="utf-8")
    done = run(solution, place, then=_values(path.name[:2], fewer))
    assert processes_of(place / "work") == [], "a server was left behind"
    return done


def _in_jupyterlab(path: Path, fewer: dict[str, str], fixture: Callable[[str], Any]) -> Run:
    """The notebook with the solution's answers, run to an exercise that is answered wrong, then to its end, and looked at."""
    lab: Lab = fixture("lab")
    artefacts: Path = fixture("artefacts")
    number, picture = path.name[:2], artefacts / f"{path.stem}.png"
    notebook = Notebook(fixture("page"), lab, f"notebooks/{path.name}")
    try:
        _fill_in(notebook, SOLUTIONS / path.name, fewer)
        _mistake(notebook, MISTAKES[number], picture)
        done = _as_run(notebook.content())
        nbformat.write(done.notebook, artefacts / path.name)
        (artefacts / f"{path.stem}-seconds.json").write_text(json.dumps(done.seconds, indent=1))
        assert_healthy(done, number)
        assert all(cell.execution_count for cell in done.notebook.cells if cell.cell_type == "code"), "no cell was left out"
        counted = (lab.work / "progress.jsonl").read_text()
        assert all(f'"{exercise}"' in counted for exercise, said in checks_of(done).items() if said.startswith("✔")), "each was counted"
        _can_be_seen(notebook, done)
        notebook.page.screenshot(path=picture)
        notebook.run_well(_values(number, fewer))
        if number == "06":
            notebook.run(notebook.find("server = launch_server("))
            live_dashboard.look_and_touch(notebook, artefacts)
    finally:
        notebook.close()
    return done


def _answers(solution: Path, exercise: str = "") -> list[str]:
    """The texts of the cells in which an exercise is answered, or any."""
    starters = [cell for cell in nbformat.read(solution, as_version=4).cells if "starter" in cell.metadata.get("tags", [])]
    return [cell.source for cell in starters if exercise in ("", cell.metadata["exercise"])]


def _fill_in(notebook: Notebook, solution: Path, fewer: dict[str, str]) -> None:
    """Write the solution's answer into each cell that has a blank, as a student would; and what is to be measured less."""
    for index, answer in zip(notebook.starters(), _answers(solution), strict=True):
        notebook.write(index, answer)
    sources = [source_of(cell) if cell["cell_type"] == "code" else "" for cell in notebook.cells()]
    assert all(any(old in source for source in sources) for old in fewer), "the notebook has other numbers now"
    for index, source in enumerate(sources):
        if source != (shorter := replaced(source, fewer)):
            notebook.write(index, shorter)


def _mistake(notebook: Notebook, mistake: Mistake, picture: Path) -> None:
    """Answer one exercise wrong first: run all up to its check, correct the answer, and run the rest."""
    (starter,) = notebook.starters(mistake.exercise)
    check = notebook.find(f'exercise("{mistake.exercise}").check(')
    right = source_of(notebook.cells()[starter])
    notebook.write(starter, right.replace(mistake.right, mistake.wrong))
    notebook.run_up_to(check)
    assert Run(notebook.content(), {}).stray_errors() == []
    said = shown(notebook.cells()[check])
    assert said.startswith("✘ Not yet: ") and mistake.words in said, said
    box = notebook.page.locator("[role=status]:has-text('Not yet.')").first
    box.scroll_into_view_if_needed()
    notebook.page.screenshot(path=picture.with_stem(f"{picture.stem}-not-yet"))
    notebook.write(starter, right)
    notebook.run_from(starter)


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
    """Headings, pictures, widgets, what fits on a projector and contrast, as the page has them."""
    page = notebook.page
    widgets = sum(_WIDGET in output.get("data", {}) for cell in done.notebook.cells for output in cell.get("outputs", []))
    assert examine.dead_widgets(page, widgets) == []
    assert examine.faults_of_headings(page) == []
    assert examine.faults_of_fit(page) == []
    pictures = examine.pictures(page)
    assert [picture for picture in pictures if not picture["loaded"] or len(picture["alt"].split()) < 5] == []
    seen, poor = examine.contrast(page)
    assert seen > 20, "the course's output is there to be looked at"
    assert poor == [], "contrast too low"
