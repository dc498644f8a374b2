"""What checkers share: the four outcomes, numbers with their usual slips, and the counters of a live server.

A checker looks at the answer and at the live server, and returns an outcome. The functions ``must_…`` raise :class:`NotYet` or
:class:`CannotTell` in its place; a :class:`~helpers.errors.CourseError` of a helper that a checker lets pass becomes "cannot tell".
"""

from __future__ import annotations

import html
import importlib
import importlib.util
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
SETTLE_S = 0.3


class Kind(Enum):
    """The four outcomes: words, a symbol that differs for each, and a colour, which is never needed to read it."""

    CORRECT = ("Correct", "✔", "#2e9e44")
    NOT_YET = ("Not yet", "✘", "#c96f14")
    NOT_ATTEMPTED = ("Not attempted yet", "○", "#7a8699")
    CANNOT_TELL = ("Cannot tell", "?", "#3b7dd8")

    def __init__(self, words: str, symbol: str, colour: str) -> None:
        self.words, self.symbol, self.colour = words, symbol, colour


@dataclass(frozen=True, repr=False)
class Outcome:
    """One answer of a check: words in `backquotes` of the text are shown as code, the note in smaller letters."""

    kind: Kind
    text: str
    note: str = ""

    def __repr__(self) -> str:
        note = f" ({self.note})" if self.note else ""
        return f"{self.kind.symbol} {self.kind.words}: {self.text}{note}"

    def _repr_html_(self) -> str:
        symbol = f'<span aria-hidden="true" style="color:{self.kind.colour}">{self.kind.symbol}</span>'
        note = f' <span style="opacity:0.7">{_with_code(self.note)}</span>' if self.note else ""
        # The words keep the page's own colour: on any theme they have its contrast.
        return box(f"<strong>{symbol} {self.kind.words}.</strong> {_with_code(self.text)}{note}", self.kind.colour)


def _with_code(text: str) -> str:
    """Escape text for HTML; what stands in backquotes becomes code."""
    return re.sub(r"`([^`]+)`", r'<code style="white-space:pre-wrap">\1</code>', html.escape(text, quote=False))


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


Checker = Callable[..., Outcome]
_CHECKERS: dict[str, Checker] = {}


def checker(exercise: str) -> Callable[[Checker], Checker]:
    """Make a function the checker of one exercise, such as ``1.2``: notebook, then exercise."""

    def register(function: Checker) -> Checker:
        _CHECKERS[exercise] = function
        return function

    return register


def find(exercise: str) -> Checker:
    """Return the checker of an exercise; raise InputError, with those of the same notebook, when no exercise has this number."""
    notebook = exercise.partition(".")[0]
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


# --- answers ----------------------------------------------------------------------------------------------------------------


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
    known = {"NoneType": "nothing (`None`)", "builtin_function_or_method": "a function", "ndarray": "an array"}
    known["method"] = "a function without its brackets `()`"
    return known.get(type(value).__name__, f"something of type `{type(value).__name__}`")


def must_be(name: str, given: Any, types: type | tuple[type, ...], expected: str) -> None:
    """An answer of this type, or "not yet"."""
    if not isinstance(given, types):
        raise NotYet(f"`{name}` is {kind(given)}. Expected {expected}.")


def must_be_function(name: str, given: Any) -> None:
    """Something to call, or "not yet"."""
    if not callable(given):
        raise NotYet(f"`{name}` is {kind(given)}. Expected the function, without brackets.")


def must_be_made(name: str, given: Any, types: type | tuple[type, ...], cell: str) -> None:
    """Something that an earlier cell makes, or "cannot tell"."""
    if not isinstance(given, types):
        raise CannotTell(f"The check needs `{name}`, and got {kind(given)}. Run {cell} again.")


def must_be_number(name: str, given: Any, what: str = "one number") -> float:
    """The number itself, or "not yet"."""
    value = number(given)
    if value is None:
        seen = f"`{given!r}`" if isinstance(given, (str, bool)) else kind(given)
        raise NotYet(f"`{name}` should be {what}, and it is {seen}.")
    return value


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


