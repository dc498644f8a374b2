"""The figures of measurements: throughput and latency against batch size, with ratios below; from ``helpers.latency_plots`` the others.

Typical use::

    rows = sweep(server, ["particlenet_AK4", "particlenet_AK4_PT"], batches=(1, 4, 16, 64))
    sweep_figure(rows, budget_ms=50, reference=recorded("T4", "particlenet_AK4"))

Each function returns a matplotlib figure: at the end of a cell it shows itself, and ``figure.savefig("name.pdf")`` keeps it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.latency_plots import latency_split_figure, throughput_latency_figure, warm_up_figure
from helpers.plot_points import (
    batch_axis,
    budget_line,
    draw_band,
    draw_points,
    draw_series,
    from_zero,
    source_heading,
    unstable_mark,
    values_of,
)
from helpers.plot_rows import THROUGHPUT, Series, hardware, is_recorded, latency_column, latency_label, rows_of, series_of
from helpers.plot_style import GREY, STYLE, finished

__all__ = ["latency_split_figure", "sweep_figure", "throughput_latency_figure", "warm_up_figure"]


def sweep_figure(rows: Any, percentile: int | None = 95, budget_ms: float | None = None, reference: Any = ()) -> Figure:
    """Throughput and latency against batch size, and below them the ratio to the first series.

    Bands are the spread of the measurement. Open points did not settle. Rows by others are dashed and grey, with their hardware in the
    legend, wherever they come from: as ``reference``, or among ``rows`` beside measured ones.

    Args:
        rows: measured rows, or a sweep. One line for each model, and for each concurrency, protocol … where several are there.
        percentile: of the latency: 50, 90, 95 or 99, or None for the mean. Its spread is drawn where the measurement was made for this one.
        budget_ms: draw a line at this latency.
        reference: rows from ``helpers.recorded``, for comparison.

    Returns:
        Two panels for one series; with more, or a reference, two more with the ratios.

    Raises:
        InputError: no row, no such percentile, rows without batch size or throughput, or two rows for the same point.
    """
    latency = latency_column(percentile)
    found = rows_of(rows, ("batch", THROUGHPUT), "the figure of a sweep")
    others = rows_of(reference, ("batch", THROUGHPUT), "the reference") if _any(reference) else []
    measured = [row for row in found if not is_recorded(row)]
    if measured:
        others = [row for row in found if is_recorded(row)] + others
    main = series_of(measured or found, "batch")
    grey = series_of(others, "batch", always=("variant", "inputs", "concurrency")) if others else []
    with plt.rc_context(STYLE):
        figure, panels = _panels(with_ratio=len(main) + len(grey) > 1)
        for column, quantity in enumerate((THROUGHPUT, latency)):
            _draw_panel(panels[:, column], main, grey, quantity)
        budget_line(panels[0, 1], budget_ms)
        panels[0, 0].set_ylabel("Throughput (inferences/s)")
        panels[0, 1].set_ylabel(latency_label(percentile))
        unstable_mark(panels[0, 0], [*main, *grey])
        handles, names = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=1 if max(map(len, names)) > 45 else min(3, len(names)))
        source_heading(panels[0, 0], measured or found, panels[0, 1])
        return finished(figure)


def _any(reference: Any) -> bool:
    return bool(len(reference)) if isinstance(reference, Sequence) else reference is not None


def _panels(with_ratio: bool) -> tuple[Figure, np.ndarray]:
    if not with_ratio:
        return plt.subplots(1, 2, figsize=(12.5, 5.4), squeeze=False, layout="constrained")
    figure, panels = plt.subplots(2, 2, figsize=(12.5, 7.4), sharex=True, height_ratios=(3, 1.15), layout="constrained")
    figure.get_layout_engine().set(hspace=0.0, h_pad=0.02)
    return figure, panels


def _draw_panel(panels: np.ndarray, main: Sequence[Series], grey: Sequence[Series], quantity: str) -> None:
    """One column of the figure: the values, and their ratios where there is a panel for them."""
    batches = sorted({float(batch) for series in [*main, *grey] for batch in series.x})
    for number, series in enumerate([*main, *grey]):
        changes = {} if number < len(main) else _as_reference(series, number - len(main))
        draw_series(panels[0], series, quantity, number, **changes)
        if len(panels) > 1:
            _draw_ratio(panels[1], series, main[0], quantity, number, changes)
    from_zero(panels[0], "y")
    panels[0].grid(alpha=0.3)
    if np.isnan(np.concatenate([series.column(quantity) for series in main])).all():
        panels[0].annotate("these rows have none", (0.5, 0.5), xycoords="axes fraction", ha="center")
        panels[0].set_yticks([])
    batch_axis(panels[-1], batches)
    if len(panels) > 1:
        panels[0].tick_params(labelbottom=False)
        panels[1].grid(alpha=0.3)
        panels[1].set_ylabel("Ratio to\nthe first", fontsize=14)
        _ratio_axis(panels[1])


def _as_reference(series: Series, number: int) -> dict[str, Any]:
    where = hardware(series.rows[0])
    name = series.name if where in series.name else f"{series.name}, {where}"
    shade = (GREY, "#a0a0a0", "#505050")[number % 3]
    return {"color": shade, "linestyle": "--", "label": f"recorded: {name}", "markersize": 7}


def _draw_ratio(axes: Axes, series: Series, first: Series, quantity: str, number: int, changes: dict[str, Any]) -> None:
    """A series over the first one, at the batch sizes that both have, with the spread of both."""
    (over, over_half), (under, under_half) = values_of(series, quantity), values_of(first, quantity)
    _, here, there = np.intersect1d(series.x, first.x, return_indices=True)
    if not here.size:
        return
    common = Series(series.name, tuple(series.rows[place] for place in here), series.x[here], series.recorded)
    ratio = over[here] / under[there]
    relative = np.hypot(over_half[here] / over[here], 0 if series is first else under_half[there] / under[there])
    draw_points(axes, common.x, ratio, common, number, **{**changes, "markersize": 6})
    draw_band(axes, common.x, ratio, ratio * relative, axes.get_lines()[-1].get_color())


def _ratio_axis(axes: Axes) -> None:
    axes.axhline(1, color="black", linewidth=1, zorder=0)
    from_zero(axes, "y")
    if axes.get_yscale() == "linear":
        axes.set_ylim(0, max(1.3, axes.get_ylim()[1]))
        axes.locator_params(axis="y", nbins=3)
