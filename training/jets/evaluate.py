"""How well a tagger separates: areas under ROC curves with uncertainties, working points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .dataset import JetTable, padded_inputs
from .features import Tagger

BOOTSTRAPS = 300
BATCH_JETS = 100


@dataclass(frozen=True)
class Question:
    """Two groups of classes and a discriminant between them.

    Attributes:
        name: As printed.
        signal: Classes (without "prob") of the jets to find; their scores are the numerator.
        background: Classes to reject; with the signal's scores, the denominator.
        target: Area under the ROC curve that the course asks for, or None.
        floor: Area under which something is broken: what the shipped weights reach, less three
            standard deviations.
        efficiencies: Signal efficiencies of the working points.
    """

    name: str
    signal: tuple[str, ...]
    background: tuple[str, ...]
    target: float | None = None
    floor: float = 0.5
    efficiencies: tuple[float, ...] = (0.5, 0.7, 0.8)


_QCD = ("QCDbb", "QCDcc", "QCDb", "QCDc", "QCDothers")
_LIGHT = ("uds", "g")
QUESTIONS = {
    "ak4": (
        Question("b vs light", ("b", "bb"), _LIGHT, 0.987, 0.964),
        Question("b vs c", ("b", "bb"), ("c", "cc"), 0.94, 0.889),
        Question("c vs light", ("c", "cc"), _LIGHT, 0.90, 0.808),
        Question("quark vs gluon", ("uds",), ("g",)),
        Question("pile-up vs light", ("pu",), _LIGHT),
    ),
    "ak8": (
        Question("H→bb vs QCD", ("Hbb",), _QCD, 0.98, 0.98),
        Question("top vs QCD", ("Tbcq", "Tbqq"), _QCD, 0.97, 0.97),
        Question("H→cc vs QCD", ("Hcc",), _QCD),
        Question("H→qqqq vs QCD", ("Hqqqq",), _QCD),
        Question("W vs QCD", ("Wcq", "Wqq"), _QCD),
        Question("Z→bb vs QCD", ("Zbb",), _QCD),
    ),
}


def scores(run: Callable[[Sequence[NDArray]], NDArray], tagger: Tagger, jets: JetTable) -> NDArray[np.float32]:
    """Class probabilities (n_jets, n_labels), in batches of jets of similar length."""
    result = np.zeros((len(jets), len(tagger.labels)), np.float32)
    order = np.argsort(jets.n_candidates, kind="stable")
    for chunk in np.array_split(order, max(1, -(-len(jets) // BATCH_JETS))):
        result[chunk] = run(list(padded_inputs(jets.take(chunk), tagger).values()))
    return result


def discriminant(tagger: Tagger, question: Question, probabilities: NDArray) -> NDArray:
    """Signal over signal plus background probability, (n_jets,)."""
    signal = probabilities[:, _columns(tagger, question.signal)].sum(axis=1)
    background = probabilities[:, _columns(tagger, question.background)].sum(axis=1)
    return signal / np.maximum(signal + background, 1e-12)


def _columns(tagger: Tagger, classes: tuple[str, ...]) -> list[int]:
    return [tagger.labels.index("prob" + name) for name in classes]


def area(signal: NDArray, background: NDArray) -> float:
    """Area under the ROC curve: the chance that a signal jet scores higher, ties counting half."""
    ordered = np.sort(background)
    below = np.searchsorted(ordered, signal, side="left")
    not_above = np.searchsorted(ordered, signal, side="right")
    return float((below + not_above).mean() / (2 * background.size))


def area_with_uncertainty(signal: NDArray, background: NDArray, seed: int = 3) -> tuple[float, float]:
    """`area` and its standard deviation over resampled jets."""
    rng = np.random.default_rng(seed)
    resampled = [area(rng.choice(signal, signal.size), rng.choice(background, background.size)) for _ in range(BOOTSTRAPS)]
    return area(signal, background), float(np.std(resampled))


def split(tagger: Tagger, question: Question, probabilities: NDArray, label: NDArray) -> tuple[NDArray, NDArray]:
    """Discriminant values of the true signal and of the true background jets."""
    values = discriminant(tagger, question, probabilities)
    is_signal = np.isin(label, _columns(tagger, question.signal))
    is_background = np.isin(label, _columns(tagger, question.background))
    return values[is_signal], values[is_background]


@dataclass(frozen=True)
class Answer:
    """What was measured for one `Question`.

    Attributes:
        question: What was asked.
        area: Area under the ROC curve.
        uncertainty: Its standard deviation, statistical.
        n_signal, n_background: Jets.
        working_points: Signal efficiency, cut, background efficiency, its binomial uncertainty.
    """

    question: Question
    area: float
    uncertainty: float
    n_signal: int
    n_background: int
    working_points: tuple[tuple[float, float, float, float], ...]

    def row(self) -> str:
        """A row of a Markdown table."""
        target = f"≥ {self.question.target}" if self.question.target else ""
        points = ", ".join(f"{100 * e:.0f} %: {100 * b:.2g} ± {100 * u:.1g} %" for e, _, b, u in self.working_points)
        return (
            f"| {self.question.name} | {self.area:.4f} ± {self.uncertainty:.4f} | {target} | "
            f"{self.n_signal} / {self.n_background} | {points} |"
        )


def answer(tagger: Tagger, question: Question, probabilities: NDArray, label: NDArray) -> Answer:
    """Measure one question."""
    signal, background = split(tagger, question, probabilities, label)
    value, uncertainty = area_with_uncertainty(signal, background)
    points = []
    for efficiency in question.efficiencies:
        cut = float(np.quantile(signal, 1 - efficiency))
        passed = float((background >= cut).mean())
        error = float(np.sqrt(max(passed * (1 - passed), 1 / background.size) / background.size))
        points.append((efficiency, cut, passed, error))
    return Answer(question, value, uncertainty, signal.size, background.size, tuple(points))


def report(tagger: Tagger, probabilities: NDArray, label: NDArray) -> list[Answer]:
    """Measure all questions of a tagger."""
    return [answer(tagger, question, probabilities, label) for question in QUESTIONS[tagger.key]]


def markdown(answers: list[Answer]) -> str:
    """A table of answers."""
    head = "| question | AUC | target | jets (signal / background) | background kept at signal efficiency |\n"
    return head + "|---|---|---|---|---|\n" + "\n".join(a.row() for a in answers) + "\n"
