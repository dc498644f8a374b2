"""Generate the notebooks from their text sources: ``python -m tools.notebooks``, or ``make notebooks``.

Each ``notebooks/source/NN_name.py`` (jupytext's percent format) is the only place where a notebook is written, with its
answers. From it come ``notebooks/NN_name.ipynb``, exercises blank, ``notebooks/solutions/NN_name.ipynb``, and
``notebooks/colab/NN_name.ipynb``, the exercise with a cell in front that fetches the course. Solutions hold the outputs of a
run (``python -m tools.solutions``), which do not count here; nothing in a notebook changes unless its source does.
``--check`` writes nothing and exits with 1 when a notebook is out of step.

How an exercise is marked in a source. All its cells carry the metadata ``exercise="1.2"``; the tags say the rest:

* ``starter``: a code cell with the answer. A line ``answer = 9002  #: answer = ____`` reads ``answer = 9002`` in the
  solution and ``answer = ____`` in the exercise. With nothing after ``#:`` the line is only in the solution. (Other code
  cells may have such lines, too: the solution need not import the blank.)
* ``hints``: Markdown, a numbered list, only in the solution notebook, from where ``hint(n)`` reads it.
* ``answer``: Markdown that explains the answer, only in the solution notebook, from where ``solution()`` reads it.

A picture is written as ``![what it shows](images/name.png)`` and travels inside the notebook. (JupyterLab shows no SVG
there; the drawing behind a picture is the SVG file beside it.)
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

from helpers import paths
from helpers.errors import CourseError

# What an exercise line looks like in place of the answer on the same line.
_MARK = re.compile(r"^(?P<indent>\s*)(?P<answer>.*?)\s*#:(?: (?P<starter>.*))?$")
_IMAGE = re.compile(r"!\[(?P<alt>[^\]]*)\]\(images/(?P<name>[\w.-]+)\)")
_MEDIA = {".png": "image/png", ".jpg": "image/jpeg"}
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
_ONLY_IN_SOLUTION = {"hints", "answer"}
_COLAB_TEXT = """## Set up Colab

The next cell fetches the course and makes its server, 2 to 3 minutes in a new runtime. Choose *Runtime > Change runtime type > GPU* before,
if you have one: the server then uses it. Colab forgets everything when the runtime ends, also your answers; *File > Save a copy* keeps the
notebook."""
# COURSE_ROOT is what the helpers look at, too.
_COLAB_CODE = """import os
import subprocess

course = os.environ.setdefault("COURSE_ROOT", "/content/course")
if not os.path.isdir(course):
    address = {address}
    subprocess.run(["git", "clone", "--quiet", "--depth=1", address, course], check=True)
%cd -q $course
# What a running notebook uses stays as it is, and Colab's own page stands for JupyterLab.
!python -m pip freeze | grep -E '^(ipykernel|ipywidgets|matplotlib|numpy|psutil|requests)==' > /tmp/theirs
!echo "jupyterlab; python_version < '3'" >> /tmp/theirs
!uv pip install --quiet --python `which python` --override /tmp/theirs -r pyproject.toml
!python -m helpers install-server && python -m helpers hand-out"""
_COLAB_ASK = 'input("Address of the repository in which you found this notebook: ")'


class SourceError(CourseError):
    """A notebook source breaks a rule of this module."""


def sources() -> list[Path]:
    """All notebook sources, in order."""
    return sorted((paths.root() / "notebooks" / "source").glob("[0-9][0-9]_*.py"))


def generate(source: Path) -> dict[Path, str]:
    """Return the text of each notebook of one source, by its path; a SourceError where a picture is missing."""
    folder, name = source.parent.parent, f"{source.stem}.ipynb"
    return {
        folder / name: text_of(_notebook(source, solution=False)),
        folder / "colab" / name: text_of(_notebook(source, solution=False, colab=True)),
        folder / "solutions" / name: text_of(_notebook(source, solution=True)),
    }


def out_of_step() -> list[Path]:
    """Notebooks that differ from what their sources give, or that have no source."""
    wanted = {path: text for source in sources() for path, text in generate(source).items()}
    present = {path for path in (paths.root() / "notebooks").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts}
    return sorted({path for path, text in wanted.items() if _differs(path, text)} | (present - set(wanted)))


def _differs(path: Path, text: str) -> bool:
    if not path.is_file():
        return True
    there = path.read_text(encoding="utf-8")
    return (without_outputs(there) if path.parent.name == "solutions" else there) != text


def without_outputs(text: str) -> str:
    """Return a notebook's text without what its cells showed."""
    notebook = nbformat.reads(text, as_version=4)
    for cell in _code(notebook):
        cell.outputs, cell.execution_count = [], None
    return text_of(notebook)


def _with_outputs(text: str, path: Path) -> str:
    """Return a solution's text with the outputs of the one that is there, unless a cell of code differs."""
    if path.parent.name != "solutions" or not path.is_file():
        return text
    notebook = nbformat.reads(text, as_version=4)
    new, old = _code(notebook), _code(nbformat.read(path, as_version=4))
    if [cell.source for cell in new] == [cell.source for cell in old]:
        for cell, before in zip(new, old, strict=True):
            cell.outputs, cell.execution_count = before.outputs, before.execution_count
    return text_of(notebook)


