"""The blank ``____`` of an exercise: an object that means "not attempted yet", wherever it ends up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np

# How the blank is written in a notebook, and therefore in a file that a notebook wrote.
BLANK = "____"
# Answers are looked through this deep for blanks: a list of dicts of arrays, and a little more.
_DEPTH = 5


class Placeholder:
    """Stands where an answer is still missing.

    Whatever is done with it (call it, index it, add to it, ask for an attribute) gives the blank again, so that a notebook
    with blanks in it runs from top to bottom, and the check at the end says "not attempted".
    """

    def _again(self, *_args: Any, **_kwargs: Any) -> Placeholder:
        return self

    def __getattr__(self, name: str) -> Placeholder:
        # IPython, NumPy and copy ask for names like these to find out what an object can do: it can do nothing.
        if name.startswith("_"):
            raise AttributeError(name)
        return self

    __call__ = __getitem__ = __enter__ = _again
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _again
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = _again
    __pow__ = __rpow__ = __matmul__ = __rmatmul__ = __neg__ = __pos__ = __abs__ = _again
    __lt__ = __le__ = __gt__ = __ge__ = _again

    def __exit__(self, *_exception: object) -> bool:
        return False

    def __setitem__(self, _key: Any, _value: Any) -> None:
        return None

    def __bool__(self) -> bool:
        return False

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __contains__(self, _item: Any) -> bool:
        return False

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


def count_blanks(value: Any, depth: int = _DEPTH) -> int:
    """Count the blanks in an answer.

    Args:
        value: anything that a student hands to a check: a number, text, a dict, a list, an array, a blank itself.
        depth: how many containers deep to look.

    Returns:
        The number of blanks; text that still holds ``____`` counts as one.
    """
    if isinstance(value, Placeholder):
        return 1
    if isinstance(value, str):
        return int(BLANK in value)
    if depth == 0 or isinstance(value, PurePath):
        return 0
    if isinstance(value, Mapping):
        return sum(count_blanks(item, depth - 1) for item in value.values())
    if isinstance(value, np.ndarray):
        return sum(count_blanks(item, depth - 1) for item in value.ravel()) if value.dtype == object else 0
    if isinstance(value, (list, tuple, set, frozenset)):
        return _count_in(value, depth - 1)
    return 0


def _count_in(values: Iterable[Any], depth: int) -> int:
    return sum(count_blanks(value, depth) for value in values)
