"""Figures of measurements: throughput and latency against batch size, where a request's time goes, what concurrency costs, warm-up.

Typical use::

    rows = sweep(server, ["particlenet_AK4", "particlenet_AK4_PT"], batches=(1, 4, 16, 64))
    plots.sweep_figure(rows, budget_ms=50, reference=recorded("T4", "particlenet_AK4"))
    plots.latency_split_figure(rows)
    plots.throughput_latency_figure(rows, percentile=95, budget_ms=50)
    plots.warm_up_figure({"first requests": latencies_us})

Each function returns a matplotlib figure: at the end of a cell it shows itself, and ``figure.savefig("name.pdf")`` keeps it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator
from numpy.typing import ArrayLike, NDArray

from helpers.errors import InputError
from helpers.measuring.table import THROUGHPUT, hardware, is_recorded, latency_column, rows_of
from helpers.plot_rows import Row, Series, half_widths, latency_label, series_of
from helpers.plots.style import GREY, STYLE, finished, heading, series_style

# Values further apart than this factor need a logarithmic axis: on a linear one the smaller of them would lie on the axis.
_LINEAR_UP_TO = 25.0
# Parts of a request's time, in the order in which they pass: name, columns, colour, hatch. The client's own two parts are small; they
# are one here.
_PARTS = (
    ("client", ("client_send_us", "client_recv_us"), "#94a4a2", ""),
    ("network", ("network_us",), "#92dadd", ".."),
    ("queue", ("queue_us",), "#ffffff", "xx"),
    ("input", ("compute_input_us",), "#ffa90e", "\\\\"),
    ("compute", ("compute_infer_us",), "#3f90da", ""),
    ("output", ("compute_output_us",), "#e76300", "//"),
)
# What is left of the mean where a row does not tell all parts: a missing one is no zero.
_REST = ("not split", "#e6e6e6", "--")
# From this share of the longest bar on, a part has room for its own number.
_ROOM = 0.07
# Of this many requests at the end of a warm-up curve, at most, the median is what the others are compared with.
_STEADY = 0.5
_LIBTORCH = (
    "PyTorch models on a GPU: Triton's native backend does not wait for the GPU before it stops the clock of “compute”,\n"
    "so part of the GPU's time is counted as “output”."
)


def sweep_figure(rows: Any, percentile: int | None = 95, budget_ms: float | None = None, reference: Any = ()) -> Figure:
    """Throughput and latency against batch size, and below them the ratio to the first series.

    Bands are the spread of the measurement. Open points did not settle. Rows by others are dashed and grey, with their hardware in the
    legend, wherever they come from: as ``reference``, or among ``rows`` beside measured ones.

    Args:
        rows: measured rows, or a sweep. One line for each model, and for each concurrency, protocol … where several are there.
        percentile: of the latency: 50, 90, 95 or 99, or None for the mean. Its spread is drawn where the measurement was made for this one.
        budget_ms: draw a line at this latency.
        reference: rows from ``recorded(...)``, for comparison.

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


def latency_split_figure(rows: Any, *, share: bool = False) -> Figure:
    """Where the time of a request goes: one bar for each row, split into client, network, queue, input, compute and output.

    The parts are means over all requests of a row; percentiles cannot be split.

    Args:
        rows: measured or recorded rows, or a sweep. What a row does not split is a part of its own; a row without any of the parts, or
            with one missing and no mean to tell how much that is, is left out.
        share: make all bars equally long, so that the parts of fast requests are seen beside slow ones; the total is still in ms.

    Raises:
        InputError: no row, or no row with any of the parts.
    """
    columns = [column for _, names, _, _ in _PARTS for column in names]
    found = rows_of(rows, what="the split of the latency")
    known = [(row, [column for column in columns if row.get(column) is not None]) for row in found]
    split = [row for row, there in known if there and (len(there) == len(columns) or row.get("latency_avg_us") is not None)]
    if not split:
        raise InputError("No row says where its time went.", f"Expected a value in one of: {', '.join(columns)}.")
    with plt.rc_context({**STYLE, "hatch.linewidth": 0.8, "ytick.minor.visible": False, "ytick.right": False}):
        figure, axes = plt.subplots(figsize=(11, 0.75 * len(split) + 2.9), layout="constrained")
        _draw_bars(axes, split, share)
        axes.set_yticks(range(len(split)), _bar_names(split))
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("Share of the mean time of a request (%)" if share else "Mean time of a request (ms)")
        axes.set_ylim(len(split) - 0.4, -0.6)
        axes.margins(x=0.14)
        axes.set_xlim(left=0)
        legend = figure.legend(loc="outside lower center", ncols=len(_PARTS) + 1, columnspacing=1.2, handlelength=1.6)
        if any(_on_gpu(row) and str(row.get("model")).endswith("_PT") for row in split):
            legend.set_title(_LIBTORCH, {"size": 12})
        source_heading(axes, split)
        return finished(figure)


