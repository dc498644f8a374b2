"""Send inference requests: inputs are checked first, large batches are split, a dropped connection is tried again."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from typing import Any

import numpy as np

from helpers.client import problems, way_to
from helpers.client.endpoint import NO_ACCESS, Access, where, with_own_secret
from helpers.client.problems import TransportError, Unreachable
from helpers.client.tensors import Array, Signature, split
from helpers.errors import CourseError, InputError, RequestError
from helpers.terminal import Progress

# How often a request is sent again when the connection was refused or dropped before an answer came. Refused inputs are never repeated.
RETRIES = 2
# Seconds before the first repetition; doubled each time.
RETRY_WAIT_S = 0.2
# Requests under way at once among many: enough to keep two model instances and their queue busy.
MAX_IN_FLIGHT = 8
# Seconds that one inference request may take. The first request of a new shape compiles in PyTorch and takes seconds.
REQUEST_TIMEOUT_S = 60.0


class Result(dict[str, Array]):
    """The outputs of one request by name; ``requests`` above 1 if the batch was split."""

    requests = 1


class Client(AbstractContextManager["Client"]):
    """A connection to one server, over gRPC or HTTP, which several threads may use. It remembers what a model takes until that changes.

    Args:
        server: a :class:`~helpers.server.Server`, or the address of the port for the protocol, such as ``localhost:9001``.
        protocol: ``grpc`` or ``http``; without it gRPC, or HTTP when the address begins with ``http://`` or ``https://``.
        timeout_s: seconds that one inference request may take.
    """

    def __init__(self, server: Any, protocol: str | None = None, *, timeout_s: float = REQUEST_TIMEOUT_S) -> None:
        self.server: Any = None if isinstance(server, str) else server
        self.protocol, self.address = where(server, protocol)
        self.access: Access = self.server.access if self.server is not None else with_own_secret(NO_ACCESS, self.address)
        self.transport = way_to(self.protocol, self.address, self.access, timeout_s)
        self._signatures: dict[str, Signature] = {}

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; a later request opens another."""
        self.transport.close()

    def infer(
        self, model: str, inputs: Mapping[str, Any] | None = None, outputs: Sequence[str] = (), version: str | int = "", **arrays: Any
    ) -> Result:
        """Send one request, or several when the batch is larger than the model allows, and return the outputs by name.

        Inputs are arrays, lists or numbers by name, in a dictionary or as keywords. Without ``outputs`` all are returned, and without
        ``version`` the server chooses, as a rule the highest.

        Raises:
            InputError: the inputs do not fit the model; nothing was computed.
            ModelError: the model is not loaded; the message names those that are.
            RequestError: the server refused or failed, could not be reached, or took too long.
        """
        signature, tensors = self._fitting(model, {**(inputs or {}), **arrays})
        wanted = list(outputs or signature.outputs)
        pieces = split(tensors, signature.max_batch_size)
        try:
            parts = [self._ask(self.transport.infer, model, str(version), piece, wanted) for piece in pieces]
        except RequestError:
            self._signatures.pop(model, None)  # a model that was reloaded may take other inputs since
            raise
        # Also where there is one part: decoded arrays are views of the answer and read-only.
        result = Result({name: np.concatenate([part.as_numpy(name) for part in parts]) for name in wanted})
        result.requests = len(parts)
        return result

    def infer_many(
        self, model: str, many: Iterable[Mapping[str, Any]], max_in_flight: int = MAX_IN_FLIGHT, outputs: Sequence[str] = ()
    ) -> list[Result]:
        """Send many requests, a bounded number at once; return their results in order, or stop at the first error.

        The inputs of each request are taken one by one as there is room and copied, so ``many`` may be a generator that fills one array
        again and again.
        """
        answers: list[Future[Result]] = []
        pool = ThreadPoolExecutor(max_in_flight, thread_name_prefix="course-many")
        with Progress(f"{model} answers", len(many) if isinstance(many, Sized) else None, "requests") as progress:
            try:
                for inputs in many:
                    copies = {name: array.copy() for name, array in self._fitting(model, inputs)[1].items()}
                    answers.append(pool.submit(self.infer, model, copies, outputs=outputs))
                    progress.add()
                    if len(answers) >= max_in_flight:
                        answers[-max_in_flight].result()
                return [answer.result() for answer in answers]
            finally:
                # After an error or "interrupt kernel" nobody waits for the requests that are still under way.
                pool.shutdown(wait=False, cancel_futures=True)

    def about(self) -> dict[str, Any]:
        """Return what the server says of itself, such as its version."""
        return dict(self._ask(lambda _: self.transport.about(), ""))

    def metadata(self, model: str) -> dict[str, Any]:
        """Return names, dtypes and shapes of a model's tensors, as the server reports them now."""
        return dict(self._ask(self.transport.metadata, model))

    def config(self, model: str) -> dict[str, Any]:
        """Return a model's config with everything that the server filled in, as it is now."""
        return dict(self._ask(self.transport.config, model))

    def signature(self, model: str) -> Signature:
        """Return a model's signature, remembered from the last time."""
        if model not in self._signatures:
            self._signatures[model] = Signature.from_server(self.metadata(model), self.config(model))
        return self._signatures[model]

    def example(self, model: str, batch: int = 1) -> dict[str, Array]:
        """Return made-up inputs that fit a model: normal numbers, ones for masks, the same each time."""
        return self.signature(model).example(batch)

    def _ask(self, question: Callable[..., Any], model: str, *arguments: Any) -> Any:
        """Ask the server something about a model, again when the connection was lost, and explain a failure."""
        for attempt in itertools.count():
            try:
                return question(model, *arguments)
            except TransportError as error:
                if not isinstance(error, Unreachable) or attempt >= RETRIES:
                    raise self._explained(error, model) from error
            time.sleep(RETRY_WAIT_S * 2**attempt)

    def _explained(self, error: TransportError, model: str) -> CourseError:
        """Return the error to raise for a request that failed, after a look at the server."""
        owned = getattr(self.server, "owned", False)
        if error.reason != "unknown":
            ended = self.server.how_it_ended() if owned and not error.reason else ("", "")
            return problems.explain(error, self.transport, model, ended)
        loaded, why = None, ""
        # Not from the metrics: their page also has the models that failed while they were loaded.
        with suppress(TransportError):
            loaded = sorted({counters["name"] for counters in self.transport.statistics()})
        if owned:
            why = "".join(state.reason for state in self.server.models() if state.name == model and state.state != "READY")
        return problems.not_loaded(model, str(error), loaded, why, owned)

    def _fitting(self, model: str, inputs: Mapping[str, Any]) -> tuple[Signature, dict[str, Array]]:
        """Return a model's signature and the inputs as its tensors."""
        with suppress(InputError):
            signature = self.signature(model)
            return signature, signature.check(inputs)
        # A model that was reloaded may take other inputs since.
        self._signatures.pop(model, None)
        signature = self.signature(model)
        return signature, signature.check(inputs)
