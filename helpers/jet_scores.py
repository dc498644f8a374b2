"""What a tagger says about jets: probabilities by name, discriminants, tables beside the truth."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, overload

import awkward as ak
import numpy as np

from helpers.errors import InputError
from helpers.jet_roc import Roc, roc
from helpers.tables import as_html, as_text
from helpers.wording import quoted, suggestion

_QCD = ("QCDbb", "QCDcc", "QCDb", "QCDc", "QCDothers")
# Classes that physicists name together.
GROUPS: dict[str, tuple[str, ...]] = {
    "b": ("b", "bb"),
    "c": ("c", "cc"),
    "light": ("uds", "g"),
    "hbb": ("Hbb",),
    "qcd": _QCD,
    "top": ("Tbcq", "Tbqq"),
}
# Name -> signal and background: P(signal) / (P(signal) + P(background)), as CMS defines its own.
DISCRIMINANTS: dict[str, tuple[str, str]] = {
    "b_vs_light": ("b", "light"),
    "b_vs_c": ("b", "c"),
    "c_vs_light": ("c", "light"),
    "hbb_vs_qcd": ("hbb", "qcd"),
    "top_vs_qcd": ("top", "qcd"),
}
_PREFIX = "prob"
# Jets that a table of scores shows unless told otherwise.
_SHOWN = 5


@dataclass(frozen=True, repr=False)
class Scores:
    """The answer of a tagger: ``scores["Hbb"]`` is a probability, ``scores["hbb_vs_qcd"]`` a discriminant, ``scores[:9]`` fewer jets.

    Attributes:
        model: which model said it.
        labels: names of the classes, in the order of the columns.
        probabilities: float32, ``(n_jets, n_labels)``.
        requests: how many requests were sent for it.
        seconds: how long that took, from jagged jets to probabilities; None when nobody looked.
    """

    model: str
    labels: tuple[str, ...]
    probabilities: np.ndarray = field(repr=False)
    requests: int = 1
    seconds: float | None = None

    def __str__(self) -> str:
        speed = f", {self.seconds:.2f} s, {len(self) / self.seconds:.0f} jets/s" if self.seconds else ""
        return f"{self.model}: {len(self)} jets in {self.requests} request{'s' if self.requests > 1 else ''}{speed}"

    __repr__ = __str__

    def __len__(self) -> int:
        return len(self.probabilities)

    @overload
    def __getitem__(self, name: str) -> np.ndarray: ...
    @overload
    def __getitem__(self, name: slice | np.ndarray) -> Scores: ...
    def __getitem__(self, name: str | slice | np.ndarray) -> np.ndarray | Scores:
        if not isinstance(name, str):
            return Scores(self.model, self.labels, self.probabilities[name], self.requests)
        if name in DISCRIMINANTS:
            signal, background = (self._sum(GROUPS[group]) for group in DISCRIMINANTS[name])
            return signal / np.maximum(signal + background, np.float32(1e-12))
        return self.probabilities[:, self._column(name)]

    @property
    def discriminants(self) -> list[str]:
        """The discriminants that this tagger's classes allow."""
        known = {short(label) for label in self.labels}
        return [name for name, pair in DISCRIMINANTS.items() if all(set(GROUPS[group]) <= known for group in pair)]

    @property
    def best(self) -> np.ndarray:
        """The most probable class of each jet, without ``prob``."""
        return np.array([short(label) for label in self.labels])[self.probabilities.argmax(axis=1)]

    def roc(self, name: str, jets: ak.Array) -> Roc:
        """How well a discriminant separates these jets, which are those that were tagged, in the same order.

        Raises:
            InputError: no such discriminant, other jets, or jets without truth.
        """
        values = self[name]
        if name not in DISCRIMINANTS:
            raise InputError(f"{name!r} is no discriminant.", f"This tagger has {quoted(self.discriminants)}.")
        if len(jets) != len(self):
            raise InputError(f"{len(self)} jets were tagged, and {len(jets)} given now.", "Expected the same jets.")
        signal, background = (truth(jets, *GROUPS[group]) for group in DISCRIMINANTS[name])
        return roc(name, values[signal], values[background])

    def rows(self, jets: ak.Array | None = None, n: int = _SHOWN, classes: int = 2) -> list[dict[str, Any]]:
        """The first jets as a tidy table: pT in GeV and true class if known, then the most probable classes."""
        rows = []
        order = np.argsort(-self.probabilities, axis=1, kind="stable")[:, :classes]
        true = ak.to_list(jets["jet_class"][:n]) if jets is not None and "jet_class" in jets.fields else None
        for i in range(min(n, len(self))):
            row: dict[str, Any] = {"jet": i}
            if jets is not None:
                row["pt_GeV"] = round(float(jets["jet_pt"][i]), 1)
            if true is not None:
                row["true_class"] = true[i]
            for rank, column in enumerate(order[i], 1):
                row[f"guess_{rank}"] = short(self.labels[column])
                row[f"probability_{rank}"] = round(float(self.probabilities[i, column]), 3)
            rows.append(row)
        return rows

    def table(self, jets: ak.Array | None = None, n: int = _SHOWN) -> ScoreTable:
        """As :meth:`rows`, to look at."""
        return ScoreTable(self.rows(jets, n))

    def _sum(self, names: Iterable[str]) -> np.ndarray:
        return self.probabilities[:, [self._column(name) for name in names]].sum(axis=1)

    def _column(self, name: str) -> int:
        known = [short(label) for label in self.labels]
        if short(name) not in known:
            raise InputError(
                f"{self.model} has no class {name!r}.",
                f"Its classes are {', '.join(known)}; its discriminants {', '.join(self.discriminants)}.",
                suggestion(name, [*known, *self.discriminants]),
            )
        return known.index(short(name))


class ScoreTable:
    """Rows that show themselves as a table in a notebook and in a terminal."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows

    def __str__(self) -> str:
        return as_text(self.rows)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return as_html(self.rows)


def truth(jets: ak.Array, *names: str) -> np.ndarray:
    """Which jets are truly of one of these classes, as booleans; ``qcd``, ``top``, ``light`` and the like name several.

    Raises:
        InputError: the jets carry no truth.
    """
    if "jet_class" not in jets.fields:
        raise InputError("These jets carry no true class.", "Expected the field jet_class, as in the course's samples.")
    classes = {short(member) for name in names for member in GROUPS.get(name.lower() if name not in GROUPS else name, (name,))}
    return np.isin(np.asarray(ak.to_numpy(jets["jet_class"])), sorted(classes))


def short(label: str) -> str:
    """``probHbb`` as people say it: ``Hbb``."""
    return label.removeprefix(_PREFIX)
