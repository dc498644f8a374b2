"""Whether a server, and the processes of its Python models, are alive. Standard library only, Linux.

Once a second a request for inference goes to the server, with a tensor, for a model that does not exist: the way of a request up to the
model answers, and not only ``/v2/health/ready``, and no counter moves. A model's process that has ended is seen in ``/proc``.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

# Seconds between two looks.
INTERVAL_S = 1.0
# Seconds without an answer after which a server counts as hung, and after which one that is kept alive is ended and started again.
HUNG_S, _GIVEN_UP_S = 10, 30
# Seconds that one answer may take: one that has all cores against it answers late, but within this time.
_ANSWER_S = 5
_PATH = "/v2/models/course-watch/infer"
_QUESTION = json.dumps({"inputs": [{"name": "X", "shape": [1], "datatype": "FP32", "data": [0]}]})
# The program that runs a Python model, as far as the kernel keeps its name, and where its arguments have the model's file and instance.
_STUB = "triton_python_b"
_FILE, _INSTANCE = 1, 8


class Watch:
    """Asks a server again and again, in a thread, whether it answers; ``headers`` are what an inference must carry.

    What counts are questions without an answer, not seconds: a machine that slept must not count as a server that did.
    """

    def __init__(self, host: str, port: int, headers: Mapping[str, str]) -> None:
        self._address = (host, port)
        lines = [f"POST {_PATH} HTTP/1.1", f"Host: {host}:{port}", "Connection: close", f"Content-Length: {len(_QUESTION)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._question = "\r\n".join([*lines, "", _QUESTION]).encode()
        self.has_listened = False  # a server that hangs from its first second on has taken a question, though
        self._missed = 0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        wait_s = INTERVAL_S
        while not self._closed.wait(wait_s):
            began = time.monotonic()
            answered = False
            with contextlib.suppress(OSError), socket.create_connection(self._address, _ANSWER_S) as connection:
                self.has_listened = True
                connection.sendall(self._question)
                answered = connection.recv(16).startswith(b"HTTP/")
            self._missed = 0 if answered else self._missed + self.has_listened
            wait_s = INTERVAL_S if answered or not self.has_listened else max(0.0, began + _ANSWER_S - time.monotonic())

    @property
    def hung(self) -> bool:
        """True if it listens and does not answer any more."""
        return self._missed * _ANSWER_S >= HUNG_S

    @property
    def given_up(self) -> bool:
        """True if it has not answered for so long that it will not."""
        return self._missed * _ANSWER_S >= _GIVEN_UP_S

    def close(self) -> None:
        """Ask no more; returns when the thread has ended: a process that forks must have no other."""
        self._closed.set()
        self._thread.join()


class Stubs:
    """The processes of a server's Python models, and of the models of Python-based backends.

    A stub that ends while its model is loaded stays a zombie: tritonserver collects only those that it has ended itself.
    """

    def __init__(self, server: int) -> None:
        self._server = server
        self._names: dict[int, str] = {}
        self._ended: set[str] = set()
        self._zombies: set[int] = set()

    def look(self) -> list[tuple[str, str]]:
        """The processes that have ended since the last look, and how, and those that run again, with nothing; see :func:`owner`.

        Only ends by a signal or with a status count, of processes that have no successor.
        """
        news: list[tuple[str, str]] = []
        for pid in self._children():
            if pid not in self._names and (name := _name(pid)):
                self._names[pid] = name
                if name in self._ended:
                    self._ended.discard(name)
                    news.append((name, ""))
        for pid in list(self._names):
            state, code = _state(pid)
            if state not in ("", "Z"):
                continue
            if state == "Z" and pid not in self._zombies:
                # The server may be about to collect it: under load it kills those that do not end in time.
                self._zombies.add(pid)
                continue
            self._zombies.discard(pid)
            name = self._names.pop(pid)
            # A load that failed has ended its own stub; that of the model that goes on serving has the same name.
            if code and name not in self._names.values():
                self._ended.add(name)
                news.append((name, manner(os.waitstatus_to_exitcode(code))))
        return news

    def _children(self) -> list[int]:
        found: list[int] = []
        with contextlib.suppress(OSError):  # the server has ended
            for thread in os.listdir(f"/proc/{self._server}/task"):
                with contextlib.suppress(OSError):  # the thread has
                    found += map(int, Path(f"/proc/{self._server}/task/{thread}/children").read_text().split())
        return found


def _name(pid: int) -> str:
    """The name of a stub, which is that of its model with numbers behind it; empty for other processes."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        name = Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
    if name != _STUB or len(words) <= _INSTANCE:
        return ""
    file, instance = Path(words[_FILE]), words[_INSTANCE]
    # A Python model's file lies in MODEL/VERSION, whatever its instance group is called; a Python-based backend's in the backend's folder.
    numbers = re.search(r"(_\d+){1,2}$", instance)
    return f"{file.parent.parent.name}{numbers[0]}" if file.parent.name.isdigit() and numbers else instance


def _state(pid: int) -> tuple[str, int]:
    """State of a process, empty where it is gone, and, of a zombie, its status as ``wait`` gives it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", 0
    return fields[0], int(fields[-1])


def manner(returncode: int) -> str:
    """How a process ended, to stand behind "it ended"; ``returncode`` is :class:`subprocess.Popen`'s, negative for a signal."""
    if returncode >= 0:
        return f"with status {returncode}"
    if -returncode == signal.SIGKILL:
        return "by signal 9 (SIGKILL): somebody killed it, or the system did because memory ran out"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = "unknown"
    return f"by signal {-returncode} ({name}): it crashed, or was ended"


def owner(process: str, models: Iterable[str]) -> str:
    """Which of these models a process belongs to, by its name; empty where it is none of them."""
    return max((model for model in models if re.fullmatch(rf"{re.escape(model)}(_\d+){{1,2}}", process)), key=len, default="")


def sentence(process: str, manner: str) -> str:
    """The line in the server's log by which :mod:`helpers.server.log` knows of what :meth:`Stubs.look` has seen."""
    return f"the model process '{process}' {f'has ended {manner}' if manner else 'runs again'}"
