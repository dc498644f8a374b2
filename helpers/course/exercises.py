"""Exercises of the notebooks: check, hint, solution, and the cell for students who came late. A check never shows a traceback."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

from helpers import paths
from helpers.course.cells import Placeholder, asked, count_blanks, fault, not_attempted, running, watch
from helpers.course.judge import Kind, NotAttempted, NotYet, Outcome, ask, find
from helpers.course.progress import record
from helpers.errors import CourseError
from helpers.terminal import notebook

____ = Placeholder()


class Exercise:
    """One exercise, by the number of its heading such as ``"1.2"``: ``check(...)``, ``hint(n)``, ``solution()``."""

    def __init__(self, number: str) -> None:
        self.number = number
        self._checker = find(number)

    def check(self, *answers: Any) -> None:
        """Look at the answers and at the server, and show what was found."""
        outcome = fault(asked(running(notebook()))) or self.judge(*answers)
        if outcome.kind in (Kind.CORRECT, Kind.NOT_YET):
            counted = record(self.number, solved=outcome.kind is Kind.CORRECT)
            outcome = dataclasses.replace(outcome, text=f"{outcome.text} ({counted})")
        _show(outcome)

    def judge(self, *answers: Any) -> Outcome:
        """The outcome alone: shows nothing, counts nothing."""
        if blanks := count_blanks(answers):
            return not_attempted(blanks)
        try:
            return Outcome(Kind.CORRECT, ask(self._checker, answers))
        except NotYet as wrong:
            return Outcome(Kind.NOT_YET, str(wrong))
        except NotAttempted:
            return not_attempted(1)
        except CourseError as reason:
            return Outcome(Kind.CANNOT_TELL, str(reason))
        except Exception as error:
            stumbled = f"The check stumbled over this answer ({type(error).__name__}: {error})"
            return Outcome(Kind.CANNOT_TELL, f"{stumbled}. Run the notebook again from its first cell.")

    def hint(self, n: int = 1) -> None:
        """Show one hint, from 1; the first says least."""
        hints = _hints(self.number)
        found = n in range(1, len(hints) + 1)
        _show(f"**Hint {n} of {len(hints)}.** {hints[n - 1]}" if found else f"There is no hint {n}; choose from 1 to {len(hints)}.")

    def solution(self) -> None:
        """Show the answer, as the solution notebook has it: first why, then the code."""
        _show(f"**Solution of exercise {self.number}.** {_solution(self.number)}")


exercise = Exercise


def _cells(number: str) -> list[dict[str, Any]]:
    """The cells of an exercise's solution notebook, the only place where answers are kept, each with its source as one text."""
    (file,) = (paths.root() / "notebooks" / "solutions").glob(f"{number.partition('.')[0].zfill(2)}_*.ipynb")
    found = json.loads(file.read_text(encoding="utf-8"))["cells"]
    return [{"tags": [], "code": cell["cell_type"] == "code", "source": "".join(cell["source"]), **cell["metadata"]} for cell in found]


def _tagged(number: str, tag: str) -> list[str]:
    return [cell["source"] for cell in _cells(number) if cell.get("exercise") == number and tag in cell["tags"]]


def _hints(number: str) -> list[str]:
    """The hints: the items of the numbered list in the cell tagged ``hints``."""
    return [item.strip() for item in re.split(r"^\d+\. ", "\n".join(_tagged(number, "hints")), flags=re.MULTILINE)[1:]]


def _solution(number: str) -> str:
    """Words, then code, in Markdown."""
    words = [text.removeprefix("**Answer.** ") for text in _tagged(number, "answer")]
    return "\n\n".join([*words, *(f"```python\n{text}\n```" for text in _tagged(number, "starter"))])


def _show(shown: Outcome | str) -> None:
    """Show an outcome or Markdown: rendered in a notebook, as it is in a terminal."""
    if notebook() is None:
        print(shown)
        return
    from IPython.display import display

    display({"text/markdown": shown, "text/plain": shown} if isinstance(shown, str) else shown, raw=isinstance(shown, str))


if notebook() is not None:
    watch(notebook(), _show)


def way_to(exercise: str) -> tuple[str, list[str]]:
    """Return the heading of an exercise, and the code of each cell in front of it; raise InputError when there is no such exercise."""
    find(exercise)
    found = _cells(exercise)
    first = next(index for index, cell in enumerate(found) if cell.get("exercise") == exercise)
    before = [cell["source"] for cell in found[:first] if cell["code"] and not {"check", "raises-exception"} & set(cell["tags"])]
    return found[first]["source"].partition("\n")[0].lstrip("# "), before


def catch_up(exercise: str) -> None:
    """Run everything in front of an exercise, such as ``"4.3"``, in this kernel, as the solution has it.

    Checks are left out, so nothing is counted as solved, and so are errors that are shown on purpose. A cell that fails is the last one.
    """
    title, code = way_to(exercise)
    if all(notebook().run_cell(source, store_history=False).success for source in code):
        print(f"You are there: {len(code)} cells were run. Next: {title}")
