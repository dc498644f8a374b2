"""The students' own copies of the notebooks in ``work/notebooks``: handed out, renewed, reset, never lost. Standard library only.

A record beside them has a digest of each version that was handed out or offered: a notebook whose cells are still like one may be
replaced by a newer one, any other belongs to the student. One that was only opened or run has other bytes, and the same cells.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import count
from pathlib import Path

from helpers.errors import InputError, quoted
from helpers.paths import make_folder, read_text, replace, root, shown, work_dir, writing

RECORD = ".handed-out.json"


def notebooks() -> list[Path]:
    """Return the course's notebooks, in order, as they are handed out."""
    return sorted((root() / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def folder() -> Path:
    """Return where the students' copies are."""
    return work_dir() / "notebooks"


def hand_out() -> list[str]:
    """Copy the notebooks to ``work/notebooks``, never over one that a student changed, and return what there is to say about them."""
    said = []
    with _keeping() as record:
        for source in notebooks():
            target, new, known = folder() / source.name, _digest(source), record.get(source.name, [])
            theirs = _digest(target) if target.exists() else ""
            if theirs != new and theirs in ("", *known):
                replace(target, read_text(source))
            elif new not in (theirs, *known):
                beside = _beside(target, f"new-{datetime.now():%Y-%m-%d}")
                replace(beside, read_text(source))
                said.append(f"There is a new version of {target.name}: it is beside yours, which you have changed, as {beside.name}.")
            record[source.name] = list(dict.fromkeys([*known, new]))
    return said


def reset(which: str) -> str:
    """Bring back a pristine notebook, by its number or name, and return what was done; the student's stays beside it, with the time."""
    wanted = Path(which.strip()).stem
    begin = f"{wanted.zfill(2)}_" if wanted.isdecimal() else f"{wanted}."
    source = next((each for each in notebooks() if each.name.startswith(begin)), None)
    if source is None:
        names = quoted(each.stem for each in notebooks())
        raise InputError(f"There is no notebook {which!r}.", f"The course has {names}.", "Type for example: make reset NB=03")
    target = folder() / source.name
    with _keeping() as record:
        record[source.name] = [*record.get(source.name, []), _digest(source)]
        beside = ""
        if target.exists():
            old = target.rename(_beside(target, f"{datetime.now():%Y-%m-%dT%H-%M-%S}"))
            beside = f"; yours is beside it: {old.name}. If it is open: File > Reload Notebook from Disk"
        replace(target, read_text(source))
    return f"{shown(target)} is pristine again{beside}."


@contextmanager
def _keeping() -> Iterator[dict[str, list[str]]]:
    """Make the folder, with a link to the data, and yield its record, which is written at the end."""
    with writing(folder()):
        path = make_folder(folder()) / RECORD
        data, link = root() / "notebooks" / "data", folder() / "data"
        if data.is_dir() and not os.path.lexists(link):
            link.symlink_to(data)
        try:
            record = dict(json.loads(path.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError):
            # Damaged: then every notebook that differs counts as the student's own.
            record = {}
        yield record
        replace(path, json.dumps(record, indent=1) + "\n")


def _digest(path: Path) -> str:
    """What a student types into the cells, without outputs, counts and what JupyterLab notes beside them; of no notebook, its bytes."""
    try:
        sources = [[cell["cell_type"], "".join(cell["source"])] for cell in json.loads(path.read_bytes())["cells"]]
    except (ValueError, KeyError, TypeError):
        sources = []
    return hashlib.sha256(json.dumps(sources).encode() if sources else path.read_bytes()).hexdigest()


def _beside(target: Path, mark: str) -> Path:
    """A name beside a notebook that is free."""
    return next(name for n in count() if not (name := target.with_name(f"{target.stem}.{mark}{f'-{n + 1}' * (n > 0)}.ipynb")).exists())
