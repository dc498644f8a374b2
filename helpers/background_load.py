"""A load that runs in the background while you do something else: so many requests at once, one after the other.

Typical use::

    from helpers.background_load import BackgroundLoad
    with BackgroundLoad(server, "particlenet_AK4", batch=8, concurrency=2) as load:
        ...                                    # look at the metrics, at the dashboard, at your own latency
        load.change(concurrency=4)
    load.sent

It is sent by a process of its own, which ends with the notebook's kernel, however that ends.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import IO, Any

import numpy as np

from helpers import background_load_process
from helpers.client import Client
from helpers.client.tensors import Signature
from helpers.errors import InputError, ServerError
from helpers.watch import manner

# Seconds for the requests that are under way when a background load is stopped, before its process is killed.
LOAD_STOP_TIMEOUT_S = 8.0

# Seconds until the process of a background load has begun: it imports the client, 1 s on a quiet machine, 10 s on a crowded one.
LOAD_START_TIMEOUT_S = 60.0

# Requests under way at once in a background load, at most: each has a thread, and a server with a full queue shows nothing new.
LOAD_MAX_CONCURRENCY = 32


class BackgroundLoad:
    """Requests to one model, ``concurrency`` of them under way at any time, until it is stopped.

    Each request is sent as soon as the one before it has come back. When the server goes away the load waits for it to return,
    and keeps what went wrong in ``errors``.

    Args:
        server: a :class:`~helpers.server.Server`, or the address of its gRPC port.
        model: name of the model.
        batch: entries in each request; 1 for a model without a batch axis.
        concurrency: requests under way at once; 0 sends nothing, and keeps the process ready.
        inputs: arrays by input name, with as many entries as you like: they are repeated or cut to fill the batch. Made-up
            inputs by default. The same request is sent each time.
        protocol: ``grpc`` or ``http``.
    """

    def __init__(
        self,
        server: Any,
        model: str,
        batch: int = 1,
        concurrency: int = 1,
        *,
        inputs: Mapping[str, Any] | None = None,
        protocol: str | None = None,
    ) -> None:
        self._server, self._protocol = server, protocol
        self.model, self.batch, self.concurrency = model, batch, concurrency
        self._inputs = None if inputs is None else {name: np.asarray(array) for name, array in inputs.items()}
        self._lock = threading.RLock()
        self._record = _Record()
        self._commands: IO[bytes] | None = None

    def start(self, *, wait: bool = True) -> BackgroundLoad:
        """Begin to send; counts begin anew. A load that runs is left as it is.

        Args:
            wait: return only when the first request is on its way, which takes a second; False returns at once.

        Raises:
            InputError: batch or concurrency does not fit the model.
            ModelError: the model is not loaded.
            RequestError: the server does not answer.
            ServerError: the process that sends did not start.
        """
        with self._lock:
            if not self.running:
                self._begin()
        if wait and not self._record.first.wait(LOAD_START_TIMEOUT_S):
            self.stop()
            raise ServerError(
                f"The process of the load has not begun within {LOAD_START_TIMEOUT_S:.0f} s.", "Expected one or two.", "Try again."
            )
        if wait and not self.running and self.errors:
            raise ServerError(f"The load did not start: {next(iter(self.errors))}", "", "Type: python -m helpers doctor")
        return self

    def change(self, *, model: str | None = None, batch: int | None = None, concurrency: int | None = None) -> None:
        """Send something else from now on; what is not given stays.

        Args:
            model: another model of the same server; it gets made-up inputs.
            batch: entries in each request.
            concurrency: requests under way at once.

        Raises:
            InputError: it does not fit the model; the load goes on as it was.
            ModelError: the model is not loaded; the load goes on as it was.
            RequestError: the server does not answer.
        """
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
            if self.running:
                self._tell(wanted)

    def stop(self) -> None:
        """Send nothing more, and return when the requests under way have come back."""
        with self._lock:
            commands, self._commands = self._commands, None
            record = self._record
        if commands is not None:
            _close(commands)
            record.wait_for_end()

    @property
    def running(self) -> bool:
        """Whether the process of the load runs."""
        return self._commands is not None and not self._record.ended.is_set()

    @property
    def sent(self) -> int:
        """Requests that were sent and came back, failed ones included, since the start; a quarter of a second old while it runs."""
        return self._record.sent

    @property
    def failed(self) -> int:
        """How many of them failed."""
        return self._record.failed

    @property
    def errors(self) -> dict[str, int]:
        """What went wrong, and how often, since the start."""
        return dict(self._record.errors)

    def __enter__(self) -> BackgroundLoad:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "running" if self.running else "stopped"
        what = f"{self.model}, batch {self.batch}, concurrency {self.concurrency}"
        lines = [f"Background load ({state}): {what}; {self.sent} requests sent, {self.failed} failed"]
        return "\n".join(lines + [f"  {number} times: {text}" for text, number in self.errors.items()])

    def _begin(self) -> None:
        wanted = self._wanted()
        # A session of its own: the interrupt of a notebook goes to the kernel's whole process group.
        process = subprocess.Popen(
            [sys.executable, "-P", background_load_process.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert process.stdin is not None
        self._record = _Record()
        self._commands = process.stdin
        # The thread knows the process but not this object, so that a load which nobody remembers ends.
        threading.Thread(target=_read, args=(process, self._record), daemon=True, name="course-load").start()
        weakref.finalize(self, _close, process.stdin)
        with Client(self._server, self._protocol) as client:
            # Through the pipe that only this process writes: a token is nothing for a command line.
            self._tell({"address": client.address, "protocol": client.protocol, "access": client.access, **wanted})

    def _tell(self, settings_: dict[str, Any]) -> None:
        assert self._commands is not None
        # When the process has just ended, its end is in the record.
        with suppress(OSError, ValueError):
            self._commands.write(pickle.dumps(settings_))
            self._commands.flush()

    def _wanted(self) -> dict[str, Any]:
        """The settings for the process, once they are known to fit the model."""
        with Client(self._server, self._protocol) as client:
            signature = Signature.from_server(client.metadata(self.model), client.config(self.model))
        limit = LOAD_MAX_CONCURRENCY
        if isinstance(self.concurrency, bool) or self.concurrency not in range(limit + 1):
            raise InputError(f"concurrency={self.concurrency!r} was given.", f"Expected a whole number from 0 to {limit}.")
        largest = signature.max_batch_size
        if isinstance(self.batch, bool) or self.batch not in range(1, (largest or 1) + 1):
            reason = f"The largest batch of {self.model!r} is {largest}" if largest else f"{self.model!r} has no batch axis"
            raise InputError(f"batch={self.batch!r} was given.", f"{reason}.", f"Type a whole number from 1 to {largest or 1}.")
        if self._inputs is None:
            return {"model": self.model, "inputs": signature.example(self.batch), "concurrency": self.concurrency}
        inputs = signature.check(self._inputs)
        if signature.batched:
            inputs = {name: np.resize(array, (self.batch, *array.shape[1:])) for name, array in inputs.items()}
        return {"model": self.model, "inputs": inputs, "concurrency": self.concurrency}


class _Record:
    """What the process reported last; belongs to the thread that reads, and outlives the process.

    Attributes:
        first: set by the first report, or by an end without one.
        ended: set when the process has ended.
    """

    def __init__(self) -> None:
        self.sent = self.failed = 0
        self.errors: dict[str, int] = {}
        self.first = threading.Event()
        self.ended = threading.Event()
        self.kill: Callable[[], None] = lambda: None

    def wait_for_end(self) -> None:
        """Wait until the process has ended; kill it when it takes too long."""
        if not self.ended.wait(LOAD_STOP_TIMEOUT_S):
            self.kill()
            self.ended.wait()


def _read(process: subprocess.Popen[bytes], record: _Record) -> None:
    """Take in the reports of a process until it ends (a thread of its own)."""
    record.kill = process.kill
    assert process.stdout is not None
    complaint = ""
    with process.stdout as lines:
        for line in lines:
            if line.startswith(b"{"):
                report = json.loads(line)
                record.sent, record.failed, record.errors = report["sent"], report["failed"], report["errors"]
                record.first.set()
            else:  # what Python or gRPC has to say when something breaks; the last line is the reason
                complaint = line.decode(errors="replace").strip() or complaint
    if status := process.wait():
        record.errors = {**record.errors, f"The process of the load ended {manner(status)}. {complaint}".strip(): 1}
    record.ended.set()
    record.first.set()


def _close(commands: IO[bytes]) -> None:
    # Closing writes what is left in the buffer; there is nobody to take it when the process has died.
    with suppress(OSError):
        commands.close()
