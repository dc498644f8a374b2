"""Pictures of jets and of taggers, in the style of CMS's figures, but never under its name: our detector is an idealised one.

Each function returns a matplotlib figure: at the end of a cell it shows itself, and ``figure.savefig("name.pdf")`` keeps it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import awkward as ak
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from helpers.errors import InputError
from helpers.jet_roc import Roc
from helpers.jet_scores import Scores
from helpers.latency_plots import warm_up_figure
from helpers.plot_style import COLOURS, LINES, MARKERS, STYLE, finished, heading

# Kinds of candidates: the branch that flags them, marker, colour.
_KINDS = {
    "charged hadron": ("pfcand_isChargedHad", "o", "#3f90da"),
    "neutral hadron": ("pfcand_isNeutralHad", "s", "#a96b59"),
    "photon": ("pfcand_isGamma", "D", "#ffa90e"),
    "electron": ("pfcand_isEl", "P", "#832db6"),
    "muon": ("pfcand_isMu", "X", "#bd1f01"),
}
# Area of a marker in points² per GeV of transverse momentum, and the least that one still sees.
_AREA_PER_GEV, _LEAST_AREA = 6.0, 14.0
# Mistag rates below what one jet makes are not drawn; this many decades are.
_DECADES = 3.2


def show_jets(jets: ak.Array, titles: Sequence[str] | None = None, radius: float = 0.8) -> Figure:
    """Candidates and secondary vertices of some jets, as one looks along the jet axis.

    Args:
        jets: a few jets, side by side.
        titles: a line above each; by default its true class and transverse momentum.
        radius: of the jets, drawn as a circle.

    Raises:
        InputError: no jet, or more than four.
    """
    if not 1 <= len(jets) <= 4:
        raise InputError(f"{len(jets)} jets were given.", "One picture shows 1 to 4.", "Type for example: show_jets(sample[:2])")
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(jets), figsize=(5.2 * len(jets) + 0.6, 6.8), sharey=True, squeeze=False, layout="constrained")
        for number, (axis, jet) in enumerate(zip(axes[0], jets, strict=True)):
            _draw_jet(axis, jet, radius)
            axis.set_title(titles[number] if titles else _title(jet), fontsize=15)
        axes[0, 0].set_ylabel(r"$\Delta\varphi$ from the jet axis (rad)")
        marks = [
            Line2D([], [], linestyle="", marker=marker, color=colour, markersize=9, markeredgecolor="black", label=name)
            for name, (_, marker, colour) in _KINDS.items()
        ]
        marks.append(
            Line2D([], [], linestyle="", marker="*", color="white", markeredgecolor="black", markersize=18, label="secondary vertex")
        )
        figure.legend(handles=marks, loc="outside lower center", ncols=3, frameon=False)
        return finished(figure)


def roc_curves(rocs: Mapping[str, Roc] | Sequence[Roc], mistag: float | None = None) -> Figure:
    """ROC curves: signal efficiency against mistag rate, with the areas under them in the legend.

    Args:
        rocs: curves by their name in the legend, or a list of them.
        mistag: draw a line at this mistag rate, and a marker where each curve crosses it.
    """
    named = dict(rocs) if isinstance(rocs, Mapping) else {roc.name.replace("_", " "): roc for roc in rocs}
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(layout="constrained")
        for number, (name, roc) in enumerate(named.items()):
            efficiency, rate = _straight(*roc.curve)
            seen = rate > 0
            style = {"color": COLOURS[number % 5], "linestyle": LINES[number % 5]}
            axis.plot(efficiency[seen], rate[seen], label=f"{name}: AUC {roc.auc:.3f} ± {roc.auc_uncertainty:.3f}", **style)
            if mistag is not None:
                point = roc.at_mistag(mistag)
                axis.plot(point.efficiency, point.mistag, MARKERS[number % 5], color=style["color"], markersize=11, markeredgecolor="black")
        if mistag is not None:
            axis.axhline(mistag, color="grey", linewidth=1)
            axis.annotate(f"mistag {100 * mistag:g} %", (0.02, mistag), xytext=(0, 4), textcoords="offset points", fontsize=13, color="0.3")
        axis.set(yscale="log", xlim=(0, 1), ylim=(10**-_DECADES, 1.0))
        axis.set(xlabel="Signal efficiency", ylabel="Mistag rate (background efficiency)")
        axis.grid(alpha=0.3)
        axis.legend(loc="best", handlelength=2.6, frameon=True, framealpha=0.85, edgecolor="none")
        _label(axis)
        return finished(figure)


def differences(first: Scores, second: Scores) -> Figure:
    """How far two models' probabilities of the same jets are apart: the largest difference in each jet."""
    apart = np.abs(first.probabilities - second.probabilities).max(axis=1)
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(layout="constrained")
        edges = np.logspace(-9, max(-4, np.ceil(np.log10(apart.max() + 1e-9))), 51)
        # Equal to the last bit is drawn in the first bin: a logarithm has no place for zero.
        axis.hist(np.maximum(apart, edges[0]), bins=edges, color="#3f90da", edgecolor="black", linewidth=0.6)
        axis.axvline(1e-5, color="black", linestyle="--")
        style = {"rotation": 90, "ha": "right", "va": "top", "fontsize": 13, "textcoords": "offset points"}
        axis.annotate(r"tolerance $10^{-5}$", (1e-5, 0.95), xycoords=("data", "axes fraction"), xytext=(-6, 0), **style)
        axis.set(xscale="log", xlabel=f"Largest |{first.model} − {second.model}| over the classes", ylabel="Jets")
        _label(axis)
        return finished(figure)


