"""Locks on ports, so that two servers never start on the same one, and no other user ever listens there. Standard library only.

A lock between supervisors is an abstract Unix socket: it belongs to the machine and not to a user, and the kernel frees it when its
process ends.

What people send to a server's HTTP and gRPC port holds keys, tokens and tensors, so these ports are kept from before the server's start
until after its last end, crashes between them included: by sockets that are bound and never listen, on every interface of IPv4 and on
``::1``, which ``localhost`` can mean first. With ``SO_REUSEPORT`` the kernel lets programs of the same user listen there nevertheless,
if they set it too (``--reuse-http-port``), and nobody else.
"""

from __future__ import annotations

import errno
import socket

# Ports of a triple that get secrets: HTTP and gRPC. Triton's metrics port cannot be shared, and gets none.
_KEPT = 2


def lock_ports(ports: list[int]) -> list[socket.socket] | None:
    """Take the locks of these ports, or None when another supervisor has one or any program listens on one."""
    held: list[socket.socket] = []
    try:
        for number, port in enumerate(ports):
            held.append(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            held[-1].bind(f"\0triton-course-port-{port}")
            for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::1")):
                kept = number < _KEPT or family == socket.AF_INET6
                if (bound := _bound(family, host, port, kept)) is not None and kept:
                    held.append(bound)
                elif bound is not None:
                    bound.close()
    except OSError:
        for lock in held:
            lock.close()
        return None
    return held


def _bound(family: socket.AddressFamily, host: str, port: int, kept: bool) -> socket.socket | None:
    """A socket on this port, or None without IPv6. Raises OSError when a program has the port on any of this host's addresses."""
    try:
        bound = socket.socket(family, socket.SOCK_STREAM)
    except OSError:
        return None
    try:
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # Not SO_REUSEADDR for a port that is kept: with it, every program that sets it as well could bind the same port. Where a port is
        # only tried, connections that a former server left in TIME_WAIT do not make it taken.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT if kept else socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRNOTAVAIL:
            return None
        raise
    return bound
