"""What checkers share: the four outcomes, numbers with their usual slips, and the counters of a live server.

A checker is a function that looks at the answer and at the live server, and returns an outcome::

    @checker("1.2")
    def ports_read(answers: dict[str, int], server: Server) -> Outcome:
        ...
        return correct("HTTP answers on port 9000.")

It may raise :class:`CannotTell`, or let a :class:`~helpers.errors.CourseError` of a helper pass: both become "cannot tell".
"""

from __future__ import annotations

import html
import importlib
import importlib.util
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from helpers.errors import CourseError, InputError
from helpers.measuring.table import INPUT_DATA, shapes_of
from helpers.metrics import Snapshot, scrape
from helpers.server import Server
from helpers.tables import box

SUCCESS = "nv_inference_request_success"
# The server counts a request a moment after it has answered it; a moment on a busy machine is less than this, in seconds.
_SETTLE_S = 0.3


class Kind(Enum):
    """The four outcomes, each with its words, a symbol and a colour (the colour is never needed to read it)."""

    CORRECT = ("Correct", "✔", "#2e9e44")
    NOT_YET = ("Not yet", "✘", "#c96f14")
    NOT_ATTEMPTED = ("Not attempted yet", "○", "#7a8699")
    CANNOT_TELL = ("Cannot tell", "?", "#3b7dd8")

    @property
    def words(self) -> str:
        """The outcome in words, such as ``Not yet``."""
        return self.value[0]

    @property
    def symbol(self) -> str:
        """One character that differs for each outcome."""
        return self.value[1]

    @property
    def colour(self) -> str:
        """A colour that reads on a light and on a dark page."""
        return self.value[2]


@dataclass(frozen=True)
class Outcome:
    """One answer of a check.

    Args:
        kind: which of the four.
        text: what was seen, in whole sentences; words in `backquotes` are shown as code.
        note: a remark in smaller letters, such as the number of the attempt.
    """

    kind: Kind
    text: str
    note: str = ""

    def __str__(self) -> str:
        note = f" ({self.note})" if self.note else ""
        return f"{self.kind.symbol} {self.kind.words}: {self.text}{note}"

    def _repr_html_(self) -> str:
        symbol = f'<span aria-hidden="true" style="color:{self.kind.colour}">{self.kind.symbol}</span>'
        note = f' <span style="opacity:0.7">{_with_code(self.note)}</span>' if self.note else ""
        # The words keep the page's own colour: on any theme they have its contrast.
        return box(f"<strong>{symbol} {self.kind.words}.</strong> {_with_code(self.text)}{note}", self.kind.colour)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/plain": str(self), "text/html": self._repr_html_()}


class CannotTell(Exception):
    """Raised by a checker that could not look, or whose measurement is too noisy: neither right nor wrong."""


class NotSolved(CourseError):
    """Raised only in strict mode (``COURSE_STRICT=1``), so that a wrong solution makes the tests fail."""


def correct(text: str) -> Outcome:
    """The answer is right; ``text`` names the numbers seen."""
    return Outcome(Kind.CORRECT, text)


def not_yet(text: str) -> Outcome:
    """Something is wrong; ``text`` says which fact, and the value seen."""
    return Outcome(Kind.NOT_YET, text)


def not_attempted(blanks: int = 1) -> Outcome:
    """Blanks are still there."""
    what = "Replace the blank `____`" if blanks < 2 else f"Replace the {blanks} blanks `____`"
    return Outcome(Kind.NOT_ATTEMPTED, f"{what} above, run that cell, then run this one again.")


def cannot_tell(text: str) -> Outcome:
    """Neither right nor wrong: ``text`` says why, and what to do."""
    return Outcome(Kind.CANNOT_TELL, text)


def _with_code(text: str) -> str:
    """Escape text for HTML; what stands in backquotes becomes code."""
    escaped = html.escape(text, quote=False)
    return re.sub(r"`([^`]+)`", r'<code style="white-space:pre-wrap">\1</code>', escaped)


# --- the checkers -----------------------------------------------------------------------------------------------------------

Checker = Callable[..., Outcome]
_CHECKERS: dict[str, Checker] = {}


def checker(exercise: str) -> Callable[[Checker], Checker]:
    """Make a function the checker of one exercise.

    Args:
        exercise: its number, such as ``"1.2"``: notebook, then exercise.
    """

    def register(function: Checker) -> Checker:
        _CHECKERS[exercise] = function
        return function

    return register


def find(exercise: str) -> Checker:
    """The checker of an exercise; imports the module of its notebook when needed.

    Raises:
        InputError: no exercise has this number; the message lists those of the same notebook.
    """
    notebook = str(exercise).partition(".")[0]
    name = f"helpers.course.checks.notebook_{notebook.zfill(2)}"
    if notebook.isdecimal() and importlib.util.find_spec(name):
        importlib.import_module(name)
    if exercise not in _CHECKERS:
        known = ", ".join(number for number in sorted(_CHECKERS) if number.startswith(f"{notebook}."))
        raise InputError(
            f"There is no exercise {exercise!r}.",
            f"Notebook {notebook} has: {known}." if known else "A number looks like 1.2: notebook, then exercise.",
            'Write the number from the heading in quotes, for example exercise("1.1").',
        )
    return _CHECKERS[exercise]


# --- what they look at ------------------------------------------------------------------------------------------------------


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


def other_inputs(baseline: Mapping[str, Any], best: Mapping[str, Any]) -> str:
    """Return what differs between the inputs of two measured rows, in a sentence; empty when they sent the same.

    Shorter jets are answered sooner, so gains count with the same ones.

    Raises:
        CannotTell: a row does not say what its file held.
    """
    kinds = [row.get("inputs") if row.get("inputs") in INPUT_DATA else "real" for row in (baseline, best)]
    if kinds[0] != kinds[1]:
        return f"`best` was measured with {kinds[1]} inputs, and the baseline with {kinds[0]} ones."
    before, after = shapes_of(baseline), shapes_of(best)
    for name, shape in before.items():
        if after.get(name, shape) != shape:
            return f"`best` was measured with a `{name}` of {list(after[name])}, and the baseline with {list(shape)}."
    sent = [row.get("inputs_digest") for row in (baseline, best)]
    if kinds[0] != "real" or (sent[0] == sent[1] and sent[0]):
        return ""
    if None in sent:
        raise CannotTell("A row does not say which jets it sent. Measure both again, with one file.")
    return f"`best` was measured with the jets of `{best.get('inputs')}`, and the baseline with those of `{baseline.get('inputs')}`."
