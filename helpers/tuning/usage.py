"""Memory and CPU time of the server and of each model instance, which is a process of its own in the embedded server."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

SERVER = "tritonserver"


class Usage(NamedTuple):
    """One process: the server, or the instance as Triton names it.

    The ``pss_mb`` of all processes add up to the memory that they use together; ``wanted_s`` is CPU time, and the time that threads waited
    for a core while others had them all.
    """

    name: str
    pss_mb: float
    cpu_s: float
    wanted_s: float
    pid: int


def usage(server_pid: int) -> list[Usage]:
    """Return tritonserver and its instances' processes, given one that is tritonserver or started it; what has just ended is left out."""
    found = []
    with suppress(psutil.NoSuchProcess):
        for process in [psutil.Process(server_pid), *psutil.Process(server_pid).children(recursive=True)]:
            with suppress(psutil.NoSuchProcess, ProcessLookupError, FileNotFoundError, IndexError):  # it ended between two looks
                if process.name() == SERVER:
                    found.append(_usage(SERVER, process))
                elif process.name().startswith("triton_python"):  # the kernel cuts names at 15 letters
                    found.append(_usage(f"instance {process.cmdline()[-2]}", process))
    return found


def of_model(found: Iterable[Usage], model: str) -> list[Usage]:
    """Return the server and the instances of one model."""
    own = re.compile(rf"instance {re.escape(model)}(_\d+){{1,2}}")
    return [each for each in found if each.name == SERVER or own.fullmatch(each.name)]


def cpu_between(before: Iterable[Usage], after: Iterable[Usage]) -> tuple[float, float]:
    """Return CPU seconds used and wanted between two looks, in the processes that are in both: old instances may still be ending."""
    then = {each.pid: each for each in before}
    pairs = [(each, then[each.pid]) for each in after if each.pid in then]
    return sum(new.cpu_s - old.cpu_s for new, old in pairs), sum(new.wanted_s - old.wanted_s for new, old in pairs)


def _usage(name: str, process: psutil.Process) -> Usage:
    folder = Path(f"/proc/{process.pid}")
    lines = (line.split() for line in (folder / "smaps_rollup").read_text().splitlines())
    pss_kb = next(int(words[1]) for words in lines if words[0] == "Pss:")
    times, queued_ns = process.cpu_times(), 0
    for file in folder.glob("task/*/schedstat"):
        with suppress(OSError):  # this thread has just ended, or the kernel does not count
            queued_ns += int(file.read_text().split()[1])
    used = times.user + times.system
    return Usage(name, pss_kb / 1024, used, used + queued_ns / 1e9, process.pid)
