"""The student's progress: one small file, ``work/progress.json``, that outlives kernels and forgives everything.

Nothing here ever stops an exercise: a file that is damaged is put aside, a disk that is full is mentioned once.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from helpers import settings
from helpers.files import make_folder

try:
    import fcntl
except ImportError:  # Windows: two notebooks that save in the same millisecond may lose one entry there.
    fcntl = None  # type: ignore[assignment]

# Seconds to wait for another notebook that is writing. A write takes a millisecond; some network file systems have no locks at all.
_LOCK_WAIT_S = 2.0
_VERSION = 1

_said: set[str] = set()
_unsaved: dict[str, dict[str, Any]] = {}


def path() -> Path:
    """The file that keeps the progress."""
    return settings.work_dir() / "progress.json"


def read() -> tuple[dict[str, dict[str, Any]], str]:
    """Read what has been done so far.

    Returns:
        exercise number -> its record (``attempts``, ``correct``, ``first_correct`` as an ISO time, or nothing), and a
        sentence for the student when the file was damaged or cannot be read (else empty).
    """
    try:
        content = json.loads(path().read_text(encoding="utf-8"))
        records = {str(number): _record(entry) for number, entry in content["exercises"].items()}
        return {**records, **_unsaved}, ""
    except FileNotFoundError:
        return dict(_unsaved), ""
    except OSError as error:
        return dict(_unsaved), _once(f"Your earlier progress cannot be read ({_reason(error)}); the checks work all the same.")
    except (ValueError, KeyError, TypeError, AttributeError):
        return dict(_unsaved), _put_aside()


def record(number: str, *, solved: bool) -> tuple[dict[str, Any], str]:
    """Count one attempt.

    Args:
        number: the exercise, such as ``"1.2"``.
        solved: whether the answer was right. An exercise once solved stays solved.

    Returns:
        The record after this attempt, and a sentence for the student when it could not be kept (else empty).
    """
    said = ""
    try:
        make_folder(path().parent)
        with _locked():
            records, said = read()
            entry = _counted(records.get(number), solved)
            _write({**records, number: entry})
            _unsaved.clear()
    except OSError as error:
        entry = _counted(read()[0].get(number), solved)
        _unsaved[number] = entry
        said = _once(f"Your progress cannot be saved in {path()} ({_reason(error)}); the checks work all the same.")
    return entry, said


def _counted(entry: dict[str, Any] | None, solved: bool) -> dict[str, Any]:
    entry = dict(entry or _record({}))
    entry["attempts"] += 1
    if solved and not entry["correct"]:
        entry["correct"] = True
        entry["first_correct"] = datetime.now(UTC).isoformat(timespec="seconds")
    return entry


def _record(entry: dict[str, Any]) -> dict[str, Any]:
    return {
        "attempts": int(entry.get("attempts", 0)),
        "correct": bool(entry.get("correct", False)),
        "first_correct": entry.get("first_correct"),
    }


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    """Hold the lock that serialises writers; after a short wait go on without it."""
    with open(path().with_suffix(".lock"), "w") as lock:
        deadline = time.monotonic() + _LOCK_WAIT_S
        while fcntl is not None:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    break
                time.sleep(0.01)
            except OSError:  # a file system without locks
                break
        yield


def _write(records: dict[str, dict[str, Any]]) -> None:
    """Replace the file in one step, so that no reader ever sees half of it."""
    text = json.dumps({"version": _VERSION, "exercises": dict(sorted(records.items()))}, indent=1) + "\n"
    handle, name = tempfile.mkstemp(prefix=".progress-", dir=path().parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path())
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def _put_aside() -> str:
    """Move a damaged file out of the way; the sentence names where it went."""
    aside = path().with_name(f"progress.damaged-{time.strftime('%Y%m%d-%H%M%S')}.json")
    try:
        os.replace(path(), aside)
    except OSError as error:
        return _once(f"The file of your progress, {path()}, is damaged and cannot be moved ({_reason(error)}).")
    return f"The file of your progress was damaged; it is kept as {aside.name}, and counting starts anew."


def _once(sentence: str) -> str:
    """The sentence the first time, nothing after that."""
    if sentence in _said:
        return ""
    _said.add(sentence)
    return sentence


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
