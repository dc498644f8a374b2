"""Is this machine ready for the course, and if not, what to type.

Works before anything is installed (standard library only), changes nothing, and prints nothing that must not be shown to others, so that a
student can paste the report into a chat.
"""

from __future__ import annotations

import contextlib
import datetime
import getpass
import html as escaping
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import helpers
from helpers import machine
from helpers.errors import CourseError, SetupError
from helpers.paths import root, server_env, shown, work_dir
from helpers.setup import bootstrap, environments

# Good and note do not stand in the way; fix does. Words beside the symbols, so that the state can be read without colour.
GOOD, NOTE, FIX = "✔ good", "· note", "✖ fix"
_COLOURS = {GOOD: "#2e8540", NOTE: "#767676", FIX: "#d4351c"}
# Free disk space, in GB, for logs and results of a class day.
_WORK_GB = 0.3
# Free space in /dev/shm, in MB: each Python model instance takes 1 MB and grows with the tensors; a container's default is 64 MB, and a
# request of 100 taus, of which the server puts several together, has 42 MB.
SHM_MB, SHM_FOR_TAUS_MB = 32, 256
_INSTALL_SERVER = "python -m helpers install-server"


@dataclass(frozen=True)
class Finding:
    """One thing that the doctor looked at: subject, state, what was seen, what to type."""

    subject: str
    state: str
    found: str
    todo: str = ""


@dataclass(frozen=True)
class Report:
    """What the doctor found, thing by thing: a table in a notebook, text in a terminal."""

    findings: tuple[Finding, ...] = field(repr=False)

    @property
    def status(self) -> int:
        """0 ready, 1 not yet."""
        return int(any(finding.state == FIX for finding in self.findings))

    @property
    def verdict(self) -> str:
        """The report in one sentence."""
        wrong = ", ".join(finding.subject for finding in self.findings if finding.state == FIX)
        return f"Not ready yet: {wrong}. Type what stands there, then ask the doctor again." if wrong else "Ready."

    def __repr__(self) -> str:
        lines = [f"Triton course {helpers.__version__}, doctor's report of {datetime.date.today()}"]
        width = max(len(finding.subject) for finding in self.findings)
        # Words go on below where they began; what is to be typed stays whole.
        room = shutil.get_terminal_size().columns
        wrapped = textwrap.TextWrapper(max(room, width + 40), break_long_words=False, break_on_hyphens=False)
        wrapped.subsequent_indent = " " * (width + 10)
        for finding in self.findings:
            wrapped.initial_indent = f"{finding.state:<7} {finding.subject:<{width}}  "
            lines += wrapped.wrap(finding.found)
            if finding.todo:
                lines.append(f"{wrapped.subsequent_indent}-> {finding.todo}")
        return hide("\n".join([*lines, self.verdict]))

    def _repr_html_(self) -> str:
        left, edge = 'style="text-align:left"', "text-align:left;white-space:nowrap;border-left:5px solid"
        rows = ""
        for finding in self.findings:
            subject, found, todo = (escaping.escape(hide(text)) for text in (finding.subject, finding.found, finding.todo))
            mark = f'<td style="{edge} {_COLOURS[finding.state]}"><b>{finding.state}</b></td>'
            code = f"<br><code>{todo}</code>" if todo else ""
            rows += f"<tr>{mark}<td {left}>{subject}</td><td {left}>{found}{code}</td></tr>"
        return f"<table>{rows}</table><p><b>{escaping.escape(hide(self.verdict))}</b></p>"


def report(trial: Callable[[], str] | None = None) -> Report:
    """Return what the doctor finds on this machine.

    Args:
        trial: launches a server and sends it a request, and returns a sentence about it; left out by default, for it takes ten seconds.
    """
    folder = root()
    findings = [python(sys.version_info[:3]), system(), *course_folder(folder), notebooks_side(), *server_side(), load_generator()]
    findings += [disk(folder), shared_memory(Path("/dev/shm")), work(work_dir()), gpu(), containers(), *variables(os.environ)]
    return Report((*findings, tried(trial)) if trial else tuple(findings))


def hide(text: str) -> str:
    """Return the text without what others must not read: home folder and user name, keys, passwords in addresses."""
    text = re.sub(r"(?i)\b([\w-]*(?:token|key|secret|passw\w*|credential\w*)[\w-]*)(\s*[=:]\s*)\S+", r"\1\2(hidden)", text)
    text = re.sub(r"(\w+://)[^\s/@]+@", r"\1(hidden)@", text)
    home = str(Path.home())
    if home != "/":
        text = re.sub(rf"(?<![\w.~-]){re.escape(home)}(?=$|[/\s:'\",;)])", "~", text)
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number without a name
        return text
    return re.sub(rf"(?<=/){re.escape(user)}(?=$|[/\s:'\",;)])", "(user)", text)


