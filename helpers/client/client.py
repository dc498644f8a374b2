"""Send inference requests: inputs are checked first, large batches are split, a dropped connection is tried again.

Typical use::

    from helpers import Client
    with Client(server) as client:                      # or Client("localhost:9001")
        result = client.infer("add_sub", INPUT0=x, INPUT1=y)
        result["OUTPUT0"]
"""

from __future__ import annotations

import os
import threading
import time
import uuid
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import tritonclient.utils.shared_memory as shm
from tritonclient.utils import serialize_byte_tensor, triton_to_np_dtype

from helpers.client.endpoint import NO_ACCESS, Access, Address, where, with_own_secret
from helpers.client.grpc import Grpc
from helpers.client.http import Http
from helpers.client.problems import Circumstances, Refused, TransportError, Unreachable
from helpers.client.problems import explain as explain_known
from helpers.client.tensors import Place, Request, Signature, own, split
from helpers.errors import CourseError, InputError, RequestError, quoted

# How often a request is sent again when the connection was refused or dropped before an answer came. Refused inputs are never repeated.
RETRIES = 2

# Requests under way at once in asynchronous sending: enough to keep two model instances and their queue busy.
MAX_IN_FLIGHT = 8

# Seconds before the first repetition; doubled each time.
RETRY_WAIT_S = 0.2

# Seconds that one inference request may take. The first request of a new shape compiles in PyTorch and takes seconds.
REQUEST_TIMEOUT_S = 60.0

T = TypeVar("T")

# Bytes to which each tensor's place in shared memory is aligned: one cache line, so that vector instructions read it at full speed.
_ALIGNMENT = 64
# Regions are named by this, the process that made them, and a random part.
_PREFIX = "course-tensors-"
# Seconds for a look around after a failure: it makes the message better and must not make it late.
_LOOK_TIMEOUT_S = 1.0


class Class(NamedTuple):
    """One class in the answer to a request with ``classes=k``.

    Attributes:
        score: the value of the output tensor for this class.
        index: its position in the output tensor.
        label: its name in the label file; empty when the model has none.
    """

    score: float
    index: int
    label: str


class Result(dict):
    """The outputs of one request by name: arrays, or lists of :class:`Class` where classes were asked for.

    Attributes:
        model: name of the model that answered.
        version: its version.
        requests: how many requests it took; more than one when the batch was split.
    """

    def __init__(self, outputs: Mapping[str, Any], model: str, version: str, requests: int) -> None:
        super().__init__(outputs)
        self.model = model
        self.version = version
        self.requests = requests


class Connection:
    """A way to one server that several threads may use.

    Args:
        server: a Server, or an address.
        protocol: ``grpc``, ``http`` or None, see :func:`where`.
        timeout_s: seconds that one inference request may take.
        retries: how often to send again when the connection was refused or dropped before an answer came.

    Attributes:
        server: the Server, None when only an address was given.
        protocol: ``grpc`` or ``http``.
        address: of the port for this protocol.
        access: token, and which certificates are trusted.
        transport: the way there.
    """

    def __init__(self, server: Any, protocol: str | None, timeout_s: float, retries: int) -> None:
        if retries < 0 or timeout_s <= 0:
            raise InputError(f"timeout_s={timeout_s}, retries={retries} was given.", "Expected seconds above 0, and 0 or more repetitions.")
        self.server = None if isinstance(server, str) else server
        self.protocol, self.address = where(server, protocol)
        self.timeout_s, self.retries = timeout_s, retries
        self.access: Access = with_own_secret(NO_ACCESS, self.address) if isinstance(server, str) else getattr(server, "access", NO_ACCESS)
        self.transport = (Grpc if self.protocol == "grpc" else Http)(self.address, timeout_s, self.access)
        self._signatures: dict[tuple[str, str], Signature] = {}
        self._closed = False

    def close(self) -> None:
        """Close the connection."""
        self._closed = True
        self.transport.close()

    def ask(self, question: Callable[[], T], model: str) -> T:
        """Call a function that asks the server, again when the connection was lost, and explain a failure.

        Raises:
            InputError: the connection was closed.
            ModelError: the model is not loaded.
            RequestError: anything else that kept the answer from coming.
        """
        if self._closed:
            raise InputError("This client is closed.", "Expected one that is open.", "Type: client = Client(server)")
        attempt = 0
        while True:
            try:
                return question()
            except TransportError as error:
                if not isinstance(error, Unreachable) or attempt >= self.retries:
                    raise explain(error, model, self.address, self.protocol, self.server, self.access) from error
            time.sleep(RETRY_WAIT_S * 2**attempt)
            attempt += 1

    def known(self, model: str, version: str) -> bool:
        """True if the model's signature is remembered, so that it may be out of date."""
        return (model, version) in self._signatures

    def signature(self, model: str, version: str = "", fresh: bool = False) -> Signature:
        """Return a model's signature, remembered from the last time unless it is to be fresh."""
        if not isinstance(model, str) or not model:
            raise InputError(f"{model!r} is no name of a model.", "Expected text.", 'Type for example: client.infer("add_sub", …)')
        if fresh or not self.known(model, version):
            metadata = self.ask(lambda: self.transport.metadata(model, version), model)
            self._signatures[model, version] = Signature.from_server(metadata, self.ask(lambda: self._config(model, version), model))
        return self._signatures[model, version]

    def admin_headers(self) -> Mapping[str, str]:
        """Return the header with the administration key, where we have the server's owner."""
        headers = getattr(self.server, "admin_headers", None)
        return headers(self.protocol) if headers is not None else {}

    def _config(self, model: str, version: str) -> dict[str, Any] | None:
        try:
            return self.transport.config(model, version)
        except Refused:
            # Servers of other makes speak the protocol without this extension; then nobody knows the largest batch.
            return None


