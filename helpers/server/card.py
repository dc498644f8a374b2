"""How a server shows itself: a card in a notebook, a few lines in a terminal."""

from __future__ import annotations

import html as escaping
import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from helpers.server.model_states import ModelState

# Symbols beside the words, so that the state can be read without colour.
MARKS = {"running": "●", "hung": "✖", "stopped": "■", "died": "✖", "unreachable": "?"}
# Of the marks and the edge alone: no colour has a contrast of 4.5 : 1 both on white and on JupyterLab's dark ground, so words keep the
# page's.
_COLOURS = {"running": "#2e8540", "hung": "#d4351c", "stopped": "#767676", "died": "#d4351c", "unreachable": "#d4351c"}
# White words on this red can be read in both themes.
_WARNING = "#b3261e"
_CELL = "padding:1px 14px 1px 0;text-align:left;vertical-align:top"


@dataclass(frozen=True)
class Card:
    """What a server shows of itself.

    Attributes:
        state: how it is, one word.
        facts: names and values.
        models: its models.
        remarks: sentences below.
        warning: a sentence in red before them.
    """

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
        lines += [
            f"  {'models' if number == 0 else '':<11}{m.name:<{width}}  {m.version or '-':>2}  {m.state}  {m.reason}".rstrip()
            for number, m in enumerate(self.models)
        ]
        remarks = [f"✖ {self.warning}", *self.remarks] if self.warning else self.remarks
        return "\n".join(lines + [f"  {remark}" for remark in remarks])

    def html(self) -> str:
        """Return the card for a notebook: one table of facts, one of models; inherits the theme's colours."""
        body = "".join(_model_row(model, _CELL) for model in self.models)
        head = "".join(
            f'<th scope="col" style="{_CELL};font-weight:normal;opacity:.75">{title}</th>' for title in ("model", "version", "state", "why")
        )
        table = f'<table style="margin:6px 0 0 0;border:0"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>' if body else ""
        return frame("Triton server", self.state, self.facts, table, self.remarks, self.warning)


def frame(title: str, state: str, facts: Sequence[tuple[str, str]], table: str, remarks: Sequence[str], warning: str = "") -> str:
    """A card for a notebook.

    Args:
        title: what it is.
        state: how it is, one word.
        facts: names and values.
        table: a table below them, as HTML.
        remarks: sentences below that.
        warning: a sentence in red before them.
    """
    rows = "".join(
        f'<tr><th scope="row" style="{_CELL};font-weight:normal;opacity:.75">{_e(n)}</th><td style="{_CELL}"><code>{_e(v)}</code></td></tr>'
        for n, v in facts
    )
    red = f"margin-top:6px;padding:3px 8px;background:{_WARNING};color:#fff;font-weight:600"
    said = f'<div style="{red}">✖ {_e(warning)}</div>' if warning else ""
    said += "".join(f'<div style="margin-top:6px;white-space:pre-wrap">{_e(remark)}</div>' for remark in remarks)
    colour = _COLOURS.get(state, "#d4351c")
    return (
        f'<div style="border:1px solid #8888;border-left:5px solid {colour};border-radius:4px;padding:8px 14px;max-width:60em">'
        f"<div><b>{_e(title)}</b> {_mark(MARKS.get(state, '?'), colour)} <b>{_e(state)}</b></div>"
        f'<table style="margin:4px 0 0 0;border:0"><tbody>{rows}</tbody></table>{table}{said}</div>'
    )


def _model_row(model: ModelState, cell: str) -> str:
    good = model.state == "READY"
    return (
        f'<tr><td style="{cell}"><code>{_e(model.name)}</code></td><td style="{cell}">{_e(model.version or "–")}</td>'
        f'<td style="{cell}">{_mark("✔" if good else "✖", _COLOURS["running" if good else "died"])} <b>{_e(model.state)}</b></td>'
        f'<td style="{cell};white-space:normal">{_e(model.reason)}</td></tr>'
    )


def _mark(symbol: str, colour: str) -> str:
    return f'<span aria-hidden="true" style="color:{colour}">{symbol}</span>'


def _e(words: str) -> str:
    return escaping.escape(words)
