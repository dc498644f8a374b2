"""Locks on ports, so that two servers never start on the same one. Standard library only.

A lock is an abstract Unix socket: it belongs to the machine and not to a user, and the kernel frees it when its process ends.

With it goes the same port of ``::1``. ``localhost`` can mean that address first, so another user who listened there would get what people
send to ``localhost:9000``: keys, tokens and tensors. A socket that is bound and does not listen keeps him out; clients go on to 127.0.0.1.
"""

from __future__ import annotations

import errno
import socket


def lock_ports(ports: list[int], host: str) -> list[socket.socket] | None:
    """Take the locks of these ports, or None when another supervisor has one or any program listens on one."""
    held: list[socket.socket] = []
    try:
        for port in ports:
            lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            held.append(lock)
            lock.bind(f"\0triton-course-port-{port}")
            # A server on every interface holds both.
            for address in (host, "0.0.0.0"):
                _try_port(address, port)
            # gRPC on every interface takes IPv6 along, and with it this address.
            if not (host == "0.0.0.0" and ports.index(port) == 1):
                held += _hold_local_ipv6(port)
    except OSError:
        for lock in held:
            lock.close()
        return None
    return held


def _try_port(address: str, port: int) -> None:
    """Raise OSError when a program listens on this port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Connections that a former server left in TIME_WAIT do not make the port taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((address, port))


def _hold_local_ipv6(port: int) -> list[socket.socket]:
    """Bind this port of ``::1``; nothing on a machine without IPv6. Raise OSError when another program has it."""
    try:
        # Without SO_REUSEADDR: with it, another program that sets it as well could bind the same port.
        held = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    except OSError:
        return []
    try:
        held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        held.bind(("::1", port))
    except OSError as error:
        held.close()
        if error.errno == errno.EADDRNOTAVAIL:
            return []
        raise
    return [held]
