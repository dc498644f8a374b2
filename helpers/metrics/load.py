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
import weakref
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Any

import numpy as np

from helpers.client import Client
from helpers.client.tensors import Signature
from helpers.errors import CourseError, InputError, ServerError
from helpers.server.watch import manner

# Requests under way at once, at most: each has a thread, and a server with a full queue shows nothing new.
_MAX_CONCURRENCY = 32
# Seconds until the process has begun (it imports the client, 1 s on a quiet machine), that it may take to answer, for the requests that
# are under way when the load ends, and until its process is killed then.
_START_TIMEOUT_S, _ANSWER_S, _DRAIN_S, _STOP_TIMEOUT_S = 60.0, 0.1, 5.0, 8.0
# Seconds between two looks of the process whether its owner lives.
_LOOK_S = 0.25
# Seconds that a thread waits after a failure: a server that is gone must not be asked thousands of times a second.
_PAUSE_S = 0.5
# Different errors that are kept; further ones are counted together.
_MAX_ERRORS = 8
# What the owner says: how are you, and send no more. Anything else is what to send.
_REPORT, _FINISH = "report", "finish"


class BackgroundLoad:
    """Requests to one model, ``concurrency`` of them under way at any time, until it is stopped.

    Each request is sent as soon as the one before it has come back. When the server goes away the load waits for it to return,
    and keeps what went wrong in ``errors``.

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
        self._asked = False
        self._last: tuple[int, int, dict[str, int]] = 0, 0, {}

    def start(self, *, wait: bool = True) -> BackgroundLoad:
        """Begin to send, and to count from zero; returns when the process sends, or at once. A load that runs is left as it is."""
        with self._lock:
            if not self.running:
                self._begin()
            if wait and not self._report(_START_TIMEOUT_S):
                self.stop()
                raise ServerError(
                    "The load did not start.",
                    "In a script, what starts it must stand below the line: if __name__ == '__main__':",
                    "Elsewhere, try again, or type: python -m helpers doctor",
                )
        return self

    def _begin(self) -> None:
        wanted = self._wanted()
        with Client(self._server) as client:
            server = SimpleNamespace(**{client.protocol: client.address}, access=client.access)
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(theirs, server, wanted), daemon=True, name="course-load")
        # The interrupt of a notebook goes to the kernel's whole process group; the mask is inherited.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()
        self._asked, self._last = False, (0, 0, {})
        # A load to which no name is left ends.
        weakref.finalize(self, self._pipe.close)

    def change(self, *, model: str | None = None, batch: int | None = None, concurrency: int | None = None) -> None:
        """Send something else from now on; what is not given stays. Where it does not fit the model, the load goes on as it was."""
        with self._lock:
            before = self.model, self.batch, self.concurrency, self._inputs
            if model is not None and model != self.model:
                self.model, self._inputs = model, None
            self.batch = self.batch if batch is None else batch
            self.concurrency = self.concurrency if concurrency is None else concurrency
            try:
                wanted = self._wanted()
            except Exception:
                self.model, self.batch, self.concurrency, self._inputs = before
                raise
            # Where the process has just ended, the report says so.
            with suppress(OSError):
                if self._pipe is not None:
                    self._pipe.send(wanted)

    def stop(self) -> None:
        """Send nothing more, and return when the requests under way have come back."""
        with self._lock:
            pipe, self._pipe = self._pipe, None
            if pipe is None:
                return
            with pipe, suppress(EOFError, OSError):
                pipe.send(_FINISH)
                # The last report is followed by the end of the process.
                while pipe.poll(_STOP_TIMEOUT_S):
                    self._last = pipe.recv()
            self._process.join(1.0)
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
        self._report()
        return self._last[0]

    @property
    def failed(self) -> int:
        """How many of them failed."""
        self._report()
        return self._last[1]

    @property
    def errors(self) -> dict[str, int]:
        """What went wrong, and how often, since the start."""
        self._report()
        ended = self._process is not None and self._process.exitcode
        return {**self._last[2], **({f"The process of the load ended {manner(ended)}.": 1} if ended else {})}

    def _report(self, wait_s: float = _ANSWER_S) -> bool:
        """Ask the process how far it is; False where it does not answer in time, and its answer is for the next to ask."""
        with self._lock, suppress(EOFError, OSError):
            if self._pipe is not None and not self._asked:
                self._pipe.send(_REPORT)
                self._asked = True
            if self._pipe is not None and self._pipe.poll(wait_s):
                self._last, self._asked = self._pipe.recv(), False
                return True
        return False

    def __enter__(self) -> BackgroundLoad:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "running" if self.running else "stopped"
        what = f"{self.model}, batch {self.batch}, concurrency {self.concurrency}"
        lines = [f"Background load ({state}): {what}; {self.sent} requests sent, {self.failed} failed"]
        return "\n".join(lines + [f"  {number} times: {text}" for text, number in self.errors.items()])

    def _wanted(self) -> tuple[str, dict[str, Any], int]:
        """Model, inputs and concurrency for the process, once they are known to fit the model."""
        with Client(self._server) as client:
            signature = Signature.from_server(client.metadata(self.model), client.config(self.model))
        if isinstance(self.concurrency, bool) or self.concurrency not in range(_MAX_CONCURRENCY + 1):
            raise InputError(f"concurrency={self.concurrency!r} was given.", f"Expected a whole number from 0 to {_MAX_CONCURRENCY}.")
        largest = signature.max_batch_size
        if isinstance(self.batch, bool) or self.batch not in range(1, (largest or 1) + 1):
            reason = f"The largest batch of {self.model!r} is {largest}" if largest else f"{self.model!r} has no batch axis"
            raise InputError(f"batch={self.batch!r} was given.", f"{reason}.", f"Type a whole number from 1 to {largest or 1}.")
        if self._inputs is None:
            return self.model, signature.example(self.batch), self.concurrency
        inputs = signature.check(self._inputs)
        if signature.batched:
            inputs = {name: np.resize(array, (self.batch, *array.shape[1:])) for name, array in inputs.items()}
        return self.model, inputs, self.concurrency


# --- in the process that sends ---------------------------------------------------------------------------------------------


def _serve(pipe: Connection, server: Any, wanted: tuple[str, dict[str, Any], int]) -> None:
    """Send what the owner says until it says no more, or is no more: the main function of the process."""
    # What libraries have to say would stand among the outputs of the owner's cell.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stderr__.fileno() if sys.__stderr__ else 2)
    owner = os.getppid()
    sender = _Sender(Client(server, "grpc" if hasattr(server, "grpc") else "http"), *wanted)
    # The pipe's other end may be held open by a child that the owner forked; the owner's own death cannot be overlooked.
    with suppress(EOFError, OSError):
        while os.getppid() == owner:
            if not pipe.poll(_LOOK_S):
                continue
            said = pipe.recv()
            if said == _FINISH:
                break
            if said == _REPORT:
                pipe.send(sender.report())
            else:
                sender.change(*said)
    sender.finish()
    with suppress(OSError):
        pipe.send(sender.report())
    # Without the usual clean-up: a request that never came back would hold it up.
    os._exit(0)


class _Sender:
    """Threads that share one connection and send one request after the other."""

    def __init__(self, client: Client, *wanted: Any) -> None:
        self._client = client
        self._changed = threading.Condition()
        self._threads = self._under_way = self._sent = self._failed = 0
        self._errors: Counter[str] = Counter()
        self.change(*wanted)

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

    def report(self) -> tuple[int, int, dict[str, int]]:
        """Return how many requests came back, how many of them failed, and each error with its number."""
        with self._changed:
            return self._sent, self._failed, dict(self._errors)

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
                self._sent += 1
                if problem:
                    self._failed += 1
                    known = problem in self._errors or len(self._errors) < _MAX_ERRORS
                    self._errors[problem if known else "further errors"] += 1
                if not self._concurrency:
                    self._changed.notify_all()
            if problem:
                time.sleep(_PAUSE_S)
