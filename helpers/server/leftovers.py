"""What a server that has ended may leave behind: its container, its shared memory. Standard library only."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

# Seconds that ending a container may take: podman gives it ten before it kills.
_TIMEOUT_S = 15.0
# What docker and podman say when there is nothing to end, as there is nearly always: containers end with their server.
_NOTHING = ("no such container", "no container with name")


def end_container(command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
    """End a container that is still there; what goes wrong is written to the server's log.

    Args:
        command: what ends it, and it alone; empty when there is none.
        environment: of the command.
        log: the server's log.
    """
    if not command:
        return
    try:
        answer = subprocess.run(list(command), env=dict(environment), capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
        trouble = answer.stderr.strip() if answer.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        trouble = str(error)
    if trouble and not any(words in trouble.lower() for words in _NOTHING):
        with contextlib.suppress(OSError), open(log, "a") as file:
            file.write(f"{' '.join(command)}: {trouble}\n")


def remove_shared_memory(server_id: str, folder: Path = Path("/dev/shm")) -> None:
    """Remove the shared memory regions that a killed server left."""
    for leftover in folder.glob(f"{server_id}*"):
        leftover.unlink(missing_ok=True)
