"""Exercises of the notebooks: check, hint, solution, and the cell for students who came late.

A check looks at the live server and says one of four things: correct, not yet, not attempted, cannot tell. It never shows
a traceback. With ``COURSE_STRICT=1`` in the environment anything but "correct" raises, so that a wrong solution fails in tests.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from helpers import paths
from helpers.course import cells, judge
from helpers.course.cells import BLANK
from helpers.course.judge import CannotTell, Kind, NotAttempted, NotYet, Outcome
from helpers.course.progress import record
from helpers.errors import CourseError, InputError, SetupError, quoted
from helpers.terminal import Progress


class Placeholder:
    """Stands where an answer is still missing: whatever is done with it gives the blank again, so that a notebook runs to its end."""

    def _again(self, *_args: Any, **_kwargs: Any) -> Placeholder:
        return self

    def __getattr__(self, name: str) -> Placeholder:
        # IPython, NumPy and copy ask for names like these to find out what an object can do: it can do nothing.
        if name.startswith("_"):
            raise AttributeError(name)
        return self

    __call__ = __getitem__ = __setitem__ = __enter__ = __exit__ = _again
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _again
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = _again
    __pow__ = __rpow__ = __matmul__ = __rmatmul__ = __neg__ = __pos__ = __abs__ = _again
    __lt__ = __le__ = __gt__ = __ge__ = _again

    def __bool__(self) -> bool:
        return False

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __float__(self) -> float:
        return float("nan")

    def __int__(self) -> int:
        return 0

    __index__ = __int__

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = np.empty((), dtype=object)
        array[()] = self
        return array if dtype is None else array.astype(dtype)

    def __format__(self, _spec: str) -> str:
        return BLANK

    def __repr__(self) -> str:
        return BLANK


def count_blanks(value: Any, depth: int = 5) -> int:
    """Return how many blanks an answer holds, so many containers deep; text that still holds ``____`` counts as one."""
    if isinstance(value, Placeholder):
        return 1
    if isinstance(value, str):
        return int(BLANK in value)
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, np.ndarray) and value.dtype == object:
        value = list(value.ravel())
    if depth == 0 or not isinstance(value, (list, tuple, set, frozenset)):
        return 0
    return sum(count_blanks(item, depth - 1) for item in value)


____ = Placeholder()


class NotSolved(CourseError):
    """Raised only in strict mode (``COURSE_STRICT=1``), so that a wrong solution makes the tests fail."""


class Exercise:
    """One exercise, by the number of its heading such as ``"1.2"``: ``check(...)``, ``hint(n)``, ``solution()``."""

    def __init__(self, number: str) -> None:
        self.number = number
        self._checker = judge.find(number)

    def check(self, *answers: Any) -> None:
        """Look at the answers and at the server, and show what was found."""
        outcome = self._of_the_cell() or self.judge(*answers)
        if outcome.kind in (Kind.CORRECT, Kind.NOT_YET):
            outcome = dataclasses.replace(outcome, note=record(self.number, solved=outcome.kind is Kind.CORRECT))
        _show(outcome)
        if strict() and outcome.kind is not Kind.CORRECT:
            raise NotSolved(f"Exercise {self.number}: {outcome}")

    def _of_the_cell(self) -> Outcome | None:
        """What the cells above say already: one of them failed, or still has its blank."""
        shell = _kernel()
        names = cells.asked(shell.get_parent()["content"]["code"])[1] if hasattr(shell, "get_parent") else []
        if failed := cells.failure(names):
            return Outcome(Kind.CANNOT_TELL, failed)
        left = cells.blanks(names)
        return _not_attempted(left) if left else None

    def judge(self, *answers: Any) -> Outcome:
        """The outcome alone: shows nothing, counts nothing."""
        if blanks := sum(map(count_blanks, answers)):
            return _not_attempted(blanks)
        try:
            return Outcome(Kind.CORRECT, judge.ask(self._checker, answers))
        except NotYet as wrong:
            return Outcome(Kind.NOT_YET, str(wrong))
        except NotAttempted:
            return _not_attempted(1)
        except (CannotTell, CourseError) as reason:
            return Outcome(Kind.CANNOT_TELL, str(reason))
        except Exception as error:
            if strict():
                raise
            todo = "Run the notebook again from its first cell; if this stays, show the line to your instructor."
            return Outcome(Kind.CANNOT_TELL, f"The check stumbled over this answer ({type(error).__name__}: {error}). {todo}")

    def hint(self, n: int = 1) -> None:
        """Show one hint, from 1; the first says least."""
        hints = _hints(self.number)
        if n not in range(1, len(hints) + 1):
            _show(f"There is no hint {n}; choose from 1 to {len(hints)}.")
            return
        more = f' One more: exercise("{self.number}").hint({n + 1})' if n < len(hints) else ""
        _show(f"**Hint {n} of {len(hints)}.** {hints[n - 1]}{more}")

    def solution(self) -> None:
        """Show the answer, as the solution notebook has it: first why, then the code."""
        _show(f"**Solution of exercise {self.number}.** {_solution(self.number)}")


exercise = Exercise


def strict() -> bool:
    """True if anything but "correct" raises."""
    return bool(os.environ.get("COURSE_STRICT"))


def _not_attempted(blanks: int) -> Outcome:
    what = "Replace the blank `____`" if blanks < 2 else f"Replace the {blanks} blanks `____`"
    return Outcome(Kind.NOT_ATTEMPTED, f"{what} above, run that cell, then run this one again.")


def _cells(number: str) -> list[dict[str, Any]]:
    """The cells of an exercise's solution notebook, the only place where answers are kept, each with its source as one text."""
    notebook = number.partition(".")[0]
    files = sorted((paths.root() / "notebooks" / "solutions").glob(f"{notebook.zfill(2)}_*.ipynb")) if notebook.isdecimal() else []
    found = json.loads(files[0].read_text(encoding="utf-8"))["cells"] if files else []
    return [cell | {"source": "".join(cell["source"]), "tags": set(cell["metadata"].get("tags", []))} for cell in found]


