"""The doctor: right when all is well, right when something is really broken, and silent about secrets."""

from __future__ import annotations

import getpass
import json
import sys
from pathlib import Path

import pytest

from helpers.setup import bootstrap, doctor, environments
from helpers.setup.doctor import FIX, GOOD, NOTE, Finding
from tests.support import ROOT
from tests.support.course_copy import base_python, copy_course, run

DOCTOR = ["-m", "helpers", "doctor"]
needs_embedded = pytest.mark.skipif(bool(bootstrap.embedded_obstacle()), reason="the embedded server cannot run here")


def finding(report: str, subject: str) -> str:
    """What a report says about one subject, with what to type."""
    lines = report.splitlines()
    first = next(number for number, line in enumerate(lines) if line[8:].startswith(f"{subject}: "))
    return " ".join(line for line in lines[first : first + 2] if line == lines[first] or "-> " in line)


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_course(tmp_path_factory.mktemp("doctor") / "course")


@needs_embedded
def test_ready_here_and_no_secret_is_shown() -> None:
    secrets = {
        "AWS_SECRET_ACCESS_KEY": "s3cr3t-1",
        "HF_TOKEN": "s3cr3t-2",
        "http_proxy": "http://u:s3cr3t-3@p:1",
        "JUPYTER_TOKEN": "s3cr3t-4",
    }
    done = run([sys.executable, *DOCTOR], ROOT, **secrets)
    assert done.returncode == 0, done.stdout
    assert done.stdout.rstrip().endswith("Ready.")
    assert "packages as locked" in finding(done.stdout, "Server's packages")
    assert "s3cr3t" not in done.stdout + done.stderr
    assert f"{Path.home()}/" not in done.stdout


@needs_embedded
def test_before_anything_is_installed(course: Path) -> None:
    """With the bare interpreter, whose only packages are pip and setuptools."""
    done = run([str(base_python()), *DOCTOR], course)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr == ""
    assert "absent" in finding(done.stdout, "Notebooks' packages")
    assert "make setup" in finding(done.stdout, "Notebooks' packages")
    assert "python -m helpers install-server" in finding(done.stdout, "Server's packages")
    assert not (course / "work").exists()


@needs_embedded
def test_a_package_that_differs_from_the_lock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    for folder in ("numpy-2.4.6", "torch-2.13.0+cpu", "scipy-1.2.3", "setuptools-65.5.0"):
        (packages / f"{folder}.dist-info").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(base_python())
    monkeypatch.setenv("COURSE_SERVER_ENV", str(tmp_path))
    found = doctor.environment("server")
    assert found.state == FIX and found.todo.startswith(f"rm -r {tmp_path} && make setup")
    assert "numpy 2.4.6 (lock: 1.26.4)" in found.found and "scipy 1.2.3 (lock: " in found.found
    assert "torch" not in found.found and "setuptools" not in found.found, "Python 3.11 brings an old one, which PyTorch alone replaces"


def test_a_work_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "work").write_text("a file, no folder")
    done = run([sys.executable, *DOCTOR], ROOT, COURSE_WORK=str(tmp_path / "work"))
    assert done.returncode == 1
    assert "export COURSE_WORK=" in finding(done.stdout, "Folder work")


def test_a_machine_is_ready_unless_something_is_to_be_fixed() -> None:
    def wrong(*states: str) -> str:
        return doctor.Report(Finding(f"x{number}", state, "y") for number, state in enumerate(states)).wrong()

    assert (wrong(GOOD, NOTE), wrong(GOOD, FIX, GOOD)) == ("", "x1")


def test_nothing_secret_is_shown() -> None:
    home, user = str(Path.home()), getpass.getuser()
    text = f"{home}/course {home}x /data/{user}/x API_TOKEN=abc123 password: hunter2 https://me:hunter2@proxy/x"
    hidden = doctor.hide(text)
    assert hidden.startswith(f"~/course {home}x ")
    assert "/data/(user)/x" in hidden
    assert not any(secret in hidden for secret in ("abc123", "hunter2"))


def test_in_a_notebook_it_is_a_table_and_in_a_terminal_text() -> None:
    report = doctor.Report([Finding("Disk", FIX, "1 < 2 & full", "rm -r <something>"), Finding("GPU", NOTE, "none")])
    html = report._repr_html_()
    assert html.count("<tr") == 3, "a head and two findings"
    assert "1 &lt; 2 &amp; full" in html
    assert "rm -r &lt;something&gt;" in html
    assert "fix" in html
    assert "\n✖ fix   Disk: 1 < 2 & full\n        -> rm -r <something>\n" in str(report)


def test_a_report_can_be_had_from_python() -> None:
    report = doctor.report()
    assert {"System", "Notebooks' packages", "Folder work"} <= {one.subject for one in report}
    assert report.wrong() == "", str(report)


def test_a_server_environment_of_ones_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Named by COURSE_SERVER_ENV, as in an image: taken as it is, without the course's stamp."""
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    (packages / "numpy-1.26.4.dist-info").mkdir(parents=True)
    monkeypatch.setenv("COURSE_SERVER_ENV", str(tmp_path))
    assert environments.server_ready()
    monkeypatch.delenv("COURSE_SERVER_ENV")
    assert json.dumps(environments.read_stamp(tmp_path)) == "{}"
