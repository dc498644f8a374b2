"""A run of the tests that leaves something behind fails, and says what it left."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support import ROOT, leftovers

_LEAVE_NOTHING = "def test_nothing(tmp_path):\n    (tmp_path / 'file').touch()\n"
_LEAVE_A_PROCESS = """
import subprocess, sys
def test_process():
    code = "import os, time; os.setsid(); print('up', flush=True); time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    child.stdout.readline()
    print("PID", child.pid)
"""
_LEAVE_A_FILE = "import tempfile\ndef test_file():\n    tempfile.mkdtemp(prefix='forgotten-')\n"
_LEAVE_A_SEGMENT = "import os, pathlib\ndef test_segment():\n    pathlib.Path(os.environ['SEGMENT']).touch()\n"
_SEGMENT = Path(f"/dev/shm/course-forgotten-{os.getpid()}")


def _run(tmp_path: Path, code: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a file of tests with the hooks, in a course of its own."""
    (tmp_path / "test_it.py").write_text(code)
    hooks = "pytest_configure, pytest_sessionfinish, pytest_terminal_summary, pytest_unconfigure"
    shorter = "import tests.support.leftovers as leftovers\nleftovers.Run.left.__defaults__ = (1.0,)\n"
    (tmp_path / "conftest.py").write_text(f"{shorter}from tests.support.leftovers import {hooks}\n")
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", *options, "test_it.py"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SEGMENT": str(_SEGMENT)}
    return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("options", [(), ("-n1",)], ids=["alone", "with a worker"])
def test_a_clean_run_is_green(tmp_path: Path, options: tuple[str, ...]) -> None:
    done = _run(tmp_path, _LEAVE_NOTHING, *options)
    assert done.returncode == 0 and "left behind" not in done.stdout, done.stdout


@pytest.mark.parametrize("options", [(), ("-n1",)], ids=["alone", "with a worker"])
def test_a_process_is_found(tmp_path: Path, options: tuple[str, ...]) -> None:
    done = _run(tmp_path, _LEAVE_A_PROCESS, *options)
    pids = [int(line.split()[1].rstrip(":")) for line in done.stdout.splitlines() if line.startswith("process ")]
    for pid in pids:
        os.kill(pid, 9)
    assert done.returncode == 1 and len(pids) == 1, done.stdout
    assert "1 passed" in done.stdout, "the tests themselves are green"


def test_a_process_that_has_ended_at_last_is_not_left(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([["process 1: python"], ["process 1: python"], ["shared memory: /dev/shm/course-1"], []])
    clock = iter(range(0, 100, 10))  # seconds between two looks, of which one is more than what remains may take without a process
    monkeypatch.setattr(leftovers, "time", SimpleNamespace(monotonic=lambda: next(clock), sleep=lambda _: None))
    monkeypatch.setattr(leftovers, "_MOMENT_S", 10.0)
    run = leftovers.Run.__new__(leftovers.Run)
    monkeypatch.setattr(run, "_now", lambda: next(looks), raising=False)
    assert run.left() == []


def test_a_temporary_file_is_found_and_removed(tmp_path: Path) -> None:
    done = _run(tmp_path, _LEAVE_A_FILE)
    assert done.returncode == 1 and "temporary file: forgotten-" in done.stdout, done.stdout
    assert not list(Path(os.environ["TMPDIR"]).glob("course-tests-*"))


def test_a_segment_is_found(tmp_path: Path) -> None:
    try:
        done = _run(tmp_path, _LEAVE_A_SEGMENT)
        assert done.returncode == 1 and f"shared memory: {_SEGMENT}" in done.stdout, done.stdout
    finally:
        _SEGMENT.unlink(missing_ok=True)
