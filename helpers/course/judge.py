"""What checkers share: the four outcomes, numbers with their usual slips, and the counters of a live server.

A checker is a function that looks at the answer and at the live server, and returns an outcome::

    @checker("1.2")
    def ports_read(answers: dict[str, int], server: Server) -> Outcome:
        ...
        return correct("HTTP answers on port 9000.")

It may raise :class:`NotYet` or :class:`CannotTell`, or let a :class:`~helpers.errors.CourseError` of a helper pass, which becomes
"cannot tell". The functions ``must_…`` here do so.
"""

from __future__ import annotations

import html
import importlib
import importlib.util
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from helpers.errors import CourseError, InputError
from helpers.metrics import Snapshot, scrape
from helpers.server import Server
from helpers.tables import box, cell

SUCCESS = "nv_inference_request_success"
# Part of its value within which a number is right, since people round.
ROUNDING = 0.02
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


class NotYet(Exception):
    """Raised by a checker when a fact is wrong; the text says which, and the value seen."""


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


def kind(value: Any) -> str:
    """What something is, in a student's words."""
    return {
        "NoneType": "nothing (`None`)",
        "builtin_function_or_method": "a function",
        "method": "a function without its brackets `()`",
        "ndarray": "an array",
    }.get(type(value).__name__, f"something of type `{type(value).__name__}`")


def must_be_number(name: str, given: Any, what: str = "one number") -> float:
    """The number itself, or "not yet"."""
    value = number(given)
    if value is None:
        seen = f"`{given!r}`" if isinstance(given, (str, bool)) else kind(given)
        raise NotYet(f"`{name}` should be {what}, and it is {seen}.")
    return value


def must_be(value: Any, types: type | tuple[type, ...], name: str, run: str) -> None:
    """Something that an earlier cell makes, or "cannot tell": ``run`` says which cell that is."""
    if not isinstance(value, types):
        raise CannotTell(f"The check needs `{name}`, and got {kind(value)}. Run {run} again.")


def must_be_verdict(name: str, given: Any, known: Sequence[str]) -> str:
    """One of the known answers, from a word or from what ``verdict(...)`` returns, or "not yet"."""
    word = str(getattr(given, "answer", given)).strip().lower().removeprefix("the ")
    if word not in known:
        raise NotYet(f"`{name}` is `{given!r}`. Expected one of {', '.join(f'`{one}`' for one in known)}.")
    return word


def must_have(value: Any, names: Sequence[str]) -> dict[str, Any]:
    """A dictionary with these keys, or "not yet"."""
    if not isinstance(value, dict) or not set(names) <= set(value):
        raise NotYet(f"Expected a dictionary with the keys {', '.join(f'`{name}`' for name in names)}.")
    return value


# Slips of people who have the right number in another unit: unit asked for -> (factor, what it is).
_UNITS: dict[str, tuple[tuple[float, str], ...]] = {
    "s": ((1e3, "That is in milliseconds; we asked for seconds"),),
    "ms": (
        (1e3, "That is in microseconds; divide by 1000"),
        (1e-3, "That is in seconds; we asked for milliseconds"),
    ),
    "fraction": ((100, "That is in percent; we asked for a fraction from 0 to 1"),),
    "": (),
}


@dataclass(frozen=True)
class Number:
    """A number that an answer should be. It knows rounding, other units, and quotients that are turned round or not divided.

    Args:
        name: of the student's variable.
        given: the student's answer.
        right: the right number; a pair is a quotient, the first over the second.
        slips: what a usual wrong number is -> that number; None for those that cannot be had.
        otherwise: what to do, for all other wrong numbers.
        unit: ``s``, ``ms`` or ``fraction``.
        relative: part of its value within which a number is right, since people round.
        absolute: the same as a number.
        first: what is right already, said before what is wrong.
    """

    name: str
    given: Any
    right: float | tuple[float, float]
    slips: Mapping[str, float | None] = field(default_factory=dict)
    otherwise: str = "That is another number"
    unit: str = ""
    relative: float = ROUNDING
    absolute: float = 0.0
    first: str = ""

    @property
    def value(self) -> float:
        """The right number."""
        return self.right[0] / self.right[1] if isinstance(self.right, tuple) else self.right

    def near(self, number: float, other: float | None) -> bool:
        """True if people who round may have meant the other."""
        return other is not None and abs(number - other) <= max(self.relative * abs(other), self.absolute)

    def must_be_right(self) -> float:
        """Return the right number, or raise "not yet" with the name of the slip."""
        try:
            seen = must_be_number(self.name, self.given)
        except NotYet as wrong:
            raise NotYet(self.first + str(wrong)) from None
        if not self.near(seen, self.value):
            usual: list[tuple[str, float | None]] = [(words, factor * self.value) for factor, words in _UNITS[self.unit]]
            usual += self.slips.items()
            if isinstance(self.right, tuple):
                new, old = self.right
                usual += [("That is the inverse; turn it round", old / new if new else None)]
                usual += [("That is the difference; we asked for the quotient", new - old)]
                usual += [("Divide it by the other number", new)]
            why = next((words for words, wrong in usual if self.near(seen, wrong)), self.otherwise)
            raise NotYet(f"{self.first}`{self.name}` is {cell(seen)}. {why}.")
        return self.value


def must_be_server(server: Any) -> Server:
    """The server itself, or "cannot tell" when it is something else or does not answer."""
    if not isinstance(server, Server):
        raise CannotTell(
            f"The check needs your server, and got {kind(server)}. Run the cell that launches it: `server = launch_server(...)`."
        )
    if not server.is_alive():
        raise CannotTell(
            f"Your server at {server.url} does not answer. Type `server = server.restart()`, then run this notebook's cells from there."
        )
    return server


def rise(server: Any, before: Any, model: str, counter: str = SUCCESS) -> float:
    """How much a counter of a model rose since the student's snapshot, by the live server.

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
    return float(risen)


def must_have_risen(server: Any, before: Any, model: str) -> float:
    """How many requests of a model were answered since the snapshot, or "cannot tell" when there was none."""
    sent = rise(server, before, model)
    if not sent:
        raise CannotTell("The server has seen no request since `before`. Run your cell again from its first line, then this one.")
    return sent
