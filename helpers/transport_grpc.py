"""The way to a server over gRPC, by ``tritonclient``: one channel, which all threads share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from helpers import settings
from helpers.address import Address
from helpers.config_text import as_dict
from helpers.rest import is_loopback
from helpers.transport import Refused, Request, TimedOut, TransportError, Unreachable, without_id


class GrpcTransport:
    """A channel to a server."""

    protocol = "grpc"

    def __init__(self, address: Address, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        options = [
            # Tensors are larger than gRPC's own limit of 4 MB.
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
            # gRPC waits ever longer, up to two minutes, before it tries a dead address again, and shares that wait among
            # channels; in a notebook the server is back a second after its restart.
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 1000),
            ("grpc.max_reconnect_backoff_ms", 1000),
        ]
        if is_loopback(address.host):
            # A proxy of the site would look for "localhost" on its own machine.
            options.append(("grpc.enable_http_proxy", 0))
        self._client = triton_grpc.InferenceServerClient(str(address), ssl=address.secure, channel_args=options)

    def metadata(self, model: str, version: str = "") -> dict[str, Any]:
        """The model's metadata."""
        answer = self._call(self._client.get_model_metadata, model, version, client_timeout=settings.QUERY_TIMEOUT_S)
        return as_dict(answer)

    def config(self, model: str, version: str = "") -> dict[str, Any]:
        """The model's config as the server has completed it."""
        answer = self._call(self._client.get_model_config, model, version, client_timeout=settings.QUERY_TIMEOUT_S)
        return as_dict(answer.config)

    def infer(self, request: Request) -> Any:
        """Send one request and return tritonclient's result."""
        inputs, outputs = request.encode(triton_grpc)
        return self._call(self._client.infer, request.model, inputs, request.version, outputs, client_timeout=self._timeout_s)

    def register(self, name: str, key: str, byte_size: int, headers: Mapping[str, str]) -> None:
        """Tell the server about a region of system shared memory."""
        self._call(
            self._client.register_system_shared_memory, name, key, byte_size, headers=dict(headers), client_timeout=settings.QUERY_TIMEOUT_S
        )

    def unregister(self, name: str, headers: Mapping[str, str]) -> None:
        """Let the server forget a region."""
        self._call(self._client.unregister_system_shared_memory, name, headers=dict(headers), client_timeout=settings.QUERY_TIMEOUT_S)

    def close(self) -> None:
        """Close the channel."""
        self._client.close()

    def _call(self, function: Any, *arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except InferenceServerException as error:
            raise _from_grpc(error) from error


# How gRPC words a connection that failed; Triton's own UNAVAILABLE, such as a full queue, reads otherwise and is an answer.
_LOST = re.compile(
    r"failed to connect|connections to all backends|socket closed|connection (reset|refused)|broken pipe|goaway|stream removed|recvmsg"
    r"|endpoint clos|resolv|name resolution|handshak|transport|end of file|rst_stream|channel closed|keepalive",
    re.IGNORECASE,
)
# Under these two a model's own error arrives as well, so only what a model would hardly say counts.
_CUT = re.compile(r"stream removed|rst_stream", re.IGNORECASE)


def _from_grpc(error: InferenceServerException) -> TransportError:
    status = (error.status() or "").removeprefix("StatusCode.")
    message = without_id(error.message() or status)
    if status == "DEADLINE_EXCEEDED":
        return TimedOut("no answer in time")
    if (status in ("UNAVAILABLE", "CANCELLED") and _LOST.search(message)) or (status in ("UNKNOWN", "INTERNAL") and _CUT.search(message)):
        return Unreachable(message)
    if "protocol is restricted" in message:
        return Refused(message, "restricted")
    reasons = {"INVALID_ARGUMENT": "inputs", "NOT_FOUND": "unknown", "PERMISSION_DENIED": "restricted", "UNAUTHENTICATED": "restricted"}
    return Refused(message, reasons.get(status, "failed"))
