"""The process that sends a background load. Runs as a script of its own; :mod:`helpers.background_load` starts and steers it.

A load in threads of the notebook's kernel would take turns with the student's own Python, and slow down what it is meant to be
measured against. So it is sent from here. Settings come as pickles on standard input, from the process that started this one
and nobody else; counts go back as JSON lines on standard output. The end of standard input, that is, of the owner in whatever
way, ends the load.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import sys
import threading
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

if __name__ == "__main__":  # started as a script, with python -P
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from helpers.client import Client
from helpers.client.endpoint import Access, Address
from helpers.errors import CourseError

# Seconds between two reports.
REPORT_S = 0.25
# Seconds that a thread waits after a failure: a server that is gone must not be asked thousands of times a second.
PAUSE_S = 0.5
# Seconds for the requests that are under way when the load ends.
DRAIN_S = 5.0
# Different errors that are kept; further ones are counted together.
MAX_ERRORS = 8


@dataclass(frozen=True)
class Wanted:
    """What is to be sent.

    Attributes:
        model: name of the model.
        inputs: the arrays of each request by input name, as the model takes them.
        concurrency: requests under way at once; 0 sends nothing.
    """

    model: str
    inputs: dict[str, Any]
    concurrency: int


class Where:
    """The port that the load is sent to, as a client takes it.

    Args:
        protocol: ``grpc`` or ``http``.
        address: of the port.
        access: token, and which certificates are trusted.
    """

    def __init__(self, protocol: str, address: Address, access: Access) -> None:
        self.protocol, self.access = protocol, access
        self.grpc = address if protocol == "grpc" else None
        self.http = address if protocol == "http" else None


class Sender:
    """Threads that send one request after the other.

    Args:
        client: the connection that they share.
        wanted: what to send at first.
    """

    def __init__(self, client: Client, wanted: Wanted) -> None:
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
            thread.join(DRAIN_S)

    def report(self) -> dict[str, Any]:
        """Requests that came back (``sent``), those of them that failed, and the errors with their numbers."""
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

    def _send(self, wanted: Wanted) -> None:
        problem = ""
        try:
            self._client.infer(wanted.model, wanted.inputs)
        except CourseError as error:
            problem = str(error)
        except Exception as error:  # kept, counted and shown like any other: nobody sees a thread that died
            problem = f"{type(error).__name__}: {error}"
        with self._lock:
            self._sent += 1
            if problem:
                self._failed += 1
                known = problem in self._errors or len(self._errors) < MAX_ERRORS
                self._errors[problem if known else "further errors"] += 1
        if problem:
            self._wake.wait(PAUSE_S)


def report_until_gone(sender: Sender, owner: int, ended: threading.Event) -> None:
    """Report to the owner until the load ends; end at once when there is no owner any more."""
    while not ended.wait(REPORT_S):
        # A pipe may be held open by a child that the owner forked; its own death cannot be overlooked.
        if os.getppid() != owner or not tell(sender.report()):
            os._exit(0)


def tell(report: dict[str, Any]) -> bool:
    """Write one line to the owner; False when nobody reads it."""
    try:
        print(json.dumps(report), flush=True)
    except OSError:
        return False
    return True


def main(commands: IO[bytes]) -> None:
    """Do what the owner says until it says nothing more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    owner = os.getppid()
    first = pickle.load(commands)
    where = Where(first.pop("protocol"), first.pop("address"), first.pop("access"))
    sender = Sender(Client(where, where.protocol), Wanted(**first))
    ended = threading.Event()
    reporter = threading.Thread(target=report_until_gone, args=(sender, owner, ended), daemon=True)
    tell(sender.report())
    reporter.start()
    while True:
        try:
            sender.change(**pickle.load(commands))
        except EOFError:
            break
    sender.finish()
    ended.set()
    reporter.join()
    tell(sender.report())
    # Without the usual clean-up: a request that never came back would hold it up.
    os._exit(0)


if __name__ == "__main__":
    main(sys.stdin.buffer)
