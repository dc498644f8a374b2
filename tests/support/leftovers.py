"""What a run of the tests leaves behind: processes, shared memory, files outside its folders. The run fails for it, and says what it is.

Other runs and other programs use the same machine, so only what this run made is looked at: its processes carry a mark in their
environment, which their children inherit, and its temporary files and the servers' sockets lie in a folder of the run's own.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.processes import alive

# Not COURSE_…: some tests hide these from what they start, as a newcomer has none of them.
_MARK = "RUN_OF_TESTS"
_SHARED_MEMORY = Path("/dev/shm")
# What pytest, ruff, mypy and make keep in the course's folder for the next time, and in the home npm, which JupyterLab asks for it,
# and programs with caches and settings: a fresh clone in an empty home has none of them.
_CACHES = {".cache", ".config", ".pytest_cache", ".ruff_cache", ".mypy_cache", "__pycache__", ".npm"}
# Seconds until what is still there counts as left: a server outlives its owner by its grace period, and then it stops in its own time.
# What no process of the run can remove any more is waited for a moment, since another run's segments come and go.
_PATIENCE_S, _MOMENT_S = 60.0, 3.0
_PROCESS = "process "


class Run:
    """One run of the tests.

    Attributes:
        folder: holds ``tmp`` (``TMPDIR`` of all that it starts), ``run`` (``COURSE_RUN_DIR``) and the files of Jupyter, Dask and PyTorch.
    """

    def __init__(self) -> None:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())  # pytest keeps its folders where it always does
        self.folder = Path(tempfile.mkdtemp(prefix="course-tests-"))
        self.folder.chmod(0o755)  # some tests become other users, who must get as far as the folders that are theirs
        self.temporary = self.folder / "tmp"
        self.temporary.mkdir()
        servers = self.folder / "run"
        servers.mkdir(0o700)
        self._variables = {
            _MARK: self.folder.name,
            "TMPDIR": str(self.temporary),
            "COURSE_RUN_DIR": str(servers),
            **{f"JUPYTER_{kind}_DIR": str(self.folder / "jupyter" / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")},
            "IPYTHONDIR": str(self.folder / "ipython"),
            "DASK_TEMPORARY_DIRECTORY": str(self.folder / "dask"),
            "TORCHINDUCTOR_CACHE_DIR": str(self.folder / "inductor"),  # PyTorch keeps it for the next export
        }
        self._before = {name: os.environ.get(name) for name in self._variables}
        os.environ.update(self._variables)
        tempfile.tempdir = None
        self._files, self._segments = _files(), _segments()

    def left(self, patience_s: float = _PATIENCE_S) -> list[str]:
        """Return a line for each thing that the run left, once it has had the time to go."""
        start = alone = time.monotonic()
        while lines := list(self._now()):
            now = time.monotonic()
            if any(line.startswith(_PROCESS) for line in lines):
                alone = now  # what a process that ends removes is gone a moment later
            if now - start > patience_s or now - alone > _MOMENT_S:
                break
            time.sleep(0.2)
        return lines

    def end(self) -> None:
        """Give the environment back, and remove the run's folder."""
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        tempfile.tempdir = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def processes(self) -> list[int]:
        """Return the living processes that this one, or one below it, started; this one carries the mark only in its children's eyes."""
        mark = f"{_MARK}={self.folder.name}".encode()
        return [pid for pid in _processes() if mark in _read(f"/proc/{pid}/environ").split(b"\0") and alive(pid)]

    def _now(self) -> Iterator[str]:
        # The keeper of multiprocessing's shared memory ends with the process that it serves: this one.
        mine = [pid for pid in self.processes() if b"multiprocessing.resource_tracker" not in _read(f"/proc/{pid}/cmdline")]
        for pid in mine:
            yield f"{_PROCESS}{pid}: {_read(f'/proc/{pid}/cmdline').replace(bytes(1), b' ').decode(errors='replace').strip()[:200]}"
        # A segment that another program maps is that program's.
        if new := _segments() - self._segments:
            others = "".join(_read(f"/proc/{pid}/maps").decode(errors="replace") for pid in _processes() if pid not in mine)
            yield from (f"shared memory: {_SHARED_MEMORY / name}" for name in sorted(new) if f"{_SHARED_MEMORY / name}" not in others)
        for path in sorted(self.temporary.iterdir()):
            within = ", ".join(str(each.relative_to(path)) for each in sorted(path.rglob("*"))[:5])
            yield f"temporary file: {path.name}{f' with {within}' if within else ''}"
        yield from (f"file: {path}" for path in sorted(_files() - self._files))


def _read(path: str) -> bytes:
    """A file of a process, or nothing when the process is gone or another user's."""
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()] if Path("/proc").is_dir() else []


def _segments() -> set[str]:
    """Names in /dev/shm that are this user's."""
    return {path.name for path in _entries(_SHARED_MEMORY) if _owned(path)}


def _owned(path: Path) -> bool:
    try:
        return path.lstat().st_uid == os.getuid()
    except OSError:
        return False


def _files() -> set[Path]:
    """What lies in the home, in the course's own folder and in those of its folders that a student uses."""
    below = {path for name in ("models", "notebooks") for path in (ROOT / name).rglob("*") if "__pycache__" not in path.parts}
    # Not deeper: environments, with ten thousands of files, can lie in it.
    work = {path for pattern in ("*", "*/*") for path in (ROOT / "work").glob(pattern)}
    return {*(path for folder in (Path.home(), ROOT) for path in _entries(folder) if path.name not in _CACHES), *below, *work}


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


_RUN: pytest.StashKey[Run] = pytest.StashKey()
_LEFT: pytest.StashKey[list[str]] = pytest.StashKey()


def pytest_configure(config: pytest.Config) -> None:
    """Begin the run; workers of pytest-xdist are a part of their controller's."""
    if not hasattr(config, "workerinput") and not config.option.collectonly:
        config.stash[_RUN] = Run()


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """Look after all else has ended, workers included; what is left fails the run."""
    yield
    if run := session.config.stash.get(_RUN, None):
        session.config.stash[_LEFT] = run.left()
        if session.config.stash[_LEFT] and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what is left."""
    if left := terminalreporter.config.stash.get(_LEFT, None):
        terminalreporter.section("left behind by this run", sep="=", red=True)
        for line in left:
            terminalreporter.line(line)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the run."""
    if run := config.stash.get(_RUN, None):
        run.end()
