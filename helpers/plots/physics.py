"""Figures of jets and tracks, in the style of CMS's figures, but never under its name: our detectors are idealised ones.

Each function returns a matplotlib figure: at the end of a cell it shows itself, and ``figure.savefig("name.pdf")`` keeps it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import awkward as ak
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from helpers.errors import InputError
from helpers.physics.flavour import Roc, Scores
from helpers.physics.tracks import Event, Matching, Quality, edges_within, is_true, match, true_edges
from helpers.plots.style import COLOURS, LINES, MARKERS, STYLE, described, finished, heading

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


# --- tracks -----------------------------------------------------------------------------------------------------------------

# Tell tracks apart on white, also for most colour-blind readers.
_COLOURS = ("#3b6fb6", "#c8502d", "#2e8540", "#7b4fa3", "#b3761b", "#17808a", "#a8376f", "#5a6b7b")
_MISSED, _GREY = "#000000", "#b8bec6"
_RED, _BLUE = "#b5361c", "#2b5c9e"
_TRACKS: dict[str, dict[str, Any]] = {
    "track": {"color": _COLOURS[0], "linewidth": 0.9, "linestyle": "-"},
    "second": {"color": _COLOURS[0], "linewidth": 1.6, "linestyle": (0, (5, 1.5, 1, 1.5))},
    "fake": {"color": _RED, "linewidth": 1.8, "linestyle": (0, (1, 1))},
}
_LABELS = {"pt": "Transverse momentum $p_T$ [GeV]", "eta": "Pseudorapidity $\\eta$"}
_TICKS_MM = (-1000, -500, 0, 500, 1000)
_DETECTOR = "generic detector"
# Sizes that read from the last row.
_TEXT = {"font.size": 13, "axes.labelsize": 14, "axes.titlesize": 14, "legend.fontsize": 12, "figure.constrained_layout.use": True}


def event_display(event: Event, labels: ArrayLike | None = None) -> Figure:
    """An event across the beam (x and y) and along it (r and z).

    Tracks are drawn as they were found, from hit to hit: each a solid coloured line; the second track of a particle dash-dotted, fakes
    dotted. Particles that should have been found and were not are dashed black lines with crosses, hits without a track grey dots.

    Args:
        event: the event.
        labels: (n_hits,) track labels; without them, only the hits are drawn.
    """
    with plt.rc_context(_TEXT):
        figure, (across, along) = plt.subplots(1, 2, figsize=(13, 6), width_ratios=(1, 1.25))
        matching = match(event, labels) if labels is not None else None
        for axes, first, second in ((across, event.x, event.y), (along, event.z, event.r)):
            axes.plot(first, second, ".", color=_GREY, markersize=3, zorder=1)
            if labels is not None and matching is not None:
                _draw_tracks(axes, event, np.asarray(labels), matching, first, second)
                _draw_missed(axes, event, event.target & ~matching.found, first, second)
        across.set(xlabel="$x$ [mm]", ylabel="$y$ [mm]", aspect="equal", title="Across the beam", xticks=_TICKS_MM, yticks=_TICKS_MM)
        along.set(xlabel="$z$ [mm]", ylabel="$r$ [mm]", ylim=(0, None), title="Along the beam")
        if matching is not None:
            second, fake = int(matching.duplicate.sum()), int(matching.fake.sum())
            names = [f"tracks ({matching.fake.size - second - fake})", f"second tracks ({second})", f"fakes ({fake})"]
            handles = [plt.Line2D([], [], **style) for style in _TRACKS.values()]
            handles.append(plt.Line2D([], [], color=_MISSED, linestyle="--", marker="x", linewidth=2))
            handles.append(plt.Line2D([], [], color=_GREY, marker=".", linestyle=""))
            names += [f"missed ({int((event.target & ~matching.found).sum())})", "hits without a track"]
            figure.legend(handles, names, loc="outside lower center", ncols=5, frameon=False)
        plt.close(figure)
    return described(figure)


def _segments(first: NDArray[Any], second: NDArray[Any], edges: NDArray[np.int64]) -> NDArray[Any]:
    """(n_edges, 2, 2) the ends of each edge, in the plane of two coordinates."""
    return np.stack([np.stack([first[end], second[end]], axis=1) for end in edges], axis=1)


def _draw_tracks(axes: Axes, event: Event, labels: NDArray[Any], matching: Matching, first: NDArray[Any], second: NDArray[Any]) -> None:
    edges = edges_within(event, labels)
    track = np.unique(labels[labels >= 0], return_inverse=True)[1].reshape(-1)
    of_hit = np.full(labels.shape, -1)
    of_hit[labels >= 0] = track
    track = of_hit[edges[0]]
    kinds = {"second": matching.duplicate[track], "fake": matching.fake[track]}
    kinds["track"] = ~kinds["second"] & ~kinds["fake"]
    for name, style in _TRACKS.items():
        chosen = kinds[name]
        colours = [_COLOURS[index % len(_COLOURS)] for index in track[chosen]] if name != "fake" else style["color"]
        lines = LineCollection(_segments(first, second, edges[:, chosen]), colors=colours, zorder=2)
        lines.set(linewidth=style["linewidth"], linestyle=style["linestyle"])
        axes.add_collection(lines)


def _draw_missed(axes: Axes, event: Event, missed: NDArray[np.bool_], first: NDArray[Any], second: NDArray[Any]) -> None:
    edges = true_edges(event)
    edges = edges[:, missed[event.particle[edges[0]]]]
    axes.add_collection(LineCollection(_segments(first, second, edges), colors=_MISSED, linewidths=2.2, linestyles=(0, (4, 2)), zorder=4))
    hits = missed[event.particle]
    axes.plot(first[hits], second[hits], "x", color=_MISSED, markersize=6, zorder=5)


def embedding_display(event: Event, embedding: ArrayLike, particles: int = 8) -> Figure:
    """Hits of some particles, in the detector and in the embedding, with the same colour and marker for each particle.

    The particles are the hardest of each sector around the beam, so that they do not cover each other.

    Args:
        event: the event.
        embedding: (n_hits, d) where the network puts each hit; the two directions in which the points differ most are shown.
        particles: how many particles to show.
    """
    points = np.asarray(embedding, dtype=np.float64)
    hardest = _hardest_around(event, particles)
    points = points - points.mean(axis=0)
    plane = points @ np.linalg.svd(points, full_matrices=False)[2][:2].T
    with plt.rc_context(_TEXT):
        figure, panels = plt.subplots(1, 2, figsize=(13, 5.8))
        for axes, first, second in ((panels[0], event.x, event.y), (panels[1], *plane.T)):
            axes.plot(first, second, ".", color=_GREY, markersize=2)
            for index, particle in enumerate(hardest):
                hits = event.particle == particle
                style = {"color": _COLOURS[index % len(_COLOURS)], "marker": MARKERS[index % len(MARKERS)]}
                axes.plot(first[hits], second[hits], linestyle="", markersize=8, markeredgecolor="white", markeredgewidth=0.5, **style)
        panels[0].set(xlabel="$x$ [mm]", ylabel="$y$ [mm]", aspect="equal", title="Where the hits are", xticks=_TICKS_MM, yticks=_TICKS_MM)
        panels[1].set(xlabel="first direction (no unit)", ylabel="second direction (no unit)", title="Where the embedding puts them")
        plt.close(figure)
    return described(figure)


def _hardest_around(event: Event, sectors: int) -> NDArray[np.intp]:
    """(sectors,) the hardest particle to be found in each sector around the beam; fewer where a sector has none."""
    x, y = (np.bincount(event.particle, values, event.pt.size) for values in (event.x, event.y))
    sector = (np.arctan2(y, x) / (2 * np.pi) % 1 * sectors).astype(int)
    order = np.flatnonzero(event.target)[np.argsort(-event.pt[event.target])]
    return order[np.unique(sector[order], return_index=True)[1]]


def graph_display(event: Event, graphs: Mapping[str, ArrayLike], z_range: tuple[float, float] = (-400, 400), r_max: float = 380) -> Figure:
    """Graphs side by side in the inner detector: true edges as solid lines, false ones as thin dotted lines.

    Args:
        event: the event.
        graphs: title -> (2, n_edges) hit indices.
        z_range: part of the beam line to show, mm.
        r_max: largest distance from the beam to show, mm.
    """
    with plt.rc_context(_TEXT):
        figure, panels = plt.subplots(1, len(graphs), figsize=(4.6 * len(graphs), 5.2), sharey=True, squeeze=False)
        for axes, (title, edges) in zip(panels[0], graphs.items(), strict=True):
            edges = np.asarray(edges)
            segments = _segments(event.z, event.r, edges)
            good = is_true(event, edges)
            axes.add_collection(LineCollection(segments[~good], colors=_RED, linewidths=0.5, linestyles=":", zorder=1))
            axes.add_collection(LineCollection(segments[good], colors=_BLUE, linewidths=1.3, zorder=2))
            axes.plot(event.z, event.r, ".", color="black", markersize=3, zorder=3)
            purity = f"{good.mean():.0%}" if good.size else "–"
            axes.set(
                xlim=z_range,
                ylim=(0, r_max),
                xticks=np.linspace(*z_range, 9)[1:-1:2],
                xlabel="$z$ [mm]",
                title=f"{title}\n{good.size} edges, {purity} true",
            )
        panels[0][0].set_ylabel("$r$ [mm]")
        handles = [plt.Line2D([], [], color=_BLUE, linewidth=1.5), plt.Line2D([], [], color=_RED, linestyle=":", linewidth=1.2)]
        figure.legend(handles, ["true", "false"], loc="outside lower center", ncols=2, frameon=False)
        plt.close(figure)
    return described(figure)


def efficiency_plot(qualities: Mapping[str, Quality], variable: str, quantity: str = "efficiency") -> Figure:
    """A rate in bins of pT or eta, with its uncertainty, in the style of CMS.

    Args:
        qualities: name in the legend -> what ``quality`` returned.
        variable: ``pt`` or ``eta``.
        quantity: ``efficiency``, ``fake rate`` or ``duplicate rate``.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(layout="constrained")
        for index, (name, one) in enumerate(qualities.items()):
            _points(axes, one.against(variable, quantity=quantity), variable, index, len(qualities), f"{name}: {_overall(one, quantity)}")
        axes.set(xlabel=_LABELS[variable], ylabel=quantity.capitalize())
        if variable == "pt":
            axes.set_xscale("log")
            ticks = (0.5, 1, 2, 5, 10, 20)
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.set_xticks([], minor=True)
        if quantity == "efficiency":
            axes.axhline(1, color=_GREY, linewidth=1, zorder=0)
            axes.set_ylim(min(0.8, axes.get_ylim()[0]), 1.02)
        else:
            axes.set_ylim(0, None)
        axes.legend(loc="lower center" if quantity == "efficiency" else "upper center")
        heading(axes, "Simulation", _DETECTOR, "$t\\bar{t}$, 13 TeV")
        return finished(figure)


