"""Whether a server runs on this very machine: an address on it may be the end of a tunnel to another one."""

from __future__ import annotations

import psutil

from helpers.address import Address
from helpers.rest import is_loopback

_PROGRAM = "tritonserver"


def runs_here(address: Address) -> bool:
    """Whether a tritonserver that this user may see listens at an address of this machine.

    What somebody else's process behind the port is, nobody can tell: it counts as elsewhere, so that no figure gets a false machine.

    Args:
        address: of one of the server's ports.
    """
    if not is_loopback(address.host):
        return False
    try:
        ends = psutil.net_connections("tcp")
    except psutil.AccessDenied:  # macOS tells only root
        return False
    return any(
        end.status == psutil.CONN_LISTEN and end.laddr.port == address.port and end.pid is not None and _name(end.pid) == _PROGRAM
        for end in ends
    )


def _name(pid: int) -> str:
    try:
        return psutil.Process(pid).name()
    except psutil.Error:  # it ended between two looks
        return ""