class Client(Connection):
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
        timeout_s: float = REQUEST_TIMEOUT_S,
        retries: int = RETRIES,
    ) -> None:
        super().__init__(server, protocol, timeout_s, retries)
        self._pool: ThreadPoolExecutor | None = None
        self._pool_lock = threading.Lock()
        self._regions: list[_Region] = []

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
        while self._regions:
            self._regions.pop().close()
        super().close()

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

        At most ``MAX_IN_FLIGHT`` requests are under way at once, later ones wait for their turn. Inputs are copied, so
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
        max_in_flight: int = MAX_IN_FLIGHT,
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
        return self.ask(lambda: self.transport.metadata(model, str(version)), model)

    def config(self, model: str, version: str | int = "") -> dict[str, Any]:
        """A model's config with everything that the server filled in, as it is now; fields that nobody set are left out."""
        return self.ask(lambda: self.transport.config(model, str(version)), model)

    def labels(self, model: str, output: str | None = None) -> list[str]:
        """The class labels of a model's output, in the order of its classes.

        They come from the label file where the server's repository is at hand, else from the server's own answer to a
        request with made-up inputs.

        Raises:
            InputError: the model has no labels, or no such output.
        """
        signature = self.signature(model, "", fresh=True)
        name = signature.check_outputs(output)[0] if output else next(iter(signature.label_files), "")
        if name not in signature.label_files:
            raise InputError(
                f"The model {model!r} has no labels{f' for {name!r}' if name else ''}.",
                "Expected label_filename in the output's entry of its config.pbtxt.",
            )
        shape = signature.outputs[name].shape[1:] if signature.batched else signature.outputs[name].shape
        labels = _label_file(getattr(self.server, "repository", None), model, signature.label_files[name])
        if labels is not None:
            count = len(labels) if min(shape, default=1) < 0 else int(np.prod(shape))
            return [label or str(index) for index, label in enumerate([*labels, *[""] * count][:count])]
        answer = self.infer(model, signature.example(), outputs=name, classes=max(int(np.prod(np.abs(shape))), 1))[name]
        ranked = answer[0] if signature.batched else answer
        return [entry.label or str(entry.index) for entry in sorted(ranked, key=lambda entry: entry.index)]

    def example(self, model: str, batch: int = 1) -> dict[str, np.ndarray]:
        """Made-up inputs that fit a model: normal numbers, ones for masks, the same each time."""
        return self.signature(model, "").example(batch)

    def _infer(self, model: str, inputs: Any, outputs: Any, classes: int, version: str, send: Any) -> Result:
        known = self.known(model, version)
        signature = self.signature(model, version)
        try:
            return self._checked(signature, inputs, outputs, classes, version, send)
        except CourseError as error:
            # A model that was reloaded may have another signature since: believe only a fresh one.
            refused = isinstance(error.__cause__, Refused) and error.__cause__.reason == "inputs"
            if not known or not (refused or isinstance(error, InputError)):
                raise
            fresh = self.signature(model, version, fresh=True)
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
            parts.append(self.ask(partial(send, signature, request), signature.model))
        joined = {name: join(signature.model, name, [part[name] for part, _ in parts]) for name in names}
        return Result(joined, signature.model, parts[-1][1], len(parts))

    def _send(self, signature: Signature, request: Request) -> tuple[dict[str, Any], str]:
        answer = self.transport.infer(request)
        return {name: _output(answer, name, request.classes) for name in request.outputs}, _version(answer)

    def _send_shared(self, signature: Signature, request: Request) -> tuple[dict[str, Any], str]:
        # Classes come as strings of unknown length, so they travel with the answer, as do outputs whose size nobody knows.
        known = {} if request.classes else signature.output_sizes(request.outputs, request.inputs)
        packed = {name: serialize_byte_tensor(array) if kind == "BYTES" else array for name, (array, kind) in request.inputs.items()}
        sizes = {name: len(array.item()) if array.dtype == object and array.size else array.nbytes for name, array in packed.items()}
        offsets, end = {}, 0
        for name, size in {**sizes, **known}.items():
            if size:  # Triton maps no tensor without bytes: such a one travels with the request
                offsets[name] = end
                end += -(-size // _ALIGNMENT) * _ALIGNMENT
        region = self._region(max(end, 1))
        try:
            places = {name: Place(region.name, {**sizes, **known}[name], offset) for name, offset in offsets.items()}
            for name, array in packed.items():
                if name in places:
                    shm.set_shared_memory_region(region.handle, [array], offsets[name])
            answer = self.transport.infer(replace(request, places=places))
            outputs = {}
            for name in request.outputs:
                if name in places:
                    shape, kind = _shape_and_datatype(answer, name)
                    outputs[name] = shm.get_contents_as_numpy(region.handle, triton_to_np_dtype(kind), shape, offsets[name]).copy()
                else:
                    outputs[name] = _output(answer, name, request.classes)
        except BaseException:
            # The server may be another one by now.
            region.close()
            raise
        self._regions.append(region)
        return outputs, _version(answer)

    def _region(self, byte_size: int) -> _Region:
        """Return a region that no other request uses, as large as this; those of earlier requests are used again."""
        with suppress(IndexError):
            region = self._regions.pop()
            if region.byte_size >= byte_size:
                return region
            region.close()
        return _Region(self.transport, byte_size, self.admin_headers())

    def _executor(self) -> ThreadPoolExecutor:
        with self._pool_lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(MAX_IN_FLIGHT, thread_name_prefix="course-client")
            return self._pool


def explain(
    error: TransportError, model: str, address: Address, protocol: str, server: Any = None, access: Access | None = None
) -> CourseError:
    """Return the error to raise for a request to a model that failed, after a look at the server.

    Args:
        error: how it failed.
        model: the model that was asked.
        address: where.
        protocol: ``grpc`` or ``http``.
        server: the Server object, where there is one.
        access: token and trusted certificates; by default the server's.
    """
    access = access or getattr(server, "access", NO_ACCESS)
    owned = getattr(server, "owned", False)
    known = Circumstances(owned=owned)
    if isinstance(error, Refused) and error.reason == "unknown":
        states = []
        with suppress(CourseError, AttributeError):  # an address has no models
            states = server.models()
        loaded = {state.name for state in states if state.state == "READY"} if states else _loaded(address, protocol, access)
        reason = next((state.reason for state in states if state.name == model and state.state != "READY"), "")
        known = Circumstances(owned=owned, loaded=None if loaded is None else sorted(loaded), reason=reason)
    elif not isinstance(error, Refused):
        ended, todo = server.how_it_ended() if owned else ("", "")
        known = Circumstances(ended, todo, owned, speaks_http=not ended and protocol == "grpc" and _speaks_http(error, address))
    return explain_known(error, model, address, protocol, access, known)


def _speaks_http(error: TransportError, address: Address) -> bool:
    if address.secure or not isinstance(error, Unreachable):
        return False
    # Without the token: nobody knows who listens there.
    with closing(Http(address, _LOOK_TIMEOUT_S)) as way:
        try:
            way.ask("/v2/health/live", timeout_s=_LOOK_TIMEOUT_S)
        except Refused as refusal:
            return refusal.reason != "protocol"
        except TransportError:
            return False
    return True


def _loaded(address: Address, protocol: str, access: Access) -> set[str] | None:
    """Return the names of the models that are loaded, as the statistics list them; None where the server has none of them.

    Not from the metrics: their page also has the models that failed while they were loaded.
    """
    with closing((Grpc if protocol == "grpc" else Http)(address, access=access)) as way, suppress(TransportError):
        return {counters["name"] for counters in way.statistics()}
    return None


def send_many(send: Callable[[Any], Any], many: Iterable[Any], max_in_flight: int, errors: str) -> list[Any]:
    """Call ``send`` for each item.

    Args:
        send: sends one request and waits for its answer.
        many: the items; the next one is taken only when there is room for it.
        max_in_flight: how many calls may be under way at once.
        errors: ``raise`` or ``return``.

    Returns:
        The answers in the order of the items; with ``errors="return"`` an error stands in the place of its answer.

    Raises:
        CourseError: the first error; its attribute ``results`` holds what came back by then, with errors in their places.
    """
    _check(max_in_flight, errors)
    results: list[Any] = []
    failed: int | None = None
    under_way: deque[Future[Any]] = deque()

    def collect() -> None:
        nonlocal failed
        answer = under_way.popleft()
        error = answer.exception()
        if error is not None and not isinstance(error, CourseError):
            raise error
        failed = len(results) if error is not None and failed is None else failed
        results.append(error if error is not None else answer.result())

    pool = ThreadPoolExecutor(max_in_flight, thread_name_prefix="course-many")
    try:
        for item in many:
            under_way.append(pool.submit(send, item))
            while len(under_way) >= max_in_flight or (under_way and under_way[0].done()):
                collect()
            if errors == "raise" and failed is not None:
                break
        while under_way:
            collect()
    finally:
        # After "interrupt kernel" nobody waits for the requests that are still under way.
        pool.shutdown(wait=False, cancel_futures=True)
    if errors == "raise" and failed is not None:
        raise _numbered(results[failed], failed, results)
    return results


def _check(max_in_flight: int, errors: str) -> None:
    if not isinstance(max_in_flight, int) or max_in_flight < 1:
        raise InputError(f"max_in_flight={max_in_flight!r} was given.", "Expected a number of requests, 1 or more.")
    if errors not in ("raise", "return"):
        raise InputError(f"errors={errors!r} was given.", "Expected 'raise' or 'return'.")


def _numbered(error: CourseError, number: int, results: list[Any]) -> CourseError:
    others = sum(isinstance(result, CourseError) for result in results) - 1
    also = f" So did {others} of those under way with it." if others else ""
    numbered = type(error)(f"Request number {number} (counted from 0) failed.{also} {error.happened}", error.expected, error.todo)
    numbered.results = results
    numbered.__cause__ = error.__cause__
    return numbered


def _owned(inputs: Any) -> Any:
    """Return inputs that share no memory with these; what is no dictionary is refused when it is checked."""
    return {name: own(value) for name, value in inputs.items()} if isinstance(inputs, Mapping) else inputs


def _output(answer: Any, name: str, classes: int) -> Any:
    """Return one output of tritonclient's result: an array that may be changed, or classes where they were asked for."""
    array = answer.as_numpy(name)
    if array is None:
        raise Refused(f"the answer holds no output {name!r}", "failed")
    if classes:
        return _parse_classes(array)
    # Decoded arrays are views of the answer and read-only.
    return array if array.flags.writeable else array.copy()


def _version(answer: Any) -> str:
    """Return the version of the model that answered."""
    response = answer.get_response()
    return response.get("model_version", "") if isinstance(response, dict) else response.model_version


def _shape_and_datatype(answer: Any, name: str) -> tuple[tuple[int, ...], str]:
    """Return what an answer says of an output that lies in shared memory."""
    entry = answer.get_output(name)
    if isinstance(entry, dict):
        return tuple(entry["shape"]), entry["datatype"]
    return tuple(entry.shape), entry.datatype


def join(model: str, name: str, parts: list[Any]) -> Any:
    """Put an output of a batch that was sent in parts together again.

    Raises:
        RequestError: its parts have no common batch axis.
    """
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], list):
        return [entry for part in parts for entry in part]
    try:
        return np.concatenate(parts)
    except ValueError as error:
        raise RequestError(
            f"The output {name!r} of {model!r} has shapes {quoted(str(part.shape) for part in parts)} for the parts of the batch.",
            "Expected shapes that differ in the batch only, so that they can be joined.",
            "Send batches that the model takes at once.",
        ) from error


