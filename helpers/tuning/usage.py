"""Memory and CPU time of the server and of each model instance, which is a process of its own in the embedded server."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

SERVER = "tritonserver"


@dataclass(frozen=True)
class Usage:
    """One process.

    Attributes:
        name: the server, or the instance as Triton names it.
        rss_mb: memory that it has in RAM, shared libraries counted in full.
        pss_mb: the same with every shared page counted in part: the parts of all processes add up to what they use together.
        cpu_s: CPU time since its start.
        wanted_s: the same, and the time that its threads waited for a core while others had them all; where the system tells.
        pid: its number.
    """

    name: str
    rss_mb: float
    pss_mb: float
    cpu_s: float = 0.0
    wanted_s: float = 0.0
    pid: int = 0


def usage(server_pid: int) -> list[Usage]:
    """Tritonserver and its instances' processes, given a process that is tritonserver or started it; what has just ended is left out."""
    found = []
    try:
        family = [psutil.Process(server_pid), *psutil.Process(server_pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
    for process in family:
        try:
            if process.name() == SERVER:
                found.append(_usage(SERVER, process))
            elif process.name().startswith("triton_python"):  # the kernel cuts names at 15 letters
                found.append(_usage(f"instance {process.cmdline()[-2]}", process))
        except (psutil.NoSuchProcess, ProcessLookupError, IndexError):  # it ended between two looks
            continue
    return found


def of_model(found: Iterable[Usage], model: str) -> list[Usage]:
    """The server and the instances of one model."""
    own = re.compile(rf"instance {re.escape(model)}(_\d+){{1,2}}")
    return [each for each in found if each.name == SERVER or own.fullmatch(each.name)]


def cpu_between(before: Iterable[Usage], after: Iterable[Usage]) -> tuple[float, float]:
    """CPU seconds used and wanted between two looks, in the processes that are in both: old instances of a model may still be ending."""
    then = {each.pid: each for each in before}
    pairs = [(each, then[each.pid]) for each in after if each.pid in then]
    return sum(new.cpu_s - old.cpu_s for new, old in pairs), sum(new.wanted_s - old.wanted_s for new, old in pairs)


def _usage(name: str, process: psutil.Process) -> Usage:
    lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("Rss:", "Pss:"))}
    times = process.cpu_times()
    used = times.user + times.system
    return Usage(name, kilobytes["Rss"] / 1024, kilobytes["Pss"] / 1024, used, used + _queued_s(process.pid), process.pid)


def _queued_s(pid: int) -> float:
    """Seconds that the threads of a process were ready to run and had to wait; 0 where the kernel does not count them."""
    total_ns = 0
    for file in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with suppress(OSError):  # this thread has just ended
            total_ns += int(file.read_text().split()[1])
    return total_ns / 1e9
