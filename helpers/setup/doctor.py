"""Is this machine ready for the course, and if not, what to type.

Works before anything is installed (standard library only), changes nothing, and prints nothing that must not be shown to others, so that a
student can paste the report into a chat.

Typical use::

    from helpers import doctor
    doctor.report()                                     # a table in a notebook, text in a terminal
"""

from __future__ import annotations

import datetime
import getpass
import html as escaping
import os
import platform
import re
import shutil
import socket
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

# Good and note do not stand in the way; fix is for the student, with the line to type; for administrator it takes more rights.
GOOD, NOTE, FIX, ADMINISTRATOR = "good", "note", "fix", "administrator"
# Words beside the symbols, so that the state can be read without colour.
_MARKS = {GOOD: "✔ good", NOTE: "· note", FIX: "✖ fix", ADMINISTRATOR: "✖ administrator"}
_COLOURS = {GOOD: "#2e8540", NOTE: "#767676", FIX: "#d4351c", ADMINISTRATOR: "#d4351c"}
# Where the servers of the course listen: three ports from here on, or the next three that are free.
_HOST, _PORTS = "127.0.0.1", (9000, 9001, 9002)
# Free disk space, in GB, for logs and results of a class day.
_WORK_GB = 0.3
# Free space in /dev/shm, in MB: each Python model instance takes 1 MB and grows with the tensors; a container's default is 64 MB, and a
# request of 100 taus, of which the server puts several together, has 42 MB.
SHM_MB, SHM_FOR_TAUS_MB = 32, 256
# Seconds that a container engine may take to say how it is.
_ENGINE_TIMEOUT_S = 20.0
_ENGINES = {"apptainer": ("Apptainer", "--version"), "docker": ("Docker", "info"), "podman": ("podman", "info")}
_INSTALL_SERVER = "python -m helpers install-server"
# Triton's Python backend starts each model by a line of bash without quotes.
_BREAKS_BASH = re.compile(r"[^\w./+:@%,=-]", re.ASCII)


@dataclass(frozen=True)
class Finding:
    """One thing that the doctor looked at: subject, state (``good``, ``note``, ``fix``, ``administrator``), what was seen, what to type."""

    subject: str
    state: str
    found: str
    todo: str = ""


@dataclass(frozen=True)
class Report:
    """What the doctor found, thing by thing."""

    findings: tuple[Finding, ...] = field(repr=False)

    @property
    def status(self) -> int:
        """0 ready, 1 you can fix it, 2 ask the administrator of this machine."""
        states = {finding.state for finding in self.findings}
        return 2 if ADMINISTRATOR in states else 1 if FIX in states else 0

    @property
    def verdict(self) -> str:
        """The report in one sentence."""
        wrong = ", ".join(finding.subject for finding in self.findings if finding.state in (FIX, ADMINISTRATOR))
        return (
            "Ready.",
            f"Not ready yet, and you can fix it: {wrong}. Type what stands there, then ask the doctor again.",
            f"Not ready: show this report to the administrator of this machine ({wrong}).",
        )[self.status]

    def __repr__(self) -> str:
        lines = [f"Triton course {helpers.__version__}, doctor's report of {datetime.date.today()}"]
        width = max(len(finding.subject) for finding in self.findings)
        # Words go on below where they began; what is to be typed stays whole.
        room = shutil.get_terminal_size().columns
        wrapped = textwrap.TextWrapper(max(room, width + 40), break_long_words=False, break_on_hyphens=False)
        wrapped.subsequent_indent = " " * (width + 18)
        for finding in self.findings:
            wrapped.initial_indent = f"{_MARKS[finding.state]:<15} {finding.subject:<{width}}  "
            lines += wrapped.wrap(finding.found) or [wrapped.initial_indent]
            if finding.todo:
                lines.append(f"{wrapped.subsequent_indent}-> {finding.todo}")
        return hide("\n".join([*lines, self.verdict]))

    def _repr_html_(self) -> str:
        left, edge = 'style="text-align:left"', "text-align:left;white-space:nowrap;border-left:5px solid"
        rows = ""
        for finding in self.findings:
            subject, found, todo = (escaping.escape(hide(text)) for text in (finding.subject, finding.found, finding.todo))
            mark = f'<td style="{edge} {_COLOURS[finding.state]}"><b>{_MARKS[finding.state]}</b></td>'
            code = f"<br><code>{todo}</code>" if todo else ""
            rows += f"<tr>{mark}<td {left}>{subject}</td><td {left}>{found}{code}</td></tr>"
        return f"<table>{rows}</table><p><b>{escaping.escape(hide(self.verdict))}</b></p>"


