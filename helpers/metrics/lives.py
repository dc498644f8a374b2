"""The life of single requests, by the server's own clock: Triton's trace, switched on for a few requests of one's own server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from helpers.client import http
from helpers.errors import ServerError

# Seconds until the server has written the file, which it does right after the last answer: only against waiting for ever.
_WRITTEN_S = 20.0


def trace(server: Any, send: Callable[[], object], requests: int = 1) -> pd.DataFrame:
    """Return when the next requests came, waited, were computed and were answered, on one's own server that has a file for its trace.

    The server was launched with ``--trace-config=triton,file=…``, and ``send`` sends so many requests. There is a row for each in the
    order of their coming, and for each stage that an ensemble asked: ``model``, ``parent`` (the ``id`` of the ensemble's row, -1 where
    there is none), and Triton's timestamps in ms since the first came: ``REQUEST_START``, ``QUEUE_START``, ``COMPUTE_START``,
    ``COMPUTE_INPUT_END``, ``COMPUTE_OUTPUT_START``, ``COMPUTE_END``, ``REQUEST_END``.
    """
    file = Path(_setting(server)["trace_file"])
    if not file.name:
        advice = 'Type: launch_server(..., extra_arguments=["--trace-config=triton,file=/path/of/a/file"])'
        raise ServerError("This server was launched without a file for its trace.", "", advice)
    # Triton puts a number behind the file's name.
    for old in file.parent.glob(f"{file.name}.*"):
        old.unlink()
    _setting(server, trace_level=["TIMESTAMPS"], trace_rate="1", trace_count=str(requests))
    send()
    deadline = time.monotonic() + _WRITTEN_S
    while not (written := "".join(path.read_text("utf-8") for path in file.parent.glob(f"{file.name}.*"))).rstrip().endswith("]"):
        if time.monotonic() > deadline:
            _setting(server, trace_level=["OFF"])
            raise ServerError(f"The server wrote no trace of {requests} requests to {file}.", "Were fewer sent?")
        time.sleep(0.05)
    rows: dict[int, dict[str, Any]] = {}
    # An entry has the model of a request, and each of the others one timestamp, in ns.
    for entry in json.loads(written):
        row = rows.setdefault(entry["id"], {})
        if "model_name" in entry:
            row |= {"model": entry["model_name"], "parent": entry.get("parent_id", -1)}
        row |= {stamp["name"]: stamp["ns"] for stamp in entry.get("timestamps", ())}
    lives = pd.DataFrame.from_dict(rows, orient="index").sort_values("REQUEST_START").rename_axis("id")
    stamps = [name for name in lives if name not in ("model", "parent")]
    lives[stamps] = (lives[stamps] - lives["REQUEST_START"].min()) / 1e6
    return lives


def _setting(server: Any, **values: Any) -> dict[str, Any]:
    headers = server.admin_headers("http")
    return dict(http.ask(server.http, "/v2/trace/setting", values or None, headers=headers, access=server.access))
