"""A part of a class: a process whose threads send good and bad requests to a server, each as a student with a connection of its own.

Run as a script: what to do comes as JSON on standard input, what happened goes as JSON to standard output.
"""

from __future__ import annotations

import json
import random
import sys
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from helpers.client import Client
from helpers.client.problems import Refused
from helpers.errors import AccessError, CourseError, InputError, ModelError, RequestError
from helpers.server import connect

# Of a hundred requests so many are of each kind.
KINDS = {
    "add_sub": 58,
    "double": 26,
    "particlenet_AK4": 4,
    "failing": 4,
    "wrong type": 2,
    "wrong shape": 2,
    "unknown model": 2,
    "no token": 2,
}


class Student:
    """One student: asks, compares each answer, and remembers what was not as it had to be.

    Args:
        number: who; also decides the protocol and the order of the requests.
        wanted: address, token, and the file of jets with the answers that a network in this very machine gave.
    """

    def __init__(self, number: int, wanted: dict[str, Any]) -> None:
        self._random = random.Random(number)
        self._numbers = np.random.default_rng(number)
        protocol = ("grpc", "http")[number % 2]
        self._server = connect(wanted["url"], token=wanted["token"])
        self._client = Client(self._server, protocol)
        port = self._server.grpc if protocol == "grpc" else self._server.http
        self._stranger = Client(f"{protocol}://{port}", protocol)
        self._jets = np.load(wanted["jets"])
        self.done: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self.wrong: list[str] = []

    def work(self, requests: int) -> None:
        """Send so many requests."""
        kinds = self._random.choices(list(KINDS), list(KINDS.values()), k=requests)
        for kind in kinds:
            try:
                getattr(self, "_" + kind.replace(" ", "_"))()
            except Exception as error:
                self.wrong.append(f"{kind}: {type(error).__name__}: {error}"[:300])
            self.done[kind] += 1
        for forbidden in (lambda: self._server.load("add_sub"), lambda: self._server.unload("add_sub"), self._server.restart):
            self._refused(CourseError, "Only the owner", forbidden)
        self._server.stop()
        self._client.close()
        self._stranger.close()

    def _same(self, model: str, inputs: dict[str, np.ndarray], expected: dict[str, np.ndarray], atol: float = 0.0) -> None:
        result = self._client.infer(model, inputs)
        self.requests[model] += result.requests
        for name, array in expected.items():
            np.testing.assert_allclose(result[name], array, rtol=0, atol=atol, err_msg=f"{model} {name}")

    def _refused(self, kind: type[Exception], words: str, question: Callable[[], Any]) -> None:
        try:
            question()
        except kind as error:
            if words not in str(error):
                raise AssertionError(f"refused, but without its reason: {error}") from error
        else:
            raise AssertionError("a bad request was not refused")

    def _add_sub(self) -> None:
        a, b = self._numbers.normal(size=(2, 16)).astype(np.float32)
        self._same("add_sub", {"INPUT0": a, "INPUT1": b}, {"OUTPUT0": a + b, "OUTPUT1": a - b})

    def _double(self) -> None:
        # Of any width; six entries are more than the model takes at once.
        x = self._numbers.normal(size=(self._random.choice((1, 2, 4, 6)), self._random.choice((1, 7, 300)))).astype(np.float32)
        self._same("double", {"X": x}, {"Y": 2 * x})

    def _particlenet_AK4(self) -> None:
        number = self._random.randrange(int(self._jets["count"]))
        inputs = {name.partition(":")[2]: array for name, array in self._jets.items() if name.startswith(f"{number}:")}
        expected = inputs.pop("softmax")
        self._same("particlenet_AK4", inputs, {"softmax": expected}, atol=1e-5)

    def _failing(self) -> None:
        self._refused(
            RequestError, "a negative time cannot be slept", lambda: self._client.infer("slow", SECONDS=np.array([-1], np.float32))
        )

    def _wrong_type(self) -> None:
        self._refused(InputError, "astype(np.float32)", lambda: self._client.infer("add_sub", INPUT0=np.zeros(16), INPUT1=np.zeros(16)))

    def _wrong_shape(self) -> None:
        # Past the client's own check, so that the server sees it.
        inputs = {name: np.zeros(5, np.float32) for name in ("INPUT0", "INPUT1")}
        self._refused(Refused, "unexpected shape for input", lambda: self._client.transport.infer("add_sub", "", inputs, ["OUTPUT0"]))

    def _unknown_model(self) -> None:
        self._refused(ModelError, "'ad_sub' is not loaded", lambda: self._client.infer("ad_sub", INPUT0=[1], INPUT1=[1]))

    def _no_token(self) -> None:
        zeros = np.zeros(16, np.float32)
        self._refused(AccessError, "wants a token", lambda: self._stranger.infer("add_sub", INPUT0=zeros, INPUT1=zeros))


def main() -> None:
    """Be some students, all at once."""
    wanted = json.load(sys.stdin)
    students = [Student(number, wanted) for number in wanted["students"]]
    threads = [threading.Thread(target=student.work, args=(wanted["requests"],)) for student in students]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done = sum((student.done for student in students), Counter())
    sent = sum((student.requests for student in students), Counter())
    print(json.dumps({"done": done, "requests": sent, "wrong": [text for student in students for text in student.wrong]}))


if __name__ == "__main__":
    main()
