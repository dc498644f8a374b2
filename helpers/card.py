"""How a server shows itself: a card in a notebook, a few lines in a terminal."""

from __future__ import annotations

import functools
import html as escaping
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from helpers import rest
from helpers.errors import CourseError
from helpers.files import shown

if TYPE_CHECKING:
    from helpers.server import ModelState, Server

# Symbols beside the words, so that the state can be read without colour.
_MARKS = {"running": "●", "stopped": "■", "died": "✖", "unreachable": "?"}
# Of the marks and the edge alone: no colour has a contrast of 4.5 : 1 both on white and on JupyterLab's dark ground, so words keep the page's.
_COLOURS = {"running": "#2e8540", "stopped": "#767676", "died": "#d4351c", "unreachable": "#d4351c"}


@functools.cache
def this_machine() -> str:
    """The device that serves on this machine: the first GPU if there is one, else the processor."""
    if shutil.which("nvidia-smi"):
        answer = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, check=False)
        if answer.returncode == 0 and answer.stdout.strip():
            return answer.stdout.splitlines()[0].strip()
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return f"CPU: {found.group(1)}" if found else "CPU"


def _facts(server: Server) -> tuple[str, list[tuple[str, str]], list[ModelState], str]:
    """State, facts, models and, when the models cannot be asked for, why not."""
    state = server.state()
    where = this_machine() if rest.is_loopback(server.http.host) else "on another machine"
    facts = [
        ("runtime", server.runtime),
        ("device", where),
        ("HTTP", server.http_url),
        ("gRPC", server.grpc_url),
        ("metrics", server.metrics_url),
    ]
    if server.repository:
        facts.append(("repository", shown(server.repository)))
    if server.log_path:
        facts.append(("log", shown(server.log_path)))
    if server.pid:
        facts.append(("pid", str(server.pid)))
    models: list[ModelState] = []
    problem = ""
    if state == "running":
        try:
            models = server.models()
        except CourseError as error:
            problem = str(error)
        # Models of the repository that nobody asked for are no problem, and many: one line for all of them.
        idle = [model.name for model in models if not model.version and not model.reason and model.state == "UNAVAILABLE"]
        if idle:
            models = [model for model in models if model.name not in idle]
            facts.append(("not loaded", ", ".join(idle)))
    elif state == "died":
        problem = "It ended without being told to. Look at server.log(), then type: server = server.restart()"
    elif state == "unreachable":
        problem = "Nothing answers at this address."
    return state, facts, models, problem


def text(server: Server) -> str:
    """The card for a terminal."""
    state, facts, models, problem = _facts(server)
    lines = [f"Triton server {_MARKS.get(state, '?')} {state}"]
    lines += [f"  {name:<11}{value}" for name, value in facts]
    width = max((len(model.name) for model in models), default=0)
    lines += [
        f"  {'models' if number == 0 else '':<11}{m.name:<{width}}  {m.version or '-':>2}  {m.state}  {m.reason}".rstrip()
        for number, m in enumerate(models)
    ]
    return "\n".join(lines + [f"  {remark}" for remark in (server.note, problem) if remark])


def html(server: Server) -> str:
    """The card for a notebook: one table of facts, one of models; inherits the theme's colours."""
    state, facts, models, problem = _facts(server)
    cell = "padding:1px 14px 1px 0;text-align:left;vertical-align:top"
    rows = "".join(
        f'<tr><th scope="row" style="{cell};font-weight:normal;opacity:.75">{_e(n)}</th><td style="{cell}"><code>{_e(v)}</code></td></tr>'
        for n, v in facts
    )
    body = "".join(_model_row(model, cell) for model in models)
    head = "".join(
        f'<th scope="col" style="{cell};font-weight:normal;opacity:.75">{title}</th>' for title in ("model", "version", "state", "why")
    )
    table = f'<table style="margin:6px 0 0 0;border:0"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>' if models else ""
    remarks = "".join(f'<div style="margin-top:6px">{_e(remark)}</div>' for remark in (server.note, problem) if remark)
    colour = _COLOURS.get(state, "#d4351c")
    return (
        f'<div style="border:1px solid #8888;border-left:5px solid {colour};border-radius:4px;padding:8px 14px;max-width:60em">'
        f'<div><b>Triton server</b> {_mark(_MARKS.get(state, "?"), colour)} <b>{_e(state)}</b></div>'
        f'<table style="margin:4px 0 0 0;border:0"><tbody>{rows}</tbody></table>{table}{remarks}</div>'
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
