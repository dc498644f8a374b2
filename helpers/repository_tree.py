"""A model repository as text."""

from __future__ import annotations

from pathlib import Path

from helpers.config_checks import problems
from helpers.errors import ModelError
from helpers.files import find
from helpers.model_folder import visible


def tree(repository: str | Path = "models") -> str:
    """A model repository as text: folders, versions, sizes, and a mark at what is wrong.

    Raises:
        ModelError: there is no such folder.
    """
    folder = find(repository)
    if folder is None or not folder.is_dir():
        raise ModelError(
            f"There is no folder {str(repository)!r}.", "Expected a model repository: a folder with one folder for each model."
        )
    models = visible(folder)
    lines = [f"{folder.resolve().name}/" + ("" if models else "  ◀ empty: a server has nothing to serve here")]
    for index, model in enumerate(models):
        last = index == len(models) - 1
        marks = _marks(model)
        lines.append(f"{'└── ' if last else '├── '}{model.name}{'/' if model.is_dir() else ''}{_mark(marks.get(''))}")
        lines += _branch(model, "    " if last else "│   ", marks, "")
    return "\n".join(lines)


def _marks(model: Path) -> dict[str, str]:
    if not model.is_dir():
        return {"": "no model: a server ignores files here"}
    marks: dict[str, str] = {}
    for problem in problems(model):
        marks[problem.where] = "; ".join(filter(None, [marks.get(problem.where), problem.text]))
    return marks


def _mark(text: str | None) -> str:
    return f"  ◀ {text}" if text else ""


def _branch(folder: Path, indent: str, marks: dict[str, str], inside: str) -> list[str]:
    lines = []
    entries = visible(folder) if folder.is_dir() else []
    for index, entry in enumerate(entries):
        last = index == len(entries) - 1
        where = f"{inside}{entry.name}"
        size = "/" if entry.is_dir() else f"  {_size(entry.stat().st_size)}"
        lines.append(f"{indent}{'└── ' if last else '├── '}{entry.name}{size}{_mark(marks.get(where))}")
        if entry.is_dir():
            lines += _branch(entry, indent + ("    " if last else "│   "), marks, f"{where}/")
    return lines


def _size(size: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} bytes"
