"""The client's side: where a server is, the ways to it, and requests that are checked before they are sent.

What costs time is imported where it is used: gRPC takes half a second, which a launch or a question over HTTP need not wait for.
"""

from __future__ import annotations

import importlib
from typing import Any

from helpers.client.endpoint import NO_ACCESS, QUERY_TIMEOUT_S, Access, Address

__all__ = ["Client", "Result", "way_to"]


def way_to(protocol: str, address: Address, access: Access = NO_ACCESS, timeout_s: float = QUERY_TIMEOUT_S) -> Any:
    """Return the way to a server, an :class:`~helpers.client.http.Http` or a :class:`~helpers.client.grpc.Grpc`."""
    way = importlib.import_module(f"helpers.client.{protocol}")
    return getattr(way, protocol.capitalize())(address, timeout_s, access)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'helpers.client' has no attribute {name!r}")
    return getattr(importlib.import_module("helpers.client.client"), name)
