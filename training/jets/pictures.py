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


def loss_curve(log: Path, picture: Path) -> None:
    """Draw the training and validation loss of a ``log.jsonl``."""
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    seen = [e["seen"] for e in entries]
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    axes.plot(seen, [e["loss"] for e in entries], "-", label="training (dropout on)")
    checked = [e for e in entries if "validation_loss" in e]
    axes.plot([e["seen"] for e in checked], [e["validation_loss"] for e in checked], "o--", label="validation")
    axes.set_xlabel("jets shown")
    axes.set_ylabel("cross entropy")
    axes.legend()
    figure.savefig(picture, dpi=110)
    plt.close(figure)


def roc_curves(tagger: Tagger, probabilities: NDArray, label: NDArray, picture: Path) -> None:
    """Draw the ROC curves of a tagger's questions."""
    figure, axes = plt.subplots(figsize=(6, 5), layout="constrained")
    for question, style in zip(QUESTIONS[tagger.key], STYLES, strict=False):
        signal, background = split(tagger, question, probabilities, label)
        cuts = np.sort(signal)[::-1]
        efficiency = np.arange(1, cuts.size + 1) / cuts.size
        kept = 1 - np.searchsorted(np.sort(background), cuts, side="left") / background.size
        axes.plot(
            efficiency, np.maximum(kept, 0.3 / background.size), linestyle=style,
            label=f"{question.name} (AUC {area(signal, background):.3f})",
        )  # fmt: skip
    axes.set_yscale("log")
    axes.set_xlim(0, 1)
    axes.set_xlabel("signal efficiency")
    axes.set_ylabel("background efficiency")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(picture, dpi=110)
    plt.close(figure)
