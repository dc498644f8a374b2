"""Making the environments: at once when they are there, created again when incomplete, one sentence when something is in the way."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import paths
from helpers.setup import environments
from tests.support import ROOT
from tests.support.course_copy import base_python, copy_course, run
from tests.support.other_users import FIRST_USER, as_user, can_run_as_users, needs_root, open_folder
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
    return done.stderr


def stamp(folder: Path, kind: str, **facts: object) -> None:
    """Make a folder look like a finished environment."""
    (folder / "bin").mkdir(parents=True, exist_ok=True)
    (folder / "bin" / "python").unlink(missing_ok=True)
    (folder / "bin" / "python").symlink_to(base_python())
    text = {"fingerprint": environments.fingerprint(kind), "folder": str(folder.resolve()), **facts}
    (folder / environments.STAMP).write_text(json.dumps(text))


def test_states(course: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = course / ".venv"
    assert environments.state("client") == "absent"
    folder.mkdir()
    assert environments.state("client") == "absent"
    (folder / "pyvenv.cfg").touch()
    assert environments.state("client") == "foreign"
    stamp(folder, "client")
    assert environments.state("client") == "ready"
    stamp(folder, "client", fingerprint="")
    assert environments.state("client") == "incomplete"
    stamp(folder, "client")
    (folder / "bin" / "python").unlink()
    assert environments.state("client") == "incomplete"
    stamp(folder, "client")
    with (course / "requirements.lock").open("a") as lock:
        lock.write("another==1.0\n")
    assert environments.state("client") == "outdated"
    stamp(folder, "client")
    monkeypatch.setenv("COURSE_ROOT", str(course.rename(course.with_name("moved"))))
    assert environments.state("client") == "incomplete"
    (environments.folder_of("client") / environments.STAMP).write_text("{ this is no stamp")
    assert environments.state("client") == "foreign"


def test_what_the_course_did_not_make_is_left_alone(course: Path) -> None:
    mine = course / ".venv" / "pyvenv.cfg"
    mine.parent.mkdir()
    mine.write_text("mine")
    said = refused(setup(course))
    assert "did not make" in said
    assert f"mv {course}/.venv {course}/.venv-mine" in said
    assert mine.read_text() == "mine"


def test_a_second_set_up_waits_for_the_first(course: Path) -> None:
    (course / ".venv").mkdir()
    (course / ".venv" / "mine").touch()  # so that it ends before it installs something
    first = os.open(course, os.O_RDONLY)
    fcntl.flock(first, fcntl.LOCK_EX)
    command = [str(base_python()), "helpers/setup/bootstrap.py", "--server=no"]
    with subprocess.Popen(command, cwd=course, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as second:
        assert second.stdout is not None and second.stderr is not None
        assert "another set-up is at work" in second.stdout.readline()
        os.close(first)
        assert "did not make" in second.stderr.read()


@pytest.mark.slow
def test_interrupted_then_created_again_then_at_once(course: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("COURSE_", "VIRTUAL_ENV"))}
    command = [str(base_python()), "helpers/setup/bootstrap.py", "--server=no"]
    process = subprocess.Popen(
        command, cwd=course, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + PATIENCE_S
    while not (course / ".venv" / environments.STAMP).exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert "Type the same again" in said
    assert environments.state("client") == "incomplete"

    done = setup(course)
    assert done.returncode == 0, done.stderr
    assert ".venv is incomplete; creating it again" in done.stdout
    assert environments.installed_versions(course / ".venv")["iniconfig"] == environments.locked("requirements.lock")["iniconfig"]
    # The course itself can be imported from anywhere.
    where = run([str(course / ".venv" / "bin" / "python"), "-c", "import helpers; print(helpers.__file__)"], Path("/"))
    assert where.stdout.strip() == str(course / "helpers" / "__init__.py")

    done = setup(course)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    # A newer lock is followed in place.
    for name in ("pyproject.toml", "requirements.lock"):
        # "pluggy" is as small, and the course has it as well.
        (course / name).write_text(re.sub(r"iniconfig==.*\n", "", (course / name).read_text()).replace("iniconfig>=2,<3", "pluggy>=1,<2"))
    assert "updating .venv" in setup(course).stdout
    assert "pluggy" in environments.installed_versions(course / ".venv")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variables", "words", "todo"),
    [
        # A port of this machine where nobody listens stands for a network that is not there.
        ({"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "1", "PIP_NO_CACHE_DIR": "1"}, "onnection", "check the network"),
        pytest.param(
            {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "EMPTY"},
            "No matching distribution found for uv==",
            "No fitting version: git pull",
            marks=pytest.mark.nightly,
        ),
    ],
)
def test_an_installer_that_fails_speaks_for_itself_and_what_to_do_follows(
    variables: dict[str, str], words: str, todo: str, course: Path, tmp_path: Path
) -> None:
    said = refused(setup(course, **{name: value.replace("EMPTY", str(tmp_path)) for name, value in variables.items()}))
    own, _, ours = said.partition(".venv could not be made. What pip or uv said is above.")
    assert words in own and todo in ours
    assert environments.state("client") == "incomplete"


def test_too_little_disk_for_real(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(small)], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        course = copy_course(small / "course")
        said = refused(run(["make", "lab", f"PYTHON={base_python()}"], course))
        assert "There is no room for .venv: 0.0 GB are free" in said and "make lab TORCH=no" in said
        assert not (course / ".venv").exists()
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_no_permission_to_write(course: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere; the tests of a folder of somebody else have another user")
    course.chmod(0o500)
    try:
        assert "is not yours to write" in refused(setup(course))
    finally:
        course.chmod(0o700)


def test_a_conda_environment_that_has_the_course_is_used(course: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    (tmp_path / "lib" / "python3.11" / "site-packages").mkdir(parents=True)
    assert environments.client_python() is None, "an environment for something else"
    (tmp_path / "lib" / "python3.11" / "site-packages" / "triton_course-0.1.0.dist-info").mkdir()
    assert environments.client_python() == Path(sys.executable)
    assert environments.client_python(dev=True) is None, "environment.yml has nothing for developers"


def test_without_pytorch_stays_without_until_asked(course: Path) -> None:
    stamp(course / ".server", "server", torch=False)
    assert environments.server_ready()
    assert environments.server_ready(torch=False)
    assert not environments.server_ready(torch=True)


# A course folder that a class shares: root made it, another user works in it.
SERVER = paths.server_env()


@pytest.fixture
def shared() -> Iterator[Path]:
    """A course that belongs to root, whose environments look complete: the tests' own packages, and those of the real server."""
    if not can_run_as_users():
        pytest.skip("needs root, to become another user")
    with open_folder() as folder:
        course = copy_course(folder / "course")
        shutil.copytree(ROOT / "notebooks" / "data", course / "notebooks" / "data")
        (folder / "home").mkdir()
        os.chown(folder / "home", FIRST_USER, FIRST_USER)
        yield course


