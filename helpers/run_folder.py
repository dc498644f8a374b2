"""The private folder of this user in which each running server has its own: its lease, its state, its secrets."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from helpers import machine, paths
from helpers.errors import SetupError

# Files in a server's folder: what owners lock, what the supervisor writes, what ends the server, and the headers for ``curl -H @FILE``.
LEASE, STATE, STOP, HEADERS = "lease", "state.json", "stop", "headers"


def run_root() -> Path:
    """Return the private folder of this user, in which servers have theirs."""
    path = Path(os.environ.get("COURSE_RUN_DIR") or f"/tmp/triton-course-{os.getuid()}")
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700, parents=True)
    facts = path.lstat()
    if facts.st_uid != os.getuid() or not stat.S_ISDIR(facts.st_mode) or facts.st_mode & 0o077:
        expected = "It holds the keys of your servers, so nobody else may enter it."
        raise SetupError(f"The folder {path} is not private to you.", expected, "Type: export COURSE_RUN_DIR=$HOME/.triton-course")
    return path


def state_of(folder: Path) -> dict[str, Any]:
    """Return what a server's supervisor has written down; nothing where there is no state, or no whole one."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return dict(json.loads((folder / STATE).read_text()))
    return {}


def began(pid: int) -> int:
    """Return when a process of this machine began, in clock ticks since the machine did; 0 for one that has ended, collected or not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if stat[0] in "ZX" else int(stat[19])


def supervised(state: dict[str, Any]) -> bool:
    """True if the process that looks after a server runs: that one, and none that has got its number since."""
    return began(state.get("supervisor_pid", 0)) == state.get("supervisor_began")


def is_dead(state: dict[str, Any]) -> bool:
    """True if a server of this machine has ended. Of one on another machine that shares the folder, nothing is known here."""
    return state.get("node") == machine.node() and not supervised(state)


def states() -> Iterator[dict[str, Any]]:
    """Yield what the supervisors of this user's servers on this machine have written down, where they still run."""
    with contextlib.suppress(OSError, SetupError):
        for folder in sorted(run_root().iterdir()):
            state = state_of(folder)
            if state.get("status") == "running" and state.get("node") == machine.node() and not is_dead(state):
                yield state


def make(folder: Path, fill: Callable[[Path], None]) -> None:
    """Make a server's private folder, and what belongs into it."""
    with paths.writing(folder, "Type: export COURSE_RUN_DIR=$HOME/.triton-course, before you start JupyterLab"):
        folder.mkdir(mode=0o700)
        fill(folder)


def new_log(server_id: str) -> Path:
    """Return an empty log file that only its owner can read."""
    path = paths.log_dir() / f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{server_id}.log"
    with paths.writing(path):
        paths.make_folder(path.parent)
        path.touch(mode=0o600)
    return path
