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
    places = [settings.root() / given, Path.cwd() / given]
    if given.parts[:1] == ("work",):
        places.insert(0, settings.work_dir().joinpath(*given.parts[1:]))
    return next((place for place in places if place.exists()), None)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the errors of writing below a path into one that says what to do.

    Raises:
        SetupError: no permission, a full disk, or whatever else the system said.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise SetupError(
            f"{shown(path)} cannot be written: {'the disk is full' if full else error.strerror or error}.",
            "The course keeps what you make in its folder work/, or where the environment variable COURSE_WORK points.",
            "Look with: df -h; quota; then delete what you do not need"
            if full
            else "Type: export COURSE_WORK=$HOME/triton-work, before you start JupyterLab",
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
    for base in (Path.cwd(), settings.root()):
        if path.resolve().is_relative_to(base):
            return str(path.resolve().relative_to(base)) or "."
    return str(path)
