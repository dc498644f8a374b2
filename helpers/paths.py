"""Where things are in the course, and how its files are written. Standard library only: the set-up uses this before anything is there."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from helpers.errors import SetupError

_ELSEWHERE = "Make room (see: df -h; quota), or take another folder: export COURSE_WORK=$HOME/triton-work, before you start JupyterLab"


def root() -> Path:
    """Return the course's folder: ``COURSE_ROOT``, else the folder that holds this package."""
    return Path(os.environ.get("COURSE_ROOT", Path(__file__).parents[1])).resolve()


def work_dir() -> Path:
    """Return the folder for everything that students make: ``COURSE_WORK``, else ``work/`` in the course.

    In a course folder that this user may not change, such as one that a class shares, it is ``triton-work`` in the home folder.
    """
    if "COURSE_WORK" in os.environ:
        return Path(os.environ["COURSE_WORK"]).resolve()
    usual = root() / "work"
    return usual if os.access(usual if usual.exists() else root(), os.W_OK) else Path.home() / "triton-work"


def log_dir() -> Path:
    """Return the folder of the servers' logs."""
    return work_dir() / "logs"


def models_dir() -> Path:
    """Return the model repository of the course. Students edit a working copy, ``work_dir() / "models"``."""
    return root() / "models"


def server_env() -> Path:
    """Return the environment of the embedded server (``COURSE_SERVER_ENV``, else ``.server/`` in the course)."""
    return Path(os.environ["COURSE_SERVER_ENV"]).resolve() if "COURSE_SERVER_ENV" in os.environ else root() / ".server"


def in_work(path: str | Path) -> Path:
    """Return a path as people type it, absolute; what begins with ``work/`` is in the working folder."""
    given = Path(path).expanduser()
    return work_dir().joinpath(*given.parts[1:]) if given.parts[:1] == ("work",) else given.absolute()


def find(path: str | Path) -> Path | None:
    """Return a folder or file by what people type: in the working folder (``work/…``), the course's folder, or the current one."""
    given = Path(path).expanduser()
    places = [root() / given, given]
    if given.parts[:1] == ("work",):
        places.insert(0, in_work(given))
    return next((place.absolute() for place in places if place.exists()), None)


def shown(path: Path) -> str:
    """Return a path as people type it: from the course's folder, where it is in there."""
    return str(path.resolve().relative_to(root())) if path.resolve().is_relative_to(root()) else str(path)


def make_folder(path: Path) -> Path:
    """Make a folder, and those above it, and return it; the working folder is made for its owner alone: many people share machines."""
    work = work_dir()
    if path.absolute().is_relative_to(work) and not work.exists():
        work.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def writing(path: Path, elsewhere: str = _ELSEWHERE) -> Iterator[None]:
    """Turn the errors of writing below a path into a SetupError that says why, and how to write ``elsewhere``."""
    try:
        yield
    except OSError as error:
        # Of a whole tree that could not be copied, one file says why as well as all.
        reason = error.args[0][0][-1].partition(": '")[0] if isinstance(error, shutil.Error) else error.strerror or error
        raise SetupError(f"{shown(path)} cannot be written: {reason}.", "", elsewhere) from error


def read_text(path: Path) -> str:
    """Return a text file as it is: line ends, and bytes that are no UTF-8, survive being written back by :func:`replace`."""
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return file.read()


def replace(path: Path, text: str) -> None:
    """Write a text file in one step: a reader, and the server is one, sees the old file or the new one, never half of it."""
    draft = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        draft.write_text(text, encoding="utf-8", errors="surrogateescape", newline="")
        draft.chmod(path.stat().st_mode if path.exists() else 0o644)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def append_line(path: Path, entry: Mapping[str, Any]) -> None:
    """Add an entry to a file of JSON lines, to which others may add meanwhile."""
    with writing(path):
        make_folder(path.parent)
        # Half a line, left by a full disk, must not take the next one along.
        torn = path.is_file() and path.read_bytes()[-1:] not in (b"", b"\n")
        with path.open("a", encoding="utf-8") as file:
            file.write("\n" * torn + f"{json.dumps(entry)}\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the entries of a file of JSON lines, none where there is no file; half lines are passed over."""
    entries = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []:
        with contextlib.suppress(ValueError):
            entries.append(json.loads(line))
    return entries
