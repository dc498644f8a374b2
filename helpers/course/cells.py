"""The notebook's cells, as IPython runs them: blanks that are left, and cells that failed, so that no check judges an old answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from helpers.course.judge import Kind, Outcome

BLANK = "____"
# What a line of a cell makes: a function, or the names before an equals sign. And what it hands over to a check.
_MADE = re.compile(r"(?<=def )\w+|^[\w, ]+?(?=\s*=(?!=))", re.MULTILINE)
_ASKED = re.compile(r"^exercise\(.*?\)\.check\((.*)\)", re.MULTILINE)
# name -> what is wrong with the last cell that was to make it.
_faults: dict[str, Outcome | None] = {}


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


def count_blanks(value: Any) -> int:
    """Return how many blanks an answer holds; text that still holds ``____`` counts as one."""
    if isinstance(value, (Placeholder, str)):
        return int(BLANK in str(value))
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, np.ndarray) and value.dtype == object:
        value = list(value.ravel())
    return sum(map(count_blanks, value)) if isinstance(value, (list, tuple)) else 0


def not_attempted(blanks: int) -> Outcome:
    """Return the outcome for so many blanks."""
    what = "the blank" if blanks == 1 else f"the {blanks} blanks"
    return Outcome(Kind.NOT_ATTEMPTED, f"Replace {what} `____` above, run that cell, then run this one again.")


def watch(shell: Any, show: Callable[[Outcome], None]) -> None:
    """Take notes of each cell of IPython from now on, and show an outcome for a check whose names are not there."""
    shell.events.register("post_run_cell", note)

    def handle(shell: Any, kind: type[BaseException], error: NameError, trace: Any, tb_offset: int | None = None) -> None:
        if error.name not in asked(running(shell)):
            shell.showtraceback((kind, error, trace), tb_offset=tb_offset)
            return
        happened = f"`{error.name}` is not there: the cell that makes it was not run since the kernel started"
        todo = "Run the notebook from its first cell: *Run > Run All Above Selected Cell*"
        show(fault([error.name]) or Outcome(Kind.CANNOT_TELL, f"{happened}. {todo}."))

    shell.set_custom_exc((NameError,), handle)


def running(shell: Any) -> str:
    """Return the cell that a kernel runs."""
    return str(shell.get_parent()["content"]["code"]) if shell is not None else ""


def note(result: Any) -> None:
    """Take a note of one cell that was run; ``result`` is IPython's."""
    names, blanks = read(result.info.raw_cell)
    failed = result.error_in_exec or result.error_before_exec
    for name in names:
        _faults[name] = not_attempted(blanks) if blanks else None
        if failed is not None:
            error = f"{type(failed).__name__}: {failed}".partition("\n")[0]
            happened = f"The cell that makes `{name}` failed with `{error}`, so an old answer would be judged"
            _faults[name] = Outcome(Kind.CANNOT_TELL, f"{happened}. Correct that cell, then run both again.")


def fault(names: list[str]) -> Outcome | None:
    """Return what the last cells that were to make these names say already: one failed, or still has its blank."""
    return next((found for name in names if (found := _faults.get(name))), None)


def read(source: str) -> tuple[set[str], int]:
    """Return the names that a cell makes, finished or not, and its blanks."""
    return set(re.findall(r"\w+", " ".join(_MADE.findall(source)))), len(re.findall(f"(?<!import ){BLANK}", source))


def asked(source: str) -> list[str]:
    """Return the variables that a cell hands over to a check: those in the brackets of ``.check(...)``."""
    return re.findall(r"\b[a-zA-Z_]\w*", " ".join(_ASKED.findall(source)))
