"""Making the environments: at once when they are there, mended when half made, one sentence when something is in the way."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers import environments, installed, installer
from helpers.errors import SetupError
from tests.support.course_copy import base_python, copy_course, run
from tests.support.processes import PATIENCE_S


@pytest.fixture
def course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A course whose notebooks need one tiny package, so that its environment is made in seconds."""
    folder = copy_course(tmp_path / "course")
    text = (folder / "pyproject.toml").read_text()
    text = re.sub(r"(?ms)^dependencies = \[.*?^\]", 'dependencies = ["iniconfig>=2,<3"]', text)
    (folder / "pyproject.toml").write_text(text)
    monkeypatch.setenv("COURSE_ROOT", str(folder))
    monkeypatch.delenv("COURSE_SERVER_ENV", raising=False)
    return folder


def setup(course: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return run(["make", "setup", "SERVER=no", f"PYTHON={base_python()}", *options], course, **variables)


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """What a refused set-up said."""
    assert done.returncode != 0, done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    # Addresses of package servers help nobody.
    assert "://" not in done.stdout + done.stderr
    return done.stderr


def stamp(folder: Path, kind: str, **facts: object) -> None:
    """Make a folder look like a finished environment."""
    (folder / "bin").mkdir(parents=True, exist_ok=True)
    (folder / "bin" / "python").unlink(missing_ok=True)
    (folder / "bin" / "python").symlink_to(base_python())
    text = {"fingerprint": installed.fingerprint(kind), "folder": str(folder.resolve()), **facts}
    (folder / installed.STAMP).write_text(json.dumps(text))


def test_states(course: Path) -> None:
    folder = course / ".venv"
    assert installed.state(folder, "client") == "absent"
    folder.mkdir()
    assert installed.state(folder, "client") == "absent"
    (folder / "pyvenv.cfg").touch()
    assert installed.state(folder, "client") == "foreign"
    stamp(folder, "client")
    assert installed.state(folder, "client") == "ready"
    (folder / installed.BEING_MADE).touch()
    assert installed.state(folder, "client") == "half-made"
    (folder / installed.BEING_MADE).unlink()
    (folder / "bin" / "python").unlink()
    assert installed.state(folder, "client") == "moved"
    stamp(folder, "client")
    with (course / "requirements.lock").open("a") as lock:
        lock.write("another==1.0\n")
    assert installed.state(folder, "client") == "old"
    stamp(folder, "client")
    folder.rename(course / "elsewhere")
    assert installed.state(course / "elsewhere", "client") == "moved"
    (course / "elsewhere" / installed.STAMP).write_text("{ this is no stamp")
    assert installed.state(course / "elsewhere", "client") == "foreign"


def test_what_the_course_did_not_make_is_left_alone(course: Path) -> None:
    mine = course / ".venv" / "pyvenv.cfg"
    mine.parent.mkdir()
    mine.write_text("mine")
    said = refused(setup(course))
    assert "did not make" in said
    assert f"mv {course}/.venv {course}/.venv-mine" in said
    assert mine.read_text() == "mine"


@pytest.mark.slow
def test_interrupted_then_mended_then_at_once(course: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("COURSE_", "VIRTUAL_ENV"))}
    command = [str(base_python()), "helpers/preflight.py", "--server=no"]
    process = subprocess.Popen(
        command, cwd=course, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + PATIENCE_S
    while not (course / ".venv" / installed.BEING_MADE).exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert "Type the same again" in said
    assert installed.state(course / ".venv", "client") == "half-made"

    done = setup(course)
    assert done.returncode == 0, done.stderr
    assert ".venv was left half made: making it anew" in done.stdout
    assert installer.installed_versions(course / ".venv")["iniconfig"] == installed.locked("requirements.lock")["iniconfig"]
    # The course itself can be imported from anywhere.
    where = run([str(course / ".venv" / "bin" / "python"), "-c", "import helpers; print(helpers.__file__)"], Path("/"))
    assert where.stdout.strip() == str(course / "helpers" / "__init__.py")

    done = setup(course)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    # A newer lock is followed in place.
    (course / "requirements.lock").write_text((course / "requirements.lock").read_text() + "not-needed==1.0\n")
    assert "updating .venv" in setup(course).stdout


@pytest.mark.slow
def test_no_network(course: Path) -> None:
    # A port of this machine where nobody listens stands for a network that is not there.
    said = refused(setup(course, PIP_INDEX_URL="http://127.0.0.1:9/simple", PIP_RETRIES="1", PIP_NO_CACHE_DIR="1"))
    assert "no connection" in said
    assert "Check the network" in said
    assert str(course / "work" / "logs" / "setup.log") in said


@pytest.mark.slow
def test_no_fitting_version(course: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    said = refused(setup(course, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(tmp_path / "empty")))
    assert f"pip found no iniconfig=={installed.locked('requirements.lock')['iniconfig']}" in said


@pytest.mark.parametrize(
    ("log", "happened"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "the disk is full"),
        ("OSError: [Errno 122] Disk quota exceeded", "the disk is full"),
        ("WARNING: Retrying after connection broken by 'NewConnectionError(...)': /simple/x/", "no connection"),
        ("ERROR: Could not find a version\nERROR: No matching distribution found for numpy==9", "no fitting version of numpy==9"),
        ("ERROR: Could not install packages: [Errno 13] Permission denied: '/x'", "could not be written"),
        ("Building\nerror: something odd at https://example.invalid/simple/x", "pip said: error: something odd at …"),
        ("", "pip said: nothing at all"),
    ],
)
def test_failures_in_plain_words(log: str, happened: str) -> None:
    said, todo = installer.translate(log)
    assert happened in said
    assert todo
    assert "example.invalid" not in said


def test_too_little_disk_by_numbers(tmp_path: Path) -> None:
    environments.check_disk(3.0, tmp_path, free_gb=3.1)
    with pytest.raises(SetupError, match=r"2\.9 GB are free .* 3\.0 GB are needed.*make lab TORCH=no"):
        environments.check_disk(3.0, tmp_path, free_gb=2.9)


def test_too_little_disk_for_real(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(small)], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        course = copy_course(small / "course")
        said = refused(run(["make", "lab", f"PYTHON={base_python()}"], course))
        assert "There is no room: 0.0 GB are free" in said
        assert not (course / ".venv").exists()
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_no_permission_to_write(course: Path) -> None:
    if os.geteuid() == 0:
        # Root may write anywhere, but not where a file is in the way.
        (course / "work").write_text("a file, no folder")
        said = refused(setup(course))
        assert "Check that this folder is yours" in said
        return
    course.chmod(0o500)
    try:
        assert "Check that this folder is yours" in refused(setup(course))
    finally:
        course.chmod(0o700)


def test_a_conda_environment_that_has_the_packages_is_used(course: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the tests' own environment stands for conda's: a folder with an interpreter that has the packages."""
    prefix = tmp_path / "conda"
    (prefix / "bin").mkdir(parents=True)
    script = prefix / "bin" / "python"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("CONDA_PREFIX", str(prefix))
    assert installed.client_python() == script
    # It has no such package: then it is not used, and the name is told.
    text = (course / "pyproject.toml").read_text()
    (course / "pyproject.toml").write_text(text.replace('"iniconfig>=2,<3"', '"iniconfig>=2,<3", "no-such-package>=1,<2"'))
    installed.lacks.cache_clear()
    assert installed.conda_lacks() == ["no-such-package"]
    assert installed.client_python() is None
    installed.lacks.cache_clear()


def server_folder(folder: Path, numpy: str) -> Path:
    """A server environment whose folders say that it holds this NumPy."""
    stamp(folder, "server", torch=True)
    (folder / "lib" / "python3.11" / "site-packages" / f"numpy-{numpy}.dist-info").mkdir(parents=True)
    return folder


def test_numpy_2_is_refused_and_the_reason_named(course: Path) -> None:
    folder = server_folder(course / ".server", "2.4.6")
    assert "numpy 2.4.6" in installed.numpy_fault(folder)
    assert "empty tensors" in installed.numpy_fault(folder)
    assert not installed.server_ready()


def test_numpy_1_is_taken(course: Path) -> None:
    folder = server_folder(course / ".server", "1.26.4")
    assert installed.numpy_fault(folder) == ""
    assert installed.server_ready()


def test_without_pytorch_stays_without_until_asked(course: Path) -> None:
    folder = server_folder(course / ".server", "1.26.4")
    stamp(folder, "server", torch=False)
    assert installed.server_ready()
    assert installed.server_ready(torch=False)
    assert not installed.server_ready(torch=True)
