"""Memory of the server and of each model instance, which is a process of its own in the embedded server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Usage:
    """Memory of one process.

    Attributes:
        name: the server, or the instance as Triton names it.
        rss_mb: memory that it has in RAM, shared libraries counted in full.
        pss_mb: the same with every shared page counted in part: the parts of all processes add up to what they use together.
    """

    name: str
    rss_mb: float
    pss_mb: float


def usage(server_pid: int) -> list[Usage]:
    """Memory of tritonserver and of its instances' processes, given a process that is tritonserver or started it."""
    family = [psutil.Process(server_pid), *psutil.Process(server_pid).children(recursive=True)]
    found = []
    for process in family:
        if process.name() == "tritonserver":
            found.append(_usage("tritonserver", process.pid))
        elif process.name().startswith("triton_python"):  # the kernel cuts names at 15 letters
            found.append(_usage(f"instance {process.cmdline()[-2]}", process.pid))
    return found


def _usage(name: str, pid: int) -> Usage:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("Rss:", "Pss:"))}
    return Usage(name, kilobytes["Rss"] / 1024, kilobytes["Pss"] / 1024)
