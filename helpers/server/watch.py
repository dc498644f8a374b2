"""Whether a server, and the processes of its Python models, are alive. Standard library only, Linux.

Once a second a request for inference goes to the server, with a tensor, for a model that does not exist: the way of a request up to the
model answers, and not only ``/v2/health/ready``, and no counter moves. A model's process that has ended is seen in ``/proc``.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

# Seconds between two looks.
INTERVAL_S = 1.0
# Looks without an answer after which a server counts as hung (one that has all cores against it answers late, but within this time), and
# after which a hung server of a fleet is ended and started again.
HUNG_LOOKS, GIVEN_UP_LOOKS = 10, 30
# Seconds after which a question is given up and asked again on a new connection.
_ANSWER_S = 5.0
_PATH = "/v2/models/course-watch/infer"
_QUESTION = json.dumps({"inputs": [{"name": "X", "shape": [1], "datatype": "FP32", "data": [0]}]})
# Looks between two searches for new processes of models, where nothing tells of them.
_LOOKS_FOR_NEW = 10
# The program that runs a Python model, as far as the kernel keeps its name, and where its arguments have the model's file and instance.
_STUB = "triton_python_b"
_FILE, _INSTANCE = 1, 8


class Call:
    """One HTTP request that never blocks: the selector's loop carries it on by ``key.data(key.fileobj)``.

    ``body`` is the JSON text of a POST, None for a GET. ``heard`` is called with the whole answer, and not where none comes.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        address: tuple[str, int],
        path: str,
        body: str | None,
        headers: Mapping[str, str],
        heard: Callable[[bytes], None],
    ) -> None:
        self.began = time.monotonic()
        self._selector, self._heard, self._answer = selector, heard, b""
        content = (body or "").encode()
        lines = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.1", f"Host: {address[0]}:{address[1]}", "Connection: close"]
        lines += [f"Content-Length: {len(content)}", *(f"{name}: {value}" for name, value in headers.items())]
        self.unsent = "\r\n".join([*lines, "", ""]).encode() + content
        self.connection: socket.socket | None = socket.socket()
        self.connection.setblocking(False)
        self.connection.connect_ex(address)
        selector.register(self.connection, selectors.EVENT_WRITE, self._send)

    def _send(self, connection: socket.socket) -> None:
        try:
            self.unsent = self.unsent[connection.send(self.unsent) :]
        except OSError:  # refused, or closed
            self.close()
            return
        if not self.unsent:
            self._selector.modify(connection, selectors.EVENT_READ, self._hear)

    def _hear(self, connection: socket.socket) -> None:
        try:
            part = connection.recv(1 << 16)
        except OSError:
            part = b""
        self._answer += part
        if not part:
            self.close()
            if self._answer.startswith(b"HTTP/"):
                self._heard(self._answer)

    def close(self) -> None:
        """Give the request up."""
        if self.connection is not None:
            self._selector.unregister(self.connection)
            self.connection.close()
            self.connection = None


class Watch:
    """Asks a server at this address again and again whether it answers; ``headers`` are what an inference must carry."""

    def __init__(self, selector: selectors.BaseSelector, address: tuple[str, int], headers: Mapping[str, str]) -> None:
        self._selector, self._address, self._headers = selector, address, headers
        self._question: Call | None = None
        self.has_listened = False  # a server that hangs from its first second on has taken a question, though
        self.missed = 0  # looks since its last answer: looks, since a machine that slept must not count as a server that did

    def look(self) -> None:
        """Ask, unless the last question is still young; to be called once in :data:`INTERVAL_S`."""
        self.has_listened = self.has_listened or (self._question is not None and not self._question.unsent)
        self.missed += self.has_listened
        if self._question is not None and self._question.connection is not None:
            if time.monotonic() - self._question.began < _ANSWER_S:
                return
            self._question.close()
        with contextlib.suppress(OSError):  # no more sockets: a look without an answer
            self._question = Call(self._selector, self._address, _PATH, _QUESTION, self._headers, self._heard)

    def _heard(self, _: bytes) -> None:
        self.has_listened, self.missed = True, 0

    @property
    def hung(self) -> bool:
        """True if it listens and does not answer any more."""
        return self.missed >= HUNG_LOOKS

    def close(self) -> None:
        """Ask no more."""
        if self._question is not None:
            self._question.close()


class Stubs:
    """The processes of a server's Python models, and of the models of Python-based backends.

    A stub that ends while its model is loaded stays a zombie: tritonserver collects only those that it has ended itself.
    """

    def __init__(self, server: int) -> None:
        self._server = server
        self._alive: dict[int, str] = {}
        self._looks = 0
        self._ended: set[str] = set()
        self._zombies: set[int] = set()

    def look(self, new: bool = True) -> list[tuple[str, str]]:
        """The processes that have ended since the last look, and how, and those that run again, with nothing; see :func:`owner`.

        Only ends by a signal or with a status count, of processes that have no successor. Stubs that were started meanwhile are looked
        for with ``new``, which costs some milliseconds, and now and then.
        """
        self._looks += 1
        news: list[tuple[str, str]] = []
        if new or self._ended or self._looks % _LOOKS_FOR_NEW == 0:
            for pid in self._children():
                if pid not in self._alive and (known := _known(pid)):
                    self._alive[pid] = known
                    if known in self._ended:
                        self._ended.discard(known)
                        news.append((known, ""))
        for pid in list(self._alive):
            state, code = _state(pid)
            if state not in ("", "Z"):
                continue
            if state == "Z" and pid not in self._zombies:
                # The server may be about to collect it: under load it kills those that do not end in time.
                self._zombies.add(pid)
                continue
            self._zombies.discard(pid)
            process = self._alive.pop(pid)
            # A load that failed has ended its own stub; that of the model that goes on serving has the same name.
            if code and process not in self._alive.values():
                self._ended.add(process)
                news.append((process, manner(os.waitstatus_to_exitcode(code))))
        return news

    def _children(self) -> list[int]:
        found: list[int] = []
        with contextlib.suppress(OSError):  # the server has ended
            for thread in os.listdir(f"/proc/{self._server}/task"):
                with contextlib.suppress(OSError):  # the thread has
                    found += map(int, Path(f"/proc/{self._server}/task/{thread}/children").read_text().split())
        return found


def _known(pid: int) -> str:
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
