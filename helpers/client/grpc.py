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

from helpers.client.endpoint import NO_ACCESS, QUERY_TIMEOUT_S, RELOAD_MARK, Access, Address
from helpers.client.problems import NOT_READY, Refused, TimedOut, TransportError, Unreachable, without_id
from helpers.client.tensors import Array, encode

# Triton's own UNAVAILABLE, such as a full queue, is an answer; every other one says that the connection was lost, or the server behind it.
_TRITONS = re.compile(rf"\[request id: |unknown model|protocol is restricted|{NOT_READY}")
# Under UNKNOWN and INTERNAL a model's own error arrives as well, so only what a model would hardly say counts.
_CUT = re.compile(r"stream removed|rst_stream", re.IGNORECASE)
_REASONS = {"INVALID_ARGUMENT": "inputs", "NOT_FOUND": "unknown", "PERMISSION_DENIED": "restricted", "UNAUTHENTICATED": "restricted"}
_OPTIONS = [
    # Tensors are larger than gRPC's own limit of 4 MB.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Each channel tries a dead address again soon, not ever later and all of a process together: a restarted server is back in a second.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 200),
    # A proxy of the site would look for "localhost" on its own machine.
    ("grpc.enable_http_proxy", 0),
]


class Grpc:
    """A channel to a server; ``timeout_s`` is for one inference request."""

    def __init__(self, address: Address, timeout_s: float = QUERY_TIMEOUT_S, access: Access = NO_ACCESS) -> None:
        self.address, self.access, self._timeout_s = address, access, timeout_s
        self._headers = access.headers or None
        self._connect()

    def is_ready(self) -> bool:
        """True if the server says that all its models are READY."""
        return bool(self._call("is_server_ready"))

    def about(self) -> dict[str, Any]:
        """Return the server's own name, version and extensions."""
        return as_dict(self._call("get_server_metadata"))

    def metadata(self, model: str) -> dict[str, Any]:
        """Return names, types and shapes of a model's inputs and outputs."""
        return as_dict(self._call("get_model_metadata", model))

    def config(self, model: str) -> dict[str, Any]:
        """Return a model's config with everything that the server filled in."""
        config = as_dict(self._call("get_model_config", model).config)
        config["parameters"].pop(RELOAD_MARK, None)
        return config

    def statistics(self, model: str = "") -> list[dict[str, Any]]:
        """Return the counters of a model's versions, or of all models that are loaded."""
        return list(as_dict(self._call("get_inference_statistics", model))["model_stats"])

    def infer(self, model: str, version: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> Any:
        """Send one request and return tritonclient's result."""
        tensors, wanted = encode(triton_grpc, inputs, outputs)
        return self._call("infer", model, tensors, version, wanted, timeout_s=self._timeout_s)

    def close(self) -> None:
        """Close the channel; a later request opens another."""
        self._client.close()
        self._connect()

    def _connect(self) -> None:
        place, ca = self.address.dialled, self.access.ca or None
        self._client = triton_grpc.InferenceServerClient(str(place), ssl=place.secure, root_certificates=ca, channel_args=_OPTIONS)

    def _call(self, method: str, *arguments: Any, timeout_s: float = QUERY_TIMEOUT_S) -> Any:
        try:
            return getattr(self._client, method)(*arguments, headers=self._headers, client_timeout=timeout_s)
        except InferenceServerException as error:
            raise _failure(error) from error


def _failure(error: InferenceServerException) -> TransportError:
    status = (error.status() or "").removeprefix("StatusCode.")
    message = error.message() or status
    if status == "DEADLINE_EXCEEDED":
        return TimedOut("no answer in time")
    if "Trying to connect an http1.x server" in message:
        return Refused("it speaks HTTP, not gRPC", "protocol")
    lost = status in ("UNAVAILABLE", "CANCELLED") and not _TRITONS.search(message)
    if lost or (status in ("UNKNOWN", "INTERNAL") and _CUT.search(message)):
        # The reason at the end of a chain of reasons is the one that says something.
        return Unreachable(re.sub(r"^(UNKNOWN|UNAVAILABLE): ", "", message.rsplit("last error: ", 1)[-1]))
    if NOT_READY in message:
        return Refused(without_id(message), "unknown")
    return Refused(without_id(message), "restricted" if "protocol is restricted" in message else _REASONS.get(status, "failed"))


def as_dict(message: Message) -> dict[str, Any]:
    """Return a protobuf message as a dictionary, with the zeros of fields that nobody set, as over HTTP; enumerations by name."""
    fields = [field for field in message.DESCRIPTOR.fields if not field.has_presence or message.HasField(field.name)]
    return {field.name: _plain(getattr(message, field.name), field) for field in fields}


def _plain(value: Any, field: Any) -> Any:
    # Not by protobuf's own JSON, which writes 64-bit integers as strings.
    if isinstance(value, Message):
        return as_dict(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(value[key], field.message_type.fields_by_name["value"]) for key in value}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(item, field) for item in value]
    return field.enum_type.values_by_number[value].name if field.enum_type else value
