"""No test depends on how fast the machine is: a limit of time is there against hanging alone, and that is ``PATIENCE_S`` or above."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.support import ROOT
from tests.support.processes import PATIENCE_S

CLOCKS = ("monotonic", "perf_counter", "time")
# Calls whose limit is an argument: a process, a thread or a future is waited for. A client's own ``timeout_s`` can be what is tested.
METHODS = ("communicate", "join", "wait", "result", "wait_for_ready", "get_shell_msg", "get_iopub_msg")


def _number(node: ast.expr) -> float | None:
    return float(node.value) if isinstance(node, ast.Constant) and type(node.value) in (int, float) else None


def _meant(tree: ast.AST) -> set[ast.AST]:
    """What stands where a wait that ends too soon is expected, or handled."""
    places = [
        node
        for node in ast.walk(tree)
        if (isinstance(node, ast.With) and any("TimeoutExpired" in ast.unparse(item) for item in node.items))
        or (isinstance(node, ast.Try) and any("TimeoutExpired" in ast.unparse(handler) for handler in node.handlers))
    ]
    return {below for place in places for below in ast.walk(place)}


def short_limits(code: str) -> Iterator[int]:
    """The lines in which the time that something took must be below a number, or a wait gives up too soon."""
    tree = ast.parse(code)
    meant = _meant(tree)
    for node in ast.walk(tree):
        if node in meant:
            continue
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Lt | ast.LtE):
            clock = any(isinstance(part, ast.Call) and getattr(part.func, "attr", "") in CLOCKS for part in ast.walk(node.left))
            limit = _number(node.comparators[0])
            if clock and limit is not None and limit < PATIENCE_S:
                yield node.lineno
        elif isinstance(node, ast.Call) and (
            getattr(node.func, "id", "") == "wait_until" or getattr(node.func, "attr", "") in (*METHODS, "wait_until")
        ):
            given = [*node.args[-1:], *(word.value for word in node.keywords if word.arg in ("timeout", "seconds"))]
            if any(limit is not None and limit < PATIENCE_S for limit in map(_number, given)):
                yield node.lineno


FILES = [path for path in sorted((ROOT / "tests").rglob("*.py")) if "models_for_tests" not in path.parts]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT / "tests").as_posix())
def test_no_time_is_short(path: object) -> None:
    lines = list(short_limits(path.read_text(encoding="utf-8")))  # type: ignore[attr-defined]
    assert not lines, f"{path}: lines {lines} are red on a slow machine; compare with what it would take otherwise, or use PATIENCE_S"


def test_the_look_itself_sees_them() -> None:
    assert list(short_limits("assert time.monotonic() - start < 5")) == [1]
    assert list(short_limits("wait_until(lambda: done, 5)\nprocess.wait(timeout=20)\nfuture.result()")) == [1, 2]
    assert list(short_limits("with pytest.raises(subprocess.TimeoutExpired):\n    process.wait(0.5)")) == []
    assert list(short_limits("assert time.monotonic() - start < PATIENCE_S\nassert time.monotonic() - start > 5")) == []
