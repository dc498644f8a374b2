"""Sets the course up on Google Colab, or in any other notebook service whose Python is not ours to make anew: ``%run helpers/colab.py``.

Colab's own NumPy, Matplotlib, widgets and kernel stay as they are, because a running notebook uses them; only what is missing is
installed beside them. The server gets an environment of its own, as everywhere. Standard library only.
"""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

if __name__ == "__main__":
    # The course is not installed there: its folder is all there is.
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from helpers import environments, installed, installer, settings, workspace
from helpers.errors import CourseError, SetupError

# What the service brings, in whichever version: to change these under a running kernel would need a restart. Its own front end stands for
# JupyterLab.
THEIRS = ("ipykernel", "ipywidgets", "jupyterlab", "matplotlib", "numpy", "psutil", "requests")


def missing() -> list[str]:
    """Requirements of the notebooks' side that this Python lacks, apart from those that the service brings."""
    lacks = installed.lacks(Path(sys.executable))
    brought = {name for name in THEIRS if _version(name)} | {"jupyterlab"}
    return [line for line in installed.client_requirements() if (name := _name(line)) in lacks and name not in brought]


def _name(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0]


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def install_missing() -> None:
    """Install what is missing, and leave what is there as it is.

    Raises:
        SetupError: it failed; says why in one sentence.
    """
    wanted = missing()
    if not wanted:
        return
    began = time.monotonic()
    print(f"installing {len(wanted)} packages for the notebooks, half a minute", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "kept.txt"
        kept.write_text("".join(f"{name}=={version}\n" for name in THEIRS if (version := _version(name))), encoding="utf-8")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", str(kept), *wanted]
        done = subprocess.run(command, capture_output=True, text=True, env=installer.clean_environment(), check=False)
    if done.returncode:
        happened, todo = installer.translate(done.stdout + done.stderr)
        raise SetupError(f"The packages for the notebooks could not be installed: {happened}.", "", todo)
    print(f"the packages are there ({time.monotonic() - began:.0f} s)", flush=True)


def main() -> int:
    """Packages, server, notebooks; at once when they are there.

    Returns:
        0, or 1 when something is in the way, which was said.
    """
    try:
        install_missing()
        if not installed.server_ready():
            environments.make_server_alone(None, getattr(sys, "_base_executable", sys.executable))
        workspace.hand_out()
    except CourseError as error:
        print(error)
        return 1
    print(f"The course is in {settings.root()}. Run the next cell.")
    return 0


if __name__ == "__main__" and main():
    sys.exit(1)
