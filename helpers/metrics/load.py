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
from helpers.errors import CourseError, InputError, ServerError

# Requests under way at once, at most: each has a thread, and a server with a full queue shows nothing new.
_MAX_CONCURRENCY = 32
# Seconds until the process has begun (it imports the client, 1 s on a quiet machine), for the requests that are under way when the load
# ends, and until its process is killed then.
_START_TIMEOUT_S, _DRAIN_S, _STOP_TIMEOUT_S = 60.0, 5.0, 8.0
# Seconds between two looks of one process at the other.
_LOOK_S = 0.1
# Seconds that a thread waits after a failure: a server that is gone must not be asked thousands of times a second.
_PAUSE_S = 0.5
# Bytes of the last error that are kept.
_ERROR_SIZE = 2000
# What the processes count together: whether it has begun, requests that came back, and failed ones among them.
_BEGUN, _SENT, _FAILED = range(3)
_SPAWN = multiprocessing.get_context("spawn")


class BackgroundLoad:
    """Made-up requests to one model, ``concurrency`` of them under way at any time, from now on until it is stopped.

    Each request is sent as soon as the one before it has come back. When the server goes away the load waits for it to return,
    and keeps what went wrong in ``error``.

    Args:
        server: a :class:`~helpers.server.Server`, or the address of its gRPC port.
        model: name of the model.
        batch: entries in each request; 1 for a model without a batch axis.
        concurrency: requests under way at once; 0 sends nothing, and keeps the process ready.
    """

    def __init__(self, server: Any, model: str, batch: int = 1, concurrency: int = 1) -> None:
        self.model = model
        with Client(server) as client:
            self._signature = client.signature(model)
            target = SimpleNamespace(**{client.protocol: client.address}, access=client.access)
        self._check(batch, concurrency)
        self._counts, self._error = _SPAWN.RawArray("q", 3), _SPAWN.RawArray("c", _ERROR_SIZE)
        # Where no name is left for this load, its end of the pipe closes, and so the process ends.
        self._pipe, theirs = _SPAWN.Pipe()
        arguments = (theirs, target, model, self._counts, self._error)
        self._process: Any = _SPAWN.Process(target=_serve, args=arguments, daemon=True, name="course-load")
        with theirs:
            self._process.start()
        self.change(batch, concurrency)
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._counts[_BEGUN]:
            if not self.running or time.monotonic() > deadline:
                self.stop()
                raise ServerError("The load did not start.", "", "Try again, or type: python -m helpers doctor")
            time.sleep(_LOOK_S)

    def change(self, batch: int, concurrency: int) -> None:
        """Send something else from now on. Where it does not fit the model, the load goes on as it was."""
        self._check(batch, concurrency)
        self.batch, self.concurrency = batch, concurrency
        # Where the process has ended, it is no longer running.
        with suppress(OSError):
            self._pipe.send((self._signature.example(batch), concurrency))

    def stop(self) -> None:
        """Send nothing more, and return when the requests under way have come back."""
        if self._process is None:
            return
        self._pipe.close()
        self._process.join(_STOP_TIMEOUT_S)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
        self._process.close()
        self._process = None

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
        for name, value, least, most in (("concurrency", concurrency, 0, _MAX_CONCURRENCY), ("batch", batch, 1, self.largest_batch)):
            if not isinstance(value, int) or not least <= value <= most:
                raise InputError(f"{name}={value!r} was given.", f"Expected a whole number from {least} to {most} for {self.model!r}.")


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
            except CourseError as failure:
                problem = str(failure)
            except Exception as failure:  # kept, counted and shown like any other: a thread that dies is not seen
                problem = f"{type(failure).__name__}: {failure}"
            with counting:
                counts[_SENT] += 1
                if problem:
                    counts[_FAILED] += 1
                    error.value = problem.encode()[: _ERROR_SIZE - 1]
            if problem:
                time.sleep(_PAUSE_S)

    threads: dict[int, threading.Thread] = {}
    counts[_BEGUN] = 1
    # The pipe's other end may be held open by a child that the owner forked; the owner's own death cannot be overlooked.
    with suppress(EOFError, OSError):
        while os.getppid() == owner:
            if pipe.poll(_LOOK_S):
                wanted.inputs, wanted.concurrency = pipe.recv()
            for index in range(wanted.concurrency):
                if index not in threads or not threads[index].is_alive():
                    threads[index] = threading.Thread(target=send, args=(index,), daemon=True)
                    threads[index].start()
    wanted.concurrency, deadline = 0, time.monotonic() + _DRAIN_S
    for thread in threads.values():
        thread.join(max(0.0, deadline - time.monotonic()))
    # Without the usual clean-up: a request that never came back would hold it up.
    os._exit(0)