def _code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _notebook(source: Path, *, solution: bool, colab: bool = False) -> NotebookNode:
    cells = []
    for cell in jupytext.read(source, fmt="py:percent").cells:
        tags = set(cell.metadata.get("tags", []))
        if not solution and tags & _ONLY_IN_SOLUTION:
            continue
        if cell.cell_type == "code":
            cell.source = "\n".join(_lines(cell.source, solution=solution)).strip("\n")
        else:
            _dress(cell, tags, solution=solution)
            _attach(cell, source.parent / "images")
        cells.append(cell)
    return _assemble(_with_colab(cells) if colab else cells)


def _lines(text: str, *, solution: bool) -> Iterator[str]:
    lines = text.splitlines()
    if lines[0].startswith("%%writefile") and all(line.startswith("#") for line in lines[1:]):
        # A file that is not Python stands behind comment signs in the source, so that the source stays Python.
        lines[1:] = [line.removeprefix("#").removeprefix(" ") for line in lines[1:]]
    for line in lines:
        match = _MARK.match(line)
        if match is None:
            yield line
            continue
        chosen = match["answer"] if solution else match["starter"]
        if chosen:
            yield match["indent"] + chosen


def _dress(cell: NotebookNode, tags: set[str], *, solution: bool) -> None:
    """What only the solution notebook's text needs: a title of its own, and names for its extra cells."""
    number = cell.metadata.get("exercise")
    if "hints" in tags:
        cell.source = f"**Hints for exercise {number}.**\n\n{cell.source}"
    elif "answer" in tags:
        cell.source = f"**Answer.** {cell.source}"
    elif solution:
        cell.source = re.sub(r"\A(# .+)$", r"\1 (with answers)", cell.source, count=1, flags=re.MULTILINE)


def _attach(cell: NotebookNode, images: Path) -> None:
    """Put the pictures of a cell into the notebook, so that it can be copied anywhere."""
    attachments = {}
    for match in _IMAGE.finditer(cell.source):
        path = images / match["name"]
        if not path.is_file() or path.suffix not in _MEDIA:
            raise SourceError(f"The picture {path.name} is not in {images}, or JupyterLab cannot show it inside a notebook.")
        attachments[path.name] = {_MEDIA[path.suffix]: base64.b64encode(path.read_bytes()).decode("ascii")}
    if attachments:
        cell.attachments = attachments
        cell.source = _IMAGE.sub(r"![\g<alt>](attachment:\g<name>)", cell.source)


def _assemble(cells: list[NotebookNode]) -> NotebookNode:
    made: list[NotebookNode] = []
    seen: dict[str, int] = {}
    for cell in cells:
        # The id comes from the text, so that it stays when other cells change, and differs for twins.
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:8]
        seen[digest] = seen.get(digest, 0) + 1
        cell_id = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
        make = nbformat.v4.new_markdown_cell if cell.cell_type == "markdown" else nbformat.v4.new_code_cell
        metadata = {key: value for key, value in sorted(cell.metadata.items()) if key in ("exercise", "tags")}
        made.append(make(cell.source, id=cell_id, metadata=metadata))
        if "attachments" in cell:
            made[-1].attachments = cell.attachments
    return nbformat.v4.new_notebook(cells=made, metadata=METADATA)


def text_of(notebook: NotebookNode) -> str:
    """Return a notebook as its file has it."""
    nbformat.validate(notebook)
    text: str = nbformat.writes(notebook)
    return text.rstrip("\n") + "\n"


def repository() -> str:
    """Return the course's public address, ``repository-code`` in ``CITATION.cff``; empty where it has none."""
    citation = paths.root() / "CITATION.cff"
    text = citation.read_text(encoding="utf-8") if citation.exists() else ""
    found = re.search(r"^repository-code: [\"']?(https://[^\s\"']+)", text, re.MULTILINE)
    return found[1] if found else ""


def _with_colab(cells: list[NotebookNode]) -> list[NotebookNode]:
    """The cells with Colab's set-up behind the title; in notebooks of their own, so that nobody else runs past a cell that does nothing."""
    code = _COLAB_CODE.format(address=f'"{repository()}"' if repository() else _COLAB_ASK)
    return [cells[0], nbformat.v4.new_markdown_cell(_COLAB_TEXT), nbformat.v4.new_code_cell(code), *cells[1:]]


def main(arguments: list[str] | None = None) -> int:
    """Write the notebooks that changed (or, with ``--check``, name them); 1 when one is out of step, or a source has a fault."""
    parser = argparse.ArgumentParser(prog="python -m tools.notebooks", description="Generate the notebooks from notebooks/source.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when a notebook is out of step")
    if parser.parse_args(arguments).check:
        try:
            stale = out_of_step()
        except CourseError as error:
            print(error, file=sys.stderr)
            return 1
        for path in stale:
            print(f"out of step: {path.relative_to(paths.root())} (type: make notebooks)")
        return int(bool(stale))
    failed = 0
    for source in sources():
        try:
            made = generate(source)
        except CourseError as error:
            print(f"{source.name}: {error}", file=sys.stderr)
            failed = 1
            continue
        for path, text in made.items():
            if _differs(path, text):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(_with_outputs(text, path), encoding="utf-8")
                print(f"wrote {path.relative_to(paths.root())}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
