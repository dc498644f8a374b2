"""The figures of track finding. Each returns a matplotlib figure, reads on a projector, and needs no colour to be understood.

Typical use::

    event_display(event, labels)
    efficiency_plot({"no pile-up": quality(events, labels)}, "pt")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from helpers.figure_text import described
from helpers.plot_style import MARKERS, STYLE, finished, heading
from helpers.track_matching import Matching, Quality, match
from helpers.tracks import Event, edges_within, is_true, true_edges

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
            segments = np.stack([np.stack([event.z[end], event.r[end]], axis=1) for end in edges], axis=1)
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


def _points(axes: Axes, rows: Sequence[Mapping[str, float]], variable: str, index: int, of: int, label: str) -> None:
    rows = [row for row in rows if row["total"]]
    low, high = (np.array([row[f"{variable}_{end}"] for row in rows]) for end in ("low", "high"))
    value = np.array([row["value"] for row in rows])
    # Series are set apart a little, so that their error bars do not cover each other.
    place = (index + 0.5) / of * 0.3 + 0.35
    centre = low * (high / low) ** place if variable == "pt" else low + (high - low) * place
    up, down = (np.array([row["high"] for row in rows]) - value, value - np.array([row["low"] for row in rows]))
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


def stage_bars(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """The time of a request in each stage, from :func:`helpers.track_stages.stage_times`, as bars one below the other."""
    parts = {
        "queue_ms": ("waits in the queue", "..", "#dfe3e8"),
        "infer_ms": ("computes", "", "#3b6fb6"),
        "other_ms": ("takes tensors in and out", "//", "#f0c27b"),
    }
    with plt.rc_context(_TEXT):
        figure, axes = plt.subplots(figsize=(11, 0.8 * len(rows) + 2))
        left = np.zeros(len(rows))
        for column, (name, hatch, colour) in parts.items():
            width = np.array([row[column] for row in rows])
            axes.barh(
                [row["stage"] for row in rows], width, left=left, label=name, hatch=hatch, color=colour, edgecolor="#1b2a3d", linewidth=0.8
            )
            left += width
        for position, row in enumerate(rows):
            axes.annotate(f" {row['total_ms']:.1f} ms", (left[position], position), va="center")
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.set_xlabel("Mean time per event [ms]")
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
        plt.close(figure)
    return described(figure)
