"""How well the network tells taus from jets, muons and electrons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from helpers.physics.taus import Taus, tensors
from training.jets.evaluate import area, area_with_uncertainty

from .features import ELECTRON, JET, MUON, TAU

BATCH_TAUS = 50
EFFICIENCIES = (0.6, 0.8, 0.9)


@dataclass(frozen=True)
class Question:
    """Taus against one other class.

    Attributes:
        name: As printed.
        background: The other class.
        target: Area under the ROC curve that the course asks for.
    """

    name: str
    background: int
    target: float


QUESTIONS = (
    Question("tau vs jet", JET, 0.97),
    Question("tau vs muon", MUON, 0.99),
    Question("tau vs electron", ELECTRON, 0.95),
)


def scores(run: Callable[[Sequence[NDArray]], NDArray], taus: Taus, table: dict) -> NDArray[np.float32]:
    """Class probabilities (n_taus, 4) of the served function."""
    parts = np.array_split(np.arange(len(taus)), max(1, len(taus) // BATCH_TAUS))
    return np.concatenate([run(list(tensors(taus.take(part), table).values())) for part in parts])


def discriminant(probabilities: NDArray, background: int) -> NDArray:
    """Tau over tau plus background probability, (n_taus,): what CMS calls VSe, VSmu and VSjet."""
    tau = probabilities[:, TAU]
    return tau / np.maximum(tau + probabilities[:, background], 1e-12)


def split(probabilities: NDArray, taus: Taus, question: Question) -> tuple[NDArray, NDArray]:
    """Discriminant values of the true taus and of the others."""
    value = discriminant(probabilities, question.background)
    return value[taus.label == TAU], value[taus.label == question.background]


def areas(probabilities: NDArray, label: NDArray) -> dict[str, float]:
    """Area under the ROC curve for each question; those for which a class is missing are left out."""
    found = {}
    for question in QUESTIONS:
        value = discriminant(probabilities, question.background)
        if (label == TAU).any() and (label == question.background).any():
            found[question.name] = area(value[label == TAU], value[label == question.background])
    return found


def matched(taus: Taus, background: int, seed: int = 5) -> NDArray[np.int64]:
    """Background taus, drawn with repetition so that their spectrum of transverse momentum is that of the true taus."""
    edges = np.quantile(taus.features["tau_pt"][taus.label == TAU], np.linspace(0, 1, 11)[1:-1])
    place = np.digitize(taus.features["tau_pt"], edges)
    rng = np.random.default_rng(seed)
    others = np.flatnonzero(taus.label == background)
    drawn = []
    for bin_ in range(10):
        here = others[place[others] == bin_]
        wanted = round(others.size * (place[taus.label == TAU] == bin_).mean())
        drawn.append(rng.choice(here, wanted) if here.size else here)
    return np.concatenate(drawn)


def markdown(probabilities: NDArray, taus: Taus) -> str:
    """A table of answers."""
    head = "| question | AUC | target | AUC at equal pT | taus / others | others kept at tau efficiency |\n|---|---|---|---|---|---|\n"
    rows = []
    for question in QUESTIONS:
        value = discriminant(probabilities, question.background)
        signal, background = split(probabilities, taus, question)
        auc, error = area_with_uncertainty(signal, background)
        equal = area(signal, value[matched(taus, question.background)])
        points = []
        for efficiency in EFFICIENCIES:
            passed = float((background >= np.quantile(signal, 1 - efficiency)).mean())
            uncertainty = np.sqrt(max(passed * (1 - passed), 1 / background.size) / background.size)
            points.append(f"{100 * efficiency:.0f} %: {100 * passed:.2g} ± {100 * uncertainty:.1g} %")
        rows.append(
            f"| {question.name} | {auc:.4f} ± {error:.4f} | ≥ {question.target} | {equal:.4f} | {signal.size} / {background.size} | "
            f"{', '.join(points)} |"
        )
    return head + "\n".join(rows) + "\n"
