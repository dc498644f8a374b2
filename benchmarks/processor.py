"""What the processor did during a measurement: CPU seconds by who used them.

Typical use::

    watch = Watch({"servers": server_pids, "Envoy": [fleet.pid]})
    ...                                    # the measurement
    used = watch.used()
    used.cores["servers"], used.cores["others"], used.seconds
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import psutil

# This process itself, the programs that it started and that ended meanwhile, and everything else.
HERE, ENDED, OTHERS = "here", "ended", "others"


@dataclass(frozen=True)
class Used:
    """What was used between two moments.

    Attributes:
        cores: CPU seconds per second, by who used them.
        seconds: between the moments.
    """

    cores: dict[str, float]
    seconds: float


class Watch:
    """CPU seconds from now on.

    Args:
        groups: processes by a name of ours; what they started counts with them.
    """

    def __init__(self, groups: Mapping[str, Iterable[int]]) -> None:
        leaders = {name: [psutil.Process(pid) for pid in pids] for name, pids in groups.items()}
        self._groups = {
            name: [process for leader in some for process in (leader, *leader.children(recursive=True))] for name, some in leaders.items()
        }
        self._before = self._read()

    def used(self) -> Used:
        """What was used since."""
        now = self._read()
        seconds = now.pop("time") - self._before["time"]
        cores = {name: (value - self._before[name]) / seconds for name, value in now.items()}
        busy = cores.pop("busy")
        return Used({**cores, OTHERS: max(busy - sum(cores.values()), 0.0)}, seconds)

    def _read(self) -> dict[str, float]:
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = {name: sum(sum(process.cpu_times()[:2]) for process in some) for name, some in self._groups.items()}
        return {**seconds, HERE: time.process_time(), ENDED: ended.ru_utime + ended.ru_stime, "busy": _busy(), "time": time.perf_counter()}


def _busy() -> float:
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
