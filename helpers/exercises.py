"""Exercises of the notebooks: check, hint, solution.

Typical use, in a notebook::

    from helpers.exercises import ____, exercise

    answer = ____
    exercise("1.2").check(server, answer)
    # exercise("1.2").hint(1)
    # exercise("1.2").solution()

A check looks at the live server and says one of four things: correct, not yet, not attempted, cannot tell. It never shows
a traceback. With ``COURSE_STRICT=1`` in the environment anything but "correct" raises, so that a wrong solution fails in tests.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import os
import re
from pathlib import Path
from typing import Any

from helpers import checks, progress, settings
from helpers.checks.outcome import CannotTell, Kind, NotSolved, Outcome, cannot_tell, not_attempted
from helpers.checks.placeholder import Placeholder, count_blanks
from helpers.errors import CourseError

__all__ = ["Exercise", "____", "exercise"]

____ = Placeholder()

# After this many answers that were not right, the check mentions the hints.
_ATTEMPTS_BEFORE_HINT = 2
# Values of COURSE_STRICT that mean "no".
_OFF = ("", "0", "false", "no")


def exercise(number: str) -> Exercise:
    """The exercise with this number.

    Args:
        number: as in the heading, such as ``"1.2"``.

    Raises:
        InputError: there is none; the message lists those of the same notebook.
    """
    return _exercise(str(number))


@functools.cache
def _exercise(number: str) -> Exercise:
    return Exercise(number)


class Exercise:
    """One exercise: ``check(...)``, ``hint(n)``, ``solution()``.

    Args:
        number: as in the heading, such as ``"1.2"``.
    """

    def __init__(self, number: str) -> None:
        self.number = number
        self._checker = checks.find(number)

    def __repr__(self) -> str:
        return f'exercise("{self.number}"): .check(...), .hint(1), .solution()'

    def check(self, *answers: Any, **named: Any) -> None:
        """Look at the answer and at the server, and show what was found.

        Args:
            *answers: what the notebook's check cell hands over: the answer, the server.
            **named: the same, by name.

        Raises:
            NotSolved: only in strict mode, when the outcome is not "correct".
        """
        outcome = self.judge(*answers, **named)
        if outcome.kind in (Kind.CORRECT, Kind.NOT_YET):
            outcome = self._counted(outcome)
        _show(outcome)
        if strict() and outcome.kind is not Kind.CORRECT:
            raise NotSolved(f"Exercise {self.number}: {outcome}")

    def judge(self, *answers: Any, **named: Any) -> Outcome:
        """The outcome alone: shows nothing, counts nothing."""
        try:
            inspect.signature(self._checker).bind(*answers, **named)
        except TypeError as error:
            names = ", ".join(inspect.signature(self._checker).parameters)
            return cannot_tell(f'The check needs `exercise("{self.number}").check({names})`; this call does not fit: {error}.')
        blanks = sum(count_blanks(answer) for answer in (*answers, *named.values()))
        if blanks:
            return not_attempted(blanks)
        try:
            return self._checker(*answers, **named)
        except CannotTell as reason:
            return cannot_tell(str(reason))
        except CourseError as error:
            return cannot_tell(f"{error}")
        except OSError as error:
            return cannot_tell(f"The server does not answer ({type(error).__name__}). Run the cell that launches it, then this one again.")
        except Exception as error:
            if strict():
                raise
            return cannot_tell(
                f"The check stumbled over this answer ({type(error).__name__}: {error}). Run the notebook again from its first "
                "cell; if this stays, show the line to your instructor."
            )

    def hint(self, n: int = 1) -> None:
        """Show one hint; the first says least.

        Args:
            n: which one, from 1.
        """
        hints = _hints(self.number)
        if not isinstance(n, int) or not 1 <= n <= len(hints):
            choice = f"from 1 to {len(hints)}" if len(hints) > 1 else "number 1" if hints else "of none: this exercise has no hints"
            _show_text(f"There is no hint {n}; choose {choice}.")
            return
        more = f' One more: exercise("{self.number}").hint({n + 1})' if n < len(hints) else ""
        _show_text(f"**Hint {n} of {len(hints)}.** {hints[n - 1]}", more)

    def solution(self) -> None:
        """Show the answer, as the solution notebook has it: first why, then the code."""
        _show_text(f"**Solution of exercise {self.number}.** " + _solution(self.number))

    def _counted(self, outcome: Outcome) -> Outcome:
        entry, said = progress.record(self.number, solved=outcome.kind is Kind.CORRECT)
        notes = [f"Attempt {entry['attempts']}."]
        if outcome.kind is Kind.NOT_YET and entry["attempts"] >= _ATTEMPTS_BEFORE_HINT and _hints(self.number):
            notes.append(f'Stuck? `exercise("{self.number}").hint(1)`')
        return dataclasses.replace(outcome, note=" ".join([*notes, said]).strip())


def strict() -> bool:
    """Whether anything but "correct" raises (``COURSE_STRICT=1``)."""
    return os.environ.get("COURSE_STRICT", "").lower() not in _OFF


def _solution_cells(number: str) -> list[dict[str, Any]]:
    """The cells of one exercise in the solution notebook, the only place where answers are kept."""
    notebook = number.partition(".")[0].zfill(2)
    for file in sorted((settings.root() / "notebooks" / "solutions").glob(f"{notebook}_*.ipynb")):
        return [cell for cell in _cells(file) if cell["metadata"].get("exercise") == number]
    return []


def _cells(file: Path) -> list[dict[str, Any]]:
    return json.loads(file.read_text(encoding="utf-8"))["cells"]


def _tagged(number: str, tag: str) -> list[dict[str, Any]]:
    return [cell for cell in _solution_cells(number) if tag in cell["metadata"].get("tags", [])]


def _hints(number: str) -> list[str]:
    """The hints: the items of the numbered list in the cell tagged ``hints``."""
    text = "\n".join("".join(cell["source"]) for cell in _tagged(number, "hints"))
    return [item.strip() for item in re.split(r"^\d+\. ", text, flags=re.MULTILINE)[1:]]


def _solution(number: str) -> str:
    """Words, then code, in Markdown."""
    words = ["".join(cell["source"]) for cell in _tagged(number, "answer") if cell["cell_type"] == "markdown"]
    code = ["".join(cell["source"]) for cell in _tagged(number, "starter") if cell["cell_type"] == "code"]
    words = [re.sub(r"^\*\*Answer\.\*\* ", "", text) for text in words]
    return "\n\n".join([*words, *(f"```python\n{text}\n```" for text in code)])


def _show(outcome: Outcome) -> None:
    """Show an outcome: a box in a notebook, a line in a terminal."""
    shell = _shell()
    if shell is None:
        print(outcome)
    else:
        shell.display(outcome)


def _show_text(markdown: str, note: str = "") -> None:
    """Show Markdown: rendered in a notebook, as it is in a terminal."""
    shell = _shell()
    if shell is None:
        print(markdown + note)
    else:
        shell.display({"text/markdown": markdown + (f"\n\n{note.strip()}" if note else ""), "text/plain": markdown + note}, raw=True)


def _shell() -> Any:
    """IPython's display module inside a notebook, None elsewhere."""
    try:
        from IPython import display, get_ipython
    except ImportError:
        return None
    return display if get_ipython() is not None else None
