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

from helpers import machine
from helpers.errors import ServerError
from helpers.run_folder import is_dead, run_root, state_of
from helpers.server import supervisor

# Seconds between two looks at a starting server.
POLL_S = 0.05
# Seconds that a server gets to finish its requests and unload its models before it is killed (seen: 1.5 to 6 s).
STOP_TIMEOUT_S = 12.0
# Seconds that a supervisor may take from its start to its first answer: it only imports a few standard modules.
_SUPERVISOR_START_S = 20.0
# All leases of this process, for a child that it forks.
_OPEN: weakref.WeakSet[Lease] = weakref.WeakSet()


def owner() -> str:
    """Who owns the servers launched here: this notebook kernel, over its restarts, else this process."""
    try:
        # A kernel has imported ipykernel already; elsewhere there is none, and importing it would take half a second.
        return Path(sys.modules["ipykernel.connect"].get_connection_file()).name
    except (KeyError, RuntimeError):
        started = Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19] if Path("/proc/self/stat").exists() else ""
        return f"pid-{os.getpid()}-{started}"


class Lease:
    """A connection to the supervisor of a server's private folder. While it is open, the server lives."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self._forked = False
        self._last: dict[str, Any] = {}
        # A dashboard's thread asks too: question and answer must not mix with another thread's.
        self._lock = threading.Lock()
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._lines = self._connection.makefile("r")
        # Also when nobody remembers the lease any more, and at the end of the process.
        self._give_back = weakref.finalize(self, _close, self._lines, self._connection)
        _OPEN.add(self)
        try:
            self._connection.settimeout(_SUPERVISOR_START_S)
            self._connection.connect(str(run_dir / "socket"))
            self._command("hold")
        except OSError:
            self.close()
            raise

    def let_go(self) -> None:
        """Close the connection that a forked child has inherited: a child must not keep a server alive whose owner has ended."""
        self._forked = True
        self._lock = threading.Lock()  # another thread of the parent may have held it
        self.close()

    def _command(self, word: str) -> dict[str, Any]:
        with self._lock:
            self._connection.sendall(f"{word}\n".encode())
            line = self._lines.readline()
            if not line:
                raise ConnectionError("the supervisor has ended")
            self._last = json.loads(line)
            return self._last

    def state(self) -> dict[str, Any]:
        """What the supervisor says of the server; after its end, and in a forked child, what it has written down last."""
        try:
            return self._command("status")
        except (OSError, ValueError):  # ValueError: the lease was given back
            self.close()
            self._last = state_of(self.run_dir) or self._last
            if self._last.get("status") == "running" and not self._forked:  # the supervisor itself was killed, and the server with it
                self._last["status"] = "died"
            return self._last

    def stop(self) -> None:
        """Stop the server and wait until it has ended. A forked child holds no lease and stops nothing."""
        if self._forked:
            return
        try:
            # All replies inside the lock: another thread's question would take the last one.
            with self._lock:
                self._connection.settimeout(STOP_TIMEOUT_S + 10)
                self._connection.sendall(b"stop\n")
                for line in self._lines:
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


def _forget_in_child() -> None:
    for lease in list(_OPEN):
        lease.let_go()


if hasattr(os, "register_at_fork"):  # on Windows nothing forks
    os.register_at_fork(after_in_child=_forget_in_child)


def start(plan: supervisor.Plan) -> Lease:
    """Start a supervisor with this plan and take the first lease."""
    # The supervisors of this person's servers that have died keep their ports, which the next server is to have.
    for held in _leases(lambda state: state.get("status") == "died"):
        held.stop()
    run_dir = Path(plan.run_dir)
    told = json.dumps({**asdict(plan), "about": {**plan.about, "node": machine.node()}})
    reason = "no answer"
    try:
        with open(run_dir / "supervisor.log", "w+") as log:
            # Its own session: the interrupt of a notebook goes to the kernel's whole process group.
            options: dict[str, Any] = {"start_new_session": True, "text": True, "timeout": _SUPERVISOR_START_S, "check": False}
            command = [sys.executable, "-I", supervisor.__file__]
            if subprocess.run(command, input=told, stdout=log, stderr=log, **options).returncode == 0:
                return Lease(run_dir)
    except (OSError, subprocess.TimeoutExpired) as error:  # no more processes or files, a full disk, an overloaded machine
        reason = str(error)
    with contextlib.suppress(OSError):
        reason += "".join(f" ({words})" for words in (run_dir / "supervisor.log").read_text().strip().splitlines()[-1:])
    shutil.rmtree(run_dir, ignore_errors=True)  # a supervisor that lives all the same ends without a first lease
    raise ServerError(f"The process that owns the server did not start: {reason}.", "", "Try again, or type: python -m helpers doctor")


def find(**facts: object) -> Lease | None:
    """Return a lease on a running server whose state has these facts, or None; removes what dead servers left behind."""
    return next(running(lambda state: all(state.get(name) == value for name, value in facts.items())), None)


def running(wanted: Callable[[dict[str, Any]], bool]) -> Iterator[Lease]:
    """Yield leases on the running servers whose states are wanted; removes what dead servers left behind."""
    yield from _leases(lambda state: state.get("status") == "running" and wanted(state))


def _leases(wanted: Callable[[dict[str, Any]], bool]) -> Iterator[Lease]:
    """Leases on the servers whose states are wanted, as they were written down and as they are now."""
    for run_dir in sorted(run_root().iterdir()):
        state = state_of(run_dir)
        if is_dead(run_dir, state):
            shutil.rmtree(run_dir, ignore_errors=True)
            supervisor.remove_shared_memory(run_dir.name)
        elif wanted(state):
            with contextlib.suppress(OSError):
                lease = Lease(run_dir)
                if wanted(lease.state()):
                    yield lease
                else:
                    lease.close()