# Slips of people who have the right number in another unit: unit asked for -> factor -> what it is.
_UNITS: dict[str, dict[float, str]] = {
    "s": {1e3: "That is in milliseconds; we asked for seconds"},
    "ms": {1e3: "That is in microseconds; divide by 1000", 1e-3: "That is in seconds; we asked for milliseconds"},
    "fraction": {100: "That is in percent; we asked for a fraction from 0 to 1"},
    "": {},
}


def must_be_right(
    name: str,
    given: Any,
    right: float | tuple[float, float],
    slips: Mapping[str, float | None] | None = None,
    otherwise: str = "That is another number",
    *,
    unit: str = "",
    relative: float = ROUNDING,
    absolute: float = 0.0,
    first: str = "",
) -> float:
    """Return the right number, or "not yet" with the name of the slip: other units, or quotients turned round or not divided.

    A pair for ``right`` is a quotient. ``slips`` are what a usual wrong number is, and that number, or None where there is none;
    ``otherwise`` is for all others. ``first`` says what is right already. A number is right within ``relative`` or ``absolute``.
    """
    try:
        seen = must_be_number(name, given)
    except NotYet as wrong:
        raise NotYet(first + str(wrong)) from None
    value = right[0] / right[1] if isinstance(right, tuple) else right

    def near(other: float | None) -> bool:
        return other is not None and abs(seen - other) <= max(relative * abs(other), absolute)

    if near(value):
        return value
    usual: list[tuple[str, float | None]] = [(words, factor * value) for factor, words in _UNITS[unit].items()]
    usual += (slips or {}).items()
    if isinstance(right, tuple):
        new, old = right
        usual += [("That is the inverse; turn it round", old / new if new else None)]
        usual += [("That is the difference; we asked for the quotient", new - old), ("Divide it by the other number", new)]
    raise NotYet(f"{first}`{name}` is {cell(seen)}. {next((words for words, wrong in usual if near(wrong)), otherwise)}.")


def must_all_be_right(
    name: str,
    given: Any,
    right: Sequence[float],
    slips: Mapping[str, Sequence[float]],
    otherwise: str,
    relative: float = ROUNDING,
    absolute: float = 0.0,
) -> None:
    """A list with these numbers, or "not yet" with the name of the slip."""
    if isinstance(given, (str, bytes, Mapping)) or not hasattr(given, "__len__") or len(given) != len(right):
        what = f"a list of {len(given)}" if isinstance(given, list) else kind(given)
        raise NotYet(f"`{name}` is {what}. Expected a list of {len(right)} numbers.")
    seen = [must_be_number(name, one, "a list of numbers") for one in given]

    def near(others: Sequence[float]) -> bool:
        return all(math.isclose(one, other, rel_tol=relative, abs_tol=absolute) for one, other in zip(seen, others, strict=True))

    if not near(right):
        why = next((words for words, wrong in slips.items() if near(wrong)), otherwise)
        raise NotYet(f"`{name}` begins with {seen[0]:.4g}. {why}.")


# --- the live server --------------------------------------------------------------------------------------------------------


def must_be_server(server: Any) -> Server:
    """The server itself, or "cannot tell" when it is something else or does not answer."""
    must_be_made("server", server, Server, "the cell that launches it, `server = launch_server(...)`,")
    if not server.is_alive():
        todo = "Type `server = server.restart()`, then run this notebook's cells from there."
        raise CannotTell(f"Your server at {server.url} does not answer. {todo}")
    return server  # type: ignore[no-any-return]


def rise(server: Any, before: Any, model: str, counter: str = SUCCESS) -> float:
    """How much a counter of a model rose since the student's snapshot, or "cannot tell" when it is none of this server."""
    must_be_server(server)
    must_be_made("before", before, Snapshot, "`before = scrape(server)`, then your answer,")
    time.sleep(SETTLE_S)
    try:
        risen = scrape(server).value(counter, model=model) - before.value(counter, model=model)
    except CourseError as error:
        raise CannotTell(f"The counter `{counter}` of `{model}` cannot be read: {error}") from error
    if risen < 0:
        raise CannotTell("The server was restarted since `before`. Run the cell with `before = scrape(server)` again.")
    return float(risen)


def must_have_risen(server: Any, before: Any, model: str) -> float:
    """How many requests of a model were answered since the snapshot, or "cannot tell" when there was none."""
    sent = rise(server, before, model)
    if not sent:
        raise CannotTell("The server has seen no request since `before`. Run your cell again from its first line, then this one.")
    return sent
