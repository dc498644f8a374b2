"""Notebooks import few names from few places and show the real tools raw; nothing in helpers is there for nobody."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import jupytext
import pytest

from helpers import paths

SOURCES = sorted((paths.root() / "notebooks" / "source").glob("[0-9][0-9]_*.py"))
MOST_NAMES, MOST_MODULES = 30, 6
# Cells in which a student meets the real thing; fewer would mean that a helper hides it.
RAW = re.compile(r"grpcclient|httpclient|requests\.|config\.pbtxt|perf_analyzer")
LEAST_RAW_CELLS = 20
# What a notebook asks for by an exercise's number.
CHECKERS = frozenset(
    f"_check_{notebook}_{number}"
    for path in SOURCES
    for notebook, number in re.findall(r'^exercise\("(\d+)\.(\d+)"\)\.check\(', path.read_text(), re.MULTILINE)
)


def _cells(path: Path) -> list[str]:
    return [cell.source for cell in jupytext.read(path).cells if cell.cell_type == "code"]


def test_notebooks_import_few_names_from_few_modules() -> None:
    names: set[tuple[str, str]] = set()
    for path in SOURCES:
        for line in re.findall(r"^\s*from helpers[\w.]* import (?:\([^)]*\)|.+)", "\n".join(_cells(path)), re.MULTILINE):
            # The line that students get, with the blank, stands in its comment.
            for statement in line.strip().split("  #: "):
                node = ast.parse(statement).body[0]
                assert isinstance(node, ast.ImportFrom)
                names |= {(str(node.module), alias.name) for alias in node.names}
    assert len({name for _, name in names}) <= MOST_NAMES, sorted(names)
    assert len({module for module, _ in names}) <= MOST_MODULES, sorted(names)
    assert ("helpers.course", "____") in names and ("helpers", "launch_server") in names


def test_the_real_tools_are_seen() -> None:
    raw = [cell for path in SOURCES for cell in _cells(path) if RAW.search(cell)]
    assert len(raw) >= LEAST_RAW_CELLS


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


@pytest.fixture(scope="module")
def uses() -> Counter[str]:
    """How often each word stands in what is not a test."""
    root = paths.root()
    files = [
        file for folder in ("helpers", "notebooks/source", "tools", "training", "benchmarks") for file in (root / folder).rglob("*.py")
    ]
    files += [root / name for name in ("README.md", "INSTRUCTORS.md", "CONTRIBUTING.md", "Makefile")]
    files += [*(root / "models").rglob("*.p*")]
    return Counter(
        word for file in files if file.is_file() and "__pycache__" not in file.parts for word in _words(file.read_text(errors="replace"))
    )


def test_nothing_in_helpers_is_used_by_nobody(uses: Counter[str]) -> None:
    alone = []
    for file in sorted((paths.root() / "helpers").rglob("*.py")):
        for node in ast.parse(file.read_text()).body:
            name = getattr(node, "name", "")
            called_by_us = isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.decorator_list
            if called_by_us and not name.startswith("__") and uses[name] == 1 and name not in CHECKERS:
                alone.append(f"{file.relative_to(paths.root())}: {name}")
    assert alone == []
