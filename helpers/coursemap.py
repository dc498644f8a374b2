"""The map of the course: which notebooks there are, how long each takes, and how far this student has come."""

from __future__ import annotations

import html
import json
from dataclasses import dataclass
from pathlib import Path

from helpers import progress, settings


@dataclass(frozen=True)
class Part:
    """One notebook of the course.

    Args:
        number: such as ``"03"``.
        title: what one does in it.
        minutes: reading and exercises together.
    """

    number: str
    title: str
    minutes: int


# The whole course, also the parts that are not in this copy yet. The minutes stand in each notebook, too; a test compares.
PARTS = (
    Part("00", "Start here", 10),
    Part("01", "Launch a server", 25),
    Part("02", "Inspect the model repository", 20),
    Part("03", "Run inference", 30),
    Part("04", "Tag jets with ParticleNet", 35),
    Part("05", "Find tracks", 35),
    Part("06", "Read the metrics", 25),
    Part("07", "Measure with perf_analyzer", 35),
    Part("08", "Sweep batch size and concurrency", 35),
    Part("09", "Optimise the deployment", 50),
    Part("10", "Scale out", 40),
)

# Three ways through the course: name, what one can do afterwards, the notebooks.
SYLLABI = (
    ("90 minutes", "Serve a model and say how fast it answers.", ("00", "01", "02", "07")),
    ("Half a day", "The same, with physics models, and make one faster.", ("00", "01", "02", "03", "04", "06", "07", "09")),
    ("On your own", "Everything, in order; stop after any notebook.", tuple(part.number for part in PARTS)),
)

_GREEN = "#2e9e44"


@dataclass(frozen=True)
class Table:
    """A small table that reads in a notebook and in a terminal.

    Args:
        head: the column titles.
        rows: cells, each as plain text or as ``(text, html)``.
        caption: one sentence above the table.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str | tuple[str, str], ...], ...]
    caption: str = ""

    def __str__(self) -> str:
        plain = [self.head, *(tuple(cell if isinstance(cell, str) else cell[0] for cell in row) for row in self.rows)]
        widths = [max(len(row[column]) for row in plain) for column in range(len(self.head))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in plain]
        return "\n".join([*([self.caption] if self.caption else []), *lines])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col" style="text-align:left">{html.escape(title)}</th>' for title in self.head)
        rows = "".join(f"<tr>{''.join(_cell(cell) for cell in row)}</tr>" for row in self.rows)
        caption = f'<caption style="caption-side:top;text-align:left;padding:0 0 0.4em">{html.escape(self.caption)}</caption>'
        return f"<table>{caption if self.caption else ''}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def course_map() -> Table:
    """The notebooks with their minutes, which of them are here, and the exercises solved so far.

    Returns:
        A table that shows itself at the end of a cell.
    """
    records, said = progress.read()
    rows = []
    for part in PARTS:
        file = _notebook(part.number)
        exercises = _exercises(file) if file else []
        solved = sum(records.get(number, {}).get("correct", False) for number in exercises)
        name = (part.title, f'<a href="{html.escape(file.name)}">{html.escape(part.title)}</a>') if file else part.title
        rows.append((part.number, name, f"{part.minutes} min", _bar(solved, len(exercises)) if file else "not in this copy yet"))
    total = sum(part.minutes for part in PARTS)
    return Table(("", "Notebook", "Time", "Your exercises"), tuple(rows), f"{total} minutes in all. {said}".strip())


def syllabi() -> Table:
    """Three ways through the course, with the minutes added up.

    Returns:
        A table that shows itself at the end of a cell.
    """
    minutes = {part.number: part.minutes for part in PARTS}
    rows = tuple((name, _names(numbers), f"{sum(minutes[n] for n in numbers)} min", aim) for name, aim, numbers in SYLLABI)
    return Table(("You have", "Notebooks", "Time", "Afterwards you can"), rows)


def _names(numbers: tuple[str, ...]) -> str:
    """``00, 01, 02``, or ``00 to 10`` for a run of more than four."""
    whole = [part.number for part in PARTS]
    return f"{numbers[0]} to {numbers[-1]}" if list(numbers) == whole else ", ".join(numbers)


def _notebook(number: str) -> Path | None:
    return next(iter(sorted((settings.root() / "notebooks").glob(f"{number}_*.ipynb"))), None)


def _exercises(notebook: Path) -> list[str]:
    """The exercise numbers of a notebook, from its cells' metadata, in order."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return list(dict.fromkeys(cell["metadata"]["exercise"] for cell in cells if "exercise" in cell["metadata"]))


def _bar(done: int, of: int) -> tuple[str, str]:
    """``2 of 3`` as text, and as a bar with the same words beside it."""
    words = f"{done} of {of}"
    share = round(100 * done / of) if of else 0
    bar = (
        f'<span style="display:inline-block;width:7em;height:0.7em;border:1px solid {_GREEN};border-radius:2px;vertical-align:middle">'
        f'<span style="display:block;width:{share}%;height:100%;background:{_GREEN}"></span></span> {words}'
    )
    return ("#" * done + "." * (of - done) + f" {words}", bar)


def _cell(cell: str | tuple[str, str]) -> str:
    return f'<td style="text-align:left">{html.escape(cell) if isinstance(cell, str) else cell[1]}</td>'