def complete(course: Path) -> None:
    """Environments as ``make setup`` leaves them, in which programs hand over to those of these tests."""
    for folder, kind in ((".server", "server"), (".venv", "client")):
        if kind == "server":
            shutil.copytree(SERVER, course / folder, copy_function=os.symlink)
        else:
            (course / folder / "bin").mkdir(parents=True)
            (course / folder / "bin" / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
            (course / folder / "bin" / "python").chmod(0o755)
        facts = {"fingerprint": environments.fingerprint(kind), "folder": str(course / folder), "torch": True, "dev": True}
        (course / folder / environments.STAMP).unlink(missing_ok=True)
        (course / folder / environments.STAMP).write_text(json.dumps(facts))


def as_student(course: Path, command: list[str]) -> subprocess.CompletedProcess[str]:
    home = {"HOME": str(course.parent / "home"), "COURSE_RUN_DIR": str(course.parent / "home" / "run")}
    return run([*as_user(FIRST_USER), *command], course, PATH=f"{base_python().parent}:/usr/bin:/bin", **home)


@needs_root
def test_a_course_folder_of_somebody_else_without_its_environments_says_whom_to_ask(shared: Path) -> None:
    done = as_student(shared, ["make", "lab"])
    said = refused(done)
    assert "is not yours to write, and what it needs is not complete: .venv is absent, .server is absent" in said
    assert f"Ask the owner of {shared} to type there: make setup" in said
    doctor = " ".join(as_student(shared, ["make", "doctor"]).stdout.split())  # in a terminal, lines are broken
    assert "belongs to somebody else; your own files go to" in doctor and "triton-work" in doctor
    assert "to type there: make setup" in doctor
    assert "Not ready" in doctor


@needs_root
@pytest.mark.nightly
def test_a_complete_course_folder_of_somebody_else_is_used_as_it_is(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COURSE_ROOT", str(shared))
    complete(shared)
    monkeypatch.delenv("COURSE_ROOT")
    done = as_student(shared, ["make", "lab", "LAB=--version"])
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert (shared.parent / "home" / "triton-work" / "notebooks" / "00_start_here.ipynb").exists()
    code = "from helpers import launch_server\nwith launch_server('models', load=['add_sub']) as server: print(server.is_ready())"
    done = as_student(shared, [str(shared / ".venv" / "bin" / "python"), "-c", code])
    assert done.stdout.endswith("True\n"), done.stdout + done.stderr
    assert not (shared / "work").exists()