def _draw_bars(axes: Axes, rows: Sequence[Row], share: bool) -> None:
    left = np.zeros(len(rows))
    values = {name: np.array([sum(row.get(column) or 0 for column in columns) / 1e3 for row in rows]) for name, columns, _, _ in _PARTS}
    lacking = np.array([any(row.get(column) is None for _, columns, _, _ in _PARTS for column in columns) for row in rows])
    parts = [(name, colour, hatch) for name, _, colour, hatch in _PARTS]
    if lacking.any():
        means = np.array([(row.get("latency_avg_us") or 0) / 1e3 for row in rows])
        values[_REST[0]] = np.where(lacking, np.maximum(means - sum(values.values()), 0), 0)
        parts.append(_REST)
    totals = sum(values.values())
    scale = 100 / totals if share else np.ones(len(rows))
    longest = (totals * scale).max()
    for name, colour, hatch in parts:
        width = values[name] * scale
        bars = axes.barh(range(len(rows)), width, 0.62, left, label=name, color=colour, hatch=hatch, edgecolor="black", linewidth=0.9)
        for bar, value in zip(bars, width, strict=True):
            if value > _ROOM * longest:
                paper = {"facecolor": "white", "edgecolor": "none", "pad": 1.5, "alpha": 0.9}
                place = (bar.get_x() + value / 2, bar.get_y() + bar.get_height() / 2)
                axes.annotate(_short(value), place, ha="center", va="center", fontsize=13, bbox=paper)
        left += width
    for position, (end, total) in enumerate(zip(left, totals, strict=True)):
        place = {"xytext": (8, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(f"{_short(total)} ms", (end, position), fontweight="bold", **place)


def _bar_names(rows: Sequence[Row]) -> list[str]:
    """What sets the bars apart; the batch size always, for it is what people ask first."""
    names = []
    for row in rows:
        name = next(series.name for series in series_of([row], "batch", always=("variant", "concurrency")))
        batch = f"batch {row['batch']:g}"
        recorded = f"\nrecorded, {hardware(row)}" if is_recorded(row) and not all(map(is_recorded, rows)) else ""
        names.append(", ".join([name.split(", ")[0], batch, *name.split(", ")[1:]]).replace(", ", "\n", 1) + recorded)
    return names


def _on_gpu(row: Row) -> bool:
    return not hardware(row).upper().startswith(("CPU", "DEVICE"))


def _short(value: float) -> str:
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


def throughput_latency_figure(rows: Any, percentile: int | None = 95, budget_ms: float | None = None) -> Figure:
    """Latency against throughput, one point for each concurrency: more requests at once bring more throughput, until they only wait.

    Args:
        rows: measured or recorded rows, or a sweep.
        percentile: of the latency: 50, 90, 95 or 99, or None for the mean.
        budget_ms: draw a line at this latency.

    Raises:
        InputError: no row, no such percentile, or rows without throughput, latency or concurrency.
    """
    latency = latency_column(percentile)
    found = rows_of(rows, (THROUGHPUT, latency), "throughput against latency")
    along = "request_rate_per_s" if all(row.get("concurrency") is None for row in found) else "concurrency"
    all_series = series_of(found, along)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(9, 6.6), layout="constrained")
        for number, series in enumerate(all_series):
            _draw_numbered(axes, series, latency, number)
        from_zero(axes, "x")
        from_zero(axes, "y")
        budget_line(axes, budget_ms)
        unstable_mark(axes, all_series)
        axes.set(xlabel="Throughput (inferences/s)", ylabel=latency_label(percentile))
        axes.grid(alpha=0.3)
        numbers = "number: concurrency" if along == "concurrency" else "number: requests/s sent"
        axes.legend(loc="best", frameon=True, framealpha=0.85, edgecolor="none", title=numbers, title_fontsize=13, alignment="left")
        source_heading(axes, found)
        return finished(figure)


def _draw_numbered(axes: Axes, series: Series, latency: str, number: int) -> None:
    """Latency along throughput, with error bars, and the concurrency beside each point."""
    (x, x_half), (y, y_half) = values_of(series, THROUGHPUT), values_of(series, latency)
    # An unknown spread is no bar.
    bars = {"xerr": np.nan_to_num(x_half), "yerr": np.nan_to_num(y_half), "ecolor": series_style(number)["color"]}
    axes.errorbar(x, y, fmt="none", elinewidth=1.4, capsize=3, **bars)
    draw_points(axes, x, y, series, number)
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.8}
    style = {"xytext": (8, 8), "textcoords": "offset points", "fontsize": 13, "fontweight": "bold", "bbox": paper}
    for value, place in zip(series.x, zip(x, y, strict=True), strict=True):
        if np.isfinite(place).all():
            axes.annotate(f"{value:g}", place, **style)


