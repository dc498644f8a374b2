"""The figure of a table of experiments: gains beside what others recorded, and latencies beside the budget."""

from __future__ import annotations

import textwrap

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.errors import InputError
from helpers.measuring.experiments import Experiments
from helpers.measuring.table import latency_column
from helpers.plot_rows import Row, half_widths, latency_label, series_of
from helpers.plots.performance import source_heading
from helpers.plots.style import COLOURS, GREY, STYLE, finished

_PERCENTILE = 95


def experiments_figure(table: Experiments) -> Figure:
    """Draw it.

    Args:
        table: with at least one experiment.

    Raises:
        InputError: there is none.
    """
    if not len(table):
        raise InputError("There is no experiment to draw.", 'Type: table.measure("baseline")')
    style = {**STYLE, "ytick.minor.visible": False, "ytick.right": False}
    with plt.rc_context(style):
        figure, (left, right) = plt.subplots(1, 2, figsize=(13, 0.85 * len(table) + 3.2), sharey=True, layout="constrained")
        sources = _draw_gains(left, table)
        _draw_latencies(right, table)
        left.set_yticks(range(len(table)), [_named(table, row) for row in table.rows])
        left.tick_params(axis="y", length=0)
        left.set_ylim(len(table) - 0.4, -0.6)
        legend = figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=1, fontsize=12)
        legend.set_title("\n".join(sources), {"size": 11})
        source_heading(left, table.rows, right)
        return finished(figure)


def _named(table: Experiments, row: Row) -> str:
    """The experiment, and what its gain is over: only bars over the same one can be compared."""
    reference = table.reference(row["experiment"])
    name = textwrap.fill(row["experiment"], 22)
    return name if reference is None else f"{name}\n" + textwrap.fill(f"over {reference['experiment']}", 28)


def _draw_gains(axes: Axes, table: Experiments) -> list[str]:
    """Bars for what was measured here, diamonds for what was recorded elsewhere; returns the sources of these, in words."""
    seen = [table.judged(row["experiment"]) for row in table.rows]
    gains = np.array([1.0 if each is None else each.gain for each in seen])
    halves = np.array([0.0 if each is None else each.half_width or 0.0 for each in seen])
    colours = [GREY if each is None else COLOURS[0] for each in seen]
    bars = {"color": colours, "edgecolor": "black", "linewidth": 0.9, "capsize": 4}
    axes.barh(range(len(gains)), gains, 0.6, xerr=halves, **bars)
    others = [(place, other) for place, row in enumerate(table.rows) if (other := table.elsewhere(row["experiment"])) is not None]
    if others:
        label = "recorded elsewhere, over what it was there before the change"
        points = {"marker": "D", "markersize": 11, "linestyle": "", "color": COLOURS[1], "markeredgecolor": "white", "label": label}
        axes.plot([other.gain for _, other in others], [place for place, _ in others], **points)
    top = max([*(gains + halves), *(other.gain for _, other in others)])
    for place, (value, half) in enumerate(zip(gains, halves, strict=True)):
        axes.annotate(f"×{value:.2f}", (value + half, place), xytext=(9, -11), textcoords="offset points", va="center", fontsize=12)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlim(0, 1.2 * top)
    axes.set_xlabel("Throughput over that of what was changed")
    return [textwrap.fill(f"{table.rows[place]['experiment']}: {other}", 130) for place, other in others]


def _draw_latencies(axes: Axes, table: Experiments) -> None:
    column = latency_column(_PERCENTILE)
    values = np.array([(row.get(column) or np.nan) / 1000 for row in table.rows])
    halves = np.array([half_widths(series_of([row], "batch")[0], column)[0] / 1000 for row in table.rows])
    axes.barh(range(len(values)), values, 0.6, xerr=np.nan_to_num(halves), color="#ffffff", edgecolor="black", hatch="//", capsize=4)
    if table.budget_ms:
        axes.axvline(table.budget_ms, color=COLOURS[1], linewidth=1.8, linestyle=(0, (6, 3)))
        words = {"xytext": (5, 4), "textcoords": "offset points", "fontsize": 12, "color": COLOURS[1]}
        axes.annotate(f"budget {table.budget_ms:g} ms", (table.budget_ms, len(values) - 0.45), **words)
    axes.set_xlim(0, 1.15 * np.nanmax(np.append(values + np.nan_to_num(halves), table.budget_ms or 0)))
    axes.set_xlabel(latency_label(_PERCENTILE))