def python(version: tuple[int, ...]) -> Finding:
    """The Python that runs this; where both environments are there, it has done its work."""
    found = f"{'.'.join(map(str, version))} at {sys.executable}"
    if version[:2] not in bootstrap.VERSIONS:
        return Finding("Python", FIX, f"{found}; the course needs 3.11 or 3.12", bootstrap.advice())
    complete = environments.client_python() and (bootstrap.embedded_obstacle() or environments.server_ready())
    lack = "" if complete else bootstrap.missing(bootstrap.probe(sys.executable) or {}, not bootstrap.embedded_obstacle())
    return Finding("Python", FIX, lack) if lack else Finding("Python", GOOD, found)


def system() -> Finding:
    """Can the embedded server run on this kind of machine?"""
    name = platform.system()
    with contextlib.suppress(OSError):
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    obstacle = bootstrap.embedded_obstacle()
    found = f"{name}, {platform.machine()}, {' '.join(bootstrap.c_library())}, {os.cpu_count()} cores. {obstacle}"
    return Finding("System", NOTE if obstacle else GOOD, found)


def course_folder(folder: Path) -> Iterator[Finding]:
    """The course's own folder: its owner, and whether programs may run there; nothing is said where all is well."""
    if not os.access(folder, os.W_OK):
        yield Finding("Course folder", NOTE, f"{folder} belongs to somebody else; your own files go to {work_dir()}")
    if hasattr(os, "statvfs") and os.statvfs(folder).f_flag & os.ST_NOEXEC:
        found = f"{folder}: programs may not be run from this disk (it is mounted noexec), so neither environment works there"
        yield Finding("Course folder", FIX, found, f"git clone {folder} {Path.home()}/triton-course, or another disk, and go on there")


def notebooks_side() -> Finding:
    """The notebooks' environment: there, and as its lock says."""
    subject, folder = "Notebooks' packages", environments.client_folder()
    if python := environments.client_python():
        if python.is_relative_to(folder):
            return _versions(subject, folder, "requirements.lock", "rm -r .venv && make setup")
        return Finding(subject, GOOD, f"in the conda environment {Path(os.environ['CONDA_PREFIX']).name}")
    if environments.holds_course(Path(sys.prefix)):
        return Finding(subject, GOOD, f"in the environment {sys.prefix}")
    return _absent(subject, folder, environments.state(folder, "client"), environments.to_complete())


def server_side() -> Iterator[Finding]:
    """The embedded server's environment, and the libpython that it needs."""
    subject, folder = "Server's packages", server_env()
    if bootstrap.embedded_obstacle():
        yield Finding(subject, NOTE, "not needed: the embedded server cannot run here")
    elif environments.server_state() != "ready":
        todo = _INSTALL_SERVER if os.access(folder.parent, os.W_OK) else environments.to_complete()
        yield _absent(subject, folder, environments.server_state(), todo)
    elif fault := environments.numpy_fault(folder):
        yield Finding(subject, FIX, fault, f"rm -r {folder} && {_INSTALL_SERVER}")
    else:
        if "torch" in environments.installed_versions(folder):
            yield _versions(subject, folder, "containers/server-requirements.lock", f"rm -r {folder} && {_INSTALL_SERVER}")
        else:
            yield Finding(subject, NOTE, f"{shown(folder)} is ready, without PyTorch: its models stay UNAVAILABLE", "make setup TORCH=yes")
        facts = bootstrap.probe(str(environments.python_of(folder)))
        lack = bootstrap.missing(facts, venv=False) if facts else f"The Python of {folder} does not run."
        if lack:
            yield Finding("Server's Python", FIX, lack)


def _absent(subject: str, folder: Path, state: str, todo: str) -> Finding:
    if state == "foreign":
        return Finding(subject, FIX, f"{shown(folder)} was not made by the course", f"mv {folder} {folder}-mine && make setup")
    return Finding(subject, FIX, f"{shown(folder)} is {state}", todo)


def _versions(subject: str, folder: Path, lock: str, todo: str) -> Finding:
    locked, there = environments.locked(lock), environments.installed_versions(folder)
    # A build's own label, as in 2.13.0+cpu, is not the lock's business.
    wrong = [name for name in sorted(locked) if name in there and there[name].split("+")[0] != locked[name]]
    if wrong:
        few = ", ".join(f"{name} {there[name]} (lock: {locked[name]})" for name in wrong[:5])
        return Finding(subject, FIX, f"{shown(folder)} differs from its lock: {few}{' …' * (len(wrong) > 5)}", todo)
    return Finding(subject, GOOD, f"{shown(folder)}, {len(there)} packages as locked")


