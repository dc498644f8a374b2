"""Modules of helpers import from their own floor and from below: the contract in pyproject.toml holds, and would say so if it did not."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT

# What runs where the notebooks' packages are not: while images and environments are made, in a container, and around a server.
BARE = ["helpers.__main__", *(f"helpers.setup.{path.stem}" for path in sorted((ROOT / "helpers" / "setup").glob("[a-z]*.py")))]
BARE += [f"helpers.server.{name}" for name in ("embedded", "in_container", "isolation", "supervisor")]

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


@pytest.mark.parametrize("module", BARE)
def test_what_runs_without_the_notebooks_packages_imports_none(module: str) -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {module}"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_those_are_all_that_make_the_image_for_machines_without_a_gpu() -> None:
    made = (ROOT / "containers" / "Containerfile.cpu").read_text()
    run = re.findall(r"^RUN python3 -m ([\w.]+)", made, re.MULTILINE)
    assert run
    assert {"helpers.__main__" if name == "helpers" else name for name in run} <= set(BARE)
