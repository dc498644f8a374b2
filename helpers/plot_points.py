"""Points, bands and axes that the figures of measurements share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator
from numpy.typing import NDArray

from helpers.errors import InputError
from helpers.plot_rows import THROUGHPUT, Row, Series, half_widths, hardware, is_recorded
from helpers.plot_style import GREY, heading, series_style

# Values further apart than this factor need a logarithmic axis: on a linear one the smaller of them would lie on the axis.
_LINEAR_UP_TO = 25.0


def draw_series(axes: Axes, series: Series, column: str, number: int, **changes: Any) -> None:
    """One series with its spread, along what the series runs along.

    Args:
        axes: where.
        series: what.
        column: of the throughput or of a latency, which is drawn in ms.
        number: of the series, which chooses colour, line and marker.
        **changes: other properties of the line.
    """
    y, half = values_of(series, column)
    draw_points(axes, series.x, y, series, number, **changes)
    draw_band(axes, series.x, y, half, {**series_style(number), **changes}["color"])


def values_of(series: Series, column: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(n,) values and their half widths: throughput in inferences/s, latencies in ms."""
    unit = 1.0 if column == THROUGHPUT else 1e-3
    return unit * series.column(column), unit * half_widths(series, column)


def draw_points(axes: Axes, x: NDArray[np.float64], y: NDArray[np.float64], series: Series, number: int, **changes: Any) -> None:
    """A line through the points; points that did not settle are open."""
    style = {**series_style(number), **changes}
    seen = np.isfinite(x + y)
    label = style.pop("label", series.name)
    settled, open_ = seen & series.stable, seen & ~series.stable
    axes.plot(x[seen], y[seen], label=label if seen.any() else None, markevery=np.flatnonzero(settled[seen]).tolist(), **style)
    if open_.any():
        axes.plot(x[open_], y[open_], **{**style, "linestyle": "", "markerfacecolor": "white", "markeredgewidth": 2}, gid="unstable")


def draw_band(axes: Axes, x: NDArray[np.float64], y: NDArray[np.float64], half: NDArray[np.float64], colour: str) -> None:
    """The spread as a band; a point without a known spread has none."""
    low = np.maximum(y - half, 1e-3 * np.abs(y))
    axes.fill_between(x, low, y + half, where=np.isfinite(half), color=colour, alpha=0.22, linewidth=0)


def from_zero(axes: Axes, which: str) -> None:
    """A linear axis from zero, or a logarithmic one where the values are too far apart for that.

    Args:
        axes: with its points drawn.
        which: ``x`` or ``y``.
    """
    lines = [np.asarray(line.get_data()[which == "y"], dtype=float) for line in axes.get_lines()]
    values = np.concatenate([line[np.isfinite(line) & (line > 0)] for line in lines] or [np.empty(0)])
    if not values.size:
        return
    if values.max() > _LINEAR_UP_TO * values.min():
        axes.set(**{f"{which}scale": "log", f"{which}lim": (values.min() / 1.6, values.max() * 1.8)})
        dressed(axes.xaxis if which == "x" else axes.yaxis)
    else:
        # Bands belong to the picture, but a very wide one must not press the points together.
        ends = np.concatenate(
            [np.zeros(1), *(path.vertices[:, int(which == "y")] for band in axes.collections for path in band.get_paths())]
        )
        highest = 1.05 * ends[np.isfinite(ends)].max()
        axes.set(**{f"{which}lim": (0, max(1.15 * values.max(), min(highest, 1.6 * values.max())))})


def dressed(axis: Axis) -> None:
    """Plain numbers at 1, 2 and 5 of each decade of a logarithmic axis: less than a decade has no power of ten to read."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(LogLocator(subs=np.arange(1, 10), numticks=12))
    axis.set_minor_formatter(NullFormatter())


def batch_axis(axes: Axes, batches: Sequence[float], label: str = "Batch size") -> None:
    """A logarithmic axis with a tick at each batch size that was measured, and no others."""
    lowest, highest = min(batches), max(batches)
    axes.set_xscale("log", base=2)
    axes.set_xlim(lowest / 1.25, highest * 1.25)
    axes.xaxis.set_minor_locator(NullLocator())
    room = np.log2(highest / lowest or 1) / 12
    ticks = [batch for place, batch in enumerate(batches) if not place or np.log2(batch / batches[place - 1]) >= room]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xlabel(label)


def budget_line(axes: Axes, budget_ms: float | None) -> None:
    """The latency budget, as a line across.

    Raises:
        InputError: it is no positive number.
    """
    if budget_ms is None:
        return
    if isinstance(budget_ms, bool) or not isinstance(budget_ms, (int, float, np.number)) or not budget_ms > 0:
        raise InputError(f"The latency budget is {budget_ms!r}.", "Expected a positive number of milliseconds.")
    axes.axhline(budget_ms, color="black", linewidth=1.4, linestyle=(0, (6, 3)), gid="budget")
    if budget_ms > axes.get_ylim()[1]:
        axes.set_ylim(top=1.15 * budget_ms)
    words = {"xytext": (20, 5), "textcoords": "offset points", "xycoords": ("axes fraction", "data"), "fontsize": 13}
    axes.annotate(f"budget {budget_ms:g} ms", (0, budget_ms), **words)


def unstable_mark(axes: Axes, all_series: Sequence[Series]) -> None:
    """A word in the legend about open points, where there are some."""
    if any((~series.stable).any() for series in all_series):
        style = {"linestyle": "", "marker": "o", "markersize": 9, "markerfacecolor": "white", "markeredgewidth": 2, "color": GREY}
        axes.plot([], [], label="open: not stable", **style)


def source_heading(axes: Axes, rows: Sequence[Row], right_axes: Axes | None = None) -> None:
    """Measured or recorded, with which tool, on what; recorded rows beside measured ones are for the legend to name.

    Args:
        axes: the (left) axes.
        rows: all rows of the figure.
        right_axes: the axes at the right end of the figure.
    """
    own = [row for row in rows if not is_recorded(row)] or list(rows)
    tools = {f"perf_analyzer {row['perf_analyzer_version']}" for row in own if row.get("perf_analyzer_version")}
    devices = list(dict.fromkeys(hardware(row) for row in own))
    where = devices[0] if len(devices) == 1 else f"{len(devices)} devices"
    heading(axes, "Recorded" if is_recorded(own[0]) else "Measured", tools.pop() if len(tools) == 1 else "", where, right_axes)