def _parse_classes(answer: np.ndarray) -> list[Any]:
    """Read ``score:index:label`` strings, best class first: a list of :class:`Class`, or one for each entry of the batch."""
    if answer.ndim > 1:
        return [_parse_classes(entry) for entry in answer]
    classes = []
    for item in answer:
        score, index, *label = item.decode("utf-8", "replace").split(":", 2)
        classes.append(Class(float(score), int(index), _clean(label[0]) if label else ""))
    return classes


def _label_file(repository: Any, model: str, name: str) -> list[str] | None:
    """Return the lines of a model's label file, one for each class and blank ones too, or None when the repository is not at hand."""
    if repository is None:
        return None
    path = Path(repository) / model / name
    if not path.is_file():
        return None
    # As Triton reads it: nothing but a line feed ends a line.
    return [_clean(line) for line in path.read_bytes().decode("utf-8", "replace").removesuffix("\n").split("\n")]


def _clean(label: str) -> str:
    """Return a label without what editors leave around it: blanks, carriage returns, a byte order mark."""
    return label.removeprefix("\ufeff").strip()


class _Region:
    """One region of system shared memory, registered with the server while the object is open.

    Raises:
        InputError: there is no room in shared memory, or the server does not let us register.
        TransportError: the server did not answer.
    """

    def __init__(self, transport: Any, byte_size: int, headers: Mapping[str, str]) -> None:
        self.name = f"{_PREFIX}{os.getpid()}-{uuid.uuid4().hex[:12]}"
        self.byte_size = byte_size
        self.handle = _allocate(self.name, byte_size)
        try:
            # Regions of processes that were killed: nothing else makes the server forget them, and their memory is held until then.
            for name in transport.regions(headers):
                owner = name.removeprefix(_PREFIX).partition("-")[0] if name.startswith(_PREFIX) else ""
                if owner.isdecimal() and not Path(f"/proc/{owner}").exists():
                    with suppress(Refused):  # another client was faster
                        transport.unregister(name, headers)
            transport.register(self.name, f"/{self.name}", byte_size, headers)
        except BaseException as error:
            shm.destroy_shared_memory_region(self.handle)
            if isinstance(error, Refused):
                raise _region_refused(error) from error
            raise
        # Runs at close(), when the region is forgotten, and when Python ends.
        self._finalizer = weakref.finalize(self, _release, transport, self.name, dict(headers), self.handle)

    def close(self) -> None:
        """Let the server forget the region and give the memory back. A second call does nothing."""
        self._finalizer()


