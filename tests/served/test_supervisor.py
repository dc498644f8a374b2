"""The supervisor with small programs in place of tritonserver: ports, hidden arguments, stubborn programs, full disks."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from helpers import paths
from helpers.errors import ServerError
from helpers.server import isolation, launch_server, lease
from helpers.server.ports import lock_ports
from tests.support.processes import PATIENCE_S, alive, plan_of, wait_until


def _triples(base: int, count: int) -> list[list[int]]:
    return [[base + 3 * n, base + 3 * n + 1, base + 3 * n + 2] for n in range(count)]


def test_locks_are_exclusive_and_come_free(free_base_port):
    ports = _triples(free_base_port(), 1)[0]
    held = lock_ports(ports)
    assert held is not None
    assert lock_ports(ports[2:]) is None
    for lock in held:
        lock.close()
    again = lock_ports(ports)
    assert again is not None
    for lock in again:
        lock.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1"])
def test_a_port_that_any_program_listens_on_is_not_free(free_base_port, host):
    ports = _triples(free_base_port(), 1)[0]
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            other.bind((host, ports[1]))
        except OSError as error:
            pytest.skip(f"this machine cannot listen on {host}: {error}")
        other.listen()
        assert lock_ports(ports) is None


def test_the_supervisor_ignores_an_interrupt_and_obeys_sigterm(tmp_path, free_base_port):
    held = lease.start(plan_of(tmp_path, _FOREVER, _triples(free_base_port(), 4)))
    supervisor, pid = held.state()["supervisor_pid"], held.state()["pid"]
    os.kill(supervisor, signal.SIGINT)
    os.kill(supervisor, signal.SIGHUP)
    assert held.state()["status"] == "running"
    os.kill(supervisor, signal.SIGTERM)
    wait_until(lambda: not alive(supervisor) and not alive(pid))


def test_a_program_that_was_faster_with_a_port_means_the_next_triple(tmp_path, free_base_port):
    triples = _triples(free_base_port(), 3)
    # As tritonserver does when the port is taken between our look and its start.
    code = (
        "import sys, time\n"
        f"if sys.argv[1] != '--http-port={triples[2][0]}': print(\"Socket '127.0.0.1' already in use\"); sys.exit(1)\n"
        "time.sleep(60)"
    )
    held = lease.start(plan_of(tmp_path, code, triples))
    wait_until(lambda: held.state().get("ports") == triples[2])
    assert held.state()["status"] == "running"
    held.stop()


@pytest.mark.parametrize("times", [1, 3, 4])
def test_a_server_that_lost_a_lock_of_tritons_own_is_started_again(tmp_path, free_base_port, times):
    triples = _triples(free_base_port(), 2)
    # As tritonserver ends when its Python backend loses a lock; the next start goes well.
    code = (
        "import os, pathlib, time\n"
        f"starts = pathlib.Path({str(tmp_path / 'starts')!r})\n"
        "with starts.open('a') as file: file.write('x')\n"
        f"if len(starts.read_text()) <= {times}:\n"
        "    print(\"terminate called after throwing an instance of 'boost::interprocess::lock_exception'\", flush=True); os.abort()\n"
        "time.sleep(60)"
    )
    (tmp_path / "starts").touch()
    held = lease.start(plan_of(tmp_path, code, triples))
    wait_until(lambda: held.state().get("status") == "died" or (tmp_path / "starts").read_text() == "x" * (times + 1))
    if times > 3:
        wait_until(lambda: held.state()["status"] == "died")
        assert (tmp_path / "starts").read_text() == "xxxx", "three times more, and not for ever"
        held.close()
        return
    assert held.state()["status"] == "running" and held.state()["ports"] == triples[0], "on the ports that it had"
    assert (tmp_path / "log").read_text().count("is started again") == times
    held.stop()


def test_no_free_ports_is_said(tmp_path, free_base_port):
    ports = _triples(free_base_port(), 1)
    locks = lock_ports(ports[0])
    try:
        held = lease.start(plan_of(tmp_path, "", ports))
        assert held.state()["status"] == "failed"
        assert held.state()["reason"].startswith("no three free ports")
        held.close()
    finally:
        for lock in locks:
            lock.close()


def test_private_arguments_reach_the_program_and_not_the_command_line(tmp_path, free_base_port):
    secret = "tell-nobody-" + "x" * 40
    code = "import os, sys, time; print('SEEN', sys.argv[-3:], 'COURSE_SECRET' in os.environ, flush=True); time.sleep(60)"
    plan = plan_of(tmp_path, code, _triples(free_base_port(), 4))
    plan["command"] += ["--key=$COURSE_SECRET", "--second=$COURSE_2", "--third"]
    plan["environment"] |= {"COURSE_SECRET": secret, "COURSE_2": "ä"}
    held = lease.start(plan)
    wait_until(lambda: "SEEN" in (tmp_path / "log").read_text())
    assert f"SEEN ['--key={secret}', '--second=ä', '--third'] False" in (tmp_path / "log").read_text()
    pid = int(held.state()["pid"])
    visible = Path(f"/proc/{pid}/cmdline").read_bytes()
    assert b"tell-nobody" not in visible
    assert b"--key=$COURSE_SECRET" in visible
    assert isolation.KEY_SEEN not in (tmp_path / "log").read_text()
    held.stop()


def test_a_program_that_does_not_end_is_killed_with_its_children(tmp_path, free_base_port):
    code = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "stubborn = 'import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(90)'\n"
        "child = subprocess.Popen([sys.executable, '-c', stubborn])\n"
        "print('CHILD', child.pid, flush=True); time.sleep(90)"
    )
    held = lease.start(plan_of(tmp_path, code, _triples(free_base_port(), 4)))
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
    held = lease.start(plan_of(tmp_path, "import time; time.sleep(90)", _triples(free_base_port(), 4), grace_s=2.0))
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
    assert time.monotonic() - began >= 2.0 - 0.1, "counted from the last look at the lease"


def test_shared_memory_that_a_killed_server_left_is_removed(tmp_path, free_base_port):
    plan = plan_of(tmp_path, "import time; time.sleep(90)", _triples(free_base_port(), 4))
    region = Path("/dev/shm") / f"{Path(plan['run_dir']).name}-region"
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
        with launch_server(paths.models_dir(), base_port=free_base_port(), name="full disk", load=["add_sub"]) as server:
            assert server.is_ready()
            assert server.log() == ""
    finally:
        subprocess.run(["umount", str(disk)], check=True)


_FOREVER = "import time; print('begun', flush=True); time.sleep(90)"


def test_a_log_cannot_fill_a_disk_and_keeps_its_beginning(tmp_path, free_base_port):
    """Two writers, as tritonserver and its models are: 60 MB in lines of 100 bytes."""
    code = (
        "import os, subprocess, sys, time\n"
        "print('REASON of the launch', flush=True)\n"
        "other = subprocess.Popen([sys.executable, '-c', 'print(\"model\", flush=True); import time; time.sleep(90)'])\n"
        "for number in range(60):\n"
        "    os.write(1, (b'%99d\\n' % number) * 10000)\n"
        "    time.sleep(0.02)\n"
        "print('LAST', flush=True); time.sleep(90)"
    )
    log = tmp_path / "log"
    held = lease.start(plan_of(tmp_path, code, _triples(free_base_port(), 4)))
    wait_until(lambda: log.exists() and log.stat().st_size < 17 << 20 and log.read_bytes().endswith(b"LAST\n"))
    text = log.read_text()
    held.stop()
    assert text.startswith("REASON of the launch\n")
    assert "MB are left out here, so that this log does not fill the disk" in text
    assert "\0" not in text  # no hole


def test_a_first_lease_may_come_late(tmp_path, free_base_port):
    """The launcher of a command with a short grace is held up between its two steps."""
    plan = plan_of(tmp_path, _FOREVER, _triples(free_base_port(), 4), grace_s=0.5)
    started = []
    run = subprocess.run

    def slow_run(*args, **options):
        done = run(*args, **options)
        time.sleep(4)
        started.append(done)
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lease.subprocess, "run", slow_run)
        held = lease.start(plan)
    assert started
    pid = int(held.state()["pid"])
    assert alive(pid)
    held.close()
    wait_until(lambda: not alive(pid))  # from the first lease on the short grace counts


def _raise(error):
    def instead(*_, **__):
        raise error

    return instead


@pytest.mark.parametrize(
    ("broken", "error", "words"),
    [
        ("subprocess.run", subprocess.TimeoutExpired("supervisor", 20), "timed out"),
        ("subprocess.run", BlockingIOError(11, "Resource temporarily unavailable"), "Resource temporarily unavailable"),
        ("Lease", OSError(37, "No locks available"), "No locks available"),
    ],
)
def test_a_start_that_fails_is_one_paragraph(tmp_path, free_base_port, monkeypatch, broken, error, words):
    plan = plan_of(tmp_path, "", _triples(free_base_port(), 1))
    module, _, name = broken.rpartition(".")
    monkeypatch.setattr(getattr(lease, module) if module else lease, name, _raise(error))
    with pytest.raises(ServerError, match=rf"owns the server did not start: .*{words}.*python -m helpers doctor"):
        lease.start(plan)


def test_a_supervisor_that_ends_before_it_is_asked_is_one_paragraph(tmp_path, free_base_port):
    plan = plan_of(tmp_path, "", _triples(free_base_port(), 1))
    plan["command"] = ["/no/such/program"]
    with pytest.raises(ServerError, match=r"owns the server did not start: .*No such file or directory: '/no/such/program'"):
        lease.start(plan)


def test_a_full_folder_for_run_files_is_one_paragraph(tmp_path, free_base_port):
    plan = plan_of(tmp_path, "", _triples(free_base_port(), 1))
    Path(plan["run_dir"]).rmdir()
    with pytest.raises(ServerError, match="No such file"):
        lease.start(plan)


def test_a_forked_child_does_not_keep_the_server_of_a_killed_owner(tmp_path, free_base_port):
    """The owner is a process of its own that forks a child and is killed; the child lives on."""
    plan = plan_of(tmp_path, _FOREVER, _triples(free_base_port(), 4), grace_s=1.0)
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    code = (
        "import json, multiprocessing, os, sys, time\n"
        "from pathlib import Path\n"
        "from helpers.server import lease\n"
        f"held = lease.start(json.loads(Path({str(tmp_path / 'plan.json')!r}).read_text()))\n"
        "def child():\n"
        "    print('CHILD', os.getpid(), held.state()['status'], held.state()['pid'], flush=True)\n"
        "    held.stop()\n"
        "    time.sleep(60)\n"
        "multiprocessing.get_context('fork').Process(target=child).start()\n"
        "time.sleep(60)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    child = 0
    try:
        word, number, status, pid = owner.stdout.readline().split()
        child, server = int(number), int(pid)
        assert (word, status) == ("CHILD", "running")
        time.sleep(2.5)
        assert alive(server)  # the child's stop() stops nothing, and the owner holds it
        owner.kill()
        owner.wait()
        wait_until(lambda: not alive(server))
        assert alive(child)
    finally:
        owner.kill()
        owner.wait()
        owner.stdout.close()
        if child and alive(child):
            os.kill(child, signal.SIGKILL)


def test_questions_from_other_threads_do_not_take_the_answer_of_stop(tmp_path, free_base_port):
    code = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(90)"
    held = lease.start(plan_of(tmp_path, code, _triples(free_base_port(), 4)))
    seen: list[str] = []
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            while not seen or seen[-1] == "running":
                seen.append(str(held.state().get("status")))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    held.stop()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert not any(thread.is_alive() for thread in threads)
    assert errors == []
    assert held.state()["status"] == "stopped"


def test_limits_are_raised_for_the_program(tmp_path, free_base_port):
    code = (
        "import resource, time\n"
        "print('OWN', resource.getrlimit(resource.RLIMIT_STACK)[0], resource.getrlimit(resource.RLIMIT_NOFILE)[0], flush=True)\n"
        "time.sleep(90)"
    )
    _, hard = resource.getrlimit(resource.RLIMIT_STACK)
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, files[1]), files[1]))  # the usual one
        held = lease.start(plan_of(tmp_path, code, _triples(free_base_port(), 4)))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, files)
    log = tmp_path / "log"
    wait_until(lambda: log.read_text().endswith("\n"))
    held.stop()
    stack = 1 << 30 if hard == resource.RLIM_INFINITY else min(1 << 30, hard)
    assert log.read_text().split()[:3] == ["OWN", str(stack), str(min(65536, files[1]))]
