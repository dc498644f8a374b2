"""Send inference requests: inputs are checked first, large batches are split, a dropped connection is tried again.

Typical use::

    from helpers import Client
    with Client(server) as client:                      # or Client("localhost:9001")
        result = client.infer("add_sub", INPUT0=x, INPUT1=y)
        result["OUTPUT0"]
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from helpers import settings
from helpers.client import answers
from helpers.client.answers import Result
from helpers.client.connection import Connection
from helpers.client.labels import Class, label_file
from helpers.client.many import send_many
from helpers.client.shared_memory import Arenas
from helpers.client.signature import Signature, split
from helpers.client.tensors import own
from helpers.client.transport import Refused, Request
from helpers.errors import CourseError, InputError

__all__ = ["Class", "Client", "Result"]


class Client:
    """A connection to one server, over gRPC or HTTP.

    Several threads may use one client. What it knows of a model is kept between requests, and asked for again when it turns
    out to be out of date because the model was reloaded.

    Args:
        server: a :class:`~helpers.server.Server`, or the address of the port for the protocol, such as ``localhost:9001``.
        protocol: ``grpc`` or ``http``; without it gRPC, or HTTP when the address begins with ``http://`` or ``https://``.
        timeout_s: seconds that one request may take.
        retries: how often to send again when the connection was refused or dropped before an answer came.

    Raises:
        InputError: the address or the protocol is none.
    """

    def __init__(
        self,
        server: Any,
        protocol: str | None = None,
        *,
        timeout_s: float = settings.REQUEST_TIMEOUT_S,
        retries: int = settings.RETRIES,
    ) -> None:
        self._connection = Connection(server, protocol, timeout_s, retries)
        self.server = self._connection.server
        self.protocol = self._connection.protocol
        self.address = self._connection.address
        self.access = self._connection.access
        self.timeout_s = timeout_s
        self.retries = retries
        self._pool: ThreadPoolExecutor | None = None
        self._pool_lock = threading.Lock()
        self._arenas = Arenas(self._connection.transport, self._connection.admin_headers)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({str(self.address)!r}, protocol={self.protocol!r})"

    def close(self) -> None:
        """Wait for requests under way, give shared memory back and close the connection."""
        with self._pool_lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown()
        self._arenas.close()
        self._connection.close()

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Any] | None = None,
        *,
        outputs: Iterable[str] | str | None = None,
        classes: int = 0,
        version: str | int = "",
        shared_memory: bool = False,
        **arrays: Any,
    ) -> Result:
        """Send one request, or several when the batch is larger than the model allows, and wait for the answer.

        Args:
            model: name of the model.
            inputs: arrays by input name; they may be given as keywords instead.
            outputs: the outputs to return; all of them by default.
            classes: return the so many best classes, with the model's labels, in place of each output tensor.
            version: version of the model; without it the server chooses, as a rule the highest.
            shared_memory: pass the tensors by system shared memory. Server and client must be on one machine, and the
                client must have been made from the Server object that launched the server.
            arrays: inputs as keywords.

        Returns:
            The outputs by name; with ``classes``, lists of :class:`Class`, one list for each entry of the batch.

        Raises:
            InputError: the inputs do not fit the model, or shared memory cannot be had; nothing was computed.
            ModelError: the model is not loaded; the message names those that are.
            RequestError: the server refused or failed, could not be reached, or took too long.
        """
        if inputs is not None and arrays:
            raise InputError("Inputs were given twice.", "Expected a dictionary or keywords.", "Type: client.infer(model, {...})")
        send = self._send_shared if shared_memory else self._send
        return self._infer(model, arrays if inputs is None else inputs, outputs, classes, str(version), send)

    def infer_async(self, model: str, inputs: Mapping[str, Any] | None = None, **options: Any) -> Future[Result]:
        """Like :meth:`infer`, but return at once with a future: ``future.result()`` waits for the answer and gives it.

        At most ``settings.MAX_IN_FLIGHT`` requests are under way at once, later ones wait for their turn. Inputs are copied, so
        they may be changed at once.
        """
        if inputs is not None:
            inputs = _owned(inputs)
        return self._executor().submit(self.infer, model, inputs, **_owned(options))

    def infer_many(
        self,
        model: str,
        many: Iterable[Mapping[str, Any]],
        *,
        max_in_flight: int = settings.MAX_IN_FLIGHT,
        errors: str = "raise",
        **options: Any,
    ) -> list[Any]:
        """Send many requests with a bounded number under way at once.

        Args:
            model: name of the model.
            many: the inputs of each request; taken one by one as there is room and copied, so it may be a generator that fills one
                array again and again.
            max_in_flight: how many requests may be under way at once.
            errors: ``raise`` stops sending at the first error and raises it when the requests under way are done, with
                all that came back in its attribute ``results``; ``return`` goes on and puts each error in its place.
            options: as for :meth:`infer`.

        Returns:
            One result for each request, in the order of the requests.
        """
        return send_many(lambda inputs: self.infer(model, inputs, **options), map(_owned, many), max_in_flight, errors)

    def metadata(self, model: str, version: str | int = "") -> dict[str, Any]:
        """Names, dtypes and shapes of a model's tensors, as the server reports them now."""
        return self._connection.ask(lambda: self._connection.transport.metadata(model, str(version)), model)

    def config(self, model: str, version: str | int = "") -> dict[str, Any]:
        """A model's config with everything that the server filled in, as it is now; fields that nobody set are left out."""
        return self._connection.ask(lambda: self._connection.transport.config(model, str(version)), model)

    def labels(self, model: str, output: str | None = None) -> list[str]:
        """The class labels of a model's output, in the order of its classes.

        They come from the label file where the server's repository is at hand, else from the server's own answer to a
        request with made-up inputs.

        Raises:
            InputError: the model has no labels, or no such output.
        """
        signature = self._connection.signature(model, "", fresh=True)
        name = signature.check_outputs(output)[0] if output else next(iter(signature.label_files), "")
        if name not in signature.label_files:
            raise InputError(
                f"The model {model!r} has no labels{f' for {name!r}' if name else ''}.",
                "Expected label_filename in the output's entry of its config.pbtxt.",
            )
        shape = signature.outputs[name].shape[1:] if signature.batched else signature.outputs[name].shape
        labels = label_file(getattr(self._connection.server, "repository", None), model, signature.label_files[name])
        if labels is not None:
            count = len(labels) if min(shape, default=1) < 0 else int(np.prod(shape))
            return [label or str(index) for index, label in enumerate([*labels, *[""] * count][:count])]
        answer = self.infer(model, signature.example(), outputs=name, classes=max(int(np.prod(np.abs(shape))), 1))[name]
        ranked = answer[0] if signature.batched else answer
        return [entry.label or str(entry.index) for entry in sorted(ranked, key=lambda entry: entry.index)]

    def example(self, model: str, batch: int = 1) -> dict[str, np.ndarray]:
        """Made-up inputs that fit a model: normal numbers, ones for masks, the same each time."""
        return self._connection.signature(model, "").example(batch)

    def _infer(self, model: str, inputs: Any, outputs: Any, classes: int, version: str, send: Any) -> Result:
        known = self._connection.known(model, version)
        signature = self._connection.signature(model, version)
        try:
            return self._checked(signature, inputs, outputs, classes, version, send)
        except CourseError as error:
            # A model that was reloaded may have another signature since: believe only a fresh one.
            refused = isinstance(error.__cause__, Refused) and error.__cause__.reason == "inputs"
            if not known or not (refused or isinstance(error, InputError)):
                raise
            fresh = self._connection.signature(model, version, fresh=True)
            if fresh == signature:
                raise
        return self._checked(fresh, inputs, outputs, classes, version, send)

    def _checked(self, signature: Signature, inputs: Any, outputs: Any, classes: int, version: str, send: Any) -> Result:
        arrays = signature.check(inputs)
        names = signature.check_outputs(outputs)
        if not isinstance(classes, int) or classes < 0:
            raise InputError(f"classes={classes!r} was given.", "Expected how many of the best classes to return, or 0 for the tensors.")
        if classes:
            signature.check_classes(names)
        parts = []
        for piece in split(arrays, signature.max_batch_size):
            signature.check_size(piece)
            typed = {name: (array, signature.inputs[name].datatype) for name, array in piece.items()}
            request = Request(signature.model, version, typed, names, classes)
            parts.append(self._connection.ask(partial(send, signature, request), signature.model))
        joined = {name: answers.join(signature.model, name, [part[name] for part, _ in parts]) for name in names}
        return Result(joined, signature.model, parts[-1][1], len(parts))

    def _send(self, signature: Signature, request: Request) -> tuple[dict[str, Any], str]:
        answer = self._connection.transport.infer(request)
        return {name: answers.output(answer, name, request.classes) for name in request.outputs}, answers.version(answer)

    def _send_shared(self, signature: Signature, request: Request) -> tuple[dict[str, Any], str]:
        with self._arenas.borrow() as arena:
            # Classes come as strings of unknown length, so they travel with the answer, as do outputs whose size nobody knows.
            sizes = {} if request.classes else signature.output_sizes(request.outputs, request.inputs)
            placed = replace(request, places=arena.place(request.inputs, sizes))
            answer = self._connection.transport.infer(placed)
            outputs = {}
            for name in request.outputs:
                if name in placed.places:
                    shape, datatype = answers.shape_and_datatype(answer, name)
                    outputs[name] = arena.read(placed.places[name], shape, datatype)
                else:
                    outputs[name] = answers.output(answer, name, request.classes)
            return outputs, answers.version(answer)

    def _executor(self) -> ThreadPoolExecutor:
        with self._pool_lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(settings.MAX_IN_FLIGHT, thread_name_prefix="course-client")
            return self._pool


def _owned(inputs: Any) -> Any:
    """Return inputs that share no memory with these; what is no dictionary is refused when it is checked."""
    return {name: own(value) for name, value in inputs.items()} if isinstance(inputs, Mapping) else inputs