def _allocate(name: str, byte_size: int) -> Any:
    folder = Path("/dev/shm")
    if not folder.is_dir():
        raise InputError(
            "This machine has no /dev/shm.",
            "System shared memory needs Linux, and client and server on one machine.",
            "Leave out shared_memory=True; then the tensors travel over the network.",
        )
    handle = None
    try:
        handle = shm.create_shared_memory_region(name, name, byte_size, create_only=True)
        # Take the room now: a memory that is full would otherwise show as a crash at the first write.
        with open(folder / name, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, byte_size)
    except (OSError, shm.SharedMemoryException) as error:
        if handle is not None:
            shm.destroy_shared_memory_region(handle)
        reason = error.__cause__ or error
        raise InputError(
            f"A shared-memory region of {byte_size / 1e6:.1f} MB cannot be made: {getattr(reason, 'strerror', None) or reason}.",
            "It needs that much room in /dev/shm.",
            "Look with: df -h /dev/shm. Send smaller batches, or leave out shared_memory=True.",
        ) from error
    return handle


def _release(transport: Any, name: str, headers: Mapping[str, str], handle: Any) -> None:
    # When the server does not answer any more, or is another one by now, its mapping went with it.
    with suppress(TransportError):
        transport.unregister(name, headers)
    shm.destroy_shared_memory_region(handle)


def _region_refused(error: Refused) -> InputError:
    if error.reason == "restricted":
        return InputError(
            "This server does not let us register shared memory: that needs the administration key.",
            "Only the Server object that launched the server has it; a URL or connect() has not.",
            "Give the client that object, Client(server), or leave out shared_memory=True.",
        )
    return InputError(
        f"The server cannot open our shared memory: {error}.",
        "Client and server must run on one machine and see the same /dev/shm; a container needs --ipc=host for that.",
        "Leave out shared_memory=True; then the tensors travel over the network.",
    )
