"""The scoreboard of the challenge: each student's best, in a file of their own; an instructor makes one plot of a class's files.

``work/`` is its owner's alone. For a class the instructor makes a folder in which everybody may write (mode 1777) and names it
in the environment variable ``COURSE_SCOREBOARD``; each student's file then goes there, under the name of the account.
"""

from __future__ import annotations

import getpass
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from helpers import paths
from helpers.course.exercises import Placeholder
from helpers.errors import InputError
from helpers.measuring.statistics import verdict
from helpers.measuring.table import THROUGHPUT, hardware
from helpers.paths import make_folder, replace, shown, writing
from helpers.plots.performance import budget_line
from helpers.plots.style import STYLE, finished, heading
from helpers.tables import Row, Table

# What the 95th percentile may be, as a multiple of that of one's own baseline: machines differ.
BUDGET = 1.5


def path() -> Path:
    """The student's own file: in the class's folder where there is one, else ``work/scoreboard.json``."""
    shared = os.environ.get("COURSE_SCOREBOARD")
    return Path(shared) / f"{getpass.getuser()}.json" if shared else paths.work_dir() / "scoreboard.json"


def enter(baseline: Row, best: Row, name: str | None = None, file: Path | None = None) -> Table:
    """Put a measurement into one's own scoreboard, if it is the best of this name, and return the whole board of that file.

    Args:
        baseline: the measured row of one's own baseline.
        best: the measured row of the entry; a blank that is still to be filled enters nothing.
        name: of the student or of the team; by default that of the account.
        file: the scoreboard; by default :func:`path`.
    """
    target = file or path()
    kept = read(target) if target.exists() else _board([])
    if isinstance(best, Placeholder):
        return kept
    seen, longer = verdict(baseline, best), best["latency_p95_us"] / baseline["latency_p95_us"]
    settings = [f"{what} {best[what]}" for what in ("instances", "batch", "concurrency") if best.get(what) is not None]
    entry = {
        "name": " ".join((name or getpass.getuser()).split()),
        "gain": round(seen.gain, 3),
        "±": seen.half_width and round(seen.half_width, 3),
        "jets/s": round(best[THROUGHPUT]),
        "p95 (ms)": round(best["latency_p95_us"] / 1000, 1),
        "p95 / baseline": round(longer, 3),
        "how": ", ".join([*settings, *(["over the budget"] if longer > BUDGET else [])]),
        "device": hardware(best),
    }
    board = _board([*kept, entry])
    with writing(target):
        make_folder(target.parent)
        replace(target, json.dumps(board, indent=1) + "\n")
    return board


def read(*files: str | Path) -> Table:
    """Return the entries of one scoreboard or of several together, the best first; of each file and name the best.

    A name that several files have is not one person: each gets the file's name, that of the account, behind it. An InputError where a file
    is not there, or is no scoreboard.
    """
    boards: dict[Path, Table] = {}
    for file in map(Path, files):
        try:
            boards[file] = _board(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            expected = "Expected a file that the challenge wrote."
            raise InputError(f"{shown(file)} cannot be read as a scoreboard ({type(error).__name__}: {error}).", expected) from error
    owners = Counter(entry["name"] for board in boards.values() for entry in board)
    return _board(
        entry | {"name": f"{entry['name']} ({file.stem})" if owners[entry["name"]] > 1 else entry["name"]}
        for file, board in boards.items()
        for entry in board
    )


def _board(entries: Iterable[dict[str, Any]]) -> Table:
    """The best of each name: the gain over one's own baseline counts, and those over the budget come last."""
    best: dict[str, dict[str, Any]] = {}
    for entry in sorted(entries, key=lambda entry: (entry["p95 / baseline"] > BUDGET, -entry["gain"])):
        best.setdefault(entry["name"], entry)
    return Table(best.values(), "Gain over one's own baseline, within the budget." if best else "Nobody yet.")


def scoreboard_figure(board: Sequence[Row]) -> Figure:
    """Draw a class in one plot: throughput and latency over those of one's own baseline, one point for each entry, at least one."""
    if not board:
        raise InputError("The scoreboard is empty.", "Expected at least one entry.")
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(9, 6.6), layout="constrained")
        for entry in board:
            place = entry["gain"], entry["p95 / baseline"]
            axes.errorbar(*place, xerr=entry.get("±") or 0, capsize=3, marker="o", markersize=9, color="C0")
            axes.annotate(entry["name"], place, xytext=(8, 8), textcoords="offset points", fontsize=12)
        axes.set_ylim(0, 1.2 * max(BUDGET, *(entry["p95 / baseline"] for entry in board)))
        axes.set_xlim(0, 1.25 * max(entry["gain"] + (entry.get("±") or 0) for entry in board))
        axes.axvline(1, color="black", linewidth=1)
        budget_line(axes, BUDGET, unit="times the baseline")
        axes.set(xlabel="Throughput over one's own baseline", ylabel="95th percentile of the latency over one's own baseline")
        heading(axes, "Scoreboard", f"{len(board)} {'entries' if len(board) > 1 else 'entry'}")
        return finished(figure)
