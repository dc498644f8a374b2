"""Send inference requests: inputs are checked first, large batches are split, a dropped connection is tried again."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import numpy as np

from helpers.client import problems, way_to
from helpers.client.endpoint import NO_ACCESS, Access, where, with_own_secret
from helpers.client.problems import Refused, TransportError, Unreachable
from helpers.client.tensors import Array, Signature, split
from helpers.errors import CourseError, InputError, RequestError
from helpers.terminal import Progress

# How often a request is sent again when the connection was refused or dropped before an answer came. Refused inputs are never repeated.
RETRIES = 2
# Seconds before the first repetition; doubled each time.
RETRY_WAIT_S = 0.2
# Requests under way at once in asynchronous sending: enough to keep two model instances and their queue busy.
MAX_IN_FLIGHT = 8
# Seconds that one inference request may take. The first request of a new shape compiles in PyTorch and takes seconds.
REQUEST_TIMEOUT_S = 60.0

T = TypeVar("T")
# Arrays, lists or numbers by the name of the input.
Values = Mapping[str, Any]


class Result(dict[str, Array]):
    """The outputs of one request by name, with the model that answered and its version; ``requests`` above 1 if the batch was split."""

    def __init__(self, outputs: Mapping[str, Array], model: str, version: str, requests: int) -> None:
        super().__init__(outputs)
        self.model, self.version, self.requests = model, version, requests


class Client:
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
        self._signatures: dict[tuple[str, str], Signature] = {}
        self._closed = False
        self._pool = ThreadPoolExecutor(MAX_IN_FLIGHT, thread_name_prefix="course-client")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Wait for requests under way and close the connection."""
        self._pool.shutdown()
        self._closed = True
        self._signatures.clear()  # so that the next request asks, and hears that the client is closed
        self.transport.close()

    def infer(
        self, model: str, inputs: Values | None = None, *, outputs: Iterable[str] | None = None, version: str | int = "", **arrays: Any
    ) -> Result:
        """Send one request, or several when the batch is larger than the model allows, and return the outputs by name.

        Inputs are arrays, lists or numbers by name, in a dictionary or as keywords. Without ``outputs`` all are returned, and without
        ``version`` the server chooses, as a rule the highest.

        Raises:
            InputError: the inputs do not fit the model; nothing was computed.
            ModelError: the model is not loaded; the message names those that are.
            RequestError: the server refused or failed, could not be reached, or took too long.
        """
        signature, tensors = self._fitting(model, str(version), {**(inputs or {}), **arrays})
        wanted = list(signature.outputs if outputs is None else outputs)
        pieces = split(tensors, signature.max_batch_size)
        try:
            parts = [self._ask(partial(self.transport.infer, model, str(version), piece, wanted), model) for piece in pieces]
        except RequestError:
            self._signatures.pop((model, str(version)), None)  # a model that was reloaded may take other inputs since
            raise
        # Also where there is one part: decoded arrays are views of the answer and read-only.
        joined = {name: np.concatenate([part.as_numpy(name) for part in parts]) for name in wanted}
        answer = parts[-1].get_response()
        number = answer.get("model_version", "") if isinstance(answer, dict) else answer.model_version
        return Result(joined, model, number, len(parts))

    def infer_async(self, model: str, inputs: Values | None = None, **arrays: Any) -> Future[Result]:
        """Like :meth:`infer`, but return a future at once; inputs are checked and copied first, and 8 requests are under way at most."""
        return self._pool.submit(self.infer, model, self._copies(model, {**(inputs or {}), **arrays}))

    def infer_many(
        self, model: str, many: Iterable[Values], *, max_in_flight: int = MAX_IN_FLIGHT, outputs: Iterable[str] | None = None
    ) -> list[Result]:
        """Send many requests, a bounded number at once; return their results in order, or stop at the first error.

        The inputs of each request are taken one by one as there is room and copied, so ``many`` may be a generator that fills one array
        again and again.
        """
        results: list[Result] = []
        under_way: deque[Future[Result]] = deque()
        pool = ThreadPoolExecutor(max_in_flight, thread_name_prefix="course-many")
        with Progress(f"{model} answers", len(many) if isinstance(many, Sized) else None, "requests") as progress:

            def collect() -> None:
                results.append(under_way.popleft().result())
                progress.add()

            try:
                for inputs in many:
                    under_way.append(pool.submit(self.infer, model, self._copies(model, inputs), outputs=outputs))
                    if len(under_way) >= max_in_flight:
                        collect()
                while under_way:
                    collect()
            finally:
                # After an error or "interrupt kernel" nobody waits for the requests that are still under way.
                pool.shutdown(wait=False, cancel_futures=True)
        return results

    def metadata(self, model: str) -> dict[str, Any]:
        """Return names, dtypes and shapes of a model's tensors, as the server reports them now."""
        return self._ask(lambda: self.transport.metadata(model), model)

    def config(self, model: str) -> dict[str, Any]:
        """Return a model's config with everything that the server filled in, as it is now."""
        return self._ask(lambda: self.transport.config(model), model)

    def signature(self, model: str, version: str = "") -> Signature:
        """Return a model's signature, remembered from the last time."""
        if (model, version) not in self._signatures:

            def about() -> tuple[dict[str, Any], dict[str, Any] | None]:
                metadata = self.transport.metadata(model, version)
                with suppress(Refused):
                    return metadata, self.transport.config(model, version)
                # Servers of other makes speak the protocol without this extension; then nobody knows the largest batch.
                return metadata, None

            self._signatures[model, version] = Signature.from_server(*self._ask(about, model))
        return self._signatures[model, version]

    def example(self, model: str, batch: int = 1) -> dict[str, Array]:
        """Return made-up inputs that fit a model: normal numbers, ones for masks, the same each time."""
        return self.signature(model).example(batch)

    def _ask(self, question: Callable[[], T], model: str) -> T:
        """Call a function that asks the server, again when the connection was lost, and explain a failure."""
        if self._closed:
            raise InputError("This client is closed.", "Expected one that is open.", "Type: client = Client(server)")
        attempt = 0
        while True:
            try:
                return question()
            except TransportError as error:
                if not isinstance(error, Unreachable) or attempt >= RETRIES:
                    raise self._explained(error, model) from error
            time.sleep(RETRY_WAIT_S * 2**attempt)
            attempt += 1

    def _explained(self, error: TransportError, model: str) -> CourseError:
        """Return the error to raise for a request that failed, after a look at the server."""
        owned = getattr(self.server, "owned", False)
        if not isinstance(error, Refused) or error.reason != "unknown":
            ended = self.server.how_it_ended() if owned and not isinstance(error, Refused) else ("", "")
            return problems.explain(error, model, self.address, self.protocol, self.access, ended)
        loaded, why = None, ""
        # Not from the metrics: their page also has the models that failed while they were loaded.
        with suppress(TransportError):
            loaded = sorted({counters["name"] for counters in self.transport.statistics()})
        if owned:
            why = "".join(state.reason for state in self.server.models() if state.name == model and state.state != "READY")
        return problems.not_loaded(model, str(error), loaded, why, owned)

    def _fitting(self, model: str, version: str, inputs: Values) -> tuple[Signature, dict[str, Array]]:
        """Return a model's signature and the inputs as its tensors."""
        try:
            signature = self.signature(model, version)
            return signature, signature.check(inputs)
        except InputError:
            # A model that was reloaded may take other inputs since.
            self._signatures.pop((model, version), None)
            signature = self.signature(model, version)
            return signature, signature.check(inputs)

    def _copies(self, model: str, inputs: Values) -> dict[str, Array]:
        """Return inputs as tensors that share no memory with what was given, which may be changed while they wait."""
        return {name: array.copy() for name, array in self._fitting(model, "", inputs)[1].items()}
