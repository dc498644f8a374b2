"""Who counts as another person on this machine. Files in the place of /etc and /proc; the real ones in one test."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from helpers.server import listening
from tests.support.other_users import needs_root


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """Make a machine of these accounts (id, shell) and processes (id, how many PID namespaces deep), seen by this user."""

    def make(
        me: int, accounts: list[tuple[int, str]], processes: Sequence[tuple[int, int]] = (), mounts: str = "", container: bool = False
    ):
        files = {
            "/proc/self/mountinfo": mounts,
            "/etc/passwd": "".join(f"u{uid}:x:{uid}:{uid}::/home/u{uid}:{shell}\n" for uid, shell in accounts),
        }
        for pid, (uid, depth) in enumerate(processes, 100):
            files[f"/proc/{pid}/status"] = f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}\nNSpid:\t{chr(9).join(['7'] * depth)}\n"
        monkeypatch.setattr(os, "getuid", lambda: me)
        monkeypatch.setattr(listening, "_text", lambda path: files.get(str(path), ""))
        monkeypatch.setattr(listening, "_in_container", lambda: container)
        monkeypatch.setattr(listening, "_has_name", lambda uid: uid != 7777)
        monkeypatch.setattr(Path, "glob", lambda self, pattern: [Path(f"/proc/{pid}") for pid in range(100, 100 + len(processes))])
        return listening.is_shared()

    return make


BASH, NONE = "/bin/bash", "/usr/sbin/nologin"
SYSTEM = [(0, BASH), (1, NONE), (999, BASH), (65534, NONE), (61200, BASH)]


@pytest.mark.parametrize(
    ("me", "accounts", "processes", "container"),
    [
        (1000, [(1000, BASH)], [(0, 1), (1000, 1), (101, 1)], False),  # a laptop
        (0, [(1000, BASH)], [(0, 1), (1000, 1)], False),  # its owner as root
        (1000, [(1000, BASH), (1001, NONE)], [], False),  # an account that nobody logs in to
        (1000, [(1000, BASH)], [(1001, 2), (100_999, 3), (65534, 1), (61_300, 1)], False),  # containers and transient services
        (0, [(1000, BASH), (1001, BASH)], [(0, 1)], True),  # accounts of an image
        (1001, [(1000, BASH), (1001, BASH)], [(1001, 1)], True),
        (7777, [], [(7777, 1)], True),  # a container that runs as an id without a name
        (999, [(1000, BASH)], [], False),  # a service of one's own machine
    ],
)
def test_a_machine_of_ones_own(machine, me: int, accounts: list, processes: list, container: bool) -> None:
    assert not machine(me, SYSTEM + accounts, processes, container=container)


@pytest.mark.parametrize(
    ("me", "accounts", "processes", "container"),
    [
        (1000, [(1000, BASH), (1001, "/bin/zsh")], [], False),
        (0, [(1000, BASH), (1001, BASH)], [], False),
        (1000, [(1000, BASH)], [(1000, 1), (140_123, 1)], False),  # of a directory, in no file
        (1000, [(1000, BASH)], [(7777, 1)], True),  # Apptainer shows the node's processes without their names
        (140_000, [(1000, BASH)], [(140_000, 1)], False),
        (0, [], [(1000, 1), (7777, 1)], False),  # two people, seen by root
    ],
)
def test_a_machine_of_several_people(machine, me: int, accounts: list, processes: list, container: bool) -> None:
    assert machine(me, SYSTEM + accounts, processes, container=container)


@pytest.mark.parametrize("option", ["hidepid=2", "hidepid=invisible", "hidepid=4"])
def test_hidden_processes_mean_that_there_are_some(machine, option: str) -> None:
    mounts = f"22 1 0:21 / /proc rw,nosuid shared:5 - proc proc rw,{option}\n"
    assert machine(1000, [(1000, BASH)], mounts=mounts)
    assert not machine(1000, [(1000, BASH)], mounts=mounts.replace(option, "hidepid=0"))
    assert not machine(1000, [(1000, BASH)], mounts=mounts.replace(option, "hidepid=off"))


@needs_root
def test_a_process_of_another_person_is_seen_here() -> None:
    with subprocess.Popen(["setpriv", "--reuid=61001", "--regid=61001", "--clear-groups", "sleep", "60"]) as process:
        try:
            deadline = time.monotonic() + 30
            while "61001" not in Path(f"/proc/{process.pid}/status").read_text() and time.monotonic() < deadline:
                time.sleep(0.05)
            assert 61001 in listening._owners_of_processes()
        finally:
            process.kill()
