"""Lines of a server's log. What a model's process writes travels by a thread of its own, so it may come after the call that caused it."""

from __future__ import annotations

from helpers.server import Server
from tests.support.processes import wait_until


def log_lines(server: Server, *parts: str) -> list[str]:
    """Lines of the log that hold all the parts, in order; a launch that was tried again has them twice."""
    return [line for line in server.log(lines=0).splitlines() if all(part in line for part in parts)]


def logged(server: Server, *parts: str) -> str:
    """The last of these lines, once there is one."""
    wait_until(lambda: bool(log_lines(server, *parts)))
    return log_lines(server, *parts)[-1]
