"""Pictures of jets: units on the axes, series told apart without colour, and no claim to be CMS."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from helpers import jets, plots
from helpers.physics.flavour import roc


def _texts(figure: Figure) -> str:
    return " | ".join(text.get_text() for text in figure.findobj(plt.Text) if text.get_text())


def _drawn(figure: Figure, path: Path) -> None:
    """It can be saved without a warning, is no empty page, and pyplot does not keep it."""
    figure.savefig(path / "figure.png")
    assert plt.imread(path / "figure.png").std() > 0.02
    assert not plt.get_fignums()


def _series(figure: Figure) -> set[tuple[str, str]]:
    lines = [line for line in figure.axes[0].get_lines() if not line.get_label().startswith("_")]
    assert len({line.get_color() for line in lines}) == len(lines)
    return {(str(line.get_linestyle()), str(line.get_marker())) for line in lines}


def test_jets(tmp_path: Path) -> None:
    sample = jets.read("ak8")
    figure = plots.show_jets(sample[:3])
    _drawn(figure, tmp_path)
    assert len(figure.axes) == 3
    assert "(rad)" in figure.axes[0].get_ylabel() and "eta" in figure.axes[2].get_xlabel()
    assert f"{sample[0].jet_class}" in figure.axes[0].get_title() and "GeV" in figure.axes[0].get_title()
    drawn = sum(len(collection.get_offsets()) for collection in figure.axes[0].collections)
    assert drawn == sample.npfcand[0] + sample.nsv[0], "each candidate and each vertex once"


def test_roc_curves(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    curves = [roc(name, random.normal(2, 1, 400), random.normal(0, 1, 400)) for name in ("b_vs_light", "b_vs_c", "c_vs_light")]
    figure = plots.roc_curves({curve.name: curve for curve in curves}, mistag=0.01)
    _drawn(figure, tmp_path)
    assert len(_series(figure)) == 3, "told apart without colour"
    said = _texts(figure)
    assert "Simulation" in said and "idealised detector" in said and "CMS" not in said
    assert f"b vs c: AUC {curves[1].auc:.3f} ± {curves[1].auc_uncertainty:.3f}" in said and "mistag 1 %" in said
    assert figure.axes[0].get_yscale() == "log" and "efficiency" in figure.axes[0].get_xlabel()
    broken = _texts(plots.roc_curves({"masks of zeros": roc("b_vs_c", np.zeros(400), np.zeros(400))}))
    assert "masks of zeros: AUC 0.500 (all scores are equal)" in broken and "0.000" not in broken
