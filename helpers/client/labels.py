"""Names of classes: label files, and the answers of Triton's classification extension."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Class(NamedTuple):
    """One class in the answer to a request with ``classes=k``.

    Attributes:
        score: the value of the output tensor for this class.
        index: its position in the output tensor.
        label: its name in the label file; empty when the model has none.
    """

    score: float
    index: int
    label: str


def parse_classes(answer: np.ndarray) -> list[Any]:
    """Read ``score:index:label`` strings.

    Args:
        answer: strings of shape ``(k,)`` or ``(batch, k)``, best class first.

    Returns:
        A list of :class:`Class`, or one such list for each entry of the batch.
    """
    if answer.ndim > 1:
        return [parse_classes(entry) for entry in answer]
    classes = []
    for item in answer:
        score, index, *label = item.decode("utf-8", "replace").split(":", 2)
        classes.append(Class(float(score), int(index), _clean(label[0]) if label else ""))
    return classes


def label_file(repository: Any, model: str, name: str) -> list[str] | None:
    """The lines of a model's label file, one for each class and blank ones too, or None when the repository is not at hand."""
    if repository is None:
        return None
    path = Path(repository) / model / name
    if not path.is_file():
        return None
    # As Triton reads it: nothing but a line feed ends a line.
    return [_clean(line) for line in path.read_bytes().decode("utf-8", "replace").removesuffix("\n").split("\n")]


def _clean(label: str) -> str:
    """Return a label without what editors leave around it: blanks, carriage returns, a byte order mark."""
    return label.removeprefix("\ufeff").strip()
