"""The ways to a server, by protocol."""

from __future__ import annotations

from typing import Any

from helpers.client.endpoint import NO_ACCESS, QUERY_TIMEOUT_S, Access, Address
from helpers.client.http import Http


def way_to(protocol: str, address: Address, access: Access = NO_ACCESS, timeout_s: float = QUERY_TIMEOUT_S) -> Any:
    """Return the way to a server, a :class:`Http` or a :class:`~helpers.client.grpc.Grpc`."""
    if protocol == "grpc":
        from helpers.client.grpc import Grpc  # half a second, which a question over HTTP need not wait for

        return Grpc(address, timeout_s, access)
    return Http(address, timeout_s, access)
