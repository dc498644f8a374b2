"""The notebook's cells, as IPython runs them: which of them failed or still has a blank, so that no check judges an old answer."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from typing import Any, NamedTuple

BLANK = "____"


class _Made(NamedTuple):
    """What is known about the last cell that was to make a name."""

    first_line: str
    blanks: int
    error: str


_made: dict[str, _Made] = {}


def watch(shell: Any, explain: Callable[[str, str], None]) -> None:
    """Take notes of each cell of IPython from now on, and explain, by exercise and name, a check whose names are not there."""
    shell.events.register("post_run_cell", note)

    def handle(shell: Any, kind: type[BaseException], error: NameError, trace: Any, tb_offset: int | None = None) -> None:
        number, names = asked(shell.history_manager.input_hist_raw[-1] if shell.history_manager else "")
        if error.name in names:
            explain(number, error.name)
        else:
            shell.showtraceback((kind, error, trace), tb_offset=tb_offset)

    shell.set_custom_exc((NameError,), handle)


def note(result: Any) -> None:
    """Take a note of one cell that was run; ``result`` is IPython's."""
    names, blanks = read(source := result.info.raw_cell)
    failed = result.error_in_exec or result.error_before_exec
    error = f"{type(failed).__name__}: {failed}" if failed is not None else ""
    first = next((line.strip() for line in source.splitlines() if line.strip() and not line.lstrip().startswith(("#", "%"))), "")
    _made.update(dict.fromkeys(names, _Made(first, blanks, error.partition("\n")[0])))


def forget() -> None:
    """Forget all cells: what they would have made was made in another way."""
    _made.clear()


def read(source: str) -> tuple[set[str], int]:
    """Return the names that a cell makes, and its blanks; nothing of a cell that is no plain Python."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        # The names of the lines that can be read alone: enough to know what an unfinished cell was about.
        parts = [line.partition("=") for line in source.splitlines()]
        return {name.strip() for name, equals, _ in parts if equals and name.strip().isidentifier()}, source.count(BLANK)
    nodes = list(ast.walk(tree))
    names = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    names |= {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    return names, sum(isinstance(node, ast.Name) and node.id == BLANK for node in nodes)


def asked(source: str) -> tuple[str, list[str]]:
    """Return the exercise that a cell checks, and the variables that it hands over: those in the brackets of ``.check(...)``."""
    try:
        calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    except SyntaxError:
        calls = []
    for call in calls:
        if number := re.fullmatch(r"exercise\('([\d.]+)'\)\.check", ast.unparse(call.func)):
            return number[1], [node.id for node in ast.walk(call) if isinstance(node, ast.Name) and node.id != "exercise"]
    return "", []


def failure(names: list[str]) -> str:
    """Return a sentence about the first of these whose cell failed last; empty when none did."""
    for name, made in ((name, _made[name]) for name in names if name in _made and _made[name].error):
        which = f"It begins with `{made.first_line}`, and its error was `{made.error}`"
        return f"The cell that makes `{name}` failed, so an old answer would be judged. {which}. Correct that cell, then run both again."
    return ""


def blanks(names: list[str]) -> int:
    """Return how many blanks are left in the last cells that made these."""
    return max((_made[name].blanks for name in names if name in _made), default=0)


def missing(name: str, exercise: str) -> str:
    """Return what to do when the check of an exercise needs a variable that is not there."""
    return failure([name]) or (
        f"`{name}` is not there: the cell that makes it was not run since the kernel started. Run the notebook from its first cell "
        f'(*Run > Run All Above Selected Cell*), or type `catch_up("{exercise}")`.'
    )
