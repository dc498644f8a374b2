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
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from helpers import paths
from helpers.errors import CourseError, SetupError

if TYPE_CHECKING:
    from nbformat import NotebookNode

# What an exercise line looks like in place of the answer on the same line.
_MARK = re.compile(r"^(?P<indent>\s*)(?P<answer>.*?)\s*#:(?: (?P<starter>.*))?$")
# What Markdown reads as the beginning of a heading, a list or a quotation.
_STARTS = re.compile(r"(\d+[.)]|#{1,6}|[-+*]|>)(\s|$)")
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
%run $course/helpers/setup/colab.py"""
_COLAB_ASK = 'input("Address of the repository in which you found this notebook: ")'


class SourceError(CourseError):
    """A notebook source breaks a rule of this module."""


def sources() -> list[Path]:
    """All notebook sources, in order."""
    return sorted((paths.root() / "notebooks" / "source").glob("[0-9][0-9]_*.py"))


def generate(source: Path) -> dict[Path, str]:
    """Turn one source into its notebooks.

    Args:
        source: ``notebooks/source/NN_name.py``.

    Returns:
        path -> the text of the ``.ipynb`` to be there.

    Raises:
        SetupError: jupytext is not installed.
        SourceError: an exercise lacks a part, or a picture is not there.
    """
    folder = source.parent.parent
    name = f"{source.stem}.ipynb"
    return {
        folder / name: text_of(_notebook(source, solution=False)),
        folder / "colab" / name: text_of(_notebook(source, solution=False, colab=True)),
        folder / "solutions" / name: text_of(_notebook(source, solution=True)),
    }


def out_of_step() -> list[Path]:
    """Notebooks that differ from what their sources give, or that have no source.

    Raises:
        SetupError: jupytext is not installed.
        SourceError: a source breaks a rule.
    """
    wanted = {path: text for source in sources() for path, text in generate(source).items()}
    return sorted({path for path, text in wanted.items() if _differs(path, text)} | (_present() - set(wanted)))


def _present() -> set[Path]:
    folder = paths.root() / "notebooks"
    return {*folder.glob("*.ipynb"), *(folder / "solutions").glob("*.ipynb"), *(folder / "colab").glob("*.ipynb")}


def _differs(path: Path, text: str) -> bool:
    if not path.is_file():
        return True
    there = path.read_text(encoding="utf-8")
    return (without_outputs(there) if path.parent.name == "solutions" else there) != text


def without_outputs(text: str) -> str:
    """Return a notebook's text without what its cells showed; any other text as it is."""
    try:
        notebook = json.loads(text)
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                cell["outputs"], cell["execution_count"] = [], None
    except (ValueError, KeyError, TypeError):
        return text
    return json.dumps(notebook, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def _with_outputs(text: str, path: Path) -> str:
    """Return a solution's text with the outputs of the one that is there, unless a cell of code differs."""
    if path.parent.name != "solutions" or not path.is_file():
        return text
    new, old = json.loads(text), json.loads(path.read_text(encoding="utf-8"))
    code, ran = ([cell for cell in notebook["cells"] if cell["cell_type"] == "code"] for notebook in (new, old))
    if [cell["source"] for cell in code] != [cell["source"] for cell in ran]:
        return text
    for cell, before in zip(code, ran, strict=True):
        cell["outputs"], cell["execution_count"] = before["outputs"], before["execution_count"]
    return json.dumps(new, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def _notebook(source: Path, *, solution: bool, colab: bool = False) -> NotebookNode:
    cells = []
    for cell in _read(source).cells:
        tags = set(cell.metadata.get("tags", []))
        if not solution and tags & _ONLY_IN_SOLUTION:
            continue
        if cell.cell_type == "code":
            cell.source = _choose(cell.source, solution=solution)
        else:
            _dress(cell, tags, solution=solution)
            _attach(cell, source.parent / "images")
        cells.append(cell)
    return _assemble(_with_colab(cells) if colab else cells)


def _read(source: Path) -> NotebookNode:
    try:
        import jupytext
    except ImportError as error:
        raise SetupError(
            "jupytext is not installed in this environment.", "It reads the notebook sources.", 'Type: pip install -e ".[dev]"'
        ) from error
    notebook = jupytext.read(source, fmt="py:percent")
    _check_exercises(notebook, source)
    return notebook


def _check_exercises(notebook: NotebookNode, source: Path) -> None:
    """Every exercise has its five parts, and only code carries marks."""
    parts: dict[str, list[str]] = {}
    for cell in notebook.cells:
        number, tags = cell.metadata.get("exercise"), cell.metadata.get("tags", [])
        if number:
            parts.setdefault(number, []).append(next((tag for tag in ("starter", "check", "hints", "answer") if tag in tags), "task"))
        if cell.cell_type != "code" and re.search(r"#:( |$)", cell.source, re.MULTILINE):
            raise SourceError(f"A text cell has a mark #:: {cell.source.splitlines()[0]!r}.")
        if cell.cell_type != "code" and (line := broken_line(cell.source)):
            raise SourceError(
                f"The line {line!r} begins as a heading or a list, in the middle of a paragraph.",
                "Markdown would break the text there.",
                "Wrap the text elsewhere, or leave an empty line before a real list.",
            )
    for number, found in parts.items():
        for part in ("task", "starter", "check", "hints", "answer"):
            if part not in found:
                raise SourceError(f"Exercise {number} has no cell for {part!r}.", f"It has {found}.")


def broken_line(text: str) -> str | None:
    """Return the first line of a text cell that Markdown takes for a heading or a list only because the text was wrapped before it."""
    fence, before = False, ""
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fence = not fence
        elif not fence and _STARTS.match(line) and before and not _STARTS.match(before) and not before.startswith(("  ", "|")):
            return line
        before = line if not fence else ""
    return None


def _choose(text: str, *, solution: bool) -> str:
    """Keep the answer or the starter of each marked line."""
    return "\n".join(_lines(text, solution=solution)).strip("\n")


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
    import nbformat.v4

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
    import nbformat

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
    import nbformat

    code = _COLAB_CODE.format(address=f'"{repository()}"' if repository() else _COLAB_ASK)
    return [cells[0], nbformat.v4.new_markdown_cell(_COLAB_TEXT), nbformat.v4.new_code_cell(code), *cells[1:]]


def main(arguments: list[str] | None = None) -> int:
    """Write the notebooks that changed (or, with ``--check``, name them and exit with 1)."""
    parser = argparse.ArgumentParser(prog="python -m tools.notebooks", description="Generate the notebooks from notebooks/source.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when a notebook is out of step")
    options = parser.parse_args(arguments)
    try:
        if options.check:
            stale = out_of_step()
            for path in stale:
                print(f"out of step: {path.relative_to(paths.root())} (type: make notebooks)")
            return 1 if stale else 0
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    faulty = [source for source in sources() if not _write(source)]
    return 1 if faulty else 0


def _write(source: Path) -> bool:
    """Write one source's notebooks if they changed; False, with a sentence, when the source has a fault."""
    try:
        made = generate(source)
    except CourseError as error:
        print(f"{source.name}: {error}", file=sys.stderr)
        return False
    for path, text in made.items():
        if _differs(path, text):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_with_outputs(text, path), encoding="utf-8")
            print(f"wrote {path.relative_to(paths.root())}")
    return True


if __name__ == "__main__":
    sys.exit(main())