def warm_up_figure(latencies_us: Mapping[str, ArrayLike] | ArrayLike) -> Figure:
    """Latency of request after request, and a thin line where it settles: the median of the second half.

    Args:
        latencies_us: the latencies in µs in order, (n,); or several such, by their names in the legend.

    Raises:
        InputError: nothing to draw, or something that is no list of numbers.
    """
    named = latencies_us if isinstance(latencies_us, Mapping) else {"": latencies_us}
    series = {name: _latencies(name, values) for name, values in named.items()}
    if not series:
        raise InputError("There is not one latency to draw.", "Expected the latencies of requests in order, in µs.")
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(layout="constrained")
        for number, (name, values) in enumerate(series.items()):
            style = series_style(number)
            axes.plot(np.arange(1, len(values) + 1), values / 1e3, label=name or None, markevery=max(1, len(values) // 40), **style)
            if len(values) > 3:
                steady = float(np.median(values[int(_STEADY * len(values)) :])) / 1e3
                axes.axhline(steady, color=style["color"], linewidth=1, alpha=0.6, zorder=0)
        axes.set(yscale="log", xlabel="Request number", ylabel="Latency (ms)")
        axes.xaxis.get_major_locator().set_params(integer=True)
        dressed(axes.yaxis)
        axes.grid(alpha=0.3, which="both")
        if any(series):
            axes.legend()
        return finished(figure)


def _latencies(name: str, values: ArrayLike) -> np.ndarray:
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        numbers = np.empty((0, 0))
    if numbers.ndim != 1 or not numbers.size or not np.all(numbers > 0):
        raise InputError(
            f"The latencies{f' of {name!r}' if name else ''} are no list of positive numbers.",
            "Expected one latency for each request, in the order in which they were sent, in µs.",
        )
    return numbers


# --- points, bands and axes -------------------------------------------------------------------------------------------------


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


def budget_line(axes: Axes, budget_ms: float | None, unit: str = "ms") -> None:
    """The latency budget, as a line across.

    Args:
        axes: with the latency upwards.
        budget_ms: in ms, or in another unit; None for no line.
        unit: what stands behind the number.

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
    axes.annotate(f"budget {budget_ms:g} {unit}", (0, budget_ms), **words)


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