def _overall(one: Quality, quantity: str) -> str:
    rate = {"efficiency": one.efficiency, "fake rate": one.fake_rate, "duplicate rate": one.duplicate_rate}[quantity]
    low, high = rate.interval
    return f"{rate.value:.3f} ± {(high - low) / 2:.3f}"


def _points(axes: Axes, bins: pd.DataFrame, variable: str, index: int, of: int, label: str) -> None:
    bins = bins[bins["total"] > 0]
    low, high, value = (bins[name].to_numpy() for name in (f"{variable}_low", f"{variable}_high", "value"))
    # Series are set apart a little, so that their error bars do not cover each other.
    place = (index + 0.5) / of * 0.3 + 0.35
    centre = low * (high / low) ** place if variable == "pt" else low + (high - low) * place
    up, down = bins["high"].to_numpy() - value, value - bins["low"].to_numpy()
    errors = {"xerr": (centre - low, high - centre), "yerr": (np.maximum(down, 0), np.maximum(up, 0))}
    style = {"color": (_BLUE, _RED)[index % 2] if of <= 2 else _COLOURS[index % len(_COLOURS)], "marker": MARKERS[index % len(MARKERS)]}
    axes.errorbar(
        centre,
        value,
        **errors,
        **style,
        linestyle="",
        markersize=9,
        elinewidth=1.6,
        label=label,
        markerfacecolor="white" if index % 2 else None,
    )


def stage_bars(times: pd.DataFrame) -> Figure:
    """Draw the time of a request in each stage, from :func:`helpers.physics.tracks.stage_times`, as bars one below the other."""
    parts = {
        "queue_ms": ("waits in the queue", "..", "#dfe3e8"),
        "infer_ms": ("computes", "", "#3b6fb6"),
        "other_ms": ("takes tensors in and out", "//", "#f0c27b"),
    }
    with plt.rc_context(_TEXT):
        figure, axes = plt.subplots(figsize=(11, 0.8 * len(times) + 2))
        left = np.zeros(len(times))
        for column, (name, hatch, colour) in parts.items():
            style = {"label": name, "hatch": hatch, "color": colour, "edgecolor": "#1b2a3d", "linewidth": 0.8}
            axes.barh(times["stage"], times[column], left=left, **style)
            left += times[column].to_numpy()
        for position, total in enumerate(times["total_ms"]):
            axes.annotate(f" {total:.1f} ms", (left[position], position), va="center")
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.set_xlabel("Mean time per event [ms]")
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
        plt.close(figure)
    return described(figure)
