"""Memory and CPU time of the server and of each model instance, which is a process of its own in the embedded server."""

from __future__ import annotations

import re
from collections.abc import Iterable
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
        pid: its number.
    """

    name: str
    rss_mb: float
    pss_mb: float
    cpu_s: float = 0.0
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


def cpu_between(before: Iterable[Usage], after: Iterable[Usage]) -> float:
    """CPU seconds that passed between two looks, in the processes that are in both: the old instances of a model may still be ending."""
    then = {each.pid: each.cpu_s for each in before}
    return sum(each.cpu_s - then[each.pid] for each in after if each.pid in then)


def _usage(name: str, process: psutil.Process) -> Usage:
    lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("Rss:", "Pss:"))}
    times = process.cpu_times()
    return Usage(name, kilobytes["Rss"] / 1024, kilobytes["Pss"] / 1024, times.user + times.system, process.pid)