def latencies(seconds: Mapping[str, Sequence[float]]) -> Figure:
    """Latency of request after request.

    Args:
        seconds: the requests' latencies in order, in s, by their name in the legend.
    """
    return warm_up_figure({name: 1e6 * np.asarray(values) for name, values in seconds.items()})


def _straight(efficiency: np.ndarray, rate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The curve with points between those where many equal values pass at once: straight lines bend on a logarithmic axis."""
    steps = np.arange(len(efficiency))
    dense = np.unique(np.concatenate([steps, np.linspace(0, steps[-1], 400)])) if len(steps) < 400 else steps
    return np.interp(dense, steps, efficiency), np.interp(dense, steps, rate)


def _draw_jet(axis: Axes, jet: ak.Record, radius: float) -> None:
    """One jet: markers by kind of candidate, their area by transverse momentum, vertices as stars."""
    eta, phi = ak.to_numpy(jet["pfcand_etarel"]), ak.to_numpy(jet["pfcand_phirel"])
    area = np.maximum(np.exp(ak.to_numpy(jet["pfcand_pt_log_nopuppi"])) * _AREA_PER_GEV, _LEAST_AREA)
    for branch, marker, colour in _KINDS.values():
        of_kind = ak.to_numpy(jet[branch]) == 1
        axis.scatter(eta[of_kind], phi[of_kind], s=area[of_kind], marker=marker, c=colour, alpha=0.75, edgecolors="black", linewidths=0.6)
    axis.scatter(
        ak.to_numpy(jet["sv_etarel"]),
        ak.to_numpy(jet["sv_phirel"]),
        s=420,
        marker="*",
        c="white",
        edgecolors="black",
        linewidths=1.6,
        zorder=5,
    )
    axis.add_patch(plt.Circle((0, 0), radius, fill=False, color="0.5", linestyle="--"))
    axis.set(xlim=(-1.1 * radius, 1.1 * radius), ylim=(-1.1 * radius, 1.1 * radius), aspect="equal")
    axis.set_xlabel(r"$\Delta\eta$ from the jet axis")


def _title(jet: ak.Record) -> str:
    true = f"{jet['jet_class']}, " if "jet_class" in jet.fields else ""
    return rf"{true}$p_\mathrm{{T}}$ = {jet['jet_pt']:.0f} GeV, {len(jet['sv_etarel'])} vertices"


def _label(axis: Axes) -> None:
    """Say above the axes where the jets come from, where a CMS figure says CMS."""
    heading(axis, "Simulation", "idealised detector", "13 TeV")
