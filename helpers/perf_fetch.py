"""Fetches the perf_analyzer that the wheel of tritonclient carries, once, checked by its hash. Standard library only.

The program needs two libraries, which the server's wheel brings under names with a hash in them. Copies with the plain names lie
beside the program, so that it runs also when the server's environment has gone.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import sys
import tempfile
import zipfile
from pathlib import Path

from helpers import installer, settings
from helpers.errors import SetupError
from helpers.files import make_folder, writing
from helpers.perf_program import NAME, VERSION, cache_folder

WHEEL = f"tritonclient-{VERSION}-py3-none-manylinux1_x86_64.whl"
WHEEL_SHA256 = "c485bb0123bdf310f90bc8b03d3489b28df2ffed55b30c7eee0b795b48113d52"
# Plain name -> what it is called among the libraries of the server's wheel.
LIBRARIES = {"libb64.so.0d": "libb64-*.so.0d", "libcudart.so.12": "libcudart-*.so.12*"}
# In the server's environment: why it could not be fetched, so that later starts do not try again and again without a network.
_GAVE_UP = "perf_analyzer-not-fetched.txt"


def is_there() -> bool:
    """Whether program and libraries are in their place."""
    folder = cache_folder()
    return all((folder / name).exists() and not (folder / name).is_symlink() for name in (NAME, *LIBRARIES))


def gave_up() -> bool:
    """Whether an earlier set-up has tried, and could not fetch it."""
    return (settings.server_env() / _GAVE_UP).exists()


def fetch_or_say() -> bool:
    """Fetch what is missing; a failure is said in one line and stops nothing, because the server runs without it.

    Returns:
        Whether it is there.
    """
    note = settings.server_env() / _GAVE_UP
    try:
        if not is_there():
            fetch()
            print(f"perf_analyzer {VERSION} is ready", flush=True)
        note.unlink(missing_ok=True)
        return True
    except (SetupError, OSError) as error:
        print(f"perf_analyzer is not there yet: {error} Everything but measuring works without it.", flush=True)
        with contextlib.suppress(OSError):
            note.write_text(f"{error}\n", encoding="utf-8")
        return False


def fetch() -> Path:
    """Make the program ready; downloads 14 MB the first time.

    Returns:
        The folder that holds the program and its two libraries.

    Raises:
        SetupError: no network, another file than expected, or a server's environment without the libraries.
    """
    folder = cache_folder()
    with writing(folder):
        make_folder(folder)
        for plain, pattern in LIBRARIES.items():
            if not (folder / plain).exists() or (folder / plain).is_symlink():
                _place(_library(pattern).read_bytes(), folder / plain)
        if not (folder / NAME).exists():
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                _unpack(_download(Path(scratch)), folder / NAME)
    return folder


def _library(pattern: str) -> Path:
    packages = settings.server_env().glob("lib/python3*/site-packages/nvidia_pytriton.libs")
    found = [library for folder in packages for library in folder.glob(pattern)]
    if not found:
        raise SetupError(
            f"The server's environment {settings.server_env()} has no library {pattern}, which perf_analyzer needs.",
            "",
            "Type: python -m helpers install-server",
        )
    return found[0]


def _download(folder: Path) -> Path:
    environment = settings.server_env()
    requirement = [f"tritonclient=={VERSION}", "--platform", "manylinux1_x86_64", "--only-binary=:all:"]
    pip = installer.pip_command(getattr(sys, "_base_executable", sys.executable), environment)
    progress = installer.Progress(f"fetching perf_analyzer {VERSION}, 14 MB", 1)
    log = settings.log_dir() / "setup.log"
    command = [*pip, "download", "--no-deps", "--disable-pip-version-check", *requirement, "-d", str(folder)]
    failure = installer.run(command, progress, folder, log)
    wheel = folder / WHEEL
    if failure or not wheel.exists():
        progress.stop()
        todo = "Check the network, then type: python -m helpers install-server"
        raise SetupError(f"perf_analyzer could not be fetched: {installer.translate(failure)[0]}.", f"All that was said is in {log}.", todo)
    progress.done(f"{WHEEL} is here")
    return wheel


def _unpack(wheel: Path, program: Path) -> None:
    content = wheel.read_bytes()
    if hashlib.sha256(content).hexdigest() != WHEEL_SHA256:
        raise SetupError(f"{wheel.name} is not the file that the course expects: its hash is another one.", "It was not used.")
    with zipfile.ZipFile(wheel) as archive:
        _place(archive.read(f"tritonclient-{VERSION}.data/data/bin/{NAME}"), program)


def _place(content: bytes, path: Path) -> None:
    """Write a program or library in one step: another course on this machine may be using the one before."""
    descriptor, name = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    Path(name).chmod(stat.S_IRWXU | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH)
    Path(name).replace(path)
