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
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Any

import numpy as np

from helpers.client import Client
from helpers.errors import CourseError, InputError, ServerError
from helpers.server.isolation import manner

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
    """Requests to one model, ``concurrency`` of them under way at any time, until it is stopped.

    Each request is sent as soon as the one before it has come back. When the server goes away the load waits for it to return,
    and keeps what went wrong in ``error``.

    Args:
        server: a :class:`~helpers.server.Server`, or the address of its gRPC port.
        model: name of the model.
        batch: entries in each request; 1 for a model without a batch axis.
        concurrency: requests under way at once; 0 sends nothing, and keeps the process ready.
        inputs: arrays by input name, repeated or cut to fill the batch. Made-up inputs by default.
    """

    def __init__(
        self, server: Any, model: str, batch: int = 1, concurrency: int = 1, *, inputs: Mapping[str, np.ndarray] | None = None
    ) -> None:
        self._server = server
        self.model, self.batch, self.concurrency, self._inputs = model, batch, concurrency, inputs
        self._lock = threading.RLock()
        self._process: Any = None
        self._pipe: Connection | None = None
        self._counts, self._error = _SPAWN.RawArray("q", 3), _SPAWN.RawArray("c", _ERROR_SIZE)

    def start(self, *, wait: bool = True) -> BackgroundLoad:
        """Begin to send, and to count from zero; returns when the process sends, or at once. A load that runs is left as it is."""
        with self._lock:
            if not self.running:
                self.stop()
                self._process, self._counts[:], self._error.value = None, (0, 0, 0), b""
                wanted = self._wanted(self.model, self.batch, self.concurrency, self._inputs)
                with Client(self._server) as client:
                    server = SimpleNamespace(**{client.protocol: client.address}, access=client.access)
                # Where no name is left for this load, its end of the pipe closes, and so the process ends.
                self._pipe, theirs = _SPAWN.Pipe()
                arguments = (theirs, server, wanted, self._counts, self._error)
                self._process = _SPAWN.Process(target=_serve, args=arguments, daemon=True, name="course-load")
                with theirs:
                    self._process.start()
            deadline = time.monotonic() + _START_TIMEOUT_S
            while wait and not self._counts[_BEGUN]:
                if not self.running or time.monotonic() > deadline:
                    self.stop()
                    raise ServerError(
                        "The load did not start.",
                        "In a script, what starts it must stand below the line: if __name__ == '__main__':",
                        "Elsewhere, try again, or type: python -m helpers doctor",
                    )
                time.sleep(_LOOK_S)
        return self

    def change(self, *, model: str | None = None, batch: int | None = None, concurrency: int | None = None) -> None:
        """Send something else from now on; what is not given stays. Where it does not fit the model, the load goes on as it was."""
        with self._lock:
            model = self.model if model is None else model
            batch = self.batch if batch is None else batch
            concurrency = self.concurrency if concurrency is None else concurrency
            inputs = self._inputs if model == self.model else None
            wanted = self._wanted(model, batch, concurrency, inputs)
            self.model, self.batch, self.concurrency, self._inputs = model, batch, concurrency, inputs
            # Where the process has just ended, its exit status says so.
            with suppress(OSError):
                if self._pipe is not None:
                    self._pipe.send(wanted)

    def stop(self) -> None:
        """Send nothing more, and return when the requests under way have come back."""
        with self._lock:
            if self._pipe is None:
                return
            self._pipe.close()
            self._pipe = None
            self._process.join(_STOP_TIMEOUT_S)
            if self._process.exitcode is None:
                self._process.kill()
                self._process.join()

    @property
    def running(self) -> bool:
        """True while the process of the load runs."""
        return self._pipe is not None and bool(self._process.is_alive())

    @property
    def sent(self) -> int:
        """Requests that were sent and came back, failed ones included, since the start."""
        return int(self._counts[_SENT])

    @property
    def failed(self) -> int:
        """How many of them failed."""
        return int(self._counts[_FAILED])

    @property
    def error(self) -> str:
        """What went wrong last since the start; empty where nothing did."""
        if self._process is not None and self._process.exitcode:
            return f"The process of the load ended {manner(self._process.exitcode)}."
        return str(self._error.value.decode(errors="replace"))

    def __enter__(self) -> BackgroundLoad:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        what = f"{self.model}, batch {self.batch}, concurrency {self.concurrency}"
        said = f"Background load ({'running' if self.running else 'stopped'}): {what}; {self.sent} requests sent, {self.failed} failed"
        return f"{said}\n  Last: {self.error}" if self.error else said

    def _wanted(
        self, model: str, batch: int, concurrency: int, inputs: Mapping[str, np.ndarray] | None
    ) -> tuple[str, dict[str, np.ndarray], int]:
        """Model, inputs and concurrency for the process, once they are known to fit the model."""
        with Client(self._server) as client:
            signature = client.signature(model)
        largest = max(1, signature.max_batch_size)
        for name, value, least, most in (("concurrency", concurrency, 0, _MAX_CONCURRENCY), ("batch", batch, 1, largest)):
            if not isinstance(value, int) or not least <= value <= most:
                raise InputError(f"{name}={value!r} was given.", f"Expected a whole number from {least} to {most} for {model!r}.")
        if inputs is None:
            return model, signature.example(batch), concurrency
        arrays = signature.check(inputs)
        if signature.batched:
            arrays = {name: np.resize(array, (batch, *array.shape[1:])) for name, array in arrays.items()}
        return model, arrays, concurrency


