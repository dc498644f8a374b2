"""What checkers share: the four outcomes, numbers with their usual slips, and the counters of a live server.

A checker looks at the answers and at the live server, and returns what to say when they are right. ``must…`` raises :class:`NotYet`,
and a :class:`~helpers.errors.CourseError` means that the check cannot tell. A parameter with a type is something that an earlier cell
makes: the check needs it. Answers have the type ``Any``.
"""

from __future__ import annotations

import html
import importlib
import math
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, get_type_hints

from helpers.errors import CourseError, InputError, quoted
from helpers.metrics import Snapshot, scrape
from helpers.server import Server
from helpers.tables import box, cell

SUCCESS, INFERENCES, EXECUTIONS = "nv_inference_request_success", "nv_inference_count", "nv_inference_exec_count"
# Part of its value within which a number is right, since people round.
ROUNDING = 0.02
# The server counts a request a moment after it has answered it; on a busy machine that is less than this, in seconds.
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
    """One answer of a check: words in `backquotes` of the text are shown as code."""

    kind: Kind
    text: str

    def __repr__(self) -> str:
        return f"{self.kind.symbol} {self.kind.words}: {self.text}"

    def _repr_html_(self) -> str:
        said = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(self.text, quote=False))
        return box(f"<strong>{self.kind.symbol} {self.kind.words}.</strong> {said}", self.kind.colour)


class NotYet(Exception):
    """A fact is wrong; the text says which, and the value seen."""


class NotAttempted(Exception):
    """The answer is still a blank."""


def must(fact: object, otherwise: str) -> None:
    """Raise NotYet unless a fact is true."""
    if not fact:
        raise NotYet(otherwise)


def needs(fact: object, otherwise: str) -> None:
    """Raise CourseError, "cannot tell", unless a fact is true: the check cannot look, or the measurement is too noisy."""
    if not fact:
        raise CourseError(otherwise)


# Notebook -> the module of its checkers; imported when they are needed, since those of fleets and jets take a second.
_MODULES = dict.fromkeys("0123", "basics") | dict.fromkeys("45", "physics") | dict.fromkeys(("6", "7", "8", "9", "10", "11"), "measuring")


def find(exercise: str) -> Callable[..., str]:
    """Return the checker of an exercise, such as ``_check_1_2`` for 1.2; raise InputError when no exercise has this number."""
    notebook, _, number = exercise.partition(".")
    module = importlib.import_module(f"helpers.course.checks.{_MODULES[notebook]}") if notebook in _MODULES else None
    if (checker := getattr(module, f"_check_{notebook}_{number}", None)) is None:
        raise InputError(f"There is no exercise {exercise!r}.", 'Expected the number of a heading, for example exercise("1.1").')
    return checker  # type: ignore[no-any-return]


def ask(checker: Callable[..., str], answers: Sequence[Any]) -> str:
    """Return what a checker says of right answers, once what it needs is there, and the server or the fleet answers."""
    for (name, made), given in zip(get_type_hints(checker).items(), answers, strict=False):
        if made is Any:
            continue
        needs(isinstance(given, made), f"The check needs `{name}`, and got {kind(given)}. Run the cell that makes it again.")
        alive = not hasattr(given, "is_alive") or given.is_alive()
        needs(alive, f"Your {name} does not answer. Type `{name} = {name}.restart()`, then run this notebook's cells from there.")
    return checker(*answers)


def number(value: Any) -> float | None:
    """The finite number that a student meant, or None: accepts text such as ``"91"`` and arrays of one element, not yes and no."""
    if isinstance(value, bool):
        return None
    try:
        meant = float(value.item() if hasattr(value, "item") else value)
    except (TypeError, ValueError):
        return None
    return meant if math.isfinite(meant) else None


def kind(value: Any) -> str:
    """What something is, in a student's words."""
    known = {"NoneType": "nothing (`None`)", "method": "a function without its brackets `()`"}
    return known.get(type(value).__name__, f"something of type `{type(value).__name__}`")


