"""The private folder of this user in which each running server has its own: its socket, its state, its secrets."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from helpers.errors import SetupError

# Name of the file with the headers that inference needs, as ``curl -H @FILE`` reads them.
HEADERS = "headers"


def run_root() -> Path:
    """The private folder of this user for sockets and states: paths of Unix sockets must be shorter than 108 characters.

    Raises:
        SetupError: the folder belongs to somebody else or others can enter it, or this system knows no owners of files.
    """
    if not hasattr(os, "getuid"):
        raise SetupError(
            f"This machine cannot run a server of its own: the embedded server runs on Linux with an x86-64 processor, and this is "
            f"{platform.system()} on {platform.machine()}.",
            "Everything else of the course works here against a server on another machine.",
            'Type: server = connect("gpu-node:9000")',
        )
    path = Path(os.environ.get("COURSE_RUN_DIR") or f"/tmp/triton-course-{os.getuid()}")
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700, parents=True)
    facts = path.lstat()
    if facts.st_uid != os.getuid() or not stat.S_ISDIR(facts.st_mode) or facts.st_mode & 0o077:
        raise SetupError(
            f"The folder {path} is not private to you.",
            "It must be a folder of yours that nobody else can enter, because it holds the keys of your servers.",
            "Type: export COURSE_RUN_DIR=$HOME/.triton-course",
        )
    return path


def states() -> Iterator[dict[str, Any]]:
    """Yield what the supervisors of this user's servers have written down, where they still run."""
    with contextlib.suppress(OSError, SetupError):
        for folder in sorted(run_root().iterdir()):
            with contextlib.suppress(OSError, ValueError):
                state = json.loads((folder / "state.json").read_text())
                if state.get("status") == "running" and Path(f"/proc/{state['supervisor_pid']}").exists():
                    yield state
