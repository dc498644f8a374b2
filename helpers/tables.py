"""Plain tables: a list of dictionaries as aligned text and as HTML. ``pandas.DataFrame(rows)`` takes the same rows."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def _columns(rows: Sequence[Row]) -> list[tuple[bool, list[str]]]:
    """Return the columns in the order of their first appearance: whether one holds numbers, and its name and values as text."""
    columns = []
    for name in dict.fromkeys(name for row in rows for name in row):
        numbers = any(isinstance(row.get(name), (int, float)) and not isinstance(row[name], bool) for row in rows)
        columns.append((numbers, [name, *(cell(row.get(name)) for row in rows)]))
    return columns


def as_text(rows: Sequence[Row]) -> str:
    """Return a table for a terminal, numbers to the right."""
    padded = []
    for numbers, texts in _columns(rows):
        texts = [" ".join(text.split()) for text in texts]  # of several lines, one
        width = max(map(len, texts))
        texts.insert(1, "-" * width)
        padded.append([text.rjust(width) if numbers else text.ljust(width) for text in texts])
    return "\n".join("  ".join(line).rstrip() for line in zip(*padded))


def as_html(rows: Sequence[Row], *, caption: str = "", bold: Callable[[Row], bool] = lambda row: False) -> str:
    """Return a table for a notebook, with a sentence above it; ``bold`` tells which rows stand out."""
    columns = _columns(rows)
    sides = ["right" if numbers else "left" for numbers, _ in columns]
    lines = ""
    for number, texts in enumerate(zip(*(texts for _, texts in columns))):
        tag, weight = ("td", "bold" if bold(rows[number - 1]) else "normal") if number else ("th", "bold")
        style = f"font-weight:{weight};white-space:pre-wrap;text-align"
        # A long path of a config may go on in another line behind each of its dots.
        shown = (re.sub(r"(?<=[\w\]])\.(?=[a-z])", ".<wbr>", html.escape(text)) for text in texts)
        cells = (f"<{tag} style='{style}:{side}'>{text}</{tag}>" for side, text in zip(sides, shown))
        lines += f"<tr>{''.join(cells)}</tr>"
    above = f"<caption style='text-align:left'>{html.escape(caption)}</caption>" if caption else ""
    return f"<table>{above}{lines}</table>"


def without_empty(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Return the rows without the columns that are empty in all of them."""
    rows = list(rows)
    used = {name for row in rows for name, value in row.items() if value not in (None, "")}
    return [{name: value for name, value in row.items() if name in used} for row in rows]


class Table(list[dict[str, Any]]):
    """A list of rows that shows itself as a table under a sentence; ``shown`` turns a row into what the table shows of it."""

    def __init__(self, rows: Iterable[dict[str, Any]], caption: str, shown: Callable[[dict[str, Any]], Row] = dict) -> None:
        super().__init__(rows)
        self.caption, self._shown = caption, shown

    def __repr__(self) -> str:
        return f"{self.caption}\n{as_text(list(map(self._shown, self)))}".rstrip()

    def _repr_html_(self) -> str:
        return as_html(list(map(self._shown, self)), caption=self.caption) if self else self.caption


def box(inner_html: str, colour: str) -> str:
    """Return a paragraph of escaped HTML with a coloured edge, readable on light and dark pages."""
    return f'<div style="border-left:5px solid {colour};padding:0.6em 0.9em;max-width:60em" role="status">{inner_html}</div>'


def cell(value: Any) -> str:
    """Return a value as text: whole numbers without a point, others with four digits and no exponent, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, float):
        text = f"{value:.0f}" if value.is_integer() or abs(value) >= 1e4 else f"{value:.4g}"
        return f"{value:.9f}".rstrip("0") if "e" in text else text
    return str(value)
