"""What tests need to see of processes: who is alive, whose child, which ports. Linux only, like the embedded server."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from helpers.server import Server, lease
from helpers.server.supervisor import Plan

# Seconds after which something hangs: far above what a machine with eight busy processes per core needs for anything in these tests.
PATIENCE_S = 300.0


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not collected yet does not count."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def with_word(word: str) -> list[int]:
    """Processes that have this word in their command line, such as a server's id."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if word.encode() in (entry / "cmdline").read_bytes() and alive(int(entry.name)):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def session(leader: int) -> list[int]:
    """Living processes of the session that this process leads: a server and the stubs of its Python models."""
    answer = subprocess.run(["ps", "-s", str(leader), "-o", "pid=,stat="], capture_output=True, text=True, check=False)
    rows = (line.split() for line in answer.stdout.splitlines())
    return [int(pid) for pid, state in rows if not state.startswith("Z")]


def listening(pids: list[int]) -> set[tuple[str, int]]:
    """Addresses and ports on which these processes accept TCP connections, from /proc."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            target = os.readlink(link)
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:  # 0A is LISTEN
                address, port = fields[1].split(":")
                raw = bytes.fromhex(address)
                words = b"".join(raw[i : i + 4][::-1] for i in range(0, len(raw), 4))
                name = socket.inet_ntop(socket.AF_INET if len(words) == 4 else socket.AF_INET6, words)
                found.add((name.removeprefix("::ffff:"), int(port, 16)))  # an IPv6 socket on an IPv4 address
    return found


def wait_until(fact: Callable[[], bool], seconds: float = PATIENCE_S) -> float:
    """Wait until something is so; returns the seconds it took. The limit is against hanging: a crowded machine takes its time.

    Raises:
        AssertionError: it was not so in time.
    """
    start = time.monotonic()
    while not fact():
        assert time.monotonic() - start < seconds, f"not so after {seconds} s"
        time.sleep(0.05)
    return time.monotonic() - start


def memory_mb(server: Server) -> float:
    """Memory, in MB, of a server and the processes of its models."""
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in session(server.pid)) * os.sysconf("SC_PAGE_SIZE") / 1e6


def plan_of(tmp_path: Path, code: str, ports: list[list[int]], **changes: object) -> Plan:
    """A plan that runs this Python code; the server's id is short, since socket paths must be."""
    server_id = f"t{os.getpid()}{time.monotonic_ns() % 10**9}"
    run_dir = lease.run_root() / server_id
    run_dir.mkdir(mode=0o700)
    options = {
        "run_dir": str(run_dir),
        "command": [sys.executable, "-c", code, "--http-port={http}"],
        "environment": dict(os.environ),
        "ports": ports,
        "log": str(tmp_path / "log"),
        "grace_s": 20.0,
        "stop_s": 1.0,
        "about": {"name": server_id},
        "files": {},
        "lifeline": False,
        "keep_alive": False,
    }
    plan: Any = options | changes
    return plan
