"""Requests to a fleet from several threads, each with numbers of its own, every answer checked and counted."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import numpy as np

from helpers import Client
from helpers.client.problems import Unreachable
from helpers.errors import CourseError
from tests.support.processes import wait_until

# Between a thread's answer and its next request: without it the load would keep all cores busy that what is tested needs.
_PAUSE_S = 0.02


class Load:
    """Threads that send to ``double``, each a moment after its last answer, until the block ends.

    Args:
        fleet: where to.
        threads: requests under way at once.

    Attributes:
        requests: how many were sent.
        answers: how many came back, right.
        wrong: errors and wrong answers.
        retried: how often the client sent a request again.
    """

    def __init__(self, fleet: Any, threads: int) -> None:
        self._client = Client(fleet)
        self._count = itertools.count(1)
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(threads)]
        self.requests = self.answers = self.retried = 0
        self.wrong: list[Any] = []
        self._watch()

    def _watch(self) -> None:
        """Count what the client has to send again: the real transport, looked at from outside."""
        transport = self._client.transport
        send = transport.infer

        def infer(*request: Any) -> Any:
            try:
                return send(*request)
            except Unreachable:
                with self._lock:
                    self.retried += 1
                raise

        transport.infer = infer

    def _send(self) -> None:
        while not self._end.wait(_PAUSE_S):
            with self._lock:
                number = next(self._count)
                self.requests += 1
            x = np.arange(number, number + 3, dtype=np.float32)[None]
            try:
                answer = self._client.infer("double", X=x)["Y"]
            except CourseError as error:
                with self._lock:
                    self.wrong.append(error)
                continue
            with self._lock:
                if np.array_equal(answer, 2 * x):
                    self.answers += 1
                else:
                    self.wrong.append((x, answer))

    def more(self, answers: int, seconds: float = 30) -> None:
        """Wait for so many further answers."""
        until = self.answers + answers
        wait_until(lambda: self.answers >= until, seconds)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        self.more(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()
        self._client.close()
