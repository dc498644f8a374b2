"""The checkers, one module for each notebook.

A checker is a function that looks at the answer and at the live server, and returns an outcome::

    @checker("1.2")
    def ports_read(answers: dict[str, int], server: Server) -> Outcome:
        ...
        return correct("HTTP answers on port 9000.")

It may raise :class:`CannotTell`, or let a :class:`~helpers.errors.CourseError` of a helper pass: both become "cannot tell".
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable

from helpers.checks.outcome import CannotTell, NotSolved, Outcome, cannot_tell, correct, not_attempted, not_yet
from helpers.errors import InputError

__all__ = ["CannotTell", "NotSolved", "Outcome", "cannot_tell", "checker", "correct", "find", "not_attempted", "not_yet"]

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
    name = f"helpers.checks.notebook_{notebook.zfill(2)}"
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
