"""The ways to a server, by protocol."""

from __future__ import annotations

from typing import Any

from helpers.client.endpoint import NO_ACCESS, Access, Address


def way_to(protocol: str, address: Address, access: Access = NO_ACCESS) -> Any:
    """Return the way to a server for questions: an :class:`~helpers.client.http.Http` or a :class:`~helpers.client.grpc.Grpc`."""
    if protocol == "grpc":
        from helpers.client.grpc import Grpc  # half a second, which a question over HTTP need not wait for

        return Grpc(address, access=access)
    from helpers.client.http import Http

    return Http(address, access=access)
