"""One figure of what lower precision gains and costs: throughput beside the change of the areas under the curves.

Typical use::

    precision_figure(speeds, cost(server, names, reference="particlenet_AK4"))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.errors import InputError, quoted
from helpers.measuring.table import THROUGHPUT, THROUGHPUT_SPREAD, rows_of
from helpers.plot_rows import Row
from helpers.plots.performance import source_heading
from helpers.plots.style import COLOURS, GREY, STYLE, finished, series_style

# AUCs change in the third or fourth digit.
_UNIT = 1e-3


def precision_figure(speeds: Any, costs: Sequence[Row]) -> Figure:
    """Throughput of each variant, and beside it by how much the areas under its curves differ from those of the first.

    Args:
        speeds: one measured row for each model, all under the same load; the first is the reference.
        costs: what :func:`helpers.precision.cost.cost` returns for these models.

    Raises:
        InputError: no row, a model without a cost, or rows under different loads.
    """
    rows = rows_of(speeds, (THROUGHPUT,), "the figure of precisions")
    models = [str(row["model"]) for row in rows]
    loads = {(row.get("batch"), row.get("concurrency"), row.get("request_rate_per_s")) for row in rows}
    if len(loads) > 1 or len(set(models)) < len(models):
        raise InputError(
            "The rows are of different loads, or of one model twice.", "Expected one row for each model, all under the same load."
        )
    if lacking := [name for name in models if name not in {row["model"] for row in costs}]:
        raise InputError(f"There is no cost for {quoted(lacking)}.", "Expected the rows of cost(server, models, reference=…).")
    style = {**STYLE, "ytick.minor.visible": False, "ytick.right": False}
    with plt.rc_context(style):
        figure, (left, right) = plt.subplots(1, 2, figsize=(12.5, 0.8 * len(rows) + 2.6), sharey=True, layout="constrained")
        _draw_speeds(left, rows)
        _draw_costs(right, models, costs)
        left.set_yticks(range(len(models)), [_short(name, models[0]) for name in models])
        left.tick_params(axis="y", length=0)
        left.set_ylim(len(models) - 0.4, -0.6)
        handles, names = right.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=len(names))
        source_heading(left, rows, right)
        return finished(figure)


def _draw_speeds(axes: Axes, rows: Sequence[Row]) -> None:
    values = np.array([row[THROUGHPUT] for row in rows])
    spreads = np.array([row.get(THROUGHPUT_SPREAD) or 0.0 for row in rows])
    colours = [GREY, *[COLOURS[0]] * (len(rows) - 1)]
    axes.barh(range(len(rows)), values, 0.6, xerr=spreads, color=colours, edgecolor="black", linewidth=0.9, capsize=4)
    for place, (value, spread) in enumerate(zip(values, spreads, strict=True)):
        times = "" if place == 0 else f"  (×{value / values[0]:.2f})"
        axes.annotate(f"{value:.0f}{times}", (value + spread, place), xytext=(6, 0), textcoords="offset points", va="center", fontsize=13)
    axes.set_xlim(0, 1.35 * (values + spreads).max())
    load = f"batch {rows[0]['batch']:g}" if rows[0].get("batch") is not None else "same load"
    axes.set_xlabel(f"Throughput (inferences/s), {load}")


def _draw_costs(axes: Axes, models: Sequence[str], costs: Sequence[Row]) -> None:
    discriminants = list(dict.fromkeys(row["discriminant"] for row in costs))
    axes.axvline(0, color="black", linewidth=1, zorder=0)
    at = {(row["model"], row["discriminant"]): row for row in costs}
    for number, name in enumerate(discriminants):
        found = [(place, at[model, name]) for place, model in enumerate(models) if (model, name) in at and place]
        shift = 0.22 * (number - (len(discriminants) - 1) / 2)
        style = {**series_style(number), "linestyle": "", "capsize": 4, "label": name.replace("_", " ")}
        x, half = ([row[key] / _UNIT for _, row in found] for key in ("auc_change", "auc_change_half_width"))
        axes.errorbar(x, [place + shift for place, _ in found], xerr=half, **style)
    axes.annotate("reference", (0, 0), xytext=(8, 0), textcoords="offset points", va="center", fontsize=13)
    axes.grid(alpha=0.3, axis="x")
    axes.set_xlabel("Change of AUC × 1000, with 95 % interval")


def _short(name: str, reference: str) -> str:
    """What sets a variant apart: its name without that of the reference."""
    return name.removeprefix(f"{reference}_") if name != reference else f"{name}\n(32 bits)"
