"""Locks on ports, so that two servers never start on the same one. Standard library only.

A lock is an abstract Unix socket: it belongs to the machine and not to a user, and the kernel frees it when its process ends.
"""

from __future__ import annotations

import socket


def lock_ports(ports: list[int], host: str) -> list[socket.socket] | None:
    """Take the locks of these ports, or None when another supervisor has one or any program listens on one."""
    held: list[socket.socket] = []
    try:
        for port in ports:
            lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            held.append(lock)
            lock.bind(f"\0triton-course-port-{port}")
            # "localhost" may mean either loopback address, and a server on every interface holds both.
            for family, address in ((socket.AF_INET, host), (socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::1")):
                _try_port(family, address, port)
    except OSError:
        for lock in held:
            lock.close()
        return None
    return held


def _try_port(family: int, address: str, port: int) -> None:
    """Raise OSError when a program listens on this port."""
    try:
        probe = socket.socket(family, socket.SOCK_STREAM)
    except OSError:  # a machine without IPv6
        return
    with probe:
        # Connections that a former server left in TIME_WAIT do not make the port taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            if family == socket.AF_INET6 and "assign requested address" in str(error):
                return
            raise
