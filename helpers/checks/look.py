"""What several checkers look at: numbers that people type, and the counters of a live server."""

from __future__ import annotations

import math
import time
from typing import Any

from helpers.checks.outcome import CannotTell
from helpers.errors import CourseError
from helpers.metrics import Snapshot, scrape
from helpers.server import Server

SUCCESS = "nv_inference_request_success"
# The server counts a request a moment after it has answered it; a moment on a busy machine is less than this, in seconds.
_SETTLE_S = 0.3


def number(value: Any) -> float | None:
    """The finite number that a student meant, or None: accepts text such as ``"91"`` and arrays of one element, not yes and no."""
    if isinstance(value, bool):
        return None
    try:
        meant = float(value.item() if hasattr(value, "item") else value)
    except (TypeError, ValueError):
        return None
    return meant if math.isfinite(meant) else None


def plain(value: float) -> str:
    """A number as people write it: ``3`` and not ``3.0``."""
    return f"{value:.6g}"


def must_be_server(server: Any) -> Server:
    """The server itself.

    Raises:
        CannotTell: it is something else, or it does not answer.
    """
    if not isinstance(server, Server):
        raise CannotTell(
            f"The check needs your server, and got {kind(server)}. Run the cell that launches it: `server = launch_server(...)`."
        )
    if not server.is_alive():
        raise CannotTell(
            f"Your server at {server.url} does not answer. Type `server = server.restart()`, then run this notebook's cells from there."
        )
    return server


def rise(server: Server, before: Any, model: str, counter: str = SUCCESS) -> float:
    """How much a counter rose since a snapshot.

    Args:
        server: the live server.
        before: the student's earlier snapshot, from ``scrape(server)``.
        model: name of the model.
        counter: name of the counter.

    Raises:
        CannotTell: ``before`` is no snapshot of this server, or the server was restarted since.
    """
    must_be_server(server)
    if not isinstance(before, Snapshot):
        raise CannotTell(
            f"The check needs the counters from before, and got {kind(before)}. Run `before = scrape(server)` first, then your answer."
        )
    time.sleep(_SETTLE_S)
    try:
        risen = scrape(server).value(counter, model=model) - before.value(counter, model=model)
    except CourseError as error:
        raise CannotTell(f"The counter `{counter}` of `{model}` cannot be read: {error}") from error
    if risen < 0:
        raise CannotTell(
            "The counter is lower than before: the server was restarted in between. Run the cell with `before = scrape(server)` again."
        )
    return risen


def kind(value: Any) -> str:
    """What something is, in a student's words."""
    return {
        "NoneType": "nothing (`None`)",
        "builtin_function_or_method": "a function",
        "method": "a function without its brackets `()`",
    }.get(type(value).__name__, f"something of type `{type(value).__name__}`")
