"""Figures about latency: where the time of a request goes, what concurrency costs, how long a model warms up.

Typical use::

    latency_split_figure(rows)
    throughput_latency_figure(rows, percentile=95, budget_ms=50)
    warm_up_figure({"first requests": latencies_us})
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from helpers.errors import InputError
from helpers.plot_points import budget_line, draw_points, dressed, from_zero, source_heading, unstable_mark, values_of
from helpers.plot_rows import THROUGHPUT, Row, Series, hardware, is_recorded, latency_column, latency_label, rows_of, series_of
from helpers.plot_style import STYLE, finished, series_style

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
# From this share of the longest bar on, a part has room for its own number.
_ROOM = 0.07
# Of this many requests at the end of a warm-up curve, at most, the median is what the others are compared with.
_STEADY = 0.5
_LIBTORCH = (
    "PyTorch models on a GPU: Triton's native backend does not wait for the GPU before it stops the clock of “compute”,\n"
    "so part of the GPU's time is counted as “output”."
)


def latency_split_figure(rows: Any, *, share: bool = False) -> Figure:
    """Where the time of a request goes: one bar for each row, split into client, network, queue, input, compute and output.

    The parts are means over all requests of a row; percentiles cannot be split.

    Args:
        rows: measured or recorded rows, or a sweep; a row without any of the parts is left out.
        share: make all bars equally long, so that the parts of fast requests are seen beside slow ones; the total is still in ms.

    Raises:
        InputError: no row, or no row with any of the parts.
    """
    columns = [column for _, names, _, _ in _PARTS for column in names]
    found = rows_of(rows, what="the split of the latency")
    split = [row for row in found if any(row.get(column) is not None for column in columns)]
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
        legend = figure.legend(loc="outside lower center", ncols=len(_PARTS), columnspacing=1.2, handlelength=1.6)
        if any(_on_gpu(row) and str(row.get("model")).endswith("_PT") for row in split):
            legend.set_title(_LIBTORCH, {"size": 12})
        source_heading(axes, split)
        return finished(figure)


def _draw_bars(axes: Axes, rows: Sequence[Row], share: bool) -> None:
    left = np.zeros(len(rows))
    values = {name: np.array([sum(row.get(column) or 0 for column in columns) / 1e3 for row in rows]) for name, columns, _, _ in _PARTS}
    totals = sum(values.values())
    scale = 100 / totals if share else np.ones(len(rows))
    longest = (totals * scale).max()
    for name, _, colour, hatch in _PARTS:
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