def report(trial: Callable[[], str] | None = None) -> Report:
    """Return what the doctor finds on this machine.

    Args:
        trial: launches a server and sends it a request, and returns a sentence about it; left out by default, for it takes ten seconds.
    """
    return Report(tuple(_examinations(trial)))


def _examinations(trial: Callable[[], str] | None) -> Iterator[Finding]:
    """Every examination, in the order of the report."""
    yield python(sys.version_info[:3])
    yield system()
    yield from course_folder(root())
    yield notebooks_side()
    yield from server_side()
    yield load_generator()
    yield disk(root())
    yield shared_memory(Path("/dev/shm"))
    yield work(work_dir())
    yield name_of_this_machine()
    yield ports(_PORTS)
    yield gpu()
    yield from engines()
    yield from variables(os.environ)
    if trial:
        yield tried(trial)


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


def _lacking(subject: str, lack: str) -> Finding:
    """What only system packages bring: for this user, who may install them (root, or a group that may use sudo), or for another."""
    if not hasattr(os, "geteuid"):
        return Finding(subject, FIX, lack)
    import grp

    groups = {name.gr_name for name in grp.getgrall() if name.gr_gid in os.getgroups()}
    may = os.geteuid() == 0 or groups & {"sudo", "wheel", "admin"}
    return Finding(subject, FIX if may else ADMINISTRATOR, lack)


def python(version: tuple[int, ...]) -> Finding:
    """The Python that runs this."""
    found = f"{'.'.join(map(str, version))} at {sys.executable}"
    if version[:2] not in bootstrap.VERSIONS:
        return Finding("Python", FIX, f"{found}; the course needs 3.11 or 3.12", bootstrap.advice())
    server = not (bootstrap.embedded_obstacle() or environments.server_ready())
    # Where both environments are there, the interpreter has done its work.
    facts = bootstrap.probe(sys.executable) if server or not environments.client_python() else None
    lack = bootstrap.missing(facts, server) if facts else ""
    return _lacking("Python", lack) if lack else Finding("Python", GOOD, found)


def system() -> Finding:
    """Can the embedded server run on this kind of machine?"""
    name = " ".join(bootstrap.os_release()) or platform.system()
    found = f"{name}, {platform.machine()}, {' '.join(bootstrap.c_library())}, {os.cpu_count()} cores"
    obstacle = bootstrap.embedded_obstacle()
    return Finding("System", NOTE if obstacle else GOOD, f"{found}. {obstacle}" if obstacle else found)


def course_folder(folder: Path) -> Iterator[Finding]:
    """The course's own folder: its name, its owner, and whether programs may run there; nothing is said where all is well."""
    subject = "Course folder"
    if not os.access(folder, os.W_OK):
        yield Finding(subject, NOTE, f"{folder} belongs to somebody else; your own files go to {work_dir()}")
    name = os.fsencode(folder).decode("utf-8", "replace")
    if "�" in name or (signs := "".join(sorted(set(_BREAKS_BASH.findall(name))))):
        what = "no UTF-8" if "�" in name else f"{signs!r}"
        found = f"{name}: the name holds {what}, which containers and other programs may stumble over"
        yield Finding(subject, NOTE, found, f"if a launch fails: mv it to a plain name, such as {Path.home()}/triton-course")
    if hasattr(os, "statvfs") and os.statvfs(folder).f_flag & os.ST_NOEXEC:
        found = f"{folder}: programs may not be run from this disk (it is mounted noexec), so neither environment works there"
        yield Finding(subject, FIX, found, f"git clone {folder} {Path.home()}/triton-course, or another disk, and go on there")


def notebooks_side() -> Finding:
    """The notebooks' environment: there, and as its lock says."""
    subject, folder = "Notebooks' packages", environments.client_folder()
    if python := environments.client_python():
        if python.is_relative_to(folder):
            return _versions(subject, folder, "requirements.lock", "rm -r .venv && make setup")
        return Finding(subject, GOOD, f"in the conda environment {Path(os.environ['CONDA_PREFIX']).name}")
    if not environments.lacks(Path(sys.executable)):
        return Finding(subject, GOOD, f"in the environment {sys.prefix}")
    state = environments.state(folder, "client")
    if state == "foreign":
        return Finding(subject, FIX, f"{shown(folder)} was not made by the course", f"mv {folder} {folder}-mine && make setup")
    todo = environments.to_complete()
    if "CONDA_PREFIX" in os.environ:
        todo += "   (or, with conda: conda env create -f environment.yml && conda activate triton-course)"
    return Finding(subject, FIX, f"{shown(folder)} is {state}", todo)


