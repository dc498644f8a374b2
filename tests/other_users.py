"""Other Unix users, for tests that run as root."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

# User ids that no account of a machine has: forty people, and one more who is curious.
FIRST_USER, STRANGER = 61_000, 61_500

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another Unix user needs root")


def as_user(user: int) -> list[str]:
    """The beginning of a command that runs as another user, who may read what root may: the course's Python can lie below ``/root``."""
    may_read = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *may_read]


def can_run_as_users() -> bool:
    """Whether such users can run the course's Python here."""
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        return False
    command = [*as_user(FIRST_USER), sys.executable, "-c", "import helpers.launch"]
    return subprocess.run(command, capture_output=True, check=False, cwd="/", env=python_path()).returncode == 0


def python_path() -> dict[str, str]:
    """An environment in which Python finds the course from any folder."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}


@contextmanager
def open_folder() -> Iterator[Path]:
    """A temporary folder that every user can pass through: those of pytest are closed, so that a closed file in them proves nothing."""
    folder = Path(tempfile.mkdtemp(prefix="course-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def stranger_can(deed: Callable[[], object]) -> bool:
    """Whether another user, with no rights of root, can do this without an OSError (a child of this process tries)."""
    pid = os.fork()
    if pid == 0:
        status = 2
        try:
            os.setgroups([])
            os.setgid(STRANGER)
            os.setuid(STRANGER)
            deed()
            status = 0
        except PermissionError:
            status = 1
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, 1), "the deed failed for another reason than permissions, which proves nothing"
    return status == 0