def must_be(name: str, given: Any, types: Any, expected: str) -> None:
    """An answer of this type."""
    must(isinstance(given, types), f"`{name}` is {kind(given)}. Expected {expected}.")


def must_be_number(name: str, given: Any, what: str = "one number") -> float:
    """The number itself."""
    value = number(given)
    if value is None:
        seen = f"`{given!r}`" if isinstance(given, (str, bool)) else kind(given)
        raise NotYet(f"`{name}` should be {what}, and it is {seen}.")
    return value


def must_be_one_of(name: str, given: Any, known: Collection[str]) -> str:
    """One of the known words, or what ``verdict(...)`` returns."""
    word = str(getattr(given, "answer", given)).strip().lower().removeprefix("the ")
    meant = [one for one in known if one.lower() == word]
    must(meant, f"`{name}` is `{given!r}`. Expected one of {quoted(known)}.")
    return meant[0]


def must_choose(name: str, given: Any, right: Mapping[str, bool], why: Mapping[str, str]) -> None:
    """A list of just those names that are right; ``why`` says for each what decides."""
    names = [given] if isinstance(given, str) else given
    must_be(name, names, (list, tuple, set), f"a list of names among {quoted(right)}; an empty one is an answer, too")
    must(set(names) <= set(right), f"`{name}` is {quoted(names)}. Expected names among {quoted(right)}.")
    for one, chosen in right.items():
        must((one in names) == chosen, f"{why[one]}. So `{one}` {'belongs' if chosen else 'does not belong'} into `{name}`.")


# The right number in another unit: unit asked for -> factor -> what to say.
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
    slips: Mapping[str, float] | None = None,
    otherwise: str = "That is another number",
    *,
    unit: str = "",
    relative: float = ROUNDING,
    absolute: float = 0.0,
) -> float:
    """Return the right number, or raise NotYet with the name of the slip.

    A pair for ``right`` is a quotient, which people turn round or do not divide. ``slips`` are other usual wrong numbers, by what they are;
    ``otherwise`` is for all others. A number is right within ``relative`` or ``absolute``.
    """
    seen = must_be_number(name, given)
    new, old = right if isinstance(right, tuple) else (right, 1.0)
    usual = [(words, factor * new / old) for factor, words in _UNITS[unit].items()] + list((slips or {}).items())
    if isinstance(right, tuple):
        usual += [("That is the inverse; turn it round", old / new if new else math.nan), ("Divide it by the other number", new)]

    def near(other: float) -> bool:
        return abs(seen - other) <= max(relative * abs(other), absolute)

    if not near(new / old):
        raise NotYet(f"`{name}` is {cell(seen)}. {next((words for words, wrong in usual if near(wrong)), otherwise)}.")
    return new / old


def must_all_be_right(name: str, given: Any, right: Mapping[Any, float], slips: Mapping[str, Any], otherwise: str, **how: Any) -> None:
    """The same of several numbers, in a list or by their names; each slip has the wrong ones in the same way."""
    for key, true in right.items():
        try:
            seen = given[key]
        except (TypeError, KeyError, IndexError):
            raise NotYet(f"`{name}` has no `{key}`. Expected {len(right)} numbers.") from None
        must_be_right(f"{name}[{key!r}]", seen, true, {words: wrong[key] for words, wrong in slips.items()}, otherwise, **how)


def counted(server: Server, before: Snapshot, model: str, least: int = 0) -> list[int]:
    """Return how many requests, inferences and executions a server counted since the student's reading.

    Raise CourseError when it was restarted since, or answered fewer requests than at least were sent.
    """
    time.sleep(SETTLE_S)
    now = scrape(server)
    rose = [int(now.value(name, model=model) - before.value(name, model=model)) for name in (SUCCESS, INFERENCES, EXECUTIONS)]
    needs(min(rose) >= 0, "The server was restarted since `before`. Run the cell with `before = scrape(server)` again.")
    seen = f"The server has seen {rose[0]} requests since the reading, and {least} were expected"
    needs(rose[0] >= least, f"{seen}. Run your cell again from its first line, then this one.")
    return rose
