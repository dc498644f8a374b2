"""What pages, notebooks and messages tell people to type has names that exist: attributes, arguments, commands, programs."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
from collections.abc import Iterator
from typing import Any

import jupytext
import pytest

import helpers
from helpers import cli, course, input_files, jets, plots, precision, repository, scaling, taus, tracks
from helpers.client import Client
from helpers.fleet import Fleet
from helpers.measuring.experiments import Experiments
from helpers.metrics.dashboard import Dashboard
from helpers.physics.jets import Tagger
from helpers.server import Server
from tests.support import ROOT
from tests.unit.test_readme import LINKED

# What a name means in all texts of the course.
THINGS: dict[str, Any] = {
    **{"server": Server, "fleet": Fleet, "client": Client, "tagger": Tagger, "table": Experiments, "board": Dashboard},
    **{"plots": plots, "repository": repository, "scaling": scaling, "precision": precision},
    **{"jets": jets, "taus": taus, "tracks": tracks, "input_files": input_files},
}
CALLED = {name: getattr(helpers, name) for name in helpers.__all__ if callable(getattr(helpers, name))}
CALLED |= {name: getattr(course, name) for name in course.__all__ if name != "____"}
# Ends of names of files, such as server.yaml.
_ENDS = {"yaml", "def", "npz", "json", "csv"}


def _code(text: str) -> str:
    """What stands as code in Markdown: blocks, and words between backquotes."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return "\n".join([*blocks, *re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))])


def _messages(source: str) -> Iterator[str]:
    """The texts in a module, with an ellipsis where a value is put in."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)


def _told() -> dict[str, str]:
    found = {page: _code((ROOT / page).read_text(encoding="utf-8")) for page in LINKED}
    for path in sorted((ROOT / "notebooks" / "source").glob("*.py")):
        found[path.name] = _code("\n".join(cell.source for cell in jupytext.read(path).cells if cell.cell_type == "markdown"))
    for path in sorted((ROOT / "helpers").rglob("*.py")):
        found[str(path.relative_to(ROOT))] = "\n".join(_messages(path.read_text(encoding="utf-8")))
    return found


TOLD = _told()


def _all(pattern: str) -> list[tuple[str, ...]]:
    """Every find, with where it is told before it."""
    finds = ((place, found) for place, text in TOLD.items() for found in re.findall(pattern, text))
    return [(place, *(found if isinstance(found, tuple) else (found,))) for place, found in finds]


def _has(thing: Any, name: str) -> bool:
    ours = [each for each in inspect.getmro(thing) if each.__module__.startswith("helpers")] if inspect.isclass(thing) else []
    return hasattr(thing, name) or any(re.search(rf"self\.{name}\b", inspect.getsource(each)) for each in ours)


def test_attributes_exist() -> None:
    told = [each for each in _all(rf"(?<![\w./\"'-])({'|'.join(THINGS)})\.([a-z]\w*)") if each[2] not in _ENDS]
    told = [each for each in told if each[0] != "helpers/__init__.py"]  # its texts are names of modules
    assert len(told) > 90
    assert [each for each in told if not _has(THINGS[each[1]], each[2])] == []


def test_arguments_exist() -> None:
    told = [
        (place, name, word)
        for place, name, inside in _all(rf"(?<![\w.])({'|'.join(CALLED)})\(([^()]*)\)")
        for word in re.findall(r"(?:^|, )(\w+)=", inside)
    ]
    assert len(told) > 30
    for place, name, word in told:
        known = inspect.signature(CALLED[name]).parameters
        assert word in known or any(each.kind is each.VAR_KEYWORD for each in known.values()), f"{place}: {name}({word}=…)"


# As a line, behind "Type:", or as a word of code.
_TYPED = r"(?m)(?:[Tt]ype: |^\s*|`|&& )"
COMMANDS = sorted({each[1:] for each in _all(_TYPED + r"python -m helpers ([a-z][a-z_-]*)((?: --?[a-z-]+)*)")})


@pytest.mark.parametrize("told", COMMANDS)
def test_commands_and_their_options_exist(told: tuple[str, str]) -> None:
    command, options = told
    assert command in cli.COMMANDS
    known = {name for names, _, _ in cli.OPTIONS.get(command, ()) for name in names.split()}
    assert set(options.split()) <= {*known, "--help"} or command in cli.PASS_ON


def test_programs_exist() -> None:
    told = {each[1] for each in _all(r"python -m ((?:tools|benchmarks|tests|training)[\w.]*\w)")}
    assert len(told) >= 8
    assert [name for name in told if importlib.util.find_spec(name) is None] == []
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {each[1] for each in _all(_TYPED + r"make ([a-z][a-z-]*)(?= [A-Z]+=|$|   )")} <= targets