def load_generator() -> Finding:
    """A perf_analyzer that runs; without one everything but measuring works."""
    name = "perf_analyzer"
    variables = {**os.environ, "LD_LIBRARY_PATH": str(server_env() / environments.TOOL_LIBRARIES)}
    for place in filter(None, (shutil.which(name), shutil.which(server_env() / "bin" / name))):
        with contextlib.suppress(OSError):  # made for another machine
            if not subprocess.run([place, "--version"], capture_output=True, env=variables, check=False).returncode:
                return Finding(name, GOOD, f"at {shown(Path(place))}")
    absent = f"none runs, on PATH or in {shown(server_env())}: notebooks 07 to 09 then show recorded results"
    return Finding(name, NOTE, absent, "" if bootstrap.embedded_obstacle() else _INSTALL_SERVER)


def disk(folder: Path) -> Finding:
    """Room for what is not installed yet, and for logs and results."""
    free_gb = shutil.disk_usage(folder).free / 1e9
    need_gb = _WORK_GB + (0 if environments.client_python() else environments.CLIENT_GB)
    need_gb += 0 if bootstrap.embedded_obstacle() or environments.server_ready() else environments.SERVER_GB
    found = f"{free_gb:.1f} GB free at {folder}"
    if free_gb < need_gb:
        return Finding("Disk", FIX, f"{found}; {need_gb:.1f} GB are needed", "What is large: du -xh --max-depth=1 ~ | sort -h | tail")
    return Finding("Disk", GOOD, found)


def shared_memory(folder: Path) -> Finding:
    """``/dev/shm``, by which server and Python models hand each other tensors."""
    subject, todo = "Shared memory", "Ask for more of it; in a container with the option --shm-size=1g"
    if platform.system() != "Linux":
        return Finding(subject, NOTE, "only Linux has /dev/shm")
    try:
        with tempfile.NamedTemporaryFile(dir=folder):
            free_mb = shutil.disk_usage(folder).free / 1e6
    except OSError as error:
        return Finding(subject, FIX, f"{folder}: {error.strerror}", todo)
    found = f"{free_mb:.0f} MB free in {folder}"
    if free_mb < SHM_MB:
        return Finding(subject, FIX, f"{found}; {SHM_MB} MB are needed", todo)
    if free_mb < SHM_FOR_TAUS_MB:
        return Finding(subject, NOTE, f"{found}; large batches of DeepTau need up to {SHM_FOR_TAUS_MB} MB", todo)
    return Finding(subject, GOOD, found)


def work(folder: Path) -> Finding:
    """The folder for what students make."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=there):
            return Finding("Folder work", GOOD, f"{shown(folder)} can be written")
    except OSError as error:
        return Finding("Folder work", FIX, f"{shown(folder)}: {error.strerror}", "export COURSE_WORK=$HOME/triton-work")


def gpu() -> Finding:
    """The GPU, if there is one; the course does without."""
    try:
        rows = machine.nvidia_smi("name", "memory.total", "driver_version")
    except SetupError as error:
        return Finding("GPU", NOTE, f"{error.happened.rstrip('.')}; models run on the processor")
    names = "; ".join(f"{row['name']}, {row['memory.total']} MiB, driver {row['driver_version']}" for row in rows)
    return Finding("GPU", GOOD, names) if names else Finding("GPU", NOTE, "none seen: models run on the processor, which is fine")


def containers() -> Finding:
    """Container engines on PATH: none is needed where the embedded server runs."""
    there = ", ".join(name for name in ("apptainer", "docker", "podman") if shutil.which(name))
    other = "a server on another machine serves as well" if bootstrap.embedded_obstacle() else "the embedded server runs without"
    return Finding("Containers", NOTE, there or f"no Apptainer, Docker or podman; {other}")


def variables(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Environment variables that are known to get in the way; their values are not shown."""
    names = {name for name, value in environment.items() if value}
    proxies = sorted(name for name in names if name.lower() in ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy"))
    direct = ",".join(environment.get(name, "") for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"))
    if proxies and not re.search(r"(^|,)\s*(\*|localhost)\s*(,|$)", direct):
        found = f"{', '.join(proxies)} set without an exception for this machine: requests to localhost would go to the proxy"
        yield Finding("Proxy", FIX, found, "export no_proxy=localhost,127.0.0.1,$no_proxy NO_PROXY=localhost,127.0.0.1,$no_proxy")
    if others := [name for name in ("PYTHONPATH", "PYTHONHOME", "LD_PRELOAD") if name in names]:
        found = f"{', '.join(others)} set, perhaps by an experiment's software: its packages may hide the course's"
        yield Finding("Variables", NOTE, found, f"unset {' '.join(others)}")


def tried(trial: Callable[[], str]) -> Finding:
    """A real server, launched and asked."""
    try:
        return Finding("Trial", GOOD, trial())
    except CourseError as error:
        return Finding("Trial", FIX, str(error))
    except ModuleNotFoundError as error:
        return Finding("Trial", FIX, f"not tried: {error.name} is not installed for this Python", environments.to_complete())
