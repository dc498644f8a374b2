"""What the two environments must hold, and what is installed. Nothing is made or changed here.

Each environment holds a stamp with the fingerprint of its lock, so that a second call starts at once, and a mark while it is
being made, so that a half-made one is recognised. Standard library only.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import subprocess
import tomllib
from pathlib import Path

from helpers import installer, settings

STAMP = "course-environment.json"
BEING_MADE = "course-being-made"
KINDS = {"client": "the notebooks' environment", "server": "the embedded server's environment"}


def client_folder() -> Path:
    """Where ``make`` puts the notebooks' environment (``COURSE_CLIENT_ENV``, else ``.venv`` in the course)."""
    return Path(os.environ["COURSE_CLIENT_ENV"]).resolve() if "COURSE_CLIENT_ENV" in os.environ else settings.root() / ".venv"


def client_requirements(dev: bool = False) -> list[str]:
    """The packages of the notebooks' side with their ranges, from ``pyproject.toml``."""
    project = tomllib.loads((settings.root() / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["dependencies"] + (project["optional-dependencies"]["dev"] if dev else [])


def server_requirements(torch: bool = True) -> list[str]:
    """The packages of the server's side with their ranges, without the server's wheel."""
    return [line for line in lines("containers/server-requirements.txt") if torch or not line.startswith("torch")]


def locked(name: str) -> dict[str, str]:
    """Package -> exact version in a lock (``requirements.lock`` or ``containers/server-requirements.lock``)."""
    pins = (re.match(r"([^=\s\[]+)(?:\[\w+\])?==([^\s;]+)", line) for line in lines(name))
    return {re.sub(r"[-_.]+", "-", pin[1]).lower(): pin[2] for pin in pins if pin}


def lines(name: str) -> list[str]:
    """The lines of a list of packages or of a lock, without comments; ``name`` is relative to the course."""
    text = (settings.root() / name).read_text(encoding="utf-8")
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def fingerprint(kind: str) -> str:
    """What an environment must have been made from: changes when its lock or its list of packages does."""
    if kind == "client":
        parts = lines("requirements.lock") + client_requirements(dev=True)
    else:
        parts = lines("containers/server-requirements.lock") + lines("containers/server-wheel.txt") + server_requirements()
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def state(folder: Path, kind: str) -> str:
    """``absent``, ``half-made``, ``moved``, ``old`` (another lock), ``ready``, or ``foreign`` (not made by the course)."""
    if not folder.exists() or not any(folder.iterdir()):
        return "absent"
    if (folder / BEING_MADE).exists():
        return "half-made"
    stamp = read_stamp(folder)
    if not stamp:
        return "foreign"
    if stamp.get("folder") != str(folder.resolve()) or not installer.python_of(folder).exists():
        return "moved"
    return "ready" if stamp.get("fingerprint") == fingerprint(kind) else "old"


def read_stamp(folder: Path) -> dict:
    """The stamp of a finished environment; empty when there is none or it is no stamp."""
    try:
        return json.loads((folder / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def numpy_fault(folder: Path) -> str:
    """Why the numpy of a server environment must not be used; empty when it may."""
    version = installer.installed_versions(folder).get("numpy", "")
    if version.startswith("1."):
        return ""
    return (
        f"The server's environment {folder} has {'numpy ' + version if version else 'no numpy'}; it needs numpy 1.26, "
        "because with numpy 2 models load, are READY and answer with empty tensors, without an error."
    )


def conda_lacks(dev: bool = False) -> list[str] | None:
    """What the active conda environment lacks for the notebooks; ``None`` when no conda environment is active."""
    python = Path(os.environ.get("CONDA_PREFIX", ""), "bin", "python")
    return lacks(python, dev) if "CONDA_PREFIX" in os.environ and python.exists() else None


@functools.cache
def lacks(python: Path, dev: bool = False) -> list[str]:
    """What this interpreter's environment lacks for the notebooks, names of packages."""
    done = subprocess.run([python, "-I", "-c", _LACKS, *client_requirements(dev)], capture_output=True, text=True, check=False)
    return done.stdout.split() if done.returncode == 0 else ["packaging"]


# Runs in that environment: prints the requirements (its arguments) that it does not meet.
_LACKS = """
import importlib.metadata as metadata, importlib.util, sys
from packaging.requirements import Requirement
if not (3, 11) <= sys.version_info[:2] <= (3, 12):
    print("python<3.13,>=3.11")
for requirement in map(Requirement, sys.argv[1:]):
    try:
        good = requirement.specifier.contains(metadata.version(requirement.name), prereleases=True)
    except metadata.PackageNotFoundError:
        good = False
    if not good:
        print(requirement.name)
if importlib.util.find_spec("helpers") is None:
    print("triton-course")
"""


def client_python(dev: bool = False) -> Path | None:
    """The interpreter of the notebooks' side if it is ready, else ``None``."""
    if conda_lacks(dev) == []:
        return Path(os.environ["CONDA_PREFIX"]) / "bin" / "python"
    folder = client_folder()
    ready = state(folder, "client") == "ready" and (read_stamp(folder).get("dev") or not dev)
    return installer.python_of(folder) if ready else None


def server_ready(torch: bool | None = None) -> bool:
    """Whether the embedded server's environment is as its lock says; ``torch=None`` takes it with or without PyTorch."""
    folder = settings.server_env()
    if numpy_fault(folder):
        return False
    if "COURSE_SERVER_ENV" in os.environ and state(folder, "server") == "foreign":
        return True
    return state(folder, "server") == "ready" and (not torch or bool(read_stamp(folder).get("torch")))
