"""The process that owns a server, and what ends it. Standard library only; runs as a script of its own, in a session of its own.

A notebook kernel is interrupted, restarted and killed; a server must survive the first two and end with the last. So the kernel starts this
supervisor and holds a lock on a file in the server's private folder: the lease. The system gives the lock back when the kernel dies, in
whatever way; without any lease for the grace period the supervisor stops the server. A restarted kernel takes a new lease.

The launcher writes the :class:`Plan` as JSON to standard input, and reads ``state.json`` from then on. A file ``stop`` in the private
folder, or SIGTERM, ends the server; then the supervisor ends, too.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any, TypedDict

if __name__ == "__main__":  # started as a script, with python -I
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from helpers.run_folder import LEASE, STATE, STOP, began
from helpers.server import isolation
from helpers.server.ports import lock_ports

_PR_SET_CHILD_SUBREAPER = 36
# Seconds between two looks at the server process.
_TICK_S = 0.05
# Seconds after which a server that shall end gets its signal again: while it starts, it can miss the first one.
_AGAIN_S = 2.0
# How often a server that ends again and again is started again, and the seconds after which one that runs counts from zero.
_RESTARTS, _SETTLED_S = 3, 60.0
# What tritonserver writes when another program was faster with a port, when it begins to serve, and what Triton's Python backend dies of
# now and then while many models start at once (once in a few dozen launches of 26 models).
_PORT_TAKEN, _LISTENS, _LOCK_LOST = "already in use", "Started HTTPService at", "boost::interprocess::lock_exception"
# Bytes of a log at most, and of its beginning and its end what stays then; the words above are looked for in its beginning.
_LOG_MOST, _LOG_BEGINNING, _LOG_END = 16 << 20, 4 << 20, 2 << 20


class Plan(TypedDict):
    """What a supervisor starts, and how, as JSON; times in seconds. ``{http}``, ``{grpc}`` and ``{metrics}`` stand for the ports."""

    run_dir: str  # private folder of this server: lease, state, links to the backends; shared memory regions have its name
    command: list[str]  # program and arguments, those with a secret as `isolation` wants them
    environment: dict[str, str]
    ports: list[list[int]]  # triples to try, in this order
    log: str
    grace_s: float  # without a lease, after which the server is stopped
    stop_s: float  # for a clean end, before the server is killed
    about: dict[str, object]  # facts for those who find the state file
    files: dict[str, str]  # texts to write into `run_dir` before the program starts, by name
    lifeline: bool  # whether the program ends when its standard input closes, so that it does when this process is killed
    keep_alive: bool  # start the program again when it has ended after it served


def remove_shared_memory(server_id: str) -> None:
    """Remove the shared memory regions that a killed server left."""
    for leftover in Path("/dev/shm").glob(f"{server_id}*"):
        leftover.unlink(missing_ok=True)


def is_held(lease: IO[bytes]) -> bool:
    """Return True if a process holds a lease on this file."""
    try:
        fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(lease, fcntl.LOCK_UN)
    return False


class Supervisor:
    """Starts one server, looks after it, and ends it when no process holds a lease any more."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.run_dir = Path(plan["run_dir"])
        # Both are open as long as this process lives.
        self.lease = open(self.run_dir / LEASE, "r+b")  # noqa: SIM115
        self.log = open(plan["log"], "a+b", buffering=0)  # noqa: SIM115
        self.log_start = 0
        self.leased = time.monotonic()
        self.stopping_since: float | None = None
        self.locks: list[socket.socket] = []
        self.triples = iter(plan["ports"])
        self.process: subprocess.Popen[bytes] | None = None
        self.began = self.signalled = 0.0
        self.restarts = 0
        self.state = dict[str, Any](plan["about"], server_id=self.run_dir.name, log=plan["log"])
        self.state |= {"supervisor_pid": os.getpid(), "supervisor_began": began(os.getpid())}
        self.start()

    def run(self) -> int:
        """Look after the server until it is to end and has ended; return its exit status.

        After an end of its own somebody still has to hear of it, and would send secrets to its ports if another user listened there.
        """
        signal.signal(signal.SIGTERM, lambda *_: (self.run_dir / STOP).touch())
        while self.process is not None or self.stopping_since is None:
            time.sleep(_TICK_S)
            isolation.collect_orphans(self.process)
            self._look()
        if self.state["status"] != "died":  # how it ended is still to be read there
            shutil.rmtree(self.run_dir, ignore_errors=True)
        return int(self.state.get("returncode") or 0)

    def start(self) -> None:
        """Start the server on the next free triple of ports."""
        for ports in self.triples:
            if (locks := lock_ports(ports)) is not None:
                self.locks = locks
                self._start_on(ports)
                return
        self._write(status="failed", reason="no three free ports in a row were found; for others type launch_server(base_port=20000)")

    def _start_on(self, ports: list[int]) -> None:
        places = dict(zip(("http", "grpc", "metrics"), ports, strict=True))
        command = [part.format(**places) if "{" in part and "port=" in part else part for part in self.plan["command"]]
        for name, text in self.plan["files"].items():
            for place, port in places.items():
                text = text.replace(f"{{{place}}}", str(port))
            (self.run_dir / name).write_text(text)
        self.log_start = self.log.seek(0, os.SEEK_END)
        # A program that runs a container starts others, whose arguments all can read, and changes its user, which a filter forbids:
        # inside, in_container does it all.
        own = not self.plan["lifeline"]
        stdin = subprocess.DEVNULL if own else subprocess.PIPE
        self.process, seen = isolation.start(command, self.plan["environment"], self.log, stdin, is_server=own, hides=own)
        self.began = time.monotonic()
        for sentence in seen:
            self._say(sentence)
        self._write(status="running", pid=self.process.pid, ports=ports)

    def _write(self, **news: object) -> None:
        self.state.update(news)
        draft = self.run_dir / f"{STATE}.new"
        with contextlib.suppress(OSError):  # a disk that is full must not end a server that runs
            draft.write_text(json.dumps(self.state))
            draft.replace(self.run_dir / STATE)

    def _say(self, line: str) -> None:
        """A line of the supervisor's own: in the server's log, and, the last one, in the state."""
        self._write(noticed=f"{time.strftime('%H:%M:%S')} {line}")
        with contextlib.suppress(OSError):  # a full disk
            self.log.write(f"course: {line}\n".encode())

    def _keep_log_small(self) -> None:
        """Take the middle out of a log that has become too long, as a model that prints without end makes it."""
        file = self.log.fileno()
        size = os.fstat(file).st_size
        if size <= _LOG_MOST:
            return
        with contextlib.suppress(OSError):  # a full disk: shorter it is in any case
            end = os.pread(file, _LOG_END, size - _LOG_END)
            # Every writer appends, so that it goes on at the new end.
            os.ftruncate(file, _LOG_BEGINNING)
            left_out = (size - _LOG_BEGINNING - len(end)) >> 20
            self.log.write(f"\ncourse: {left_out} MB are left out here, so that this log does not fill the disk\n".encode() + end)

    def _said_since_start(self, words: str) -> bool:
        """True if the server's log has these words, since its last start."""
        return words.encode() in os.pread(self.log.fileno(), _LOG_BEGINNING, self.log_start)

    def _look(self) -> None:
        """Whether the server has ended, and whether it is to end."""
        now = time.monotonic()
        self._keep_log_small()
        if is_held(self.lease):
            self.leased = now
        if self.stopping_since is None and ((self.run_dir / STOP).exists() or now - self.leased > self.plan["grace_s"]):
            self.stopping_since = now
        if self.process is not None and self.process.poll() is not None:
            self._ended(self.process)
        elif self.process is not None and self.stopping_since is not None and now - self.signalled > _AGAIN_S:
            self.signalled = now
            self.process.send_signal(signal.SIGINT if now - self.stopping_since < self.plan["stop_s"] else signal.SIGKILL)

    def _ended(self, process: subprocess.Popen[bytes]) -> None:
        self.process = None
        # The server was the leader of its own session: what is left of it are stubs of Python models.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        if process.stdin is not None:
            process.stdin.close()
        remove_shared_memory(self.run_dir.name)
        if self.stopping_since is not None:
            self._write(status="stopped", returncode=process.returncode)
        elif why := self._why_again(process.returncode):
            self._say(f"the server, which {why}, is started again")
            self._start_on(self.state["ports"])
        elif self._said_since_start(_PORT_TAKEN):
            for lock in self.locks:
                lock.close()
            self.start()  # a program outside the course was faster
        else:
            self._write(status="died", returncode=process.returncode)

    def _why_again(self, returncode: int) -> str:
        """Why the server is to be started again on its ports: it is kept alive, or Triton's own fault ended it before it ever served."""
        has_served = self._said_since_start(_LISTENS)
        if self.plan["keep_alive"] and (has_served or self.restarts):
            why = f"has ended {isolation.manner(returncode)}"
        elif not has_served and self._said_since_start(_LOCK_LOST):
            why = "lost a lock of its Python backend while the models started, a fault of Triton's own"
        else:
            return ""
        self.restarts = 1 if time.monotonic() - self.began > _SETTLED_S else self.restarts + 1
        return why if self.restarts <= _RESTARTS else ""


def main() -> int:
    """Read the plan from standard input and carry it out."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # For the server too, with what it and its Python models write.
    os.umask(0o077)
    plan: Plan = json.load(sys.stdin)
    reader, writer = os.pipe()
    # The launcher gets its process back as soon as the server has begun; the supervisor is nobody's child.
    if os.fork():
        os.close(writer)
        return 0 if os.read(reader, 1) else 1
    os.setsid()
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    supervisor = Supervisor(plan)
    os.write(writer, b"1")
    os.close(writer)
    os.close(reader)
    return supervisor.run()


if __name__ == "__main__":
    sys.exit(main())
