"""Is this machine ready for the course, and if not, what to type.

Works before anything is installed (standard library only), changes nothing, and prints nothing that must not be shown to others, so that a
student can paste the report into a chat.
"""

from __future__ import annotations

import contextlib
import datetime
import getpass
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import helpers
from helpers import machine
from helpers.errors import CourseError
from helpers.paths import root, server_env, shown, work_dir
from helpers.setup import bootstrap, environments
from helpers.tables import as_html

# Good and note do not stand in the way; fix does. Words beside the symbols, so that the state can be read without colour.
GOOD, NOTE, FIX = "✔ good", "· note", "✖ fix"
# Free space in /dev/shm, in MB: each Python model instance takes 1 MB and grows with the tensors; a container's default is 64 MB.
_SHM_MB = 32
_INSTALL_SERVER = "python -m helpers install-server"


class Finding(NamedTuple):
    """One thing that the doctor looked at: subject, state, what was seen, what to type."""

    subject: str
    state: str
    found: str
    todo: str = ""


class Report(list[Finding]):
    """What the doctor found, thing by thing: a table in a notebook, text in a terminal."""

    def wrong(self) -> str:
        """Return what is not ready yet, empty when all is."""
        return ", ".join(each.subject for each in self if each.state == FIX)

    def _verdict(self) -> str:
        return f"Not ready yet: {self.wrong()}. Type what stands there, then ask the doctor again." if self.wrong() else "Ready."

    def __repr__(self) -> str:
        lines = [f"Triton course {helpers.__version__}, doctor's report of {datetime.date.today()}"]
        for each in self:
            lines += [f"{each.state:<6}  {each.subject}: {each.found}", *([f"        -> {each.todo}"] if each.todo else [])]
        return hide("\n".join([*lines, self._verdict()]))

    def _repr_html_(self) -> str:
        rows = [{"": each.state, "looked at": each.subject, "found": hide(each.found), "type": hide(each.todo)} for each in self]
        return f"{as_html(rows, bold=lambda row: row[''] == FIX)}<p><b>{self._verdict()}</b></p>"


def report(trial: Callable[[], str] | None = None) -> Report:
    """Return what the doctor finds on this machine.

    ``trial`` launches a server and sends it a request, and returns a sentence about it; left out by default, for it takes ten seconds.
    """
    found = [system(), notebooks_side(), server_side(), shared_memory(Path("/dev/shm")), work(work_dir())]
    return Report([*found, tried(trial)] if trial else found)


def hide(text: str) -> str:
    """Return the text without what others must not read: home folder and user name, keys, passwords in addresses."""
    text = re.sub(r"(?i)\b([\w-]*(?:token|key|secret|passw\w*|credential\w*)[\w-]*)(\s*[=:]\s*)\S+", r"\1\2(hidden)", text)
    text = re.sub(r"(\w+://)[^\s/@]+@", r"\1(hidden)@", text)
    home, end = str(Path.home()), r"(?=$|[/\s:'\",;)])"
    if home != "/":
        text = re.sub(rf"(?<![\w.~-]){re.escape(home)}{end}", "~", text)
    with contextlib.suppress(KeyError, OSError):  # a container may run under a number without a name
        text = re.sub(rf"(?<=/){re.escape(getpass.getuser())}{end}", "(user)", text)
    return text


def system() -> Finding:
    """This machine: can the embedded server run on it, and has it GPUs? The course does without."""
    obstacle = bootstrap.embedded_obstacle()
    python = f"Python {platform.python_version()} at {sys.executable}"
    found = f"{platform.platform()}; {machine.cpu()}; {', '.join(machine.gpus()) or 'no GPU, which is fine'}; {python}. {obstacle}".rstrip()
    return Finding("System", NOTE if obstacle else GOOD, found)


def notebooks_side() -> Finding:
    """The notebooks' environment: there, and as its lock says."""
    subject, folder = "Notebooks' packages", environments.client_folder()
    if python := environments.client_python():
        if python.is_relative_to(folder):
            return _versions(subject, folder, "requirements.lock", "rm -r .venv && make setup")
        return Finding(subject, GOOD, f"in the conda environment {Path(os.environ['CONDA_PREFIX']).name}")
    if environments.holds_course(Path(sys.prefix)):
        return Finding(subject, GOOD, f"in the environment {sys.prefix}")
    return Finding(subject, FIX, f"{shown(folder)} is {environments.state(folder, 'client')}", environments.to_complete())


def server_side() -> Finding:
    """The embedded server's environment."""
    subject, folder = "Server's packages", server_env()
    if bootstrap.embedded_obstacle():
        return Finding(subject, NOTE, "not needed: the embedded server cannot run here")
    if environments.server_state() != "ready":
        todo = _INSTALL_SERVER if os.access(folder.parent, os.W_OK) else environments.to_complete()
        return Finding(subject, FIX, f"{shown(folder)} is {environments.server_state()}", todo)
    return _versions(subject, folder, "containers/server-requirements.lock", f"rm -r {folder} && {_INSTALL_SERVER}")


def _versions(subject: str, folder: Path, lock: str, todo: str) -> Finding:
    locked, there = environments.locked(lock), environments.installed_versions(folder)
    # A build's own label, as in 2.13.0+cpu, is not the lock's business.
    wrong = [name for name in sorted(locked) if name in there and there[name].split("+")[0] != locked[name]]
    if wrong:
        few = ", ".join(f"{name} {there[name]} (lock: {locked[name]})" for name in wrong[:5])
        return Finding(subject, FIX, f"{shown(folder)} differs from its lock: {few}{' …' * (len(wrong) > 5)}", todo)
    missing = "; without PyTorch: its models stay UNAVAILABLE" * ("torch" in locked and "torch" not in there)
    return Finding(subject, GOOD, f"{shown(folder)}, {len(there)} packages as locked{missing}")


def shared_memory(folder: Path) -> Finding:
    """``/dev/shm``, by which server and Python models hand each other tensors."""
    subject, todo = "Shared memory", "Ask for more of it; in a container with the option --shm-size=1g"
    if platform.system() != "Linux":
        return Finding(subject, NOTE, "only Linux has /dev/shm")
    free_mb = shutil.disk_usage(folder).free / 1e6 if folder.is_dir() else 0
    found = f"{free_mb:.0f} MB free in {folder}; {_SHM_MB} MB are needed"
    return Finding(subject, GOOD, found) if free_mb >= _SHM_MB else Finding(subject, FIX, found, todo)


def work(folder: Path) -> Finding:
    """The folder for what students make; in a course folder of somebody else it is elsewhere."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    others = "" if os.access(root(), os.W_OK) else f"{root()} belongs to somebody else; your own files go to "
    try:
        with tempfile.NamedTemporaryFile(dir=there):
            return Finding("Folder work", GOOD, f"{others}{shown(folder)}, which can be written")
    except OSError as error:
        return Finding("Folder work", FIX, f"{others}{shown(folder)}: {error.strerror}", "export COURSE_WORK=$HOME/triton-work")


def tried(trial: Callable[[], str]) -> Finding:
    """A real server, launched and asked."""
    try:
        return Finding("Trial", GOOD, trial())
    except CourseError as error:
        return Finding("Trial", FIX, str(error))
    except ModuleNotFoundError as error:
        return Finding("Trial", FIX, f"not tried: {error.name} is not installed for this Python", environments.to_complete())
