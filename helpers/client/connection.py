"""A connection to one server: where it is, the way there, and what becomes of requests that get no answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from helpers import settings
from helpers.client.access import NO_ACCESS, Access, with_own_secret
from helpers.client.address import Address, parse_address
from helpers.client.failures import explain
from helpers.client.grpc import GrpcTransport
from helpers.client.http import HttpTransport
from helpers.client.signature import Signature
from helpers.client.transport import Refused, TransportError, Unreachable
from helpers.errors import InputError

T = TypeVar("T")


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
        self.retries = retries
        self.access: Access = with_own_secret(NO_ACCESS, self.address) if isinstance(server, str) else getattr(server, "access", NO_ACCESS)
        self.transport = (GrpcTransport if self.protocol == "grpc" else HttpTransport)(self.address, timeout_s, self.access)
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
                    raise explain(error, model, self.address, self.protocol, self.server) from error
            time.sleep(settings.RETRY_WAIT_S * 2**attempt)
            attempt += 1

    def known(self, model: str, version: str) -> bool:
        """Whether the model's signature is remembered, so that it may be out of date."""
        return (model, version) in self._signatures

    def signature(self, model: str, version: str = "", fresh: bool = False) -> Signature:
        """A model's signature, remembered from the last time unless it is to be fresh."""
        if not isinstance(model, str) or not model:
            raise InputError(f"{model!r} is no name of a model.", "Expected text.", 'Type for example: client.infer("add_sub", …)')
        if fresh or not self.known(model, version):
            metadata = self.ask(lambda: self.transport.metadata(model, version), model)
            self._signatures[model, version] = Signature.from_server(metadata, self.ask(lambda: self._config(model, version), model))
        return self._signatures[model, version]

    def admin_headers(self) -> Mapping[str, str]:
        """The header with the administration key, where we have the server's owner."""
        headers = getattr(self.server, "admin_headers", None)
        return headers(self.protocol) if headers is not None else {}

    def _config(self, model: str, version: str) -> dict[str, Any] | None:
        try:
            return self.transport.config(model, version)
        except Refused:
            # Servers of other makes speak the protocol without this extension; then nobody knows the largest batch.
            return None


def where(server: Any, protocol: str | None) -> tuple[str, Address]:
    """Which protocol to speak, and to which address.

    Args:
        server: a Server, or the address of the port for the protocol.
        protocol: ``grpc`` or ``http``; None means gRPC, or HTTP when the address begins with ``http://`` or ``https://``.

    Raises:
        InputError: it is no server and no address, or no such protocol.
    """
    if protocol not in (None, "grpc", "http"):
        raise InputError(f"protocol={protocol!r} was given.", "Expected 'grpc' or 'http'.")
    if isinstance(server, str):
        address = parse_address(server)
        return protocol or ("http" if address.scheme in ("http", "https") else "grpc"), address
    # A server of which only one port can be reached is spoken to there.
    only_http = isinstance(getattr(server, "http", None), Address) and getattr(server, "grpc", "") is None
    protocol = protocol or ("http" if only_http else "grpc")
    address = getattr(server, protocol, None)
    url = None if isinstance(address, Address) else getattr(server, f"{protocol}_url", None)
    if not isinstance(address, Address) and not isinstance(url, str):
        raise InputError(
            f"An object of type {type(server).__name__} was given as the server.",
            "Expected a Server or an address.",
            'Type for example: Client(server), or Client("localhost:9001")',
        )
    return protocol, address if isinstance(address, Address) else parse_address(url)
