"""The way to a server over gRPC, by ``tritonclient``: one channel, which all threads share."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

# gRPC's library writes each failed handshake to standard error, beside the error that says the same in words.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

import tritonclient.grpc as triton_grpc
from google.protobuf.message import Message
from tritonclient.utils import InferenceServerException

from helpers.client.endpoint import NO_ACCESS, QUERY_TIMEOUT_S, Access, Address
from helpers.client.problems import LOST_BEHIND, NOT_READY, Refused, TimedOut, TransportError, Unreachable, without_id
from helpers.client.tensors import Request

# How gRPC words a connection that failed; Triton's own UNAVAILABLE, such as a full queue, reads otherwise and is an answer.
_LOST = re.compile(
    r"failed to connect|connections to all backends|socket closed|connection (reset|refused)|broken pipe|goaway|stream removed|recvmsg"
    r"|endpoint clos|resolv|name resolution|handshak|transport|end of file|rst_stream|channel closed|keepalive",
    re.IGNORECASE,
)
# Under UNKNOWN and INTERNAL a model's own error arrives as well, so only what a model would hardly say counts.
_CUT = re.compile(r"stream removed|rst_stream", re.IGNORECASE)
_REASONS = {"INVALID_ARGUMENT": "inputs", "NOT_FOUND": "unknown", "PERMISSION_DENIED": "restricted", "UNAUTHENTICATED": "restricted"}
_OPTIONS = [
    # Tensors are larger than gRPC's own limit of 4 MB.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # gRPC waits ever longer, up to two minutes, before it tries a dead address again, and lets all channels of a process
    # wait together. In a notebook the server is back a second after its restart, so each channel starts afresh.
    ("grpc.use_local_subchannel_pool", 1),
    # A proxy of the site would look for "localhost" on its own machine.
    ("grpc.enable_http_proxy", 0),
]


class Grpc:
    """A channel to a server; ``timeout_s`` is for one inference request."""

    protocol = "grpc"

    def __init__(self, address: Address, timeout_s: float = QUERY_TIMEOUT_S, access: Access = NO_ACCESS) -> None:
        self.address, self.access, self._timeout_s = address, access, timeout_s
        self._headers = access.grpc_headers()
        self._client = self._connect()

    def is_live(self) -> bool:
        """True if the server answers and says that it lives."""
        return bool(self._call("is_server_live"))

    def is_ready(self) -> bool:
        """True if the server says that all its models are READY."""
        return bool(self._call("is_server_ready"))

    def about(self) -> dict[str, Any]:
        """Return the server's own name, version and extensions."""
        return as_dict(self._call("get_server_metadata"))

    def metadata(self, model: str, version: str = "") -> dict[str, Any]:
        """Return names, types and shapes of a model's inputs and outputs."""
        return as_dict(self._call("get_model_metadata", model, version))

    def config(self, model: str, version: str = "") -> dict[str, Any]:
        """Return a model's config with everything that the server filled in, and the fields that nobody set, as over HTTP."""
        return as_dict(self._call("get_model_config", model, version).config, zeros=True)

    def statistics(self, model: str = "") -> list[dict[str, Any]]:
        """Return the counters of a model's versions, or of all models that are loaded; those that are zero too, as over HTTP."""
        return list(as_dict(self._call("get_inference_statistics", model), zeros=True)["model_stats"])

    def infer(self, request: Request) -> Any:
        """Send one request and return tritonclient's result."""
        inputs, outputs = request.encode(triton_grpc)
        return self._call("infer", request.model, inputs, request.version, outputs, timeout_s=self._timeout_s)

    def close(self) -> None:
        """Close the channel."""
        self._client.close()

    def _connect(self) -> triton_grpc.InferenceServerClient:
        return triton_grpc.InferenceServerClient(
            str(self.address.dialled), ssl=self.address.secure, root_certificates=self.access.ca or None, channel_args=_OPTIONS
        )

    def _call(self, method: str, *arguments: Any, timeout_s: float = QUERY_TIMEOUT_S) -> Any:
        client = self._client
        try:
            return getattr(client, method)(*arguments, headers=self._headers or None, client_timeout=timeout_s)
        except InferenceServerException as error:
            failure = _failure(error)
            if isinstance(failure, Unreachable) and client is self._client:
                # The old channel closes itself when the last request on it has ended.
                self._client = self._connect()
            raise failure from error


def _failure(error: InferenceServerException) -> TransportError:
    status = (error.status() or "").removeprefix("StatusCode.")
    message = without_id(error.message() or status)
    # The reason at the end of a chain of reasons is the one that says something.
    last = re.sub(r"^(UNKNOWN|UNAVAILABLE): ", "", message.rsplit("last error: ", 1)[-1])
    if status == "DEADLINE_EXCEEDED":
        return TimedOut("no answer in time")
    if "Trying to connect an http1.x server" in message:
        return Refused("it speaks HTTP, not gRPC", "protocol")
    if status == "UNAVAILABLE" and LOST_BEHIND.search(message):
        return Unreachable(message)
    if (status in ("UNAVAILABLE", "CANCELLED") and _LOST.search(message)) or (status in ("UNKNOWN", "INTERNAL") and _CUT.search(message)):
        return Unreachable(last)
    if NOT_READY in message:
        return Refused(message, "unknown")
    return Refused(message, "restricted" if "protocol is restricted" in message else _REASONS.get(status, "failed"))


def as_dict(message: Message, zeros: bool = False) -> dict[str, Any]:
    """Return a protobuf message as a dictionary of the fields that are set, or with ``zeros`` of all; enumerations by name."""
    found = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if message.HasField(field.name) if field.has_presence else value or zeros:
            found[field.name] = _plain(value, field, zeros)
    return found


def _plain(value: Any, field: Any, zeros: bool) -> Any:
    # Not by protobuf's own JSON, which writes 64-bit integers as strings.
    if isinstance(value, Message):
        return as_dict(value, zeros)
    if isinstance(value, Mapping):
        return {str(key): _plain(value[key], field.message_type.fields_by_name["value"], zeros) for key in value}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(item, field, zeros) for item in value]
    return field.enum_type.values_by_number[value].name if field.enum_type else value
