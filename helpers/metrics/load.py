"""A load that runs in the background while you do something else: so many requests at once, one after the other.

It is sent by a process of its own, which ends with the notebook's kernel, however that ends: threads of the kernel would take turns with
the student's own Python, and slow down what they are measured against.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Any

from helpers.client import Client
from helpers.errors import InputError

# Requests under way at once, at most: each has a thread, and a server with a full queue shows nothing new.
_MAX_CONCURRENCY = 32
# Seconds until the process has begun (it imports the client, 1 s on a quiet machine), and until it is killed when the load ends.
_START_TIMEOUT_S, _STOP_TIMEOUT_S = 60.0, 8.0
# Seconds between two looks at the owner, and that a thread waits after a failure: a server that is gone is not asked thousands of times.
_LOOK_S, _PAUSE_S = 0.1, 0.5
# Bytes of the last error that are kept.
_ERROR_SIZE = 2000
# What the processes count together: requests that came back, and failed ones among them.
_SENT, _FAILED = range(2)
_SPAWN = multiprocessing.get_context("spawn")


class BackgroundLoad:
    """Made-up requests to one model, ``concurrency`` of them under way at any time, from now on until it is stopped.

    Each request is sent as soon as the one before it has come back. When the server goes away the load waits for it to return,
    and keeps what went wrong in ``error``. A ``concurrency`` of 0 sends nothing, and keeps the process ready. ``server`` may also be the
    address of a gRPC port.
    """

    def __init__(self, server: Any, model: str, batch: int = 1, concurrency: int = 1) -> None:
        self.model = model
        with Client(server) as client:
            self._signature = client.signature(model)
            target = SimpleNamespace(**{client.protocol: client.address}, access=client.access)
        self._check(batch, concurrency)
        self._counts, self._error = _SPAWN.RawArray("q", 2), _SPAWN.RawArray("c", _ERROR_SIZE)
        # Where no name is left for this load, its end of the pipe closes, and so the process ends.
        self._pipe, theirs = _SPAWN.Pipe()
        arguments = (theirs, target, model, self._counts, self._error)
        self._process: Any = _SPAWN.Process(target=_serve, args=arguments, daemon=True, name="course-load")
        with theirs:
            self._process.start()
        self.change(batch, concurrency)
        self._pipe.poll(_START_TIMEOUT_S)

    def change(self, batch: int, concurrency: int) -> None:
        """Send something else from now on. Where it does not fit the model, the load goes on as it was."""
        self._check(batch, concurrency)
        self.batch, self.concurrency = batch, concurrency
        # Where the process has ended, it is no longer running.
        with suppress(OSError):
            self._pipe.send((self._signature.example(batch), concurrency))

    def stop(self) -> None:
        """Send nothing more, and return when the requests under way have come back."""
        if self._process is not None:
            self._pipe.close()
            self._process.join(_STOP_TIMEOUT_S)
            self._process.kill()
            self._process.join()
            self._process = None  # and its files are closed

    @property
    def largest_batch(self) -> int:
        """What the model takes in one request."""
        return max(1, int(self._signature.max_batch_size))

    @property
    def running(self) -> bool:
        """True while the process of the load runs."""
        return self._process is not None and bool(self._process.is_alive())

    @property
    def sent(self) -> int:
        """Requests that were sent and came back, failed ones included."""
        return int(self._counts[_SENT])

    @property
    def failed(self) -> int:
        """How many of them failed."""
        return int(self._counts[_FAILED])

    @property
    def error(self) -> str:
        """What went wrong last; empty where nothing did."""
        return str(self._error.value.decode(errors="replace"))

    def __enter__(self) -> BackgroundLoad:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        what = f"{self.model}, batch {self.batch}, concurrency {self.concurrency}"
        said = f"Background load ({'running' if self.running else 'stopped'}): {what}; {self.sent} requests sent, {self.failed} failed"
        return f"{said}\n  Last: {self.error}" if self.error else said

    def _check(self, batch: int, concurrency: int) -> None:
        if not (1 <= batch <= self.largest_batch and 0 <= concurrency <= _MAX_CONCURRENCY):
            expected = f"Expected a batch from 1 to {self.largest_batch}, and a concurrency from 0 to {_MAX_CONCURRENCY}."
            raise InputError(f"batch={batch!r} and concurrency={concurrency!r} were given for {self.model!r}.", expected)


def _serve(pipe: Connection, server: Any, model: str, counts: Any, error: Any) -> None:
    """Send what the owner says until it says no more, or is no more: the main function of the process that sends."""
    # The interrupt of a notebook goes to the kernel's whole process group; and what libraries have to say would stand among the outputs of
    # the owner's cell.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stderr__.fileno() if sys.__stderr__ else 2)
    owner, client = os.getppid(), Client(server, "grpc" if hasattr(server, "grpc") else "http")
    wanted, counting = SimpleNamespace(inputs={}, concurrency=0), threading.Lock()

    def send(index: int) -> None:
        """One request after the other, as long as so many are to be under way."""
        while index < wanted.concurrency:
            problem = ""
            try:
                client.infer(model, wanted.inputs)
            except Exception as failure:  # kept, counted and shown: a thread that dies is not seen
                problem = str(failure) or repr(failure)
            with counting:
                counts[_SENT] += 1
                if problem:
                    counts[_FAILED] += 1
                    error.value = problem.encode()[: _ERROR_SIZE - 1]
            if problem:
                time.sleep(_PAUSE_S)

    threads: dict[int, threading.Thread] = {}
    # The pipe's other end may be held open by a child that the owner forked; the owner's own death cannot be overlooked.
    with suppress(EOFError, OSError):
        pipe.send("begun")
        while os.getppid() == owner:
            if pipe.poll(_LOOK_S):
                wanted.inputs, wanted.concurrency = pipe.recv()
            for index in range(wanted.concurrency):
                if index not in threads or not threads[index].is_alive():
                    threads[index] = threading.Thread(target=send, args=(index,), daemon=True)
                    threads[index].start()
    wanted.concurrency = 0
    for thread in threads.values():
        thread.join()
