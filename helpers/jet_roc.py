"""ROC curves and working points: how well a discriminant separates two kinds of jets, with uncertainties, in numpy alone."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from helpers.errors import InputError


@dataclass(frozen=True)
class WorkingPoint:
    """A cut on a discriminant, and what it lets pass.

    Attributes:
        cut: jets at or above it pass.
        efficiency: fraction of signal jets that pass.
        efficiency_uncertainty: its binomial standard deviation.
        mistag: fraction of background jets that pass.
        mistag_uncertainty: its binomial standard deviation.
    """

    cut: float
    efficiency: float
    efficiency_uncertainty: float
    mistag: float
    mistag_uncertainty: float

    def __str__(self) -> str:
        return (
            f"cut {self.cut:.4g}: efficiency {100 * self.efficiency:.1f} ± {100 * self.efficiency_uncertainty:.1f} %, "
            f"mistag {100 * self.mistag:.2f} ± {100 * self.mistag_uncertainty:.2f} %"
        )


@dataclass(frozen=True)
class Roc:
    """How well a discriminant separates signal from background.

    Attributes:
        name: of the discriminant.
        signal: its values for true signal jets, in falling order.
        background: its values for true background jets, in falling order.
        auc: chance that a signal jet has the higher value, ties counting half: the area under the curve.
        auc_uncertainty: its standard deviation from the finite number of jets.
    """

    name: str
    signal: np.ndarray = field(repr=False)
    background: np.ndarray = field(repr=False)
    auc: float
    auc_uncertainty: float

    def __str__(self) -> str:
        jets = f"{len(self.signal)} signal, {len(self.background)} background jets"
        return f"{self.name}: AUC {self.auc:.4f} ± {self.auc_uncertainty:.4f} ({jets})"

    @property
    def curve(self) -> tuple[np.ndarray, np.ndarray]:
        """Efficiency and mistag rate for each possible cut, both rising from 0 to 1."""
        cuts = np.unique(np.concatenate([self.signal, self.background]))[::-1]
        return tuple(np.concatenate([[0.0], _passing(values, cuts)]) for values in (self.signal, self.background))

    def at(self, cut: float) -> WorkingPoint:
        """What a cut lets pass."""
        pairs = []
        for values in (self.signal, self.background):
            share = float(_passing(values, np.array([cut]))[0])
            pairs += [share, _binomial_uncertainty(share, len(values))]
        return WorkingPoint(float(cut), *pairs)

    def at_mistag(self, mistag: float) -> WorkingPoint:
        """The loosest cut that lets at most this fraction of the background pass.

        Raises:
            InputError: the fraction is none, or less than a single jet of this sample.
        """
        allowed = int(mistag * len(self.background) + 1e-9) if 0 < mistag < 1 else 0
        if allowed < 1:
            raise InputError(
                f"A mistag rate of {mistag!r} was asked for.",
                f"With {len(self.background)} background jets it can be from {1 / len(self.background):.2g} to 1.",
            )
        # Just above the first background jet that must not pass; equal values pass together or not at all.
        return self.at(float(np.nextafter(self.background[allowed], np.inf, dtype=np.float64)))


def roc(name: str, signal: np.ndarray, background: np.ndarray) -> Roc:
    """Compare the values of signal and of background jets.

    The uncertainty of the area is that of DeLong, DeLong and Clarke-Pearson (Biometrics 44 (1988) 837): the variance of each
    jet's chance to be on the right side.

    Raises:
        InputError: fewer than two jets on one side.
    """
    if min(len(signal), len(background)) < 2:
        raise InputError(
            f"{name} was asked of {len(signal)} signal and {len(background)} background jets.",
            "Expected two or more of each.",
            "Take more jets.",
        )
    signal, background = (np.sort(np.asarray(values, np.float64))[::-1] for values in (signal, background))
    right_of_signal, right_of_background = _below(signal, background), 1 - _below(background, signal)
    variance = right_of_signal.var(ddof=1) / len(signal) + right_of_background.var(ddof=1) / len(background)
    return Roc(name, signal, background, float(right_of_signal.mean()), float(np.sqrt(variance)))


Sides = tuple[np.ndarray, np.ndarray]


def auc_change(first: Sides, second: Sides) -> tuple[float, float]:
    """By how much the area changes between two taggers of the same jets, and the standard deviation of that, by DeLong's method.

    Each jet is its own control, so the change is known far better than either area.

    Args:
        first: values for signal jets and for background jets, as one tagger gives them.
        second: the same jets in the same order, as the other gives them.
    """
    before_both, after_both = ((_below(signal, background), 1 - _below(background, signal)) for signal, background in (first, second))
    signal, background = (after - before for before, after in zip(before_both, after_both, strict=True))
    variance = signal.var(ddof=1) / len(signal) + background.var(ddof=1) / len(background)
    return float(signal.mean()), float(np.sqrt(variance))


def _below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each value the fraction of the others that is lower, ties counting half."""
    ordered = np.sort(others)
    both = np.searchsorted(ordered, values, side="left") + np.searchsorted(ordered, values, side="right")
    return both / (2 * len(others))


def _passing(falling: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """The fraction of the values, given in falling order, that is at or above each cut."""
    return (len(falling) - np.searchsorted(falling[::-1], cuts, side="left")) / len(falling)


def _binomial_uncertainty(share: float, n: int) -> float:
    # At least that of one jet, so that a share of 0 or 1 is not called certain.
    return float(np.sqrt(max(share * (1 - share), 1 / n) / n))
