"""How a server shows itself: a card in a notebook, a few lines in a terminal."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from helpers.server.model_states import ModelState

# Symbols beside the words, so that the state can be read without colour.
MARKS = {"running": "●", "hung": "✖", "stopped": "■", "died": "✖", "unreachable": "?"}
# Of the marks and the edge alone: no colour has a contrast of 4.5 : 1 both on white and on JupyterLab's dark ground, so words keep the
# page's. White words on the red can be read in both themes.
_GREEN, _GREY, _RED, _WARNING = "#2e8540", "#767676", "#d4351c", "#b3261e"
_CELL = "padding:1px 14px 1px 0;text-align:left;vertical-align:top"
_HEAD = f"{_CELL};font-weight:normal;opacity:.75"


@dataclass(frozen=True)
class Card:
    """What a server shows of itself: its state in one word, facts, models, sentences below, and one in red before them."""

    state: str
    facts: Sequence[tuple[str, str]]
    models: Sequence[ModelState] = ()
    remarks: Sequence[str] = ()
    warning: str = ""

    def text(self) -> str:
        """Return the card for a terminal."""
        lines = [f"Triton server {MARKS.get(self.state, '?')} {self.state}"]
        wrapped = textwrap.TextWrapper(shutil.get_terminal_size().columns, break_long_words=False, break_on_hyphens=False)
        wrapped.subsequent_indent = " " * 13
        for name, value in self.facts:
            wrapped.initial_indent = f"  {name:<11}"
            lines += wrapped.wrap(value) or [wrapped.initial_indent.rstrip()]
        width = max((len(model.name) for model in self.models), default=0)
        for number, m in enumerate(self.models):
            line = f"  {'' if number else 'models':<11}{m.name:<{width}}  {m.version or '-':>2}  {m.state}  {m.reason}"
            lines.append(line.rstrip())
        remarks = [f"✖ {self.warning}", *self.remarks] if self.warning else self.remarks
        return "\n".join(lines + [f"  {remark}" for remark in remarks])

    def html(self) -> str:
        """Return the card for a notebook: one table of facts, one of models; inherits the theme's colours."""
        rows = ""
        for m in self.models:
            mark = _mark("✔", _GREEN) if m.state == "READY" else _mark("✖", _RED)
            cells = (f"<code>{escape(m.name)}</code>", escape(m.version or "–"), f"{mark} <b>{escape(m.state)}</b>", escape(m.reason))
            rows += "<tr>" + "".join(f'<td style="{_CELL};white-space:normal">{cell}</td>' for cell in cells) + "</tr>"
        head = "".join(f'<th scope="col" style="{_HEAD}">{title}</th>' for title in ("model", "version", "state", "why"))
        table = f'<table style="margin:6px 0 0 0;border:0"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>' if rows else ""
        return frame("Triton server", self.state, self.facts, table, self.remarks, self.warning)


def frame(title: str, state: str, facts: Sequence[tuple[str, str]], table: str, remarks: Sequence[str], warning: str = "") -> str:
    """Return a card for a notebook, with a table below its facts that is HTML already."""
    rows = "".join(
        f'<tr><th scope="row" style="{_HEAD}">{escape(name)}</th><td style="{_CELL}"><code>{escape(value)}</code></td></tr>'
        for name, value in facts
    )
    red = f"margin-top:6px;padding:3px 8px;background:{_WARNING};color:#fff;font-weight:600"
    said = f'<div style="{red}">✖ {escape(warning)}</div>' if warning else ""
    said += "".join(f'<div style="margin-top:6px;white-space:pre-wrap">{escape(remark)}</div>' for remark in remarks)
    colour = {"running": _GREEN, "stopped": _GREY}.get(state, _RED)
    return (
        f'<div style="border:1px solid #8888;border-left:5px solid {colour};border-radius:4px;padding:8px 14px;max-width:60em">'
        f"<div><b>{escape(title)}</b> {_mark(MARKS.get(state, '?'), colour)} <b>{escape(state)}</b></div>"
        f'<table style="margin:4px 0 0 0;border:0"><tbody>{rows}</tbody></table>{table}{said}</div>'
    )


def _mark(symbol: str, colour: str) -> str:
    return f'<span aria-hidden="true" style="color:{colour}">{symbol}</span>'
