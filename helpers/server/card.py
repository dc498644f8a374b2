"""How a server shows itself: a card in a notebook, a few lines in a terminal."""

from __future__ import annotations

import html as escaping
from collections.abc import Sequence
from typing import TYPE_CHECKING

from helpers import machine
from helpers.client.endpoint import Address
from helpers.errors import CourseError
from helpers.paths import shown
from helpers.server import ending

if TYPE_CHECKING:
    from helpers.server.server import ModelState, Server

# Symbols beside the words, so that the state can be read without colour.
MARKS = {"running": "●", "hung": "✖", "stopped": "■", "died": "✖", "unreachable": "?"}
# Of the marks and the edge alone: no colour has a contrast of 4.5 : 1 both on white and on JupyterLab's dark ground, so words keep the
# page's.
_COLOURS = {"running": "#2e8540", "hung": "#d4351c", "stopped": "#767676", "died": "#d4351c", "unreachable": "#d4351c"}
# White words on this red can be read in both themes.
_WARNING = "#b3261e"
_CELL = "padding:1px 14px 1px 0;text-align:left;vertical-align:top"


_NOT_FROM_HERE = "cannot be reached from here"


def _place(address: Address | None) -> str:
    """Where a port is, with the scheme of an encrypted one."""
    return _NOT_FROM_HERE if address is None else f"{address.scheme}://{address}" if address.secure else str(address)


def _facts(server: Server) -> tuple[str, list[tuple[str, str]], list[ModelState], str]:
    """State, facts, models and, when the models cannot be asked for, why not."""
    state = server.state()
    facts = [
        ("runtime", server.runtime),
        ("device", machine.device() if server.is_here else "on another machine"),
        ("HTTP", _place(server.http)),
        ("gRPC", _place(server.grpc)),
        ("metrics", server.metrics.http("/metrics") if server.metrics else _NOT_FROM_HERE),
    ]
    if server.owned:
        facts.append(("inference", server.listening.inference()))
    if server.listening.is_beyond:
        facts.append(("for others", server.listening.for_others([server.http.port, server.grpc.port, 0])))  # type: ignore[union-attr]
    if server.repository:
        facts.append(("repository", shown(server.repository)))
    if server.log_path:
        facts.append(("log", shown(server.log_path)))
    if server.pid:
        facts.append(("pid", str(server.pid)))
    if noticed := server.remarks:
        facts.append(("noticed", noticed[-1]))
    models: list[ModelState] = []
    problem = ""
    if state == "running":
        try:
            models = server.models()
        except CourseError as error:
            problem = str(error)
        if server.repository and not server.repository.is_dir():
            problem += f" The model repository {server.repository} is not there any more; what was loaded from it goes on serving."
        # Models of the repository that nobody asked for are no problem, and many: one line for all of them.
        idle = [model.name for model in models if not model.version and not model.reason and model.state == "UNAVAILABLE"]
        if idle:
            models = [model for model in models if model.name not in idle]
            facts.append(("not loaded", ", ".join(idle)))
    elif state == "hung":
        problem = f"{ending.HUNG} {ending.RESTART}"
    elif state == "died":
        problem = f"{ending.explain(server)}{ending.RESTART}"
    elif state == "unreachable":
        problem = "Nothing answers at this address."
    return state, facts, models, problem


def text(server: Server) -> str:
    """The card for a terminal."""
    state, facts, models, problem = _facts(server)
    lines = [f"Triton server {MARKS.get(state, '?')} {state}"]
    lines += [f"  {name:<11}{value}" for name, value in facts]
    width = max((len(model.name) for model in models), default=0)
    lines += [
        f"  {'models' if number == 0 else '':<11}{m.name:<{width}}  {m.version or '-':>2}  {m.state}  {m.reason}".rstrip()
        for number, m in enumerate(models)
    ]
    beyond = server.listening.warning()
    return "\n".join(lines + [f"  {remark}" for remark in (beyond and f"✖ {beyond}", server.note, problem) if remark])


def html(server: Server) -> str:
    """The card for a notebook: one table of facts, one of models; inherits the theme's colours."""
    state, facts, models, problem = _facts(server)
    body = "".join(_model_row(model, _CELL) for model in models)
    head = "".join(
        f'<th scope="col" style="{_CELL};font-weight:normal;opacity:.75">{title}</th>' for title in ("model", "version", "state", "why")
    )
    table = f'<table style="margin:6px 0 0 0;border:0"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>' if models else ""
    return frame("Triton server", state, facts, table, [remark for remark in (server.note, problem) if remark], server.listening.warning())


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