# --- in the process that sends ---------------------------------------------------------------------------------------------


def _serve(pipe: Connection, server: Any, wanted: tuple[str, dict[str, Any], int], counts: Any, error: Any) -> None:
    """Send what the owner says until it says no more, or is no more: the main function of the process."""
    # The interrupt of a notebook goes to the kernel's whole process group; and what libraries have to say would stand among the outputs of
    # the owner's cell.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stderr__.fileno() if sys.__stderr__ else 2)
    owner = os.getppid()
    sender = _Sender(Client(server, "grpc" if hasattr(server, "grpc") else "http"), counts, error)
    sender.change(*wanted)
    counts[_BEGUN] = 1
    # The pipe's other end may be held open by a child that the owner forked; the owner's own death cannot be overlooked.
    with suppress(EOFError, OSError):
        while os.getppid() == owner:
            if pipe.poll(_LOOK_S):
                sender.change(*pipe.recv())
    sender.finish()
    # Without the usual clean-up: a request that never came back would hold it up.
    os._exit(0)


class _Sender:
    """Threads that share one connection and send one request after the other."""

    def __init__(self, client: Client, counts: Any, error: Any) -> None:
        self._client, self._counts, self._error = client, counts, error
        self._changed = threading.Condition()
        self._threads = self._under_way = 0

    def change(self, model: str, inputs: dict[str, Any], concurrency: int) -> None:
        """Send something else from now on; requests under way are finished."""
        with self._changed:
            self._request, self._concurrency = (model, inputs), concurrency
            for index in range(self._threads, concurrency):
                threading.Thread(target=self._run, args=(index,), daemon=True).start()
            self._threads = max(self._threads, concurrency)
            self._changed.notify_all()

    def finish(self) -> None:
        """Send nothing more, and wait for what is under way."""
        with self._changed:
            self._concurrency = 0
            self._changed.wait_for(lambda: not self._under_way, _DRAIN_S)

    def _run(self, index: int) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: index < self._concurrency)
                self._under_way += 1
                model, inputs = self._request
            problem = ""
            try:
                self._client.infer(model, inputs)
            except CourseError as error:
                problem = str(error)
            except Exception as error:  # kept, counted and shown like any other: a thread that dies is not seen
                problem = f"{type(error).__name__}: {error}"
            with self._changed:
                self._under_way -= 1
                self._counts[_SENT] += 1
                if problem:
                    self._counts[_FAILED] += 1
                    self._error.value = problem.encode()[: _ERROR_SIZE - 1]
                if not self._concurrency:
                    self._changed.notify_all()
            if problem:
                time.sleep(_PAUSE_S)
