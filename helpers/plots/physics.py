"""Figures of jets and tracks, in the style of CMS's figures, but never under its name: our detectors are idealised ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import awkward as ak
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import ArrayLike, NDArray

from helpers.physics.flavour import Roc, auc_words
from helpers.physics.tracks import Event, Quality, edges_within, is_true, match, true_edges
from helpers.plots.style import BELOW, COLOURS, GREY, MARKERS, NOTE, decades, drawing, heading, series_style

# Kinds of candidates: the branch that flags them, marker, colour.
_KINDS = {
    "charged hadron": ("pfcand_isChargedHad", "o", COLOURS[0]),
    "neutral hadron": ("pfcand_isNeutralHad", "s", "#a96b59"),
    "photon": ("pfcand_isGamma", "D", COLOURS[1]),
    "electron": ("pfcand_isEl", "P", COLOURS[3]),
    "muon": ("pfcand_isMu", "X", COLOURS[2]),
}
# Of an AK8 jet, in radians: a circle.
_RADIUS = 0.8
# Area of a marker in points² per GeV of transverse momentum, and the least that one still sees.
_AREA_PER_GEV, _LEAST_AREA = 6.0, 14.0
_JETS = ("Simulation", "idealised detector", "13 TeV")
_TRACKS = ("Simulation", "generic detector", r"$t\bar{t}$, 13 TeV")
# Tell tracks apart on white, also for most colour-blind readers.
_COLOURS = ("#3b6fb6", "#c8502d", "#2e8540", "#7b4fa3", "#b3761b", "#17808a", "#a8376f", "#5a6b7b")
_HITS, _RED, _BLUE = "#b8bec6", "#b5361c", "#2b5c9e"
# How tracks, second tracks, fakes and missed ones are drawn: width and kind of line.
_LINES: tuple[tuple[float, Any], ...] = ((0.9, "-"), (1.6, (0, (5, 1.5, 1, 1.5))), (1.8, (0, (1, 1))), (2.2, (0, (4, 2))))
_LABELS = {"pt": r"Transverse momentum $p_\mathrm{T}$ (GeV)", "eta": r"Pseudorapidity $\eta$"}
_PLANE: dict[str, Any] = {"ylabel": "$y$ (mm)", "aspect": "equal", "xticks": range(-1000, 1001, 500), "yticks": range(-1000, 1001, 500)}


def show_jets(jets: ak.Array) -> Figure:
    """Draw candidates and secondary vertices of some jets side by side, as one looks along the jet axis."""
    with drawing(1, len(jets), figsize=(5.2 * len(jets) + 0.6, 6.8), sharey=True, squeeze=False) as (figure, axes):
        for axis, jet in zip(axes[0], jets, strict=True):
            eta, phi = ak.to_numpy(jet["pfcand_etarel"]), ak.to_numpy(jet["pfcand_phirel"])
            area = np.maximum(np.exp(ak.to_numpy(jet["pfcand_pt_log_nopuppi"])) * _AREA_PER_GEV, _LEAST_AREA)
            for branch, marker, colour in _KINDS.values():
                own = ak.to_numpy(jet[branch]) == 1
                axis.scatter(eta[own], phi[own], s=area[own], marker=marker, c=colour, alpha=0.75, edgecolors="black", linewidths=0.6)
            stars: dict[str, Any] = {"s": 420, "marker": "*", "c": "white", "edgecolors": "black", "linewidths": 1.6, "zorder": 5}
            axis.scatter(ak.to_numpy(jet["sv_etarel"]), ak.to_numpy(jet["sv_phirel"]), **stars)
            axis.add_patch(Circle((0, 0), _RADIUS, fill=False, color="0.5", linestyle="--"))
            axis.set(xlim=(-1.1 * _RADIUS, 1.1 * _RADIUS), ylim=(-1.1 * _RADIUS, 1.1 * _RADIUS), aspect="equal")
            axis.set_xlabel(r"$\Delta\eta$ from the jet axis")
            true = f"{jet['jet_class']}, " if "jet_class" in jet.fields else ""
            axis.set_title(rf"{true}$p_\mathrm{{T}}$ = {jet['jet_pt']:.0f} GeV, {len(jet['sv_etarel'])} vertices", fontsize=15)
        axes[0, 0].set_ylabel(r"$\Delta\varphi$ from the jet axis (rad)")
        for name, (_, marker, colour) in {**_KINDS, "secondary vertex": ("", "*", "white")}.items():
            axes[0, 0].plot([], [], marker, color=colour, markersize=12, markeredgecolor="black", label=name)
        figure.legend(ncols=3, **BELOW)
        return figure


def roc_curves(rocs: Mapping[str, Roc], mistag: float | None = None) -> Figure:
    """Draw ROC curves, by their name in the legend: signal efficiency against mistag rate, with the areas under them.

    With ``mistag`` there is a line at this mistag rate, and a marker where each curve crosses it.
    """
    with drawing() as (figure, axis):
        for number, (name, roc) in enumerate(rocs.items()):
            efficiency, rate = roc.curve
            seen, style = rate > 0, series_style(number)
            words = f"{name.replace('_', ' ')}: AUC {auc_words(roc.auc, roc.auc_uncertainty)}"
            axis.plot(efficiency[seen], rate[seen], label=words, color=style["color"], linestyle=style["linestyle"])
            if mistag is not None:
                # The loosest cut that at most this fraction of the background passes.
                at = np.searchsorted(rate, mistag, side="right") - 1
                axis.plot(efficiency[at], rate[at], **{**style, "linestyle": "", "markersize": 11, "markeredgecolor": "black"})
        if mistag is not None:
            axis.axhline(mistag, color=GREY, linewidth=1)
            axis.annotate(f"mistag {100 * mistag:g} %", (0.02, mistag), xytext=(0, 4), color="0.3", **NOTE)
        axis.set(yscale="log", xlim=(0, 1), ylim=(6e-4, 1.0))
        axis.set(xlabel="Signal efficiency", ylabel="Mistag rate (background efficiency)")
        axis.grid(alpha=0.3)
        axis.legend(loc="best", handlelength=2.6, frameon=True, framealpha=0.85, edgecolor="none")
        heading(axis, *_JETS)
        return figure


def event_display(event: Event, labels: ArrayLike | None = None) -> Figure:
    """Draw an event across the beam (x and y) and along it (r and z): with track labels ``(n_hits,)`` the tracks, else hits alone.

    Tracks are drawn as they were found, from hit to hit: each a solid coloured line; the second track of a particle dash-dotted, fakes
    dotted. Particles that should have been found and were not are dashed black lines with crosses, hits without a track grey dots.
    """
    found, missed = ([], np.zeros(event.n_hits, bool)) if labels is None else _found(event, np.asarray(labels))
    with drawing(1, 2, figsize=(12, 6.4), width_ratios=(1, 1.25)) as (figure, (across, along)):
        for axes, first, second in ((across, event.x, event.y), (along, event.z, event.r)):
            (hits,) = axes.plot(first, second, ".", color=_HITS, markersize=3, zorder=1, label="_hits")
            for (name, edges, colours), (width, line) in zip(found, _LINES, strict=False):
                lines = LineCollection(_segments(first, second, edges), colors=colours, linewidths=width, linestyles=[line], label=name)
                axes.add_collection(lines)
            axes.plot(first[missed], second[missed], "x", color="black", markersize=6, zorder=5)
        across.set(xlabel="$x$ (mm)", **_PLANE)
        along.set(xlabel="$z$ (mm), along the beam", ylabel="$r$ (mm)", ylim=(0, None))
        if found:
            names = [name for name, _, _ in found]
            figure.legend([*across.collections, hits], [*names, "hits without a track"], ncols=5, **BELOW)
        heading(across, *_TRACKS, right_axes=along)
        return figure


def _found(event: Event, labels: NDArray[Any]) -> tuple[list[tuple[str, Any, Sequence[str]]], NDArray[np.bool_]]:
    """Tracks, second tracks, fakes and missed particles: a name, edges (2, n) and their colours; and (n_hits,) which hits were missed."""
    matching, edges = match(event, labels), edges_within(event, labels)
    track = np.searchsorted(np.unique(labels[labels >= 0]), labels[edges[0]])
    good = ~matching.duplicate & ~matching.fake
    made: list[tuple[str, Any, Sequence[str]]] = []
    for name, chosen in (("tracks", good), ("second tracks", matching.duplicate), ("fakes", matching.fake)):
        own = chosen[track]
        colours = [_RED if name == "fakes" else _COLOURS[index % len(_COLOURS)] for index in track[own]]
        made.append((f"{name} ({chosen.sum()})", edges[:, own], colours or [_RED]))
    missed, true = event.target & ~matching.found, true_edges(event)
    made.append((f"missed ({missed.sum()})", true[:, missed[event.particle[true[0]]]], ["black"]))
    return made, missed[event.particle]


def _segments(first: NDArray[Any], second: NDArray[Any], edges: NDArray[np.int64]) -> Any:
    """(n_edges, 2, 2) the ends of each edge, in the plane of two coordinates."""
    return np.stack([np.stack([first[end], second[end]], axis=1) for end in edges], axis=1)


def embedding_display(event: Event, embedding: ArrayLike) -> Figure:
    """Draw hits of eight particles, in the detector and in the embedding, with the same colour and marker for each particle.

    Of the embedding ``(n_hits, d)`` the two directions are shown in which the points differ most.
    """
    x, y = (np.bincount(event.particle, values, event.pt.size) for values in (event.x, event.y))
    sector = (np.arctan2(y, x) / (2 * np.pi) % 1 * len(_COLOURS)).astype(int)
    order = np.flatnonzero(event.target)[np.argsort(-event.pt[event.target])]
    # Of each sector around the beam, so that they do not cover each other.
    hardest = order[np.unique(sector[order], return_index=True)[1]]
    points = np.asarray(embedding, dtype=np.float64)
    points = points - points.mean(axis=0)
    plane = points @ np.linalg.svd(points, full_matrices=False)[2][:2].T
    with drawing(1, 2, figsize=(12, 6)) as (figure, panels):
        for axes, first, second in ((panels[0], event.x, event.y), (panels[1], *plane.T)):
            axes.plot(first, second, ".", color=_HITS, markersize=2)
            for index, particle in enumerate(hardest):
                hits = event.particle == particle
                style: dict[str, Any] = {"color": _COLOURS[index], "marker": MARKERS[index]}
                axes.plot(first[hits], second[hits], linestyle="", markersize=8, markeredgecolor="white", markeredgewidth=0.5, **style)
        panels[0].set(xlabel="$x$ (mm), where the hits are", **_PLANE)
        panels[1].set(xlabel="First direction of the embedding (no unit)", ylabel="Second direction (no unit)")
        heading(panels[0], *_TRACKS, right_axes=panels[1])
        return figure


def graph_display(event: Event, graphs: Mapping[str, ArrayLike]) -> Figure:
    """Draw graphs ``(2, n_edges)`` of hits side by side in the inner detector: true edges solid, false ones thin and dotted."""
    with drawing(1, len(graphs), figsize=(4.6 * len(graphs), 5.4), sharey=True, squeeze=False) as (figure, panels):
        for axes, (title, given) in zip(panels[0], graphs.items(), strict=True):
            edges = np.asarray(given)
            segments, good = _segments(event.z, event.r, edges), is_true(event, edges)
            axes.add_collection(LineCollection(segments[~good], colors=_RED, linewidths=0.5, linestyles=":", zorder=1))
            axes.add_collection(LineCollection(segments[good], colors=_BLUE, linewidths=1.3, zorder=2))
            axes.plot(event.z, event.r, ".", color="black", markersize=3, zorder=3)
            purity = f"{good.mean():.0%}" if good.size else "–"
            axes.set(xlim=(-400, 400), ylim=(0, 380), xticks=range(-300, 301, 200), xlabel="$z$ (mm)")
            axes.set_title(f"{title}\n{good.size} edges, {purity} true", fontsize=15)
        panels[0][0].set_ylabel("$r$ (mm)")
        figure.legend(panels[0][0].collections[::-1], ["true", "false"], ncols=2, **BELOW)
        return figure


def efficiency_plot(qualities: Mapping[str, Quality], variable: str) -> Figure:
    """Draw the efficiency in bins of ``pt`` or ``eta``, with its uncertainty, for what ``quality`` returned by its name in the legend."""
    with drawing() as (figure, axes):
        for index, (name, one) in enumerate(qualities.items()):
            words = f"{name}: {one.efficiency.value:.3f} ± {(one.efficiency.high - one.efficiency.low) / 2:.3f}"
            bins = one.against(variable)
            bins = bins[bins["total"] > 0]
            begin, end, value = (bins[name].to_numpy() for name in (f"{variable}_low", f"{variable}_high", "value"))
            # Series are set apart a little, so that their error bars do not cover each other.
            place = (index + 0.5) / len(qualities) * 0.3 + 0.35
            centre = begin * (end / begin) ** place if variable == "pt" else begin + (end - begin) * place
            down, up = (np.maximum(each, 0) for each in (value - bins["low"].to_numpy(), bins["high"].to_numpy() - value))
            style: dict[str, Any] = {**series_style(index), "linestyle": "", "markerfacecolor": "white" if index % 2 else None}
            style |= {"color": "black"} if len(qualities) == 1 else {}
            axes.errorbar(centre, value, (down, up), (centre - begin, end - centre), elinewidth=1.6, label=words, **style)
        axes.set(xlabel=_LABELS[variable], ylabel="Efficiency")
        if variable == "pt":
            axes.set_xscale("log")
            decades(axes.xaxis)
        axes.axhline(1, color=GREY, linewidth=1, zorder=0)
        axes.set_ylim(min(0.8, axes.get_ylim()[0]), 1.02)
        axes.legend(loc="lower center")
        heading(axes, *_TRACKS)
        return figure
