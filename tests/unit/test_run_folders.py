"""Folders of servers: what is of this machine and dead goes, what may live on another machine stays."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from helpers import machine, run_folder
from helpers.client.endpoint import NO_ACCESS, TOKEN_HEADER, Address, with_own_secret
from helpers.errors import ServerError
from helpers.server import connect, lease


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of servers, on a home folder that several machines share."""
    folder = tmp_path / "run"
    monkeypatch.setenv("COURSE_RUN_DIR", str(folder))
    return lease.run_root()


@pytest.fixture
def dead() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def _folder(shared: Path, name: str, state: Any = None, age_s: float = 0.0) -> Path:
    folder = shared / name
    folder.mkdir(mode=0o700)
    if state is not None:
        (folder / "state.json").write_text(state if isinstance(state, str) else json.dumps(state))
    os.utime(folder, (time.time() - age_s,) * 2)
    return folder


def _state(pid: int, **changes: str) -> dict[str, Any]:
    whose = {"supervisor_pid": pid, "supervisor_began": run_folder.began(pid) or 1}
    return whose | {"status": "running", "ports": [9000, 9001, 9002], "node": {**machine.node(), **changes}}


def _look() -> None:
    assert list(lease.running(lambda _: True)) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"host": "node-b", "boot": "another"},
        {"host": "node-b"},
        {"host": "node-b", "pids": "pid:[1]"},
        {"pids": "pid:[1]"},
        {"boot": "another"},
    ],
)
def test_what_may_live_elsewhere_stays(shared: Path, dead: int, changes: dict[str, str]) -> None:
    folder = _folder(shared, "course-elsewhere", _state(dead, **changes), age_s=1e7)
    _look()
    with pytest.raises(ServerError):
        connect("127.0.0.1:9")  # looks for leases, too, where a server answers
    assert lease.find(name="x") is None
    assert folder.is_dir()


def test_what_is_dead_here_goes_with_its_shared_memory(shared: Path, dead: int) -> None:
    name = f"course-dead-{os.getpid()}"
    folder = _folder(shared, name, _state(dead))
    region = Path("/dev/shm", f"{name}-region")
    region.write_bytes(b"")
    _look()
    assert not folder.exists() and not region.exists()


@pytest.mark.parametrize("status", ["running", "died"])
def test_whose_process_number_another_process_has_got_is_dead(shared: Path, status: str) -> None:
    state = _state(os.getpid()) | {"status": status, "supervisor_began": 1}
    folder = _folder(shared, "course-0123456789ab", state)
    (folder / "lease").touch()
    with open(folder / "lease", "rb") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        # Its owner may still ask how it ended; those who look for dead servers, as every launch does, do not wait for it.
        assert list(lease.running(lambda _: True, "died")) == list(run_folder.states()) == []
        assert folder.is_dir()
    _look()
    assert not folder.exists()


@pytest.mark.parametrize("state", [None, "", '{"status": "run', "[]", "7"])
def test_a_folder_without_a_state_stays(shared: Path, state: str | None) -> None:
    """It is not ours, or that of a launch that is under way."""
    folder = _folder(shared, "course-0123456789ab", state, age_s=1e7)
    _look()
    assert folder.is_dir()


@pytest.mark.parametrize("changes", [{"host": "node-b"}, {"boot": "another"}, {"pids": "pid:[1]"}])
def test_the_secret_of_a_server_elsewhere_is_not_sent_to_the_same_port_here(shared: Path, changes: dict[str, str]) -> None:
    here = Address("localhost", 9001)
    state = {"listening": {"token": "the-secret-of-a-server"}}
    _folder(shared, "course-0123456789ab", {**_state(os.getpid(), **changes), **state})
    assert with_own_secret(NO_ACCESS, here) == NO_ACCESS and list(run_folder.states()) == []
    _folder(shared, "course-0123456789ac", {**_state(os.getpid()), **state})
    assert TOKEN_HEADER in with_own_secret(NO_ACCESS, here).headers


def test_what_runs_here_stays(shared: Path) -> None:
    folder = _folder(shared, "course-live", _state(os.getpid()))
    _look()  # nothing answers at its socket, so there is no lease on it
    assert folder.is_dir()
