"""The other ways in: Binder, Codespaces, Colab. What each runs is run here, in a fresh clone, as far as a machine without them can."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

from helpers import paths
from tests.support import ROOT
from tests.support.course_copy import bin_with, run

pytestmark = pytest.mark.slow

# What a notebook of Colab has already, with the NumPy that must stay.
COLABS = ("numpy==2.0.2", "ipykernel", "ipywidgets", "matplotlib", "packaging", "psutil", "requests")


def _git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    return subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the course as it stands here, changes that are not committed included."""
    if not (ROOT / ".git").exists():
        pytest.skip("this copy of the course is no git repository")
    folder = tmp_path_factory.mktemp("origin")
    for name in _git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    _git(folder, "init", "-q")
    _git(folder, "add", "-A")
    _git(folder, "commit", "-q", "-m", "the course")
    return folder


@pytest.fixture(scope="module")
def clone(origin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh clone."""
    folder = tmp_path_factory.mktemp("clone") / "course"
    _git(origin, "clone", "-q", str(origin), str(folder))
    return folder


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A home of its own; the server's environment, gigabytes, is the one of these tests."""
    return {"HOME": str(tmp_path_factory.mktemp("home")), "COURSE_SERVER_ENV": str(paths.server_env())}


def test_binder_builds_from_the_root(origin: Path) -> None:
    # A folder of this name would hide environment.yml.
    assert not (ROOT / "binder").exists() and not (ROOT / ".binder").exists()
    lists = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert "-e ." in next(entry["pip"] for entry in lists if isinstance(entry, dict))
    assert _git(origin, "ls-files", "--stage", "postBuild").startswith("100755"), "postBuild can be executed"


def test_binders_post_build(clone: Path, elsewhere: dict[str, str], tmp_path: Path) -> None:
    """Binder's environment has these tests' packages and the name ``python``; here the tests' own stands for it."""
    programs = bin_with(tmp_path / "bin", python=Path(sys.executable))
    (programs / "bash").symlink_to(shutil.which("bash") or "/bin/bash")
    done = run([str(clone / "postBuild")], clone, PATH=str(programs), **elsewhere)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "is ready" in done.stdout
    books = sorted(path.name for path in (clone / "work" / "notebooks").glob("*.ipynb"))
    assert books == sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
    assert (clone / "work" / "notebooks" / "data" / "jets_ak4.root").exists(), "the samples can be reached from there"


@pytest.mark.nightly
def test_codespaces_post_create(clone: Path, elsewhere: dict[str, str]) -> None:
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    version = container["image"].rpartition(":")[2].partition("-")[0]
    assert tuple(map(int, version.split("."))) in [(3, 11), (3, 12)]
    done = run(["sh", "-c", container["postCreateCommand"]], clone, **elsewhere)
    assert done.returncode == 0, done.stdout + done.stderr
    python = clone / container["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"].rpartition("}/")[2]
    code = "import helpers; from helpers import Client, launch_server; print(helpers.__file__)"
    assert run([str(python), "-c", code], clone).stdout.strip() == str(clone / "helpers" / "__init__.py")
    dry = run(["sh", "-c", f"{container['postAttachCommand']} --dry-run"], clone)
    assert dry.returncode == 0 and "--port=8888" in dry.stdout
    assert container["forwardPorts"] == [8888]


def _colab_python(folder: Path) -> Path:
    """An environment with what Colab brings, made by the uv of the developers' packages from its own cache."""
    uv = Path(sys.executable).parent / "uv"
    if not uv.exists():
        pytest.skip("uv is not installed in this environment: make test installs it")
    wanted = shutil.which("python3.12") or ""
    version = "3.12" if wanted and not subprocess.run([wanted, "-c", ""], capture_output=True, check=False).returncode else sys.executable
    environment = {**os.environ, "UV_PYTHON_DOWNLOADS": "never"}
    for arguments in (["venv", "--quiet", "--seed", "--python", version, str(folder)], ["pip", "install", "--quiet", *COLABS]):
        done = subprocess.run([uv, *arguments], env=environment | {"VIRTUAL_ENV": str(folder)}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return folder / "bin" / "python"


# Runs the cells of a notebook one after the other as its kernel would, and stops at the first that fails.
_RUN_CELLS = """
import json, sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
for source in json.loads(sys.argv[1]):
    shell.run_cell(source, store_history=True).raise_error()
import numpy
print("numpy", numpy.__version__, "sum", shell.user_ns["result"]["OUTPUT0"][:3].tolist(), "server", shell.user_ns["server"].state())
"""


@pytest.mark.nightly
def test_colabs_first_cells(origin: Path, elsewhere: dict[str, str], tmp_path: Path) -> None:
    """The notebook for Colab, its set-up cell first, in an environment that knows nothing of the course."""
    cells = nbformat.read(ROOT / "notebooks" / "colab" / "00_start_here.ipynb", as_version=4).cells
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    assert "uv pip install" in code[0]
    wanted = code[: next(i for i, source in enumerate(code) if source.startswith("result = client.infer")) + 1]
    python = _colab_python(tmp_path / "env")
    course = tmp_path / "content" / "course"
    done = subprocess.run(
        [str(python), "-c", _RUN_CELLS, json.dumps([*wanted, "client.close()", "server.stop()"])],
        cwd=tmp_path,
        env={
            "PATH": f"{python.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "COURSE_ROOT": str(course),
            "COURSE_WORK": str(tmp_path / "work"),
            "UV_SYSTEM_CERTS": "1",
            **elsewhere,
        },
        input=f"{origin}\n",
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "numpy 2.0.2 sum [10.0, 11.0, 12.0] server stopped", done.stdout
    assert (course / "helpers" / "__init__.py").exists(), "cloned by the cell"
    packages = {path.name.partition("-")[0] for path in (tmp_path / "env").glob("lib/python3*/site-packages/*.dist-info")}
    assert "tritonclient" in packages and "jupyterlab" not in packages
    assert (tmp_path / "work" / "notebooks" / "00_start_here.ipynb").exists()


def test_colab_is_asked_for_the_address_only_while_there_is_none() -> None:
    from tools import notebooks

    cell = nbformat.read(ROOT / "notebooks" / "colab" / "00_start_here.ipynb", as_version=4).cells[2].source
    known = notebooks.repository()
    assert (f'address = "{known}"' if known else "address = input(") in cell
