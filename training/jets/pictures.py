"""Pictures of a training: loss curves and ROC curves."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from .evaluate import QUESTIONS, area, split
from .features import Tagger

STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))
"""Curves are told apart by dashes as well as by colour."""


def loss_curve(log: Path, picture: Path, shown: str = "jets") -> None:
    """Draw the training and validation loss of a ``log.jsonl``."""
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    rounds = [e for e in entries if "loss" in e]
    axes.plot([e["seen"] for e in rounds], [e["loss"] for e in rounds], "-", label="training (dropout on)")
    checked = [e for e in entries if "validation_loss" in e]
    axes.plot([e["seen"] for e in checked], [e["validation_loss"] for e in checked], "o--", label="validation")
    axes.set_xlabel(f"{shown} shown")
    axes.set_ylabel("cross entropy")
    axes.legend()
    figure.savefig(picture, dpi=110)
    plt.close(figure)


def roc_curves(tagger: Tagger, probabilities: NDArray, label: NDArray, picture: Path) -> None:
    """Draw the ROC curves of a tagger's questions."""
    draw({question.name: split(tagger, question, probabilities, label) for question in QUESTIONS[tagger.key]}, picture)


def draw(scores: dict[str, tuple[NDArray, NDArray]], picture: Path) -> None:
    """Draw ROC curves, by name of the question from the scores of signal and background."""
    figure, axes = plt.subplots(figsize=(6, 5), layout="constrained")
    for (name, (signal, background)), style in zip(scores.items(), STYLES, strict=False):
        cuts = np.sort(signal)[::-1]
        efficiency = np.arange(1, cuts.size + 1) / cuts.size
        kept = 1 - np.searchsorted(np.sort(background), cuts, side="left") / background.size
        axes.plot(
            efficiency, np.maximum(kept, 0.3 / background.size), linestyle=style,
            label=f"{name} (AUC {area(signal, background):.3f})",
        )  # fmt: skip
    axes.set_yscale("log")
    axes.set_xlim(0, 1)
    axes.set_xlabel("signal efficiency")
    axes.set_ylabel("background efficiency")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(picture, dpi=110)
    plt.close(figure)
