"""The progress file: kept over restarts and by two writers, damaged, unwritable, on a full disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import paths
from helpers.course import progress
from tests.support.processes import PATIENCE_S

RECORD = "from helpers.course import progress\nfor n in range(25): print(progress.record('{who}.%d' % n, solved=n % 2 == 0))"


@pytest.fixture(autouse=True)
def own_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A work folder for each test."""
    monkeypatch.setenv("COURSE_WORK", str(tmp_path / "work"))
    return tmp_path / "work"


def test_progress_outlives_the_process() -> None:
    code = "from helpers.course import progress; progress.record('1.2', solved=True)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=paths.root())
    progress.record("1.2", solved=True)
    assert progress.read()["1.2"] == [True, True]


def test_two_notebooks_at_once_lose_nothing() -> None:
    writers = [subprocess.Popen([sys.executable, "-c", RECORD.format(who=who)], cwd=paths.root()) for who in (1, 2)]
    assert [writer.wait(PATIENCE_S) for writer in writers] == [0, 0]
    records = progress.read()
    assert len(records) == 50
    assert all(len(attempts) == 1 for attempts in records.values())
    left = {file.name for file in progress.path().parent.iterdir()}
    assert left == {"progress.jsonl"}


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", '{"exercise": "1.1"}', '{"exercise": "1.1", "correct": tr', "\x00\x00", "\xff", "3\n\n7"]
)
def test_damaged_lines_are_passed_over(own_work: Path, damage: str) -> None:
    progress.record("1.1", solved=True)
    with progress.path().open("ab") as file:
        file.write(damage.encode("latin-1"))
    assert progress.record("1.2", solved=True) == "Attempt 1." and progress.record("1.1", solved=False) == "Attempt 2."
    assert progress.read() == {"1.1": [True, False], "1.2": [True]}


def test_no_folder_to_write_in_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("COURSE_WORK", str(tmp_path / "file" / "work"))
    assert "cannot be saved" in progress.record("1.1", solved=False) and progress.read() == {}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_no_permission_is_said(own_work: Path) -> None:
    own_work.mkdir(mode=0o500)
    assert "Permission denied" in progress.record("1.1", solved=True)


def test_a_full_disk_is_said_and_keeps_the_old_file(own_work: Path) -> None:
    """A real refusal by the kernel: no file of this process may grow (RLIMIT_FSIZE), so the write itself fails."""
    progress.record("1.1", solved=True)
    before = progress.path().read_text()
    code = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        "from helpers.course import progress\n"
        "import json; print(json.dumps([progress.record('1.2', solved=True), progress.record('1.1', solved=True)]))"
    )
    answer = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=paths.root())
    assert all("cannot be saved" in said for said in json.loads(answer.stdout))
    assert progress.path().read_text() == before
