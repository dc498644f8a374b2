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
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import helpers
from helpers import machine
from helpers.paths import root, shown, work_dir
from helpers.setup import bootstrap, environments
from helpers.tables import as_html

# Good and note do not stand in the way; fix does. Words beside the symbols, so that the state can be read without colour.
GOOD, NOTE, FIX = "✔ good", "· note", "✖ fix"


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
        return as_html(rows, caption=self._verdict(), bold=lambda row: row[""] == FIX)


def report() -> Report:
    """Return what the doctor finds on this machine."""
    return Report([system(), environment("client"), environment("server"), work(work_dir())])


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


def environment(kind: str) -> Finding:
    """The notebooks' packages, or the server's: there, and as their lock says."""
    subject = {"client": "Notebooks' packages", "server": "Server's packages"}[kind]
    folder, state = environments.folder_of(kind), environments.state(kind)
    if kind == "server" and bootstrap.embedded_obstacle():
        return Finding(subject, NOTE, "not needed: the embedded server cannot run here")
    if kind == "client" and environments.client_python() == Path(sys.executable) != folder / "bin" / "python":
        return Finding(subject, GOOD, f"in the environment {sys.prefix}")
    if state != "ready":
        return Finding(subject, FIX, f"{shown(folder)} is {state}", environments.to_complete())
    locked, there = environments.locked(environments.LOCKS[kind]), environments.installed_versions(folder)
    # The lock says nothing of a build's own label, as in 2.13.0+cpu, nor of the setuptools that Python itself brings.
    same = {name: version.split("+")[0] for name, version in there.items() if name in locked and name != "setuptools"}
    if wrong := [name for name in sorted(same) if same[name] != locked[name]]:
        differ = ", ".join(f"{name} {there[name]} (lock: {locked[name]})" for name in wrong)
        return Finding(subject, FIX, f"{shown(folder)} differs from its lock: {differ}", f"rm -r {folder} && make setup")
    missing = "; without PyTorch: its models stay UNAVAILABLE" * ("torch" in locked and "torch" not in there)
    return Finding(subject, GOOD, f"{shown(folder)}, {len(there)} packages as locked{missing}")


def work(folder: Path) -> Finding:
    """The folder for what students make; in a course folder of somebody else it is elsewhere."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    others = "" if os.access(root(), os.W_OK) else f"{root()} belongs to somebody else; your own files go to "
    try:
        with tempfile.NamedTemporaryFile(dir=there):
            return Finding("Folder work", GOOD, f"{others}{shown(folder)}, which can be written")
    except OSError as error:
        return Finding("Folder work", FIX, f"{others}{shown(folder)}: {error.strerror}", "export COURSE_WORK=$HOME/triton-work")
