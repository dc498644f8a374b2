"""The supervisor with small programs in place of tritonserver: ports, hidden arguments, stubborn programs, full disks."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers import lease, settings
from helpers.launch import launch_server
from helpers.supervisor import Plan, lock_ports
from tests.support.processes import alive, wait_until


def _plan(tmp_path: Path, code: str, ports: list[list[int]], **changes: object) -> Plan:
    """A plan that runs this Python code; the server's id is short, since socket paths must be."""
    server_id = f"t{os.getpid()}{time.monotonic_ns() % 10**9}"
    run_dir = lease.run_root() / server_id
    run_dir.mkdir(mode=0o700)
    options: dict = {
        "run_dir": str(run_dir),
        "command": [sys.executable, "-c", code, "--http-port={http}"],
        "private": [],
        "environment": dict(os.environ),
        "ports": ports,
        "host": settings.HOST,
        "log": str(tmp_path / "log"),
        "grace_s": 20.0,
        "stop_s": 1.0,
        "server_id": server_id,
        "about": {"name": server_id},
    }
    return Plan(**{**options, **changes})


def _triples(base: int, count: int) -> list[list[int]]:
    return [[base + 3 * n, base + 3 * n + 1, base + 3 * n + 2] for n in range(count)]


def test_locks_are_exclusive_and_come_free(free_base_port):
    ports = _triples(free_base_port(), 1)[0]
    held = lock_ports(ports, settings.HOST)
    assert held is not None
    assert lock_ports(ports[2:], settings.HOST) is None
    for lock in held:
        lock.close()
    again = lock_ports(ports, settings.HOST)
    assert again is not None
    for lock in again:
        lock.close()


def test_a_program_that_was_faster_with_a_port_means_the_next_triple(tmp_path, free_base_port):
    triples = _triples(free_base_port(), 3)
    # As tritonserver does when the port is taken between our look and its start.
    code = (
        "import sys, time\n"
        f"if sys.argv[1] != '--http-port={triples[2][0]}': print(\"Socket '127.0.0.1' already in use\"); sys.exit(1)\n"
        "time.sleep(60)"
    )
    held = lease.start(_plan(tmp_path, code, triples))
    wait_until(lambda: held.state().get("ports") == triples[2])
    assert held.state()["status"] == "running"
    held.stop()


def test_no_free_ports_is_said(tmp_path, free_base_port):
    ports = _triples(free_base_port(), 1)
    locks = lock_ports(ports[0], settings.HOST)
    try:
        held = lease.start(_plan(tmp_path, "", ports))
        assert held.state()["status"] == "failed"
        assert held.state()["reason"] == "no free ports"
        held.close()
    finally:
        for lock in locks:
            lock.close()


def test_private_arguments_reach_the_program_and_not_the_command_line(tmp_path, free_base_port):
    secret = "--key=tell-nobody-" + "x" * 40
    code = "import sys, time; print('SEEN', sys.argv[-2:], flush=True); time.sleep(60)"
    held = lease.start(_plan(tmp_path, code, _triples(free_base_port(), 4), private=[secret, "--second=ä"]))
    wait_until(lambda: "SEEN" in (tmp_path / "log").read_text())
    assert f"SEEN ['{secret}', '--second=ä']" in (tmp_path / "log").read_text()
    pid = int(held.state()["pid"])
    visible = Path(f"/proc/{pid}/cmdline").read_bytes()
    assert b"tell-nobody" not in visible
    assert b"--private-argument-0" in visible
    assert held.state()["key_hidden"] is True
    held.stop()


def test_a_program_that_does_not_end_is_killed_with_its_children(tmp_path, free_base_port):
    code = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "stubborn = 'import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(90)'\n"
        "child = subprocess.Popen([sys.executable, '-c', stubborn])\n"
        "print('CHILD', child.pid, flush=True); time.sleep(90)"
    )
    held = lease.start(_plan(tmp_path, code, _triples(free_base_port(), 4)))
    wait_until(lambda: "CHILD" in (tmp_path / "log").read_text())
    child = int((tmp_path / "log").read_text().split()[1])
    pid = int(held.state()["pid"])
    held.stop()
    assert held.state()["status"] == "stopped"
    assert not alive(pid)
    wait_until(lambda: not alive(child))
    assert not held.run_dir.exists()


@pytest.mark.slow
def test_without_a_lease_the_program_ends_after_the_grace_period(tmp_path, free_base_port):
    held = lease.start(_plan(tmp_path, "import time; time.sleep(90)", _triples(free_base_port(), 4), grace_s=2.0))
    pid = int(held.state()["pid"])
    time.sleep(3)
    assert alive(pid)  # the lease holds it
    again = lease.find(name=held.state()["name"])
    held.close()
    time.sleep(3)
    assert alive(pid)  # so does the other one
    began = time.monotonic()
    again.close()
    wait_until(lambda: not alive(pid))
    assert time.monotonic() - began >= 2.0


def test_shared_memory_that_a_killed_server_left_is_removed(tmp_path, free_base_port):
    plan = _plan(tmp_path, "import time; time.sleep(90)", _triples(free_base_port(), 4))
    region = Path("/dev/shm") / f"{plan.server_id}-region"
    region.write_bytes(b"x")
    held = lease.start(plan)
    subprocess.run(["kill", "-9", str(held.state()["pid"])], check=True)
    wait_until(lambda: not region.exists())
    wait_until(lambda: held.state()["status"] == "died")
    held.close()


def test_a_disk_that_is_full_costs_the_log_and_not_the_server(tmp_path, free_base_port, monkeypatch):
    disk = tmp_path / "small"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True, text=True, check=False)
    if mount.returncode:
        pytest.skip(f"mounting a small disk needs more rights: {mount.stderr.strip()}")
    try:
        monkeypatch.setenv("COURSE_WORK", str(disk / "work"))
        (disk / "work" / "logs").mkdir(parents=True)
        with pytest.raises(OSError, match="No space"), open(disk / "filler", "wb") as filler:
            while True:
                filler.write(b"x" * 4096)
                filler.flush()
        with launch_server(settings.models_dir(), base_port=free_base_port(), name="full disk", load=["add_sub"]) as server:
            assert server.is_ready()
            assert server.log() == ""
    finally:
        subprocess.run(["umount", str(disk)], check=True)
