"""What the doctor looks at of Python and the two environments. Standard library only, and nothing is changed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from helpers import installed, installer, preflight, settings
from helpers.errors import SetupError
from helpers.files import shown
from helpers.finding import ADMINISTRATOR, GOOD, MEND, NOTE, Finding
from helpers.perf_program import NAME, find_perf_analyzer


def may_administer() -> bool:
    """Whether this user can install system packages: root, or in one of the groups that may use sudo."""
    if not hasattr(os, "geteuid"):
        return True
    import grp

    groups = {name.gr_name for name in grp.getgrall() if name.gr_gid in os.getgroups()}
    return os.geteuid() == 0 or bool(groups & {"sudo", "wheel", "admin"})


def python(version: tuple[int, ...]) -> Finding:
    """The Python that runs this."""
    found = f"{'.'.join(map(str, version))} at {sys.executable}"
    if version[:2] not in preflight.VERSIONS:
        return Finding("Python", MEND, f"{found}; the course needs 3.11 or 3.12", preflight.advice())
    server = not (preflight.embedded_obstacle() or installed.server_ready())
    # Where both environments are there, the interpreter has done its work.
    facts = preflight.probe(sys.executable) if server or not installed.client_python() else None
    lack = preflight.missing(facts, server) if facts else ""
    if not lack:
        return Finding("Python", GOOD, found)
    return Finding("Python", MEND if may_administer() else ADMINISTRATOR, lack)


def notebooks_side() -> Finding:
    """The notebooks' environment: there, and as its lock says."""
    subject, folder = "Notebooks' packages", installed.client_folder()
    if python := installed.client_python():
        if python.is_relative_to(folder):
            return _versions(subject, folder, "requirements.lock", "rm -r .venv && make setup")
        return Finding(subject, GOOD, f"in the conda environment {Path(os.environ['CONDA_PREFIX']).name}")
    if not installed.lacks(Path(sys.executable)):
        return Finding(subject, GOOD, f"in the environment {sys.prefix}")
    state = installed.state(folder, "client")
    if state == "foreign":
        return Finding(subject, MEND, f"{shown(folder)} was not made by the course", f"mv {folder} {folder}-mine && make setup")
    todo = "make setup"
    if "CONDA_PREFIX" in os.environ:
        todo += "   (or, with conda: conda env create -f environment.yml && conda activate triton-course)"
    return Finding(subject, MEND, f"{shown(folder)} is {state}", todo)


def server_side() -> Iterator[Finding]:
    """The embedded server's environment, and the libpython that it needs."""
    subject, folder = "Server's packages", settings.server_env()
    if preflight.embedded_obstacle():
        yield Finding(subject, NOTE, "not needed: the embedded server cannot run here")
        return
    state, own = installed.state(folder, "server"), "COURSE_SERVER_ENV" not in os.environ
    if state != "ready" and not (state == "foreign" and not own):
        todo = f"mv {folder} {folder}-mine && make setup" if state == "foreign" else "python -m helpers install-server"
        yield Finding(subject, MEND, f"{shown(folder)} is {state}", todo)
        return
    if fault := installed.numpy_fault(folder):
        yield Finding(subject, MEND, fault, f"rm -r {folder} && python -m helpers install-server")
        return
    packages = installer.installed_versions(folder)
    if "torch" not in packages:
        yield Finding(subject, NOTE, f"{shown(folder)} is ready, without PyTorch: its models stay UNAVAILABLE", "make setup TORCH=yes")
    else:
        yield _versions(subject, folder, "containers/server-requirements.lock", f"rm -r {folder} && python -m helpers install-server")
    facts = preflight.probe(str(installer.python_of(folder)))
    lack = preflight.missing(facts, venv=False) if facts else f"The Python of {folder} does not run."
    if lack:
        yield Finding("Server's Python", MEND if may_administer() or not facts else ADMINISTRATOR, lack)
    else:
        yield Finding("Server's Python", GOOD, f"{'.'.join(map(str, facts['version']))} with {facts['libpython']}")


def load_generator() -> Finding:
    """Which perf_analyzer there is; without one everything but measuring works."""
    try:
        program = find_perf_analyzer()
    except SetupError as error:
        return Finding(NAME, NOTE, error.happened, "" if preflight.embedded_obstacle() else "python -m helpers install-server")
    return Finding(NAME, GOOD, f"{program.version}, {program.origin}")


def _versions(subject: str, folder: Path, lock: str, todo: str) -> Finding:
    locked, there = installed.locked(lock), installer.installed_versions(folder)
    # A build's own label, as in 2.13.0+cpu, is not the lock's business.
    other = [
        f"{name} {there[name]} (lock: {locked[name]})"
        for name in sorted(locked)
        if name in there and there[name].split("+")[0] != locked[name]
    ]
    if other:
        return Finding(subject, MEND, f"{shown(folder)} differs from its lock: {', '.join(other[:5])}{' …' * (len(other) > 5)}", todo)
    return Finding(subject, GOOD, f"{shown(folder)}, {len(there)} packages as locked")
