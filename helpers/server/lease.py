"""The launcher's side of a supervisor: start one, find it again, hold a lease, ask it to stop."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from helpers import machine
from helpers.errors import ServerError
from helpers.run_folder import LEASE, STOP, began, is_dead, run_root, state_of, supervised
from helpers.server import supervisor

# Seconds between two looks at a starting server.
POLL_S = 0.05
# Seconds that a server gets to finish its requests and unload its models before it is killed (seen: 1.5 to 6 s).
STOP_TIMEOUT_S = 12.0
# Seconds that a supervisor may take to start its server's process, and to write down that it has ended.
_SUPERVISOR_S = 30.0
# All leases of this process, for a child that it forks.
_OPEN: weakref.WeakSet[Lease] = weakref.WeakSet()


def owner() -> str:
    """Who owns the servers launched here: this notebook kernel, over its restarts, else this process."""
    try:
        # A kernel has imported ipykernel already; elsewhere there is none, and importing it would take half a second.
        return Path(sys.modules["ipykernel.connect"].get_connection_file()).name
    except (KeyError, RuntimeError):
        return f"pid-{os.getpid()}-{began(os.getpid())}"


class Lease:
    """A shared lock on a file of a server's private folder. While a process holds one, the server lives."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self._last: dict[str, Any] = {}
        self._stopped = False
        file = open(run_dir / LEASE, "r+b")  # noqa: SIM115  as long as the lease is held
        fcntl.flock(file, fcntl.LOCK_SH)
        # Also when nobody remembers the lease any more, and at the end of the process.
        self._give_back = weakref.finalize(self, file.close)
        _OPEN.add(self)

    def state(self) -> dict[str, Any]:
        """What the supervisor says of the server; of one that has just ended, when that is known."""
        deadline = time.monotonic() + _SUPERVISOR_S
        while True:
            last = self._last = state_of(self.run_dir) or self._last  # it is gone after the server
            if self._stopped:
                return {**last, "status": "stopped"}
            if last.get("status") != "running" or (supervised(last) and began(last["pid"])):
                return last
            if not supervised(last) or time.monotonic() > deadline:
                # Where the folder is gone, the supervisor stopped the server; else it was killed itself, and the server with it.
                return {**last, "status": "died" if self.run_dir.exists() else "stopped"}
            time.sleep(POLL_S)

    def stop(self) -> None:
        """Stop the server and wait until its supervisor has ended, too. A forked child holds no lease and stops nothing."""
        if not self._give_back.alive:
            return
        state = self.state()
        with contextlib.suppress(OSError):  # it has ended already
            (self.run_dir / STOP).touch()
        deadline = time.monotonic() + STOP_TIMEOUT_S + 10
        while supervised(state):
            if time.monotonic() > deadline:
                raise ServerError("The server has not ended in time.", "", f"Type: kill {state['supervisor_pid']}")
            time.sleep(POLL_S)
        self._stopped = True
        self.close()
        _clear(self.run_dir)

    def close(self) -> None:
        """Give the lease back; the server lives on if somebody else holds one, else for the grace period."""
        self._give_back()


def _forget_in_child() -> None:
    """A forked child must not keep a server alive whose owner has ended."""
    for lease in list(_OPEN):
        lease.close()


os.register_at_fork(after_in_child=_forget_in_child)


def start(plan: supervisor.Plan) -> Lease:
    """Start a supervisor with this plan, the first lease taken already."""
    # The supervisors of this person's servers that have died keep their ports, which the next server is to have.
    for held in running(lambda _: True, "died"):
        held.stop()
    run_dir = Path(plan["run_dir"])
    told = json.dumps({**plan, "about": {**plan["about"], "node": machine.node()}})
    try:
        (run_dir / LEASE).touch(mode=0o600)
        lease = Lease(run_dir)
        with open(run_dir / "supervisor.log", "w+") as log:
            # Its own session: the interrupt of a notebook goes to the kernel's whole process group.
            options: dict[str, Any] = {"start_new_session": True, "text": True, "timeout": _SUPERVISOR_S, "check": False}
            command = [sys.executable, "-I", supervisor.__file__]
            if subprocess.run(command, input=told, stdout=log, stderr=log, **options).returncode == 0:
                return lease
            log.seek(0)
            reason = log.read().strip().rpartition("\n")[2]
        lease.close()
    except (OSError, subprocess.TimeoutExpired) as error:  # no more processes or files, a full disk, an overloaded machine
        reason = str(error)
    shutil.rmtree(run_dir, ignore_errors=True)  # a supervisor that lives all the same ends without a lease
    raise ServerError(f"The process that owns the server did not start: {reason}.", "", "Try again, or type: python -m helpers doctor")


def find(**facts: object) -> Lease | None:
    """Return a lease on a running server whose state has these facts, or None; removes what dead servers left behind."""
    return next(running(lambda state: all(state.get(name) == value for name, value in facts.items())), None)


def _clear(run_dir: Path) -> None:
    """Remove what a server left whose supervisor was killed; the folder stays for processes with a lease, who read how it ended."""
    supervisor.remove_shared_memory(run_dir.name)
    with contextlib.suppress(OSError), open(run_dir / LEASE, "r+b") as file:  # none where the launch was killed before it had one
        if supervisor.is_held(file):
            return
    shutil.rmtree(run_dir, ignore_errors=True)


def running(wanted: Callable[[dict[str, Any]], bool], status: str = "running") -> Iterator[Lease]:
    """Yield leases on the servers of this machine with this status whose states are wanted; removes what dead servers left behind."""
    for run_dir in sorted(run_root().iterdir()):
        state = state_of(run_dir)
        if is_dead(state):
            _clear(run_dir)
        elif state.get("status") == status and state.get("node") == machine.node() and wanted(state):
            with contextlib.suppress(OSError):
                lease = Lease(run_dir)
                # As it was written down, and as it is now.
                if lease.state()["status"] == status:
                    yield lease
                else:
                    lease.close()
