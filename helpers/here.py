"""Whether a server runs on this very machine; goes to where a server is asked for its address."""

from __future__ import annotations

from helpers.client.endpoint import Address
from helpers.machine import serves_here


def runs_here(address: Address) -> bool:
    """True if a tritonserver that this user may see listens at an address of this machine."""
    return serves_here(address.host, address.port)
