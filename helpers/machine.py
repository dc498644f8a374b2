"""This machine: its processor, its NVIDIA GPUs (the only place that runs ``nvidia-smi``), and whether a server listens on a port of it."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import os
import platform
import re
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from helpers.errors import SetupError

# Seconds that nvidia-smi may take: a node with eight sleeping GPUs needs a few, and with a broken driver it hangs.
_SMI_TIMEOUT_S = 20.0
# Names of the loopback interface. They can mean ::1 before 127.0.0.1, where another user may listen on the same port.
LOCAL_NAMES = ("localhost", "localhost.", "localhost.localdomain")
LOOPBACK = "127.0.0.1"


def nvidia_smi(*fields: str) -> list[dict[str, str]]:
    """Return what ``nvidia-smi`` says of each GPU, by field, figures without units; nothing where there is no ``nvidia-smi``.

    ``fields`` are those of ``nvidia-smi --help-query-gpu``. A SetupError says that it does not answer, or what is wrong.
    """
    if not (program := shutil.which("nvidia-smi")):
        return []
    command = [program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=_SMI_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise SetupError(f"nvidia-smi did not answer within {_SMI_TIMEOUT_S:g} s.") from error
    rows = [[word.strip() for word in line.split(",")] for line in done.stdout.splitlines()]
    if done.returncode or any(len(row) != len(fields) for row in rows):
        raise SetupError(f"nvidia-smi says: {done.stdout.strip()[:200]}")
    return [dict(zip(fields, row, strict=True)) for row in rows]


def gpus() -> tuple[str, ...]:
    """Return the names of the GPUs that a server started now could use; none where ``CUDA_VISIBLE_DEVICES`` hides them all."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1", "NoDevFiles"):
        return ()
    with contextlib.suppress(SetupError):
        return tuple(row["name"] for row in nvidia_smi("name"))
    return ()


@functools.cache
def device() -> str:
    """Return the device that serves on this machine: the first GPU if there is one, else the processor."""
    return next(iter(gpus()), f"CPU: {_cpu_model()}".removesuffix(": "))


def _cpu_model() -> str:
    """The name of the processor; empty where the system does not tell."""
    with contextlib.suppress(OSError):
        if found := re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE):
            return found[1]
    return ""


def cpu() -> str:
    """Return the processor and how many of its cores this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"{_cpu_model() or platform.machine()}, {cores} core{'s' * (cores > 1)}"


def description() -> str:
    """Return the line that names this machine beside figures: processor, memory, system, GPUs."""
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{cpu()}, {memory_gb:.0f} GB, {platform.system()} {platform.release()}, {', '.join(gpus()) or 'no GPU'}"


def without_proxy(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables by which programs do not ask a proxy of the site for this machine: it would look at itself."""
    # Without blanks, which gRPC takes for a part of a name.
    named = (variables.get("no_proxy") or variables.get("NO_PROXY") or "").replace(" ", "")
    direct = ",".join(filter(None, [named, "localhost", LOOPBACK, "::1"]))
    return {"no_proxy": direct, "NO_PROXY": direct, "no_grpc_proxy": direct}


def node() -> dict[str, str]:
    """Return what tells this machine, since its last start, from others that share its folders: name, boot and space of process ids."""
    found = {"host": socket.gethostname()}
    with contextlib.suppress(OSError):  # no Linux, where no server runs
        found |= {"boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip(), "pids": os.readlink("/proc/self/ns/pid")}
    return found


def is_loopback(host: str) -> bool:
    """True if this name or address means this very machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in LOCAL_NAMES


def serves_here(host: str, port: int) -> bool:
    """True if a ``tritonserver`` that this user may see listens on this port of this machine, and no tunnel to another one."""
    import psutil

    with contextlib.suppress(psutil.Error):  # macOS tells only root, or it ended between two looks
        for end in psutil.net_connections("tcp") if is_loopback(host) else ():
            if end.status == psutil.CONN_LISTEN and end.laddr.port == port and end.pid:
                return bool(psutil.Process(end.pid).name() == "tritonserver")
    return False
