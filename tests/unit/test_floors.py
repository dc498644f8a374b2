"""Modules of helpers import from their own floor and from below: the contract in pyproject.toml holds, and would say so if it did not."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support import ROOT

LINT = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(LINT, cwd=folder, capture_output=True, text=True, check=False)


def test_no_module_imports_from_above() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "floors KEPT" in done.stdout


def test_an_import_from_above_is_seen_also_within_a_function(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "helpers", tmp_path / "helpers", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "helpers" / "paths.py").open("a") as file:
        file.write("\n\ndef late() -> None:\n    from helpers.cli import main  # noqa: F401\n")
    done = lint(tmp_path)
    assert done.returncode == 1
    assert "helpers.paths is not allowed to import helpers.cli" in done.stdout


def test_backends_import_nothing_of_helpers() -> None:
    """They run in the server's environment, where helpers are not installed."""
    files = list((ROOT / "helpers" / "backends").rglob("*.py"))
    assert len(files) > 3
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", "") or ""]
            assert not any(name.split(".")[0] == "helpers" for name in names if isinstance(node, ast.Import | ast.ImportFrom)), path
