"""Who did what in a fleet: each server's own counters, since its start or between two readings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from helpers.errors import CourseError
from helpers.metrics import Snapshot, scrape
from helpers.server.server import Server


def read(servers: Sequence[Server]) -> dict[str, Snapshot]:
    """The counters of all servers that answer, by the address of their HTTP port."""
    found = {}
    for server in servers:
        try:
            found[server.http_url] = scrape(server)
        except CourseError:
            continue  # it has died: its counters went with it
    return found


def rows(
    servers: Sequence[Server], before: Mapping[str, Snapshot] | None, after: Mapping[str, Snapshot], model: str | None
) -> list[dict[str, Any]]:
    """One row per server.

    Args:
        servers: the servers.
        before: an earlier reading; None for the start of each server.
        after: a later reading.
        model: only requests to this model; None for all.

    Returns:
        Columns: server, requests, inferences, share (of the requests of all, 0 to 1), queue_us (mean per request, in µs). A server
        that does not answer has None in all of them.
    """
    table = [_row(server.http_url, (before or {}).get(server.http_url), after.get(server.http_url), model) for server in servers]
    total = sum(row["requests"] or 0 for row in table)
    for row in table:
        row["share"] = row["requests"] / total if total and row["requests"] is not None else None
    return table


def _row(url: str, before: Snapshot | None, after: Snapshot | None, model: str | None) -> dict[str, Any]:
    if after is None:
        return {"server": url, "requests": None, "inferences": None, "share": None, "queue_us": None}
    # A server that was not there for the first reading began with all counters at zero.
    change = after - (before or Snapshot(0.0, ()))
    asked = [row for row in change.requests if model in (None, row["model"])]
    requests = sum(row["requests"] for row in asked)
    queue_us = sum(row["queue_us"] * row["requests"] for row in asked if row["requests"])
    return {
        "server": url,
        "requests": int(requests),
        "inferences": int(sum(row["inferences"] for row in asked)),
        "share": None,
        "queue_us": queue_us / requests if requests else None,
    }
