"""Before anything is downloaded: a Python that fits is found, or one sentence says what to type."""

from __future__ import annotations

import ast
import os
import re
import sys
from pathlib import Path

import pytest

from helpers.setup import bootstrap
from tests.support import ROOT
from tests.support.course_copy import base_python, bin_with, copy_course, crippled_python, run

THIS = list(sys.version_info[:3])
GOOD = {
    "version": THIS,
    "executable": "/x/python",
    "prefix": "/x",
    "venv": True,
    "libpython": "/x/lib/libpython.so",
}


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_course(tmp_path_factory.mktemp("bootstrap") / "course")


def old_python() -> Path:
    """An interpreter too old for the course, if this machine has one."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [path for minor in (10, 9, 8) for path in sorted(versions.glob(f"3.{minor}.*/bin/python3"))]
    if not found:
        pytest.skip("no Python older than 3.11 on this machine")
    return found[0]


def one_sentence(done: object, status: int = 1) -> str:
    """The message of a command that refused: no traceback, nothing on the way to an environment."""
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    said = [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]
    assert len(said) == 1, said
    return said[0]


def test_the_script_parses_on_old_pythons() -> None:
    ast.parse((ROOT / "helpers" / "setup" / "bootstrap.py").read_text(), feature_version=(3, 6))


@pytest.mark.parametrize("target", ["lab", "doctor"])
def test_an_old_python_is_told_what_to_type(course: Path, tmp_path: Path, target: str) -> None:
    old = old_python()
    said = one_sentence(run(["make", target], course, PATH=str(bin_with(tmp_path / "bin", python3=old))), 2)
    assert "needs Python 3.11 or 3.12" in said
    assert "found on PATH: 3." in said
    assert "conda env create -f environment.yml" in said
    assert not (course / ".venv").exists()


def test_a_fitting_python_is_found_beside_an_old_one(course: Path, tmp_path: Path) -> None:
    name = f"python3_{THIS[1]}"
    path = bin_with(tmp_path / "bin", python3=old_python(), **{name: base_python()})
    done = run(
        ["python3", "helpers/setup/bootstrap.py", "--as-is", "--", "-c", "import sys; print(sys.version_info[:2])"], course, PATH=str(path)
    )
    assert done.stdout.strip() == str(tuple(THIS[:2])), done.stderr


def test_no_python_at_all(course: Path, tmp_path: Path) -> None:
    said = one_sentence(run(["make", "lab"], course, PATH=str(bin_with(tmp_path / "bin"))), 2)
    assert said.startswith("There is no Python here")
    assert "sudo apt-get install python3" in said


@pytest.mark.parametrize("without", [("libpython",), ("venv",), ("ensurepip",)])
def test_an_incomplete_python(tmp_path: Path, without: tuple[str, ...]) -> None:
    lacks = f"no libpython3.{THIS[1]}.so (the embedded server" if "libpython" in without else "no venv module"
    with pytest.raises(bootstrap.Problem, match=re.escape(f" has {lacks}")):
        bootstrap.choose([str(crippled_python(tmp_path / "python", without))])


def test_an_incomplete_python_makes_nothing(course: Path, tmp_path: Path) -> None:
    python = crippled_python(tmp_path / "python", ("venv", "libpython"))
    said = one_sentence(run(["make", "lab"], course, PATH=str(bin_with(tmp_path / "bin", python3=python))), 2)
    assert f"The Python 3.{THIS[1]}" in said and "Type: " in said
    assert f" has no venv module and no libpython3.{THIS[1]}.so (the embedded server" in said
    assert not (course / ".venv").exists()


def test_without_a_server_no_libpython_is_needed(course: Path, tmp_path: Path) -> None:
    python = crippled_python(tmp_path / "python", ("libpython",))
    facts = bootstrap.choose([str(python)], server=False)
    assert facts["executable"] == str(python)
    with pytest.raises(bootstrap.Problem, match="SERVER=no"):
        bootstrap.choose([str(python)], server=True)


def test_on_debian_the_packages_that_are_lacking_are_named() -> None:
    if not Path("/usr/bin/apt-get").exists():
        pytest.skip("no Debian, and no Ubuntu")
    assert bootstrap.missing(GOOD) == ""
    bare = bootstrap.missing({**GOOD, "prefix": "/usr", "venv": False, "libpython": ""})
    assert f"apt-get install python3.{THIS[1]}-venv libpython3.{THIS[1]} " in bare and "conda" in bare


def test_a_library_of_another_python_does_not_count(tmp_path: Path) -> None:
    python = crippled_python(tmp_path / "python", ("libpython",))
    (tmp_path / "python" / "lib" / "libpython3.99.so.1.0").touch()
    assert bootstrap.probe(str(python))["libpython"] == ""


@pytest.mark.parametrize(
    ("machine", "says"),
    [
        (("Darwin", "arm64", ""), "Darwin on arm64"),
        (("Linux", "aarch64", "glibc 2.39"), "Linux on aarch64"),
        (("Linux", "x86_64", "glibc 2.34"), "glibc 2.34"),
        (("Linux", "x86_64", "no glibc"), "no glibc"),
    ],
)
def test_where_the_embedded_server_cannot_run(machine: tuple[str, str, str], says: str) -> None:
    obstacle = bootstrap.embedded_obstacle(*machine)
    assert says in obstacle
    assert "only the notebooks' side" in obstacle
    assert 'connect("HOST:9000")' in obstacle


@pytest.mark.parametrize("libc", ["glibc 2.35", "glibc 2.39", "glibc 2.41.9"])
def test_where_it_can(libc: str) -> None:
    assert bootstrap.embedded_obstacle("Linux", "x86_64", libc) == ""


def test_a_second_call_starts_at_once() -> None:
    done = run([str(base_python()), "helpers/setup/bootstrap.py", "--dev", "--", "-c", "print('there')"], ROOT)
    assert done.stdout == "there\n", done.stdout + done.stderr


def test_other_softwares_python_path_stays_out(course: Path, tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('the wrong numpy')")
    command = [str(base_python()), "helpers/setup/bootstrap.py", "--as-is", "--", "-c", "import os; print(os.environ.get('PYTHONPATH'))"]
    assert run(command, course, PYTHONPATH=str(tmp_path)).stdout == "None\n"
