"""Plain tables: a list of dictionaries as aligned text and as HTML. ``pandas.DataFrame(rows)`` takes the same rows."""

from __future__ import annotations

import html
import itertools
import shutil
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
# Letters of a cell that stays on one line however narrow the terminal is.
_SHORT = 20


def _columns_of(rows: Sequence[Row]) -> list[str]:
    """Names of the columns, in the order of their first appearance."""
    return list(dict.fromkeys(name for row in rows for name in row))


def as_text(rows: Sequence[Row], columns: Sequence[str] | None = None) -> str:
    """Return a table for a terminal, numbers to the right; in a narrow one, names and then words go on in further lines."""
    names = list(columns or _columns_of(rows))
    right = [any(_is_number(row.get(name)) for row in rows) for name in names]
    cells = [[cell(row.get(name, "")) for name in names] for row in rows]
    places = range(len(names))
    filled = [max([0, *(len(line[place]) for line in cells)]) for place in places]
    widths = [max(len(name), width) for name, width in zip(names, filled, strict=True)]
    room = shutil.get_terminal_size().columns
    if _total(widths) > room:
        widths = [max(_longest_word(name), width) for name, width in zip(names, filled, strict=True)]
    for place in sorted((place for place in places if not right[place]), key=lambda place: -widths[place]):
        if (over := _total(widths) - room) > 0:
            whole = min(filled[place], _SHORT)
            widths[place] = max(widths[place] - over, whole, *map(_longest_word, [names[place], *(line[place] for line in cells)]))

    def lines(texts: Sequence[str]) -> list[str]:
        parts = [_wrapped(text, width) for text, width in zip(texts, widths, strict=True)]
        each = itertools.zip_longest(*parts, fillvalue="")
        return [
            "  ".join(f"{text:>{w}}" if number else f"{text:<{w}}" for text, w, number in zip(row, widths, right)).rstrip() for row in each
        ]

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([*lines(names), rule, *(line for texts in cells for line in lines(texts))])


def _total(widths: Sequence[int]) -> int:
    """Characters of a line with these columns."""
    return sum(widths) + 2 * (len(widths) - 1)


def _longest_word(text: str) -> int:
    return max(map(len, text.split()), default=0)


def _wrapped(text: str, width: int) -> list[str]:
    """The lines of a cell; one that fits stays as it is."""
    return [text] if len(text) <= width else textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def as_html(
    rows: Sequence[Row], columns: Sequence[str] | None = None, *, caption: str = "", bold: Callable[[Row], bool] = lambda row: False
) -> str:
    """Return a table for a notebook.

    Args:
        rows: the rows.
        columns: which columns, in which order; all of them by default.
        caption: a sentence above the table.
        bold: tells which rows stand out.
    """
    names = list(columns or _columns_of(rows))
    right = {name: "right" if any(_is_number(row.get(name)) for row in rows) else "left" for name in names}
    head = "".join(f"<th scope='col' style='text-align:{right[name]}'>{html.escape(name)}</th>" for name in names)
    body = []
    for row in rows:
        texts = "".join(
            f"<td style='text-align:{right[name]};white-space:pre-wrap'>{html.escape(cell(row.get(name, '')))}</td>" for name in names
        )
        body.append(f"<tr style='font-weight:{'bold' if bold(row) else 'normal'}'>{texts}</tr>")
    above = f"<caption style='text-align:left'>{html.escape(caption)}</caption>" if caption else ""
    return f"<table>{above}<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


class Table(list[dict[str, Any]]):
    """Rows that show themselves as a table under a sentence, or the sentence alone where there are none; a list otherwise.

    Args:
        rows: by column.
        caption: the sentence.
        shown: turns a row into what the table shows of it.
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
    """Return a paragraph with a coloured edge, readable on light and dark pages.

    Args:
        inner_html: the content, HTML already escaped.
        colour: any CSS colour, used for the edge and, faintly, for the ground.
    """
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


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
