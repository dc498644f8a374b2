"""The way to a server over gRPC, by ``tritonclient``: one channel, which all threads share."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

# gRPC's library writes each failed handshake to standard error, beside the error that says the same in words.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

import tritonclient.grpc as triton_grpc
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from tritonclient.grpc.model_config_pb2 import ModelConfig
from tritonclient.utils import InferenceServerException

from helpers.client.endpoint import NO_ACCESS, QUERY_TIMEOUT_S, Access, Address
from helpers.client.problems import LOST_BEHIND, Refused, TimedOut, TransportError, Unreachable, is_not_ready, without_id
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
_INT64 = {getattr(FieldDescriptor, f"TYPE_{kind}") for kind in ("INT64", "UINT64", "SINT64", "FIXED64", "SFIXED64")}
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
        self._timeout_s = timeout_s
        self.address = address
        self.access = access
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
        counters: list[dict[str, Any]] = as_dict(self._call("get_inference_statistics", model), zeros=True)["model_stats"]
        return counters

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
    if is_not_ready(message):
        return Refused(message, "unknown")
    return Refused(message, "restricted" if "protocol is restricted" in message else _REASONS.get(status, "failed"))


def as_dict(message: Message, zeros: bool = False) -> dict[str, Any]:
    """Return a protobuf message as a dictionary of the fields that are set, or with ``zeros`` of all; enumerations by name."""
    fields = json_format.MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=zeros)
    return _with_numbers(fields, message.DESCRIPTOR)


def without_unset(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's config as either protocol gives it, without the fields that nobody set: the same for both."""
    return as_dict(json_format.ParseDict(dict(config), ModelConfig(), ignore_unknown_fields=True))


def _with_numbers(fields: dict[str, Any], message: Any) -> dict[str, Any]:
    # JSON for protobuf writes 64-bit integers as strings, because JavaScript's numbers are too short for them.
    def convert(value: Any, field: Any) -> Any:
        if isinstance(value, list):
            return [convert(item, field) for item in value]
        if field.message_type is None:
            return int(value) if field.type in _INT64 else value
        if field.message_type.GetOptions().map_entry:
            return {key: convert(item, field.message_type.fields_by_name["value"]) for key, item in value.items()}
        return _with_numbers(value, field.message_type) if isinstance(value, dict) else value

    return {name: convert(value, message.fields_by_name[name]) for name, value in fields.items()}
