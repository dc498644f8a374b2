"""The flavour of jets: a tagger's probabilities by name, discriminants, ROC curves and working points with uncertainties."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import overload

import awkward as ak
import numpy as np

from helpers.errors import InputError, quoted, suggestion

# The classes behind the numbers in the branch jet_label of the course's samples: those of CMS's taggers, in CMS's order.
LABELS: dict[str, tuple[str, ...]] = {
    "ak4": ("b", "bb", "c", "cc", "uds", "g", "undef", "pu"),
    "ak8": (
        *("Tbcq", "Tbqq", "Tbc", "Tbq", "Tbel", "Tbmu", "Tbta", "Wcq", "Wqq", "Zbb", "Zcc", "Zqq"),
        *("Hbb", "Hcc", "Hqqqq", "QCDbb", "QCDcc", "QCDb", "QCDc", "QCDothers"),
    ),
}
# Classes that physicists name together.
GROUPS: dict[str, tuple[str, ...]] = {
    "b": ("b", "bb"),
    "c": ("c", "cc"),
    "light": ("uds", "g"),
    "hbb": ("Hbb",),
    "qcd": ("QCDbb", "QCDcc", "QCDb", "QCDc", "QCDothers"),
    "top": ("Tbcq", "Tbqq"),
}
# Of signal and background: P(signal) / (P(signal) + P(background)), as CMS defines its own.
DISCRIMINANTS = ("b_vs_light", "b_vs_c", "c_vs_light", "hbb_vs_qcd", "top_vs_qcd")


def sides(discriminant: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the classes of a discriminant's signal and of its background."""
    signal, _, background = discriminant.partition("_vs_")
    return GROUPS[signal], GROUPS[background]


@dataclass(frozen=True, repr=False)
class Scores:
    """The answer of a tagger: ``scores["Hbb"]`` is a probability, ``scores["hbb_vs_qcd"]`` a discriminant, ``scores[:9]`` fewer jets."""

    # `probabilities` are float32, (n_jets, n_labels); `seconds` is the time from jagged jets to probabilities, where it was measured.

    model: str
    labels: tuple[str, ...]
    probabilities: np.ndarray
    requests: int = 1
    seconds: float | None = None

    def __repr__(self) -> str:
        speed = f", {self.seconds:.2f} s, {len(self) / self.seconds:.0f} jets/s" if self.seconds else ""
        return f"{self.model}: {len(self)} jets in {self.requests} request{'s' if self.requests > 1 else ''}{speed}"

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
            signal, background = (self.probabilities[:, [*map(self._column, group)]].sum(axis=1) for group in sides(name))
            return np.asarray(signal / np.maximum(signal + background, np.float32(1e-12)))
        return self.probabilities[:, self._column(name)]

    @property
    def discriminants(self) -> list[str]:
        """The discriminants that this tagger's classes allow."""
        return [name for name in DISCRIMINANTS if {label for group in sides(name) for label in group} <= set(self._classes)]

    @property
    def best(self) -> np.ndarray:
        """The most probable class of each jet, without ``prob``, ``(n_jets,)``."""
        return np.asarray(np.take(self._classes, self.probabilities.argmax(axis=1)))

    def roc(self, name: str, jets: ak.Array) -> Roc:
        """Return how well a discriminant separates the jets that were tagged, given in the same order; an InputError when it cannot."""
        values = self[name]
        if name not in DISCRIMINANTS:
            raise InputError(f"{name!r} is no discriminant.", f"This tagger has {quoted(self.discriminants)}.")
        if len(jets) != len(self):
            raise InputError(f"{len(self)} jets were tagged, and {len(jets)} given now.", "Expected the same jets.")
        signal, background = (values[truth(jets, *group)] for group in sides(name))
        return roc(name, signal, background)

    @property
    def _classes(self) -> list[str]:
        return [label.removeprefix("prob") for label in self.labels]

    def _column(self, name: str) -> int:
        if name not in self._classes:
            names = self._classes + self.discriminants
            raise InputError(f"{self.model} has no class {name!r}.", f"It has {quoted(names)}.", suggestion(name, names))
        return self._classes.index(name)


