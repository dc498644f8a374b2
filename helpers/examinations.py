"""What the doctor looks at on the machine, one function for each subject. Standard library only, and nothing is changed."""

from __future__ import annotations

import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from helpers import installed, preflight, settings
from helpers.examinations_engines import engines
from helpers.examinations_installed import load_generator, notebooks_side, python, server_side
from helpers.files import shown
from helpers.finding import ADMINISTRATOR, GOOD, MEND, NOTE, Finding


def all_of_them(full: bool = False) -> Iterator[Finding]:
    """Every examination, in the order of the report."""
    yield python(sys.version_info[:3])
    yield system()
    yield notebooks_side()
    yield from server_side()
    yield load_generator()
    yield disk(settings.root())
    yield shared_memory(Path("/dev/shm"))
    yield work(settings.work_dir())
    yield name_of_this_machine()
    yield ports()
    yield gpu()
    yield from engines()
    yield from variables(os.environ)
    if full:
        from helpers import trial

        yield trial.one_request()


def system() -> Finding:
    """Whether the embedded server can run on this kind of machine."""
    name = " ".join(preflight.os_release()) or platform.system()
    found = f"{name}, {platform.machine()}, {' '.join(preflight.c_library())}, {os.cpu_count()} cores"
    obstacle = preflight.embedded_obstacle()
    return Finding("System", NOTE if obstacle else GOOD, f"{found}. {obstacle}" if obstacle else found)


def disk(folder: Path, free_gb: float | None = None) -> Finding:
    """Room for what is not installed yet, and for logs and results; the system is asked for the free space where it is not given."""
    free_gb = shutil.disk_usage(folder).free / 1e9 if free_gb is None else free_gb
    need_gb = settings.DISK_WORK_GB
    if not installed.client_python():
        need_gb += settings.DISK_CLIENT_GB
    if not preflight.embedded_obstacle() and not installed.server_ready():
        need_gb += settings.DISK_NO_TORCH_GB - settings.DISK_CLIENT_GB
    found = f"{free_gb:.1f} GB free at {folder}"
    if free_gb < need_gb:
        return Finding(
            "Disk", MEND, f"{found}; {need_gb:.1f} GB are needed", "Make room. What is large: du -xh --max-depth=1 ~ | sort -h | tail"
        )
    return Finding("Disk", GOOD, found)


def shared_memory(folder: Path) -> Finding:
    """``/dev/shm``, by which server and Python models hand each other tensors."""
    subject = "Shared memory"
    if platform.system() != "Linux":
        return Finding(subject, NOTE, "only Linux has /dev/shm")
    try:
        with tempfile.NamedTemporaryFile(dir=folder):
            free_mb = shutil.disk_usage(folder).free / 1e6
    except OSError as error:
        return Finding(
            subject, ADMINISTRATOR, f"{folder}: {error.strerror}", f"Ask for a {folder} that users may write to (a tmpfs, mode 1777)."
        )
    if free_mb < settings.SHM_MB:
        todo = f"Remove what is left over there (ls -l {folder}), or ask for more: in a container the option --shm-size=1g."
        return Finding(subject, ADMINISTRATOR, f"{free_mb:.0f} MB free in {folder}; {settings.SHM_MB} MB are needed", todo)
    return Finding(subject, GOOD, f"{free_mb:.0f} MB free in {folder}")


def work(folder: Path) -> Finding:
    """The folder for what students make."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=there):
            return Finding("Folder work", GOOD, f"{shown(folder)} can be written")
    except OSError as error:
        return Finding("Folder work", MEND, f"{shown(folder)}: {error.strerror}", "export COURSE_WORK=$HOME/triton-work")


def name_of_this_machine(name: str = "localhost") -> Finding:
    """Whether ``localhost`` leads to this machine's loopback address, where servers listen."""
    try:
        addresses = {str(info[4][0]) for info in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)}
    except OSError as error:
        addresses = set()
        reason = f"has no address ({error.strerror})"
    else:
        reason = f"is {', '.join(sorted(addresses))}"
    if settings.HOST in addresses:
        return Finding("Address", GOOD, f"{name} {reason}")
    todo = f"Ask for the line '{settings.HOST} localhost' in /etc/hosts."
    return Finding("Address", ADMINISTRATOR, f"{name} {reason}; servers of the course listen on {settings.HOST}", todo)


def ports(base: int = settings.BASE_PORT) -> Finding:
    """The course's first three ports; taken ones are no harm, since the next triple is used."""
    taken = []
    for port in range(base, base + settings.PORTS_PER_SERVER):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.HOST, port))
            except OSError:
                taken.append(f"{port} by {_holder(port)}")
    if taken:
        return Finding("Ports", NOTE, f"taken: {'; '.join(taken)}. A server takes the next three free ones and says so.")
    return Finding("Ports", GOOD, f"{base} to {base + settings.PORTS_PER_SERVER - 1} are free")


def _holder(port: int) -> str:
    """Who listens on a port: program and process id, as far as this user may see."""
    try:
        rows = [line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()[1:]]
    except OSError:
        return "somebody"
    sockets = {f"socket:[{row[9]}]" for row in rows if row[3] == "0A" and int(row[1].rsplit(":", 1)[1], 16) == port}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(entry) in sockets for entry in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text().strip()} (process {process.name})"
        except OSError:
            continue  # another user's process, or one that has just ended
    return "another user's process"


def gpu() -> Finding:
    """The GPU, if there is one; the course does without."""
    if not shutil.which("nvidia-smi"):
        return Finding("GPU", NOTE, "none seen (no nvidia-smi): models run on the processor, which is fine")
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("GPU", NOTE, f"nvidia-smi does not answer ({error}): models run on the processor")
    if answer.returncode or not answer.stdout.strip():
        return Finding("GPU", NOTE, f"nvidia-smi says: {(answer.stdout + answer.stderr).strip()[:200]}; models run on the processor")
    return Finding("GPU", GOOD, "; ".join(answer.stdout.strip().splitlines()))


def variables(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Environment variables that are known to get in the way; their values are not shown."""
    proxies = [
        name for name in environment if name.lower() in ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy") and environment[name]
    ]
    direct = ",".join(environment.get(name, "") for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"))
    if proxies and not re.search(r"(^|,)\s*(\*|localhost)\s*(,|$)", direct):
        found = f"{', '.join(sorted(proxies))} set without an exception for this machine: requests to localhost would go to the proxy"
        yield Finding("Proxy", MEND, found, "export no_proxy=localhost,127.0.0.1,$no_proxy NO_PROXY=localhost,127.0.0.1,$no_proxy")
    others = [name for name in ("PYTHONPATH", "PYTHONHOME", "LD_PRELOAD") if environment.get(name)]
    if others:
        found = f"{', '.join(others)} set, perhaps by an experiment's software: its packages may hide the course's"
        yield Finding(
            "Variables", NOTE, found, f"unset {' '.join(others)}   (make does so by itself)" if "LD_PRELOAD" not in others else ""
        )
