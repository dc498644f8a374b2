"""The scoreboard of the challenge: each student's best, in a file of their own; an instructor makes one table of a class's files."""

from __future__ import annotations

import getpass
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from helpers import paths
from helpers.course.cells import Placeholder
from helpers.errors import InputError
from helpers.measuring.statistics import verdict
from helpers.measuring.table import THROUGHPUT, hardware
from helpers.paths import make_folder, replace, shown, writing
from helpers.tables import Row, Table

# What the 95th percentile may be, as a multiple of that of one's own baseline: machines differ.
BUDGET = 1.5


def path() -> Path:
    """The student's own file: in the class's folder, which ``COURSE_SCOREBOARD`` names, else ``work/scoreboard.json``."""
    shared = os.environ.get("COURSE_SCOREBOARD")
    return Path(shared) / f"{getpass.getuser()}.json" if shared else paths.work_dir() / "scoreboard.json"


def enter(baseline: Row, best: Row, name: str | None = None) -> Table:
    """Put a measured row into one's own scoreboard, and return that board, which keeps the best of each student or team.

    A blank that is still to be filled enters nothing.
    """
    target = path()
    kept = read(target) if target.exists() else _board([])
    if isinstance(best, Placeholder):
        return kept
    seen, longer = verdict(baseline, best), best["latency_p95_us"] / baseline["latency_p95_us"]
    entry = {
        "name": (name or getpass.getuser()).strip(),
        "gain": round(seen.gain, 3),
        "±": seen.half_width and round(seen.half_width, 3),
        "jets/s": round(best[THROUGHPUT]),
        "p95 (ms)": round(best["latency_p95_us"] / 1000, 1),
        "p95 / baseline": round(longer, 3),
        "in the budget": "yes" if longer <= BUDGET else "no",
        "how": ", ".join(f"{what} {best[what]}" for what in ("instances", "batch", "concurrency") if best.get(what)),
        "device": hardware(best),
    }
    board = _board([*kept, entry])
    with writing(target):
        make_folder(target.parent)
        replace(target, json.dumps(board, indent=1) + "\n")
    return board


def read(*files: str | Path) -> Table:
    """Return the entries of one scoreboard or of several together, the best first; raise InputError where a file is none."""
    entries: list[dict[str, Any]] = []
    for file in map(Path, files):
        try:
            entries += _board(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            expected = "Expected a file that the challenge wrote."
            raise InputError(f"{shown(file)} cannot be read as a scoreboard ({type(error).__name__}: {error}).", expected) from error
    return _board(entries)


def _board(entries: Iterable[dict[str, Any]]) -> Table:
    """The best entry of each name: the gain over one's own baseline counts, and those over the budget come last."""
    board: dict[str, dict[str, Any]] = {}
    for entry in sorted(entries, key=lambda entry: (entry["p95 / baseline"] > BUDGET, -entry["gain"])):
        board.setdefault(entry["name"], entry)
    return Table(board.values(), "Gain over one's own baseline, within the budget." if board else "Nobody yet.")
