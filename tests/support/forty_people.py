"""Forty people on one node: all type ``launch_server`` in the same moment. ``python -m tests.support.forty_people`` prints what it took.

Run by root, each person is a Unix user; else all are one user with folders of their own. ``--load add_sub`` gives each server a model
with a Python process; without it the servers are empty, which is enough for ports.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.support import other_users
from tests.support.processes import PATIENCE_S, alive, session

# What one person runs: launch when told, say what came of it, stop when told.
_PERSON = """
import json, sys, time
from helpers import launch_server
base, load = int(sys.argv[1]), sys.argv[2:]
print("here", flush=True)
sys.stdin.readline()
began = time.monotonic()
server = launch_server("models", base_port=base, load=load, timeout_s=300)
state = server._lease.state()
said = {
    "ports": [server.http.port, server.grpc.port, server.metrics.port], "ready": server.is_ready(), "seconds": time.monotonic() - began,
    "pid": server.pid, "supervisor": state["supervisor_pid"], "mine": server.metadata()["name"] == state["server_id"],
}
print(json.dumps(said), flush=True)
sys.stdin.readline()
server.stop()
print("ended", flush=True)
"""


def memory_mb(pids: list[int]) -> float:
    """Memory of these processes together, in MB; what several share is counted once (PSS)."""
    total = 0
    for pid in pids:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1000


def listening(ports: set[int]) -> dict[int, set[str]]:
    """Local addresses on which these ports accept connections, as ``ss`` says."""
    found: dict[int, set[str]] = {}
    for line in subprocess.run(["ss", "-Hltn"], capture_output=True, text=True, check=True).stdout.splitlines():
        address, _, port = line.split()[3].rpartition(":")
        if int(port) in ports:
            found.setdefault(int(port), set()).add(address)
    return found


def run(people: int, base_port: int, load: list[str], as_users: bool) -> dict[str, Any]:
    """Let them all launch at once, look, and let them all stop.

    Returns:
        ``rows`` (one for each person: ports, ready, seconds, …), ``wall_s`` from the word to the last READY, ``listening``,
        ``memory_mb`` of servers, supervisors and people, ``stop_s``, and ``left``: processes that are still there afterwards.
    """
    with other_users.open_folder() as folder:
        many = []
        for number in range(people):
            user = other_users.FIRST_USER + number
            home = folder / f"home-{number}"
            home.mkdir(mode=0o700)
            if as_users:
                os.chown(home, user, user)
            own = {"HOME": str(home), "COURSE_WORK": str(home / "work"), "COURSE_RUN_DIR": str(home / "run")}
            command = [*(other_users.as_user(user) if as_users else []), sys.executable, "-c", _PERSON, str(base_port), *load]
            environment = {**other_users.python_path(), **own}
            many.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd="/"))
        for process in many:
            process.stdout.readline()
        began = time.monotonic()
        _tell(many)
        rows = [json.loads(_json_line(process)) for process in many]
        wall_s = time.monotonic() - began
        servers = [pid for row in rows for pid in session(row["pid"])]
        supervisors = [int(row["supervisor"]) for row in rows]
        parts = {"servers": servers, "supervisors": supervisors, "people": [process.pid for process in many]}
        memory = {name: memory_mb(pids) for name, pids in parts.items()}
        open_ports = listening({port for row in rows for port in row["ports"]})
        began = time.monotonic()
        _tell(many)
        for process in many:
            process.communicate()
        stop_s = time.monotonic() - began
        deadline = time.monotonic() + PATIENCE_S
        while (left := [pid for pid in servers + supervisors if alive(pid)]) and time.monotonic() < deadline:
            time.sleep(0.05)
    return {"rows": rows, "wall_s": wall_s, "listening": open_ports, "memory_mb": memory, "stop_s": stop_s, "left": left}


def _tell(many: list[subprocess.Popen[str]]) -> None:
    for process in many:
        process.stdin.write("go\n")
        process.stdin.flush()


def _json_line(process: subprocess.Popen[str]) -> str:
    for line in process.stdout:
        if line.startswith("{"):
            return line
    raise AssertionError(f"one person got no server (status {process.wait()})")


def main() -> int:
    """Print the whole record as one line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--people", type=int, default=40)
    parser.add_argument("--base-port", type=int, default=20000)
    parser.add_argument("--load", nargs="*", default=[])
    parser.add_argument("--as-users", action="store_true", help="each a Unix user; as root")
    args = parser.parse_args()
    record = run(args.people, args.base_port, args.load, args.as_users)
    record["listening"] = {port: sorted(addresses) for port, addresses in record["listening"].items()}
    print(json.dumps(record))
    return 0


if __name__ == "__main__":
    sys.exit(main())
