"""The launcher's side of a supervisor: start one, find it again, hold a lease, ask it to stop."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from helpers import leftovers, machine, settings
from helpers import supervisor as supervisor_script
from helpers.errors import ServerError
from helpers.run_folder import is_dead, run_root, state_of

# Seconds that a supervisor may take from its start to its first answer: it only imports a few standard modules.
_SUPERVISOR_START_S = 20.0


def owner() -> str:
    """Who owns the servers launched here: this notebook kernel, over its restarts, else this process."""
    try:
        # A kernel has imported ipykernel already; elsewhere there is none, and importing it would take half a second.
        return Path(sys.modules["ipykernel.connect"].get_connection_file()).name
    except (KeyError, RuntimeError):
        started = Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19] if Path("/proc/self/stat").exists() else ""
        return f"pid-{os.getpid()}-{started}"


class Lease:
    """A connection to a supervisor. While it is open, the server lives.

    Args:
        run_dir: the server's private folder.

    Raises:
        OSError: no supervisor answers there.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self._last: dict[str, Any] = {}
        # A dashboard's thread asks too: question and answer must not mix with another thread's.
        self._lock = threading.Lock()
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._lines = self._connection.makefile("r")
        # Also when nobody remembers the lease any more, and at the end of the process.
        self._give_back = weakref.finalize(self, _close, self._lines, self._connection)
        try:
            self._connection.settimeout(_SUPERVISOR_START_S)
            self._connection.connect(str(run_dir / "socket"))
            self._command("hold")
        except OSError:
            self.close()
            raise

    def _command(self, word: str) -> dict[str, Any]:
        with self._lock:
            self._connection.sendall(f"{word}\n".encode())
            line = self._lines.readline()
        if not line:
            raise ConnectionError("the supervisor has ended")
        self._last = json.loads(line)
        return self._last

    def state(self) -> dict[str, Any]:
        """What the supervisor says of the server; after its end, the last words it left in the state file."""
        try:
            return self._command("status")
        except (OSError, ValueError):  # ValueError: the lease was given back
            self.close()
            with contextlib.suppress(OSError, ValueError):
                self._last = json.loads((self.run_dir / "state.json").read_text())
            if self._last.get("status") == "running":  # the supervisor itself was killed, and the server with it
                self._last["status"] = "died"
            return self._last

    def stop(self) -> None:
        """Stop the server and wait until it has ended.

        Raises:
            ServerError: it has not ended in time.
        """
        try:
            self._connection.settimeout(settings.STOP_TIMEOUT_S + 10)
            self._command("stop")
            while line := self._lines.readline():
                self._last = json.loads(line)
        except TimeoutError as error:
            raise ServerError("The server has not ended in time.", "", f"Type: kill {self._last.get('supervisor_pid', '')}") from error
        except (OSError, ValueError):
            pass  # it has ended already
        self._last["status"] = "stopped"
        self.close()

    def close(self) -> None:
        """Give the lease back; the server lives on if somebody else holds one, else for the grace period."""
        self._give_back()


def _close(lines: TextIO, connection: socket.socket) -> None:
    lines.close()
    connection.close()


def start(plan: supervisor_script.Plan) -> Lease:
    """Start a supervisor with this plan and take the first lease.

    Raises:
        ServerError: the supervisor did not start.
    """
    run_dir = Path(plan.run_dir)
    with open(run_dir / "supervisor.log", "w+") as log:
        # Its own session: the interrupt of a notebook goes to the kernel's whole process group.
        command = [sys.executable, "-I", supervisor_script.__file__]
        process = subprocess.run(
            command,
            input=json.dumps({**asdict(plan), "about": {**plan.about, "node": machine.node()}}),
            stdout=log,
            stderr=log,
            start_new_session=True,
            text=True,
            timeout=_SUPERVISOR_START_S,
            check=False,
        )
        if process.returncode == 0:
            return Lease(run_dir)
        log.seek(0)
        words = log.read().strip()[-500:]
    raise ServerError(f"The process that owns the server did not start: {words or 'no answer'}.", "", "Type: python -m helpers doctor")


def find(**facts: object) -> Lease | None:
    """A lease on a running server whose state has these facts, or None; removes what dead servers left behind."""
    return next(running(lambda state: all(state.get(name) == value for name, value in facts.items())), None)


def running(wanted: Callable[[dict[str, Any]], bool]) -> Iterator[Lease]:
    """Leases on the running servers whose states are wanted; removes what dead servers left behind."""
    for run_dir in sorted(run_root().iterdir()):
        state = state_of(run_dir)
        if is_dead(run_dir, state):
            shutil.rmtree(run_dir, ignore_errors=True)
            leftovers.remove_shared_memory(run_dir.name)
        elif state.get("status") == "running" and wanted(state):
            with contextlib.suppress(OSError):
                lease = Lease(run_dir)
                if lease.state().get("status") == "running":
                    yield lease
                else:
                    lease.close()


def mine(port: int) -> list[Lease]:
    """Leases on this person's servers whose HTTP port this is: one, or none; always none where no server can run."""
    return list(running(lambda state: port in state.get("ports", [])[:1])) if hasattr(os, "getuid") else []
