"""Other Unix users, for tests that run as root."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.processes import PATIENCE_S

# User ids that no account of a machine has: forty people, and one more who is curious.
FIRST_USER, STRANGER = 61_000, 61_500

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another Unix user needs root")


def as_user(user: int) -> list[str]:
    """The beginning of a command that runs as another user, who may read what root may: the course's Python can lie below ``/root``."""
    may_read = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *may_read]


@functools.cache
def can_run_as_users() -> bool:
    """Whether such users can run the course's Python here."""
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        return False
    command = [*as_user(FIRST_USER), sys.executable, "-c", "import helpers.server.server"]
    return subprocess.run(command, capture_output=True, check=False, cwd="/", env=python_path()).returncode == 0


def python_path() -> dict[str, str]:
    """An environment in which Python finds the course from any folder."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


@contextmanager
def open_folder() -> Iterator[Path]:
    """A temporary folder that every user can pass through: those of pytest are closed, so that a closed file in them proves nothing."""
    folder = Path(tempfile.mkdtemp(prefix="course-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def stranger(code: str, *arguments: object, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run Python code as another user, who has no rights of root: by the system's Python, since the course's may lie below ``/root``."""
    python = next((path for path in ("/usr/bin/python3", "/usr/local/bin/python3") if os.access(path, os.X_OK)), None)
    if python is None:
        pytest.skip("no Python that other users can run")
    command = ["setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups", python, "-I", "-c", code, *map(str, arguments)]
    bare = {"PATH": "/usr/bin:/bin"}
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False, cwd="/", env=bare, timeout=PATIENCE_S)


def stranger_can(code: str, *arguments: object) -> bool:
    """Whether another user may do what this code does; any other failure than that of permissions is an error of the test."""
    wrapped = f"import os, pathlib, socket, sys\ntry:\n    {code}\nexcept PermissionError:\n    sys.exit(13)"
    done = stranger(wrapped, *arguments)
    assert done.returncode in (0, 13), f"it failed for another reason than permissions, which proves nothing: {done.stderr}"
    return done.returncode == 0