def server_side() -> Iterator[Finding]:
    """The embedded server's environment, and the libpython that it needs."""
    subject, folder = "Server's packages", server_env()
    if bootstrap.embedded_obstacle():
        yield Finding(subject, NOTE, "not needed: the embedded server cannot run here")
        return
    state, name = environments.state(folder, "server"), shown(folder)
    if state != "ready" and not (state == "foreign" and "COURSE_SERVER_ENV" in os.environ):
        todo = f"mv {folder} {folder}-mine && make setup" if state == "foreign" else _INSTALL_SERVER
        yield Finding(subject, FIX, f"{name} is {state}", todo if os.access(folder.parent, os.W_OK) else environments.to_complete())
        return
    if fault := environments.numpy_fault(folder):
        yield Finding(subject, FIX, fault, f"rm -r {folder} && {_INSTALL_SERVER}")
        return
    if "torch" not in environments.installed_versions(folder):
        yield Finding(subject, NOTE, f"{name} is ready, without PyTorch: its models stay UNAVAILABLE", "make setup TORCH=yes")
    else:
        yield _versions(subject, folder, "containers/server-requirements.lock", f"rm -r {folder} && {_INSTALL_SERVER}")
    facts = bootstrap.probe(str(environments.python_of(folder)))
    if not facts:
        yield Finding("Server's Python", FIX, f"The Python of {folder} does not run.")
    elif lack := bootstrap.missing(facts, venv=False):
        yield _lacking("Server's Python", lack)
    else:
        yield Finding("Server's Python", GOOD, f"{'.'.join(map(str, facts['version']))} with {facts['libpython']}")


def _versions(subject: str, folder: Path, lock: str, todo: str) -> Finding:
    locked, there = environments.locked(lock), environments.installed_versions(folder)
    # A build's own label, as in 2.13.0+cpu, is not the lock's business.
    wrong = [name for name in sorted(locked) if name in there and there[name].split("+")[0] != locked[name]]
    if wrong:
        few = ", ".join(f"{name} {there[name]} (lock: {locked[name]})" for name in wrong[:5])
        return Finding(subject, FIX, f"{shown(folder)} differs from its lock: {few}{' …' * (len(wrong) > 5)}", todo)
    return Finding(subject, GOOD, f"{shown(folder)}, {len(there)} packages as locked")


def load_generator() -> Finding:
    """A perf_analyzer; without one everything but measuring works."""
    name = "perf_analyzer"
    variables = {**os.environ, "LD_LIBRARY_PATH": str(server_env() / environments.TOOL_LIBRARIES)}
    for place in filter(None, (shutil.which(name), shutil.which(server_env() / "bin" / name))):
        try:
            if not subprocess.run([place, "--version"], capture_output=True, env=variables, check=False).returncode:
                return Finding(name, GOOD, f"at {shown(Path(place))}")
        except OSError:
            continue  # made for another machine
    absent = f"none runs, on PATH or in {shown(server_env())}: notebooks 07 to 09 then show recorded results"
    return Finding(name, NOTE, absent, "" if bootstrap.embedded_obstacle() else _INSTALL_SERVER)


def disk(folder: Path, free_gb: float | None = None) -> Finding:
    """Room for what is not installed yet, and for logs and results; the system is asked for the free space where it is not given."""
    free_gb = shutil.disk_usage(folder).free / 1e9 if free_gb is None else free_gb
    need_gb = _WORK_GB + (0 if environments.client_python() else environments.CLIENT_GB)
    need_gb += 0 if bootstrap.embedded_obstacle() or environments.server_ready() else environments.SERVER_GB
    found = f"{free_gb:.1f} GB free at {folder}"
    if free_gb < need_gb:
        todo = "Make room. What is large: du -xh --max-depth=1 ~ | sort -h | tail"
        return Finding("Disk", FIX, f"{found}; {need_gb:.1f} GB are needed", todo)
    return Finding("Disk", GOOD, found)


def shared_memory(folder: Path) -> Finding:
    """``/dev/shm``, by which server and Python models hand each other tensors."""
    subject = "Shared memory"
    if platform.system() != "Linux":
        return Finding(subject, NOTE, "only Linux has /dev/shm")
    try:
        with tempfile.NamedTemporaryFile(dir=folder):
            free_mb = shutil.disk_usage(folder).free / 1e6
    except OSError as error:
        todo = f"Ask for a {folder} that users may write to (a tmpfs, mode 1777)."
        return Finding(subject, ADMINISTRATOR, f"{folder}: {error.strerror}", todo)
    if free_mb < SHM_MB:
        todo = f"Remove what is left over there (ls -l {folder}), or ask for more: in a container the option --shm-size=1g."
        return Finding(subject, ADMINISTRATOR, f"{free_mb:.0f} MB free in {folder}; {SHM_MB} MB are needed", todo)
    if free_mb < SHM_FOR_TAUS_MB:
        note = f"large batches of DeepTau need up to {SHM_FOR_TAUS_MB} MB (in a container: --shm-size=1g)"
        return Finding(subject, NOTE, f"{free_mb:.0f} MB free in {folder}; {note}")
    return Finding(subject, GOOD, f"{free_mb:.0f} MB free in {folder}")


