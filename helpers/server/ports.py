"""Which ports a server gets: the first triple that no other program has, kept for it until after its end. Standard library only."""

from __future__ import annotations

import socket
from pathlib import Path

from helpers.errors import InputError

# How many triples of ports are tried before giving up, a class of forty on one node twice over, and how far they are apart.
PORT_TRIPLES, PORTS_PER_SERVER = 80, 3
# Ports of a triple that get secrets: HTTP and gRPC.
_SECRET_PORTS = 2
# This machine's addresses of IPv6, if it has any; ::1 is written as 32 digits there.
_IPV6 = Path("/proc/net/if_inet6")


def triples(base_port: int) -> list[list[int]]:
    """Return the triples of ports to try, in this order."""
    if not 1024 <= base_port <= 65533:
        asked = f"The base port {base_port} cannot be used."
        raise InputError(asked, "Expected a number from 1024 to 65533.", "Type: launch_server(base_port=9000)")
    last = min(base_port + PORTS_PER_SERVER * PORT_TRIPLES, 65534)
    return [[first, first + 1, first + 2] for first in range(base_port, last, PORTS_PER_SERVER)]


def lock_ports(ports: list[int]) -> list[socket.socket] | None:
    """Return locks on these ports, or None where another supervisor has one or any program listens on one.

    One lock is an abstract Unix socket, by which two servers never start on the same port: it belongs to the machine and not to a user.
    What people send to the HTTP and gRPC port holds secrets. So these are kept from before the server's start until after its last end,
    crashes between them included, by sockets that are bound and never listen: on every interface of IPv4, and on ``::1``, which
    ``localhost`` can mean first. With ``SO_REUSEPORT`` only programs of the same user can listen there, if they set it too.
    """
    held: list[socket.socket] = []
    try:
        for port in ports:
            held.append(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            held[-1].bind(f"\0triton-course-port-{port}")
            if _IPV6.exists() and f"{1:032x}" in _IPV6.read_text():
                held.append(socket.socket(socket.AF_INET6, socket.SOCK_STREAM))
                held[-1].setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                held[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                held[-1].bind(("::1", port))
            held.append(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            # Not SO_REUSEADDR for a port that is kept: with it, every program that sets it as well could bind the same port. Where a port
            # is only tried, connections that a former server left in TIME_WAIT do not make it taken.
            option = socket.SO_REUSEPORT if port in ports[:_SECRET_PORTS] else socket.SO_REUSEADDR
            held[-1].setsockopt(socket.SOL_SOCKET, option, 1)
            held[-1].bind(("0.0.0.0", port))
        held.pop().close()  # Triton's metrics port cannot be shared
    except OSError:
        for lock in held:
            lock.close()
        return None
    return held
