"""The client's side: where a server is, the ways to it, and requests that are checked before they are sent.

Typical use::

    from helpers import Client
    with Client(server) as client:                      # or Client("localhost:9001")
        result = client.infer("add_sub", INPUT0=x, INPUT1=y)
        result["OUTPUT0"]
"""

from __future__ import annotations

from typing import Any

from helpers.client.endpoint import NO_ACCESS, Access, Address

__all__ = ["Client", "Result"]


def __getattr__(name: str) -> Any:
    # Imported when first used: gRPC costs half a second, which a launch or a question over HTTP need not wait for.
    if name not in __all__:
        raise AttributeError(f"module 'helpers.client' has no attribute {name!r}")
    from helpers.client import client

    return getattr(client, name)


def way_to(protocol: str, address: Address, access: Access = NO_ACCESS) -> Any:
    """Return the way to a server for questions: an :class:`~helpers.client.http.Http` or a :class:`~helpers.client.grpc.Grpc`."""
    if protocol == "grpc":
        from helpers.client.grpc import Grpc

        return Grpc(address, access=access)
    from helpers.client.http import Http

    return Http(address, access=access)
