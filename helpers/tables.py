"""Plain tables: a list of dictionaries as aligned text and as HTML. ``pandas.DataFrame(rows)`` takes the same rows."""

from __future__ import annotations

import html
import itertools
import shutil
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
# Letters that the widest words of a table keep however narrow the terminal is.
_LEAST = 20


def _columns_of(rows: Sequence[Row]) -> dict[str, bool]:
    """Names of the columns in the order of their first appearance, and whether they hold numbers."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: any(isinstance(row.get(name), (int, float)) and not isinstance(row[name], bool) for row in rows) for name in names}


def as_text(rows: Sequence[Row]) -> str:
    """Return a table for a terminal, numbers to the right; in a narrow one the widest words go on in further lines."""
    columns = _columns_of(rows)
    cells = [[cell(row.get(name)) for name in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells)]
    words = [place for place, number in enumerate(columns.values()) if not number]
    over = sum(widths) + 2 * (len(widths) - 1) - shutil.get_terminal_size().columns
    if words and over > 0:
        widest = max(words, key=lambda place: widths[place])
        widths[widest] = max(widths[widest] - over, _LEAST)
    lines = []
    for texts in [list(columns), ["-" * width for width in widths], *cells]:
        parts = [textwrap.wrap(text, max(width, 1)) for text, width in zip(texts, widths)]
        for line in itertools.zip_longest(*parts, fillvalue=""):
            each = zip(line, widths, columns.values())
            lines.append("  ".join(f"{text:>{width}}" if number else f"{text:<{width}}" for text, width, number in each).rstrip())
    return "\n".join(lines)


def as_html(rows: Sequence[Row], *, caption: str = "", bold: Callable[[Row], bool] = lambda row: False) -> str:
    """Return a table for a notebook, with a sentence above it; ``bold`` tells which rows stand out."""
    sides = {name: "right" if number else "left" for name, number in _columns_of(rows).items()}
    head = "".join(f"<th scope='col' style='text-align:{side}'>{html.escape(name)}</th>" for name, side in sides.items())
    body = []
    for row in rows:
        texts = "".join(
            f"<td style='text-align:{side};white-space:pre-wrap'>{html.escape(cell(row.get(name, '')))}</td>"
            for name, side in sides.items()
        )
        body.append(f"<tr style='font-weight:{'bold' if bold(row) else 'normal'}'>{texts}</tr>")
    above = f"<caption style='text-align:left'>{html.escape(caption)}</caption>" if caption else ""
    return f"<table>{above}<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


class Table(list[dict[str, Any]]):
    """Rows that show themselves as a table under a sentence, or the sentence alone where there are none; a list otherwise.

    ``shown`` turns a row into what the table shows of it.
    """

    def __init__(self, rows: Iterable[dict[str, Any]], caption: str, shown: Callable[[dict[str, Any]], Row] = dict) -> None:
        super().__init__(rows)
        self.caption = caption
        self._shown = shown

    def __repr__(self) -> str:
        return "\n".join([self.caption, *([as_text(list(map(self._shown, self)))] if self else [])])

    def _repr_html_(self) -> str:
        return as_html(list(map(self._shown, self)), caption=self.caption) if self else self.caption


def box(inner_html: str, colour: str) -> str:
    """Return a paragraph of escaped HTML with a coloured edge, readable on light and dark pages."""
    style = (
        f"border-left:5px solid {colour};background:color-mix(in srgb, {colour} 9%, transparent);"
        "padding:0.6em 0.9em;margin:0.3em 0;border-radius:3px;max-width:60em;line-height:1.5"
    )
    return f'<div style="{style}" role="status">{inner_html}</div>'


def cell(value: Any) -> str:
    """Return a value as text: whole numbers without a point, others with four digits and no exponent, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, float):
        if (value.is_integer() and abs(value) < 1e15) or abs(value) >= 1e4:
            return f"{value:.0f}"
        text = f"{value:.4g}"
        return f"{value:.9f}".rstrip("0") if "e" in text else text
    return str(value)
