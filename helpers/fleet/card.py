"""How a fleet shows itself: the front's addresses, and what each server behind it has done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from helpers import machine
from helpers.paths import shown
from helpers.server import card, ending
from helpers.tables import as_html, as_text

if TYPE_CHECKING:
    from helpers.fleet.fleet import Fleet


def _facts(fleet: Fleet) -> tuple[str, list[tuple[str, str]], list[dict[str, Any]], list[str]]:
    """State, facts, one row per server, remarks."""
    state = fleet.state()
    facts = [("HTTP", fleet.http_url), ("gRPC", fleet.grpc_url), ("runtime", fleet.runtime), ("device", machine.device())]
    facts.append(("inference", fleet.listening.inference()))
    facts += [("repository", shown(fleet.repository)), ("front's log", shown(fleet.log_path)), ("front's pid", str(fleet.pid))]
    remarks = [fleet.note] if fleet.note else []
    if state == "died":
        remarks.append(f"{ending.explain(fleet)}Type: fleet = fleet.restart()")
    if state == "stopped":
        return state, facts, [], remarks
    rows = []
    servers = fleet.servers
    for number, (server, used, share) in enumerate(zip(servers, fleet.in_rotation(), fleet.shares(), strict=True)):
        its_state = server.state()
        rows.append(
            {
                "server": share["server"],
                "state": f"{card.MARKS.get(its_state, '?')} {its_state}",
                "gets requests": "yes" if used else "no",
                "requests": share["requests"],
                "share": None if share["share"] is None else f"{share['share']:.0%}",
                "queue (ms)": None if share["queue_us"] is None else share["queue_us"] / 1000,
                "gRPC": server.grpc_url,
                "metrics": server.metrics_url,
            }
        )
        if noticed := server.remarks:
            remarks.append(f"{server.http_url} {noticed[-1]}")
        if its_state == "hung":
            remarks.append(f"{server.http_url} does not answer any more: it gets no requests, and is started again soon.")
        if its_state == "died":
            remarks.append(f"{server.http_url} has died. {ending.explain(server)}To bring it back, type: fleet.servers[{number}].restart()")
    return state, facts, rows, remarks


def text(fleet: Fleet) -> str:
    """The card for a terminal."""
    state, facts, rows, remarks = _facts(fleet)
    lines = [f"Fleet of Triton servers behind Envoy {card.MARKS.get(state, '?')} {state}"]
    lines += [f"  {name:<13}{value}" for name, value in facts]
    lines += [f"  {line}" for line in as_text(rows).splitlines()] if rows else []
    return "\n".join(lines + [f"  {remark}" for remark in remarks])


def html(fleet: Fleet) -> str:
    """The card for a notebook; inherits the theme's colours."""
    state, facts, rows, remarks = _facts(fleet)
    return card.frame("Fleet of Triton servers behind Envoy", state, facts, as_html(rows) if rows else "", remarks)