def _tagged(number: str, tag: str) -> list[str]:
    return [cell["source"] for cell in _cells(number) if cell["metadata"].get("exercise") == number and tag in cell["tags"]]


def _hints(number: str) -> list[str]:
    """The hints: the items of the numbered list in the cell tagged ``hints``."""
    return [item.strip() for item in re.split(r"^\d+\. ", "\n".join(_tagged(number, "hints")), flags=re.MULTILINE)[1:]]


def _solution(number: str) -> str:
    """Words, then code, in Markdown."""
    words = [text.removeprefix("**Answer.** ") for text in _tagged(number, "answer")]
    return "\n\n".join([*words, *(f"```python\n{text}\n```" for text in _tagged(number, "starter"))])


def _show(shown: Outcome | str) -> None:
    """Show an outcome or Markdown: rendered in a notebook, as it is in a terminal."""
    if _kernel() is None:
        print(shown)
        return
    from IPython.display import display

    display({"text/markdown": shown, "text/plain": shown} if isinstance(shown, str) else shown, raw=isinstance(shown, str))


def _kernel() -> Any:
    """The IPython that runs this notebook, None elsewhere."""
    return sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None


# In strict mode a variable that is not there is an error, as everywhere.
if _kernel() is not None and not strict():
    cells.watch(_kernel(), lambda number, name: _show(Outcome(Kind.CANNOT_TELL, cells.missing(name, number))))


def way_to(exercise: str) -> tuple[str, list[str]]:
    """Return the heading of an exercise, and the code of each cell in front of it; raise InputError when there is no such exercise."""
    found = _cells(exercise)
    code: list[str] = []
    for cell in found:
        if cell["metadata"].get("exercise") == exercise:
            return cell["source"].partition("\n")[0].lstrip("# "), code
        if cell["cell_type"] == "code" and not {"check", "raises-exception"} & cell["tags"]:
            code.append(cell["source"])
    known = list(dict.fromkeys(cell["metadata"]["exercise"] for cell in found if "exercise" in cell["metadata"]))
    expected = f"This notebook has {quoted(known)}." if known else "A number looks like 4.3: notebook, then exercise."
    raise InputError(f"There is no exercise {exercise!r}.", expected)


def catch_up(exercise: str) -> None:
    """Run everything in front of an exercise, such as ``"4.3"``, in this kernel, as the solution has it, and show nothing of it.

    Checks are left out, so nothing is counted as solved, and so are errors that are shown on purpose. A SetupError where a cell failed.
    """
    from IPython.utils.capture import capture_output

    shell = _kernel()
    title, code = way_to(str(exercise))
    with Progress(f"running what comes before exercise {exercise}", len(code), "cells") as progress:
        for number, source in enumerate(code, 1):
            with capture_output() as shown:
                result = shell.run_cell(source, store_history=False, silent=True)
            if not result.success:
                shown.show()
                failed = result.error_in_exec or result.error_before_exec
                todo = "Type: make doctor   (or restart the kernel, and run this cell once more)"
                raise SetupError(f"Cell {number} of {len(code)} before exercise {exercise} failed: {failed}.", "", todo)
            progress.add()
    cells.forget()
    print(f"You are there: {len(code)} cells were run. Next: {title}")
