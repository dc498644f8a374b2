"""How a server, or a fleet, shows itself: a card in a notebook, a few lines in a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from helpers.tables import Row, as_html, as_text

# Symbols beside the words, so that the state can be read without colour.
MARKS = {"running": "●", "stopped": "■", "died": "✖", "unreachable": "?"}
# Of the mark and the edge alone: no colour has a contrast of 4.5 : 1 both on white and on JupyterLab's dark ground, so words keep the
# page's. White words on the last red can be read in both themes.
_GREEN, _GREY, _RED, _WARNING = "#2e8540", "#767676", "#d4351c", "#b3261e"
_CELL = "padding:1px 14px 1px 0;text-align:left;vertical-align:top"


@dataclass(frozen=True)
class Card:
    """What a server shows of itself: its state in one word, facts, a table, sentences below, and one in red before them."""

    title: str
    state: str
    facts: Mapping[str, str]  # those without a value are left out
    rows: Sequence[Row] = ()
    remarks: Sequence[str] = ()
    warning: str = ""

    def text(self) -> str:
        """Return the card for a terminal."""
        lines = [f"{self.title} {MARKS.get(self.state, '?')} {self.state}"]
        lines += [f"  {name:<13}{value}" for name, value in self.facts.items() if value]
        lines += textwrap.indent(as_text(self.rows), "  ").splitlines()
        remarks = [f"✖ {self.warning}" * bool(self.warning), *self.remarks]
        return "\n".join(lines + [f"  {remark}" for remark in remarks if remark.strip()])

    def html(self) -> str:
        """Return the card for a notebook; it inherits the theme's colours."""
        facts = "".join(
            f'<tr><th scope="row" style="{_CELL};font-weight:normal;opacity:.75">{escape(name)}</th>'
            f'<td style="{_CELL}"><code>{escape(value)}</code></td></tr>'
            for name, value in self.facts.items()
            if value
        )
        red = f"margin-top:6px;padding:3px 8px;background:{_WARNING};color:#fff;font-weight:600"
        said = f'<div style="{red}">✖ {escape(self.warning)}</div>' if self.warning else ""
        said += "".join(
            f'<div style="margin-top:6px;white-space:pre-wrap">{escape(remark)}</div>' for remark in self.remarks if remark.strip()
        )
        colour = {"running": _GREEN, "stopped": _GREY}.get(self.state, _RED)
        mark = f'<span aria-hidden="true" style="color:{colour}">{MARKS.get(self.state, "?")}</span>'
        return (
            f'<div style="border:1px solid #8888;border-left:5px solid {colour};border-radius:4px;padding:8px 14px;max-width:60em">'
            f"<div><b>{escape(self.title)}</b> {mark} <b>{escape(self.state)}</b></div>"
            f'<table style="margin:4px 0 0 0;border:0"><tbody>{facts}</tbody></table>{as_html(self.rows) if self.rows else ""}{said}</div>'
        )
