"""The scoreboard of the challenge: each student's best, in a file of their own; an instructor makes one plot of a class's files.

``work/`` is its owner's alone. For a class the instructor makes a folder in which everybody may write (mode 1777) and names it
in the environment variable ``COURSE_SCOREBOARD``; each student's file then goes there, under the name of the account.

Typical use::

    enter(baseline, best)                                          #  work/scoreboard.json
    board = read("work/scoreboard.json", "/class/scoreboard/ada.json")
    board                                                          # a table
    scoreboard_figure(board)

In a terminal: ``python -m helpers scoreboard /class/scoreboard/*.json --figure class.png``.
"""

from __future__ import annotations

import getpass
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
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
from helpers.measuring.table import THROUGHPUT, THROUGHPUT_SPREAD, hardware
from helpers.paths import make_folder, replace, shown, writing
from helpers.plots.performance import budget_line
from helpers.plots.style import STYLE, finished, heading, series_style
from helpers.tables import Row, as_html, as_text

# What the 95th percentile may be, as a multiple of that of one's own baseline: machines differ.
BUDGET = 1.5
_NEEDED: dict[str, Any] = {
    "name": str,
    "gain": (int, float),
    "latency_p95_ms": (int, float),
    "latency_p95_over_baseline": (int, float),
    "throughput_infer_per_s": (int, float),
}
# Letters of a name that a table and a figure have room for.
_LONGEST_NAME = 40


class Scoreboard(list[dict[str, Any]]):
    """Entries, the best first: the gain over one's own baseline counts, because machines differ; those over the budget come last."""

    def _table(self) -> list[dict[str, Any]]:
        return [
            {
                "": place,
                "name": entry["name"],
                "gain": f"×{entry['gain']:.2f}" + (f" ± {entry['gain_half_width']:.2f}" if entry.get("gain_half_width") else ""),
                "jets/s": round(entry["throughput_infer_per_s"]),
                "p95 (ms)": f"{entry['latency_p95_ms']:.3g}{' over the budget' * over_budget(entry)}",
                "how": entry.get("settings", ""),
                "device": entry.get("device", ""),
            }
            for place, entry in enumerate(self, 1)
        ]

    def __repr__(self) -> str:
        return as_text(self._table()) if self else "nobody yet"

    def _repr_html_(self) -> str:
        return as_html(self._table(), caption="Gain over one's own baseline, within the budget.") if self else "<p>nobody yet</p>"


def path() -> Path:
    """The student's own file: in the class's folder where there is one, else ``work/scoreboard.json``."""
    shared = os.environ.get("COURSE_SCOREBOARD")
    return Path(shared) / f"{getpass.getuser()}.json" if shared else paths.work_dir() / "scoreboard.json"


def enter(baseline: Row, best: Row, how: str = "", name: str | None = None, file: Path | None = None) -> Scoreboard:
    """Put a measurement into one's own scoreboard, if it is the best of this name; what was there and is better stays.

    Args:
        baseline: the measured row of one's own baseline.
        best: the measured row of the entry; a blank that is still to be filled enters nothing.
        how: the settings, in a few words; by default those of the row.
        name: of the student or of the team; by default that of the account.
        file: the scoreboard; by default :func:`path`.

    Returns:
        The whole scoreboard of that file.

    Raises:
        InputError: there is no name, or the rows cannot be compared.
        SetupError: the file cannot be written.
    """
    name = " ".join((getpass.getuser() if name is None else name).split())
    if not name or len(name) > _LONGEST_NAME:
        raise InputError(f"The name {name!r} does not fit.", f"Expected 1 to {_LONGEST_NAME} letters.")
    target = file or path()
    kept = read(target) if target.exists() else Scoreboard()
    if isinstance(best, Placeholder):
        return kept
    seen = verdict(baseline, best)
    entry = {
        "name": name,
        "gain": seen.gain,
        "gain_half_width": seen.half_width,
        "throughput_infer_per_s": best[THROUGHPUT],
        "throughput_spread_infer_per_s": best.get(THROUGHPUT_SPREAD),
        "latency_p95_ms": best["latency_p95_us"] / 1000,
        "latency_p95_over_baseline": best["latency_p95_us"] / baseline["latency_p95_us"],
        "batch": best.get("batch"),
        "concurrency": best.get("concurrency"),
        "settings": how or _settings(best),
        "device": hardware(best),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    board = _ranked([*kept, entry])
    with writing(target):
        make_folder(target.parent)
        replace(target, json.dumps(board, indent=1) + "\n")
    return board


def _settings(row: Row) -> str:
    """What was set, as the measured row says it."""
    return ", ".join(f"{name} {row[name]}" for name in ("instances", "batch", "concurrency") if row.get(name) is not None)


def over_budget(entry: Mapping[str, Any]) -> bool:
    """True if an entry's 95th percentile is more than the budget allows: it stands below all others."""
    return bool(entry["latency_p95_over_baseline"] > BUDGET)


def read(*files: str | Path) -> Scoreboard:
    """The entries of one scoreboard or of several together; of each file, name and device the best.

    A name that several files have is not one person: each gets the file's name, that of the account, behind it.

    Args:
        files: paths.

    Raises:
        InputError: a file is not there, or is no scoreboard.
    """
    boards: dict[Path, Scoreboard] = {}
    for file in map(Path, files):
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(
                f"{shown(file)} cannot be read as a scoreboard: {error}.", "Expected a file that the challenge wrote."
            ) from error
        good = isinstance(found, list) and all(_is_entry(entry) for entry in found)
        if not good:
            raise InputError(f"{shown(file)} is no scoreboard.", f"Expected a list of entries with {', '.join(_NEEDED)}.")
        boards[file] = _ranked(found)
    owners = Counter(name for board in boards.values() for name in {entry["name"] for entry in board})
    entries = [
        entry | ({"name": f"{entry['name']} ({file.stem})"} if owners[entry["name"]] > 1 else {})
        for file, board in boards.items()
        for entry in board
    ]
    return Scoreboard(sorted(entries, key=_order))


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, Mapping) and all(isinstance(entry.get(key), kinds) for key, kinds in _NEEDED.items())


def _order(entry: Mapping[str, Any]) -> tuple[bool, float]:
    """The best first, those over the budget last."""
    return over_budget(entry), -entry["gain"]


def _ranked(entries: Sequence[dict[str, Any]]) -> Scoreboard:
    best: dict[tuple[str, str], dict[str, Any]] = {}
    for entry in sorted(entries, key=_order):
        best.setdefault((entry["name"], str(entry.get("device"))), entry)
    return Scoreboard(best.values())


def scoreboard_figure(board: Sequence[Mapping[str, Any]]) -> Figure:
    """A class in one plot: throughput and latency over those of one's own baseline, one point for each entry.

    Args:
        board: from :func:`read`.

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
