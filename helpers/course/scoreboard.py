"""The scoreboard of the challenge: each student's best, in a file of their own; an instructor makes one plot of a class's files.

``work/`` is its owner's alone. For a class the instructor makes a folder in which everybody may write (mode 1777) and names it
in the environment variable ``COURSE_SCOREBOARD``; each student's file then goes there, under the name of the account.
"""

from __future__ import annotations

import getpass
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from helpers import paths
from helpers.course.exercises import Placeholder
from helpers.errors import InputError
from helpers.measuring.statistics import verdict
from helpers.measuring.table import THROUGHPUT, hardware
from helpers.paths import make_folder, replace, shown, writing
from helpers.plots.performance import budget_line
from helpers.plots.style import STYLE, finished, heading, series_style
from helpers.tables import Row, Table

# What the 95th percentile may be, as a multiple of that of one's own baseline: machines differ.
BUDGET = 1.5
# Numbers that each entry has.
_NUMBERS = ("gain", "latency_p95_ms", "latency_p95_over_baseline", "throughput_infer_per_s")
# Letters of a name that a table and a figure have room for.
_LONGEST_NAME = 40


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

    Raises:
        InputError: there is no name, or the rows cannot be compared.
        SetupError: the file cannot be written.
    """
    name = " ".join((getpass.getuser() if name is None else name).split())
    if not name or len(name) > _LONGEST_NAME:
        raise InputError(f"The name {name!r} does not fit.", f"Expected 1 to {_LONGEST_NAME} letters.")
    target = file or path()
    kept = read(target) if target.exists() else _board([])
    if isinstance(best, Placeholder):
        return kept
    seen = verdict(baseline, best)
    entry = {
        "name": name,
        "gain": seen.gain,
        "gain_half_width": seen.half_width,
        "throughput_infer_per_s": best[THROUGHPUT],
        "latency_p95_ms": best["latency_p95_us"] / 1000,
        "latency_p95_over_baseline": best["latency_p95_us"] / baseline["latency_p95_us"],
        "settings": ", ".join(f"{what} {best[what]}" for what in ("instances", "batch", "concurrency") if best.get(what) is not None),
        "device": hardware(best),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    board = _board([*kept, entry])
    with writing(target):
        make_folder(target.parent)
        replace(target, json.dumps(board, indent=1) + "\n")
    return board


def read(*files: str | Path) -> Table:
    """Return the entries of one scoreboard or of several together, the best first; of each file, name and device the best.

    A name that several files have is not one person: each gets the file's name, that of the account, behind it.

    Raises:
        InputError: a file is not there, or is no scoreboard.
    """
    boards: dict[Path, Table] = {}
    for file in map(Path, files):
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            boards[file] = _board(
                [{**entry, "name": str(entry["name"]), **{key: float(entry[key]) for key in _NUMBERS}} for entry in found]
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            expected = "Expected a file that the challenge wrote."
            raise InputError(f"{shown(file)} cannot be read as a scoreboard ({type(error).__name__}: {error}).", expected) from error
    owners = Counter(name for board in boards.values() for name in {entry["name"] for entry in board})
    return _board(
        entry | ({"name": f"{entry['name']} ({file.stem})"} if owners[entry["name"]] > 1 else {})
        for file, board in boards.items()
        for entry in board
    )


def _over_budget(entry: Mapping[str, Any]) -> bool:
    return bool(entry["latency_p95_over_baseline"] > BUDGET)


def _board(entries: Iterable[dict[str, Any]]) -> Table:
    """The best of each name and device: the gain over one's own baseline counts, and those over the budget come last."""
    best: dict[tuple[str, str], dict[str, Any]] = {}
    for entry in sorted(entries, key=lambda entry: (_over_budget(entry), -entry["gain"])):
        best.setdefault((entry["name"], str(entry.get("device"))), entry)
    return Table(best.values(), "Gain over one's own baseline, within the budget." if best else "Nobody yet.", _shown)


def _shown(entry: dict[str, Any]) -> dict[str, Any]:
    half = entry.get("gain_half_width")
    return {
        "name": entry["name"],
        "gain": f"×{entry['gain']:.2f}" + (f" ± {half:.2f}" if half else ""),
        "jets/s": round(entry["throughput_infer_per_s"]),
        "p95 (ms)": f"{entry['latency_p95_ms']:.3g}{' over the budget' * _over_budget(entry)}",
        "how": entry.get("settings", ""),
        "device": entry.get("device", ""),
    }


def scoreboard_figure(board: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw a class in one plot: throughput and latency over those of one's own baseline, one point for each entry.

    Raises:
        InputError: there is no entry.
    """
    if not board:
        raise InputError("The scoreboard is empty.", "Expected at least one entry.")
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(9, 6.6), layout="constrained")
        for number, device in enumerate(dict.fromkeys(str(entry.get("device")) for entry in board)):
            mine = [entry for entry in board if str(entry.get("device")) == device]
            x, y = (np.array([entry[name] for entry in mine]) for name in ("gain", "latency_p95_over_baseline"))
            halves = [entry.get("gain_half_width") or 0.0 for entry in mine]
            axes.errorbar(x, y, xerr=halves, capsize=3, **{**series_style(number), "linestyle": "", "label": device})
            for entry, place in zip(mine, zip(x, y, strict=True), strict=True):
                axes.annotate(entry["name"], place, xytext=(8, 8), textcoords="offset points", fontsize=12)
        axes.set_ylim(0, 1.2 * max(BUDGET, *(entry["latency_p95_over_baseline"] for entry in board)))
        axes.set_xlim(0, 1.25 * max(entry["gain"] + (entry.get("gain_half_width") or 0) for entry in board))
        axes.axvline(1, color="black", linewidth=1)
        budget_line(axes, BUDGET, unit="times the baseline")
        axes.set(xlabel="Throughput over one's own baseline", ylabel="95th percentile of the latency over one's own baseline")
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right")
        heading(axes, "Scoreboard", f"{len(board)} {'entries' if len(board) > 1 else 'entry'}")
        return finished(figure)
