"""Where students' files go."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import paths
from tests.support.other_users import STRANGER, needs_root, open_folder, stranger


@pytest.fixture
def course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("models", "notebooks"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("COURSE_ROOT", str(tmp_path))
    monkeypatch.delenv("COURSE_WORK", raising=False)
    return tmp_path


def test_the_working_folder(course: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert paths.work_dir() == course / "work"
    monkeypatch.setenv("COURSE_WORK", str(course / "elsewhere"))
    assert paths.work_dir() == course / "elsewhere"
    # Others on the machine do not read what is in it.
    assert stat.S_IMODE(paths.make_folder(paths.work_dir() / "logs").parent.stat().st_mode) == 0o700


def test_what_begins_with_work_is_in_the_working_folder(work: Path) -> None:
    assert paths.in_work("work/mine") == work / "mine"
    assert paths.in_work("/a/b") == Path("/a/b")


@needs_root
def test_in_a_course_folder_of_somebody_else_work_is_at_home() -> None:
    """As another user, who cannot write into the course's folder, and whose own ``work/`` is there or not."""
    with open_folder() as folder:
        for name in ("helpers", "models", "notebooks"):
            (folder / name).mkdir()
        for name in ("__init__", "errors", "paths"):
            (folder / "helpers" / f"{name}.py").write_bytes((Path(paths.__file__).parent / f"{name}.py").read_bytes())
        home = folder / "home"
        code = f"import sys; sys.path.insert(0, {str(folder)!r}); import os; os.environ['HOME'] = {str(home)!r}"
        code += "; from helpers import paths; print(paths.work_dir())"
        assert stranger(code).stdout.strip() == str(home / "triton-work")
        (folder / "work").mkdir(mode=0o700)
        assert stranger(code).stdout.strip() == str(home / "triton-work"), "the instructor's own"
        os.chown(folder / "work", STRANGER, STRANGER)
        assert stranger(code).stdout.strip() == str(folder / "work")


def test_a_read_only_disk(course: Path) -> None:
    inside = f"mount -t tmpfs -o ro tmpfs {course}/notebooks && mount --bind -o ro {course} {course} && exec {sys.executable} -c "
    inside += "'from helpers import paths; print(paths.work_dir())'"
    if subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    done = subprocess.run(["unshare", "-m", "sh", "-c", inside], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(Path.home() / "triton-work"), done.stderr