def truth(jets: ak.Array, *names: str) -> np.ndarray:
    """Return which jets are truly of one of these classes, ``(n_jets,)``; ``qcd``, ``top``, ``light`` and the like name several."""
    if "jet_class" not in jets.fields:
        raise InputError("These jets carry no true class.", "Expected the field jet_class, as in the course's samples.")
    true = np.asarray(ak.to_numpy(jets["jet_class"]))
    here = np.unique(true).tolist()
    for name in names:
        if name.lower() not in GROUPS and name not in {*LABELS["ak4"], *LABELS["ak8"], *here}:
            expected = f"These jets are of the classes {quoted(here)}; together are named {quoted(GROUPS)}."
            raise InputError(f"There is no class {name!r}.", expected, suggestion(name, [*here, *GROUPS]))
    return np.isin(true, [member for name in names for member in GROUPS.get(name.lower(), (name,))])


@dataclass(frozen=True)
class Roc:
    """How well a discriminant separates signal from background."""

    name: str
    # Its values for the true jets of either kind, in falling order.
    signal: np.ndarray = field(repr=False)
    background: np.ndarray = field(repr=False)
    # Chance that a signal jet has the higher value, ties counting half, with its standard deviation from the finite number of jets.
    auc: float
    auc_uncertainty: float

    @property
    def curve(self) -> tuple[np.ndarray, np.ndarray]:
        """Efficiency and mistag rate for each possible cut, both rising from 0 to 1."""
        cuts = np.unique(np.concatenate([self.signal, self.background]))
        # How many of the values, in falling order, are at or above each cut.
        passing = [len(values) - np.searchsorted(values[::-1], cuts[::-1], side="left") for values in (self.signal, self.background)]
        efficiency, mistag = (np.append(0.0, number / number[-1]) for number in passing)
        return efficiency, mistag


def roc(name: str, signal: np.ndarray, background: np.ndarray) -> Roc:
    """Compare a discriminant's values for signal jets, ``(n_signal,)``, and for background jets, ``(n_background,)``."""
    if min(len(signal), len(background)) < 2:
        raise InputError(f"{name} was asked of {len(signal)} signal and {len(background)} background jets.", "Expected two of each.")
    signal, background = (np.sort(np.asarray(values, np.float64))[::-1] for values in (signal, background))
    return Roc(name, signal, background, *_delong(_below(signal, background), 1 - _below(background, signal)))


def auc_words(auc: float, uncertainty: float, digits: int = 3) -> str:
    """Return an area with its standard deviation as text, and a reason in its place where the jets show none."""
    # DeLong's estimate is 0 in two cases: no two jets differ, or all signal is on one side of a cut and all background on the other.
    spread = f"± {uncertainty:.{digits}f}" if uncertainty else "(no overlap)" if auc in (0, 1) else "(all scores are equal)"
    return f"{auc:.{digits}f} {spread}"


def auc_change(first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]) -> tuple[float, float]:
    """Return by how much the area changes between two taggers, and its standard deviation, far smaller than that of either area.

    Each gives its values for signal and for background jets, the same jets in the same order.
    """
    before, after = ((_below(signal, background), 1 - _below(background, signal)) for signal, background in (first, second))
    return _delong(after[0] - before[0], after[1] - before[1])


def _delong(signal: np.ndarray, background: np.ndarray) -> tuple[float, float]:
    """An area or a difference of areas, and its standard deviation, as DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988) 837."""
    variance = signal.var(ddof=1) / len(signal) + background.var(ddof=1) / len(background)
    return float(signal.mean()), float(np.sqrt(variance))


def _below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each value the fraction of the others that is lower, ties counting half."""
    ordered = np.sort(others)
    both = np.searchsorted(ordered, values, side="left") + np.searchsorted(ordered, values, side="right")
    return both / (2 * len(others))
