"""A load that runs in the background while you do something else: so many requests at once, one after the other.

Typical use::

    from helpers.metrics.load import BackgroundLoad
    with BackgroundLoad(server, "particlenet_AK4", batch=8, concurrency=2) as load:
        ...                                    # look at the metrics, at the dashboard, at your own latency
        load.change(concurrency=4)
    load.sent

It is sent by a process of its own, which ends with the notebook's kernel, however that ends.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import IO, Any

import numpy as np

from helpers import paths
from helpers.client import Client
from helpers.client.tensors import Signature
from helpers.errors import CourseError, InputError, ServerError
from helpers.server.watch import manner

# Seconds for the requests that are under way when a background load is stopped, before its process is killed.
LOAD_STOP_TIMEOUT_S = 8.0

# Seconds until the process of a background load has begun: it imports the client, 1 s on a quiet machine, 10 s on a crowded one.
LOAD_START_TIMEOUT_S = 60.0

# Requests under way at once in a background load, at most: each has a thread, and a server with a full queue shows nothing new.
LOAD_MAX_CONCURRENCY = 32

# The program of its process. -P keeps the notebook's folder out of its path, so the course's own comes as an argument.
_PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); from helpers.metrics.load import _serve; _serve(sys.stdin.buffer)"
# Seconds between two reports.
_REPORT_S = 0.25
# Seconds that a thread waits after a failure: a server that is gone must not be asked thousands of times a second.
_PAUSE_S = 0.5
# Seconds for the requests that are under way when the load ends.
_DRAIN_S = 5.0
# Different errors that are kept; further ones are counted together.
_MAX_ERRORS = 8


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
        """True while the process of the load runs."""
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
            [sys.executable, "-P", "-c", _PROGRAM, str(paths.root())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert process.stdin is not None
        self._record = _Record()
        self._commands = process.stdin
        # The thread knows the process but not this object, so that a load to which no name is left ends.
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
    # Closing writes what is left in the buffer; a process that has died takes nothing.
    with suppress(OSError):
        commands.close()


# What follows runs in the process that sends. A load in threads of the notebook's kernel would take turns with the student's own
# Python, and slow down what it is measured against. Settings come as pickles on standard input, from the process that started this
# one and from no other; counts go back as JSON lines on standard output. The end of standard input, that is, of the owner in
# whatever way, ends the load.


@dataclass(frozen=True)
class _Wanted:
    """What is sent: to which model, the arrays of each request, and how many requests are under way at once (0 sends nothing)."""

    model: str
    inputs: dict[str, Any]
    concurrency: int


class _Sender:
    """Threads that share one connection and send one request after the other."""

    def __init__(self, client: Client, wanted: _Wanted) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._wanted = wanted
        self._threads: dict[int, threading.Thread] = {}
        self._sent = self._failed = 0
        self._errors: Counter[str] = Counter()
        self.change()

    def change(self, **settings: Any) -> None:
        """Send something else from now on; requests under way are finished."""
        with self._lock:
            self._wanted = replace(self._wanted, **settings)
            for index in range(self._wanted.concurrency):
                if index not in self._threads:
                    self._threads[index] = threading.Thread(target=self._run, args=(index,), daemon=True)
                    self._threads[index].start()

    def finish(self) -> None:
        """Send nothing more, and wait for what is under way."""
        self.change(concurrency=0)
        self._wake.set()
        with self._lock:
            threads = list(self._threads.values())
        for thread in threads:
            thread.join(_DRAIN_S)

    def report(self) -> dict[str, Any]:
        """Return how many requests came back, how many of them failed, and each error with its number."""
        with self._lock:
            return {"sent": self._sent, "failed": self._failed, "errors": dict(self._errors)}

    def _run(self, index: int) -> None:
        while True:
            with self._lock:
                wanted = self._wanted
                if index >= wanted.concurrency:
                    del self._threads[index]
                    return
            self._send(wanted)

    def _send(self, wanted: _Wanted) -> None:
        problem = ""
        try:
            self._client.infer(wanted.model, wanted.inputs)
        except CourseError as error:
            problem = str(error)
        except Exception as error:  # kept, counted and shown like any other: a thread that dies is not seen
            problem = f"{type(error).__name__}: {error}"
        with self._lock:
            self._sent += 1
            if problem:
                self._failed += 1
                known = problem in self._errors or len(self._errors) < _MAX_ERRORS
                self._errors[problem if known else "further errors"] += 1
        if problem:
            self._wake.wait(_PAUSE_S)


def _report_until_gone(sender: _Sender, owner: int, ended: threading.Event) -> None:
    """Report to the owner until the load ends; end at once when there is no owner any more."""
    while not ended.wait(_REPORT_S):
        # A pipe may be held open by a child that the owner forked; its own death cannot be overlooked.
        if os.getppid() != owner or not _report(sender.report()):
            os._exit(0)


def _report(report: dict[str, Any]) -> bool:
    """Write one line to the owner; return False if it is gone."""
    try:
        print(json.dumps(report), flush=True)
    except OSError:
        return False
    return True


def _serve(commands: IO[bytes]) -> None:
    """Send what the owner says until it says nothing more: the main function of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    owner = os.getppid()
    first = pickle.load(commands)
    protocol, address = first.pop("protocol"), first.pop("address")
    # What a client asks of a server: its ports and the token for them.
    server = SimpleNamespace(grpc=None, http=None, access=first.pop("access"))
    setattr(server, protocol, address)
    sender = _Sender(Client(server, protocol), _Wanted(**first))
    ended = threading.Event()
    reporter = threading.Thread(target=_report_until_gone, args=(sender, owner, ended), daemon=True)
    _report(sender.report())
    reporter.start()
    while True:
        try:
            sender.change(**pickle.load(commands))
        except EOFError:
            break
    sender.finish()
    ended.set()
    reporter.join()
    _report(sender.report())
    # Without the usual clean-up: a request that never came back would hold it up.
    os._exit(0)
