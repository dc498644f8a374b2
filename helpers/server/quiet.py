"""Whether a tritonserver that was told to end has nothing left to do but to wait for itself. Standard library only, Linux.

Triton lets its requests end and unloads its models, and each of them ends its own processes. Only then it looks, once a second, whether all
of that has happened, and waits for the thread that reads its metrics: two to three seconds in which nothing can be lost any more.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

# Seconds for which nothing may have happened: Triton hands an answer on at once when a model has given it.
_LASTS_S = 0.3
# Seconds of a processor that looking around costs Triton meanwhile, at most; an answer that is being sent costs more, or fills the socket.
_IDLE_S = 0.02


class Quiet:
    """Watches a server that was told to end.

    Args:
        leader: the server's process, which leads a session of its own.
        ports: on which it answers.
    """

    def __init__(self, leader: int, ports: Sequence[int]) -> None:
        self.leader = leader
        self.ports = set(ports)
        self._since: float | None = None
        self._used_s = 0.0

    def lasts(self) -> bool:
        """Whether for a while no process of a model was there, no byte waited to be sent, and the server did nothing.

        To be asked again and again.
        """
        used_s, others = _look(self.leader)
        now = time.monotonic()
        if others or self._since is None or used_s - self._used_s > _IDLE_S or _unsent(self.ports):
            self._since, self._used_s = now, used_s
        return now - self._since >= _LASTS_S


def _look(leader: int) -> tuple[float, int]:
    """Seconds of a processor that the leader has used, and how many other processes of its session are alive."""
    used_s, others = 0.0, 0
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has ended meanwhile
                continue
            if int(entry) == leader:
                used_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            elif int(fields[3]) == leader and fields[0] != "Z":
                others += 1
    return used_s, others


def _unsent(ports: set[int]) -> bool:
    """Whether a connection to one of the ports holds bytes that the other side has not taken yet."""
    for table in ("tcp", "tcp6"):
        try:
            lines = Path("/proc/net", table).read_text().splitlines()[1:]
        except OSError:  # a machine without IPv6
            continue
        for line in lines:
            local, waiting = (line.split()[column] for column in (1, 4))
            if int(local.partition(":")[2], 16) in ports and int(waiting.partition(":")[0], 16):
                return True
    return False