def work(folder: Path) -> Finding:
    """The folder for what students make."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=there):
            return Finding("Folder work", GOOD, f"{shown(folder)} can be written")
    except OSError as error:
        return Finding("Folder work", FIX, f"{shown(folder)}: {error.strerror}", "export COURSE_WORK=$HOME/triton-work")


def name_of_this_machine(name: str = "localhost") -> Finding:
    """Does ``localhost`` lead to this machine's loopback address, where servers listen?"""
    try:
        addresses = {str(info[4][0]) for info in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)}
        reason = f"is {', '.join(sorted(addresses))}"
    except OSError as error:
        addresses, reason = set(), f"has no address ({error.strerror})"
    if _HOST in addresses:
        return Finding("Address", GOOD, f"{name} {reason}")
    todo = f"Ask for the line '{_HOST} localhost' in /etc/hosts."
    return Finding("Address", ADMINISTRATOR, f"{name} {reason}; servers of the course listen on {_HOST}", todo)


def ports(wanted: tuple[int, ...]) -> Finding:
    """The course's first three ports; taken ones are no harm, since the next triple is used."""
    taken = []
    for port in wanted:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((_HOST, port))
            except OSError:
                taken.append(f"{port} by {machine.port_owner(port)}")
    if taken:
        return Finding("Ports", NOTE, f"taken: {'; '.join(taken)}. A server takes the next three free ones and says so.")
    return Finding("Ports", GOOD, f"{wanted[0]} to {wanted[-1]} are free")


def gpu() -> Finding:
    """The GPU, if there is one; the course does without."""
    try:
        rows = machine.nvidia_smi("name", "memory.total", "driver_version")
    except SetupError as error:
        return Finding("GPU", NOTE, f"{error.happened.rstrip('.')}; models run on the processor")
    names = "; ".join(f"{row['name']}, {row['memory.total']} MiB, driver {row['driver_version']}" for row in rows)
    return Finding("GPU", GOOD, names) if names else Finding("GPU", NOTE, "none seen: models run on the processor, which is fine")


def engines() -> Iterator[Finding]:
    """Container engines and whether they answer: none is needed where the embedded server runs; elsewhere one should work."""
    needed, said = bool(bootstrap.embedded_obstacle()), {name: _engine_says(name) for name in _ENGINES if shutil.which(name)}
    if not said:
        other = "a server on another machine serves as well: connect(…)" if needed else "not needed: the embedded server runs without"
        yield Finding("Containers", NOTE, f"no Apptainer, Docker or podman; {other}")
    for name, problem in said.items():
        state = GOOD if not problem else FIX if needed and all(said.values()) else NOTE
        yield Finding(_ENGINES[name][0], state, problem or "answers", f'launch_server(runtime="{name}") says more' if problem else "")


def _engine_says(name: str) -> str:
    """Why an engine does not work, in its own words; empty where it does."""
    try:
        done = subprocess.run([name, _ENGINES[name][1]], capture_output=True, text=True, check=False, timeout=_ENGINE_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"does not answer: {error}"
    words = (done.stderr or done.stdout).strip().splitlines() or [f"it ended with {done.returncode}"]
    return f"says: {words[-1][:200]}" if done.returncode else ""


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
        todo = f"unset {' '.join(others)}   (make does so by itself)" if "LD_PRELOAD" not in others else ""
        yield Finding("Variables", NOTE, found, todo)


def tried(trial: Callable[[], str]) -> Finding:
    """A real server, launched and asked."""
    if bootstrap.embedded_obstacle():
        return Finding("Trial", NOTE, "not tried: the embedded server cannot run here")
    try:
        return Finding("Trial", GOOD, trial())
    except CourseError as error:
        return Finding("Trial", FIX, str(error))
    except ModuleNotFoundError as error:
        todo = f"{environments.to_complete()} && .venv/bin/python -m helpers doctor --full"
        return Finding("Trial", FIX, f"not tried: {error.name} is not installed for this Python", todo)
