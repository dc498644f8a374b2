"""Files in the working folder: write them whole or not at all, say plainly why it failed, name them shortly."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helpers import settings
from helpers.errors import SetupError


def find(path: str | Path) -> Path | None:
    """A folder or file by what people type: in the working folder (``work/…``), the course's folder, or the current one."""
    given = Path(path).expanduser()
    places = [settings.root() / given, settings.current_folder() / given]
    if given.parts[:1] == ("work",):
        places.insert(0, settings.work_dir().joinpath(*given.parts[1:]))
    return next((place for place in places if place.exists()), None)


_FULL = (errno.ENOSPC, errno.EDQUOT)
_KEPT = "The course keeps what you make in its folder work/, or where the environment variable COURSE_WORK points."
_ELSEWHERE = "Type: export COURSE_WORK=$HOME/triton-work, before you start JupyterLab"


def make_folder(path: Path) -> Path:
    """Make a folder, and those above it, and return it; the working folder is made for its owner alone.

    Notebooks, progress, results and logs lie there, on machines that many people share. One that is there already stays as it is.
    """
    work = settings.work_dir()
    if path.absolute().is_relative_to(work) and not work.exists():
        work.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def writing(path: Path, kept: str = _KEPT, elsewhere: str = _ELSEWHERE) -> Iterator[None]:
    """Turn the errors of writing below a path into one that says what to do.

    Args:
        path: what is written.
        kept: a sentence on what is kept there.
        elsewhere: what to type where it cannot be written, though there is room.

    Raises:
        SetupError: no permission, a full disk, or whatever else the system said.
    """
    try:
        yield
    except OSError as error:
        # Of a whole tree that could not be copied, one file says why as well as all.
        reason = str(error.args[0][0][-1]) if isinstance(error, shutil.Error) else str(error.strerror or error)
        full = error.errno in _FULL or any(os.strerror(code) in reason for code in _FULL)
        raise SetupError(
            f"{shown(path)} cannot be written: {'the disk is full' if full else reason}.",
            kept,
            "Look with: df -h; quota; then delete what you do not need" if full else elsewhere,
        ) from error


def read_text(path: Path) -> str:
    """A text file as it is: line ends, and bytes that are no UTF-8, survive being written back by :func:`replace`."""
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return file.read()


def replace(path: Path, text: str) -> None:
    """Write a text file in one step."""
    # A reader, and the server is one, sees the old file or the new one, never half of it.
    descriptor, temporary = tempfile.mkstemp(prefix=".config-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.write(text)
        shutil.copymode(path, temporary) if path.exists() else Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def shown(path: Path) -> str:
    """A path as people type it: from the current folder, else from the course's, else complete."""
    for base in (settings.current_folder(), settings.root()):
        if path.resolve().is_relative_to(base):
            return str(path.resolve().relative_to(base)) or "."
    return str(path)
