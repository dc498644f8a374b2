"""Figures of measurements: throughput, latency and where it goes, warm-up, experiments, precision, several servers.

At the end of a cell a figure shows itself, and ``figure.savefig("name.pdf")`` keeps it. Error bars are 95 % intervals, and a function
always draws the same kind of axis, whatever the values are.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import mplhep
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator
from numpy.typing import ArrayLike, NDArray

from helpers.errors import InputError
from helpers.measuring.experiments import Experiments
from helpers.measuring.table import (
    LATENCY_ENDS,
    MEASURED,
    PARTS,
    THROUGHPUT,
    THROUGHPUT_SPREAD,
    hardware,
    is_recorded,
    latency_column,
    rows_of,
)
from helpers.plots.style import BARS, COLOURS, DATA, GREY, SMALL, STYLE, finished, heading, series_style
from helpers.scaling import queueing
from helpers.scaling.capacity import Plan
from helpers.tables import Row

Floats = NDArray[np.float64]

THROUGHPUT_LABEL = "Throughput (inferences/s)"
# What can set two series of a figure apart beside the model, and how the legend says it.
_APART = {
    "variant": "{}",
    "servers": "servers: {}",
    "batch": "batch {}",
    "concurrency": "concurrency {}",
    "request_rate_per_s": "{:g} requests/s",
    "instances": "instances: {}",
    "protocol": "{}",
    "inputs": "inputs: {}",
    "device": "{}",
}
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
# The parts of a request's life: name, and between which timestamps; colours and hatches are those of the split.
_LIFE = (
    ("whole request", "REQUEST_START", "REQUEST_END", "#e6e6e6", ""),
    ("queue", "QUEUE_START", "COMPUTE_START", *_PARTS[2][2:]),
    ("input", "COMPUTE_START", "COMPUTE_INPUT_END", *_PARTS[3][2:]),
    ("compute", "COMPUTE_INPUT_END", "COMPUTE_OUTPUT_START", *_PARTS[4][2:]),
    ("output", "COMPUTE_OUTPUT_START", "COMPUTE_END", *_PARTS[5][2:]),
)
_LIBTORCH = (
    "PyTorch models on a GPU: Triton's native backend does not wait for the GPU before it stops the clock of “compute”,\n"
    "so part of the GPU's time is counted as “output”."
)
# From this share of the longest bar on, a part has room for its own number.
_ROOM = 0.07
_BUDGET: dict[str, Any] = {"color": "black", "linewidth": 1.4, "linestyle": (0, (6, 3)), "gid": "budget"}
_OPEN: dict[str, Any] = {"markerfacecolor": "white", "markeredgewidth": 2}
_NOTE: dict[str, Any] = {"textcoords": "offset points", "fontsize": 13}
_PAPER: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.85}
# Of a line of a formula, points; parts of the limit at which a simulation is shown (beyond, it takes ever longer to settle); the highest
# latency shown, as a multiple of the budget: the curves go up without end.
_LINE, _SIMULATED, _TOP = 200, (0.3, 0.55, 0.75, 0.9), 2.5


# --- rows and series -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Series:
    """Rows that one line joins, in the order of ``x``, and their name in the legend."""

    name: str
    rows: Sequence[Row]
    x: Floats

    def column(self, name: str) -> Floats:
        """Return (n,) the numbers of a column, NaN where a figure is missing."""
        return np.array([np.nan if row.get(name) is None else float(row[name]) for row in self.rows])

    def values(self, column: str) -> tuple[Floats, Floats]:
        """Return (n,) throughput in inferences/s or times in ms, and (2, n) how far their intervals reach below and above, 0 if unknown."""
        values = self.column(column)
        if column == THROUGHPUT:
            return values, np.nan_to_num(np.stack([self.column(THROUGHPUT_SPREAD)] * 2))
        # The interval is that of the percentile that was measured for.
        known = np.array([latency_column(row.get("percentile")) == column for row in self.rows])
        apart = np.abs([self.column(end) - values for end in LATENCY_ENDS])
        return 1e-3 * values, 1e-3 * np.nan_to_num(np.where(known, apart, np.nan))

    @property
    def stable(self) -> NDArray[np.bool_]:
        """(n,) whether the measurement settled; an unknown one counts as settled."""
        return np.array([row.get("stable") is not False for row in self.rows])


def series_of(rows: Sequence[Row], along: str, always: Sequence[str] = ()) -> list[Series]:
    """Return rows that belong together in lines along a column; ``always`` is in the legend even where all rows agree."""
    table = pd.DataFrame(list(rows), dtype=object).reindex(columns=["model", "source", along, *(set(_APART) - {along})])
    table = table.assign(source=table["source"].fillna(MEASURED), row=list(rows))
    if (lacking := table[along].isna()).any():
        model = table["model"][lacking].iloc[0]
        raise InputError(f"A row of {model!r} has no {along}.", f"This figure runs along {along}, so every row needs one.")
    varying = [name for name in _APART if name != along and (name in always or table[name].nunique(dropna=False) > 1)]
    every = []
    for _, group in table.groupby(["model", "source", *varying], sort=False, dropna=False):
        group = group.sort_values(along, kind="stable")
        first: Row = group["row"].iloc[0]
        words = [_APART[name].format(first[name]) for name in varying if first.get(name) not in (None, "")]
        every.append(Series(", ".join([str(first["model"]), *words]), list(group["row"]), group[along].to_numpy(float)))
    return every


# --- throughput and latency ------------------------------------------------------------------------------------------------


def sweep_figure(rows: Any, percentile: int | None = 95, budget_ms: float | None = None, reference: Any = ()) -> Figure:
    """Draw throughput and latency against batch size, and below them the ratio to the first series.

    There is a line for each model, and for each concurrency, protocol … where several are there. Open points did not settle. Rows by others
    are dashed and grey, with their hardware in the legend. In the ratios, the error of the first series stands on its own points alone.

    Args:
        rows: measured rows, or a sweep.
        percentile: of the latency: 50, 90, 95 or 99, or None for the mean. Its interval is drawn where it was measured for this one.
        budget_ms: draw a line at this latency.
        reference: rows from ``recorded(...)``, for comparison.
    """
    latency = latency_column(percentile)
    found = rows_of(rows, ("batch", THROUGHPUT), "the figure of a sweep")
    others = rows_of(reference, ("batch", THROUGHPUT), "the reference") if len(reference) else []
    measured = [row for row in found if not is_recorded(row)]
    if measured:
        others = [row for row in found if is_recorded(row)] + others
    main = series_of(measured or found, "batch")
    grey = series_of(others, "batch", always=("variant", "inputs", "concurrency")) if others else []
    every = [*main, *grey]
    styles = [_main_style(number, len(main)) for number in range(len(main))] + [_grey_style(*each) for each in enumerate(grey)]
    with plt.rc_context(STYLE):
        if len(every) > 1:
            figure, panels = plt.subplots(
                2, 2, figsize=(12, 7.4), sharex=True, height_ratios=(3, 1.15), layout=ConstrainedLayoutEngine(hspace=0.0, h_pad=0.02)
            )
        else:
            figure, panels = plt.subplots(1, 2, figsize=(12, 5.4), squeeze=False, layout="constrained")
        for column, quantity in enumerate((THROUGHPUT, latency)):
            for series, style in zip(every, styles, strict=True):
                _draw(panels[0, column], series.x, *series.values(quantity), series, **style)
                if len(panels) > 1:
                    _draw_ratio(panels[1, column], series, main[0], quantity, style)
            if all(np.isnan(series.column(quantity)).all() for series in main):
                panels[0, column].annotate("these rows have none", (0.5, 0.5), xycoords="axes fraction", ha="center")
            for axes in panels[:, column]:
                _logarithmic(axes)
                axes.grid(alpha=0.3)
            _axis_of_sizes(panels[-1, column], every, "Batch size")
            if len(panels) > 1:
                panels[1, column].axhline(1, color="black", linewidth=1, zorder=0)
                panels[1, column].set_ylabel("Ratio to\nthe first", fontsize=14)
        panels[0, 0].set_ylabel(THROUGHPUT_LABEL)
        panels[0, 1].set_ylabel(_latency_label(percentile))
        budget_line(panels[0, 1], budget_ms)
        _legend_below(figure, panels[0, 0], every)
        _source(panels[0, 0], measured or found, panels[0, 1])
        return finished(figure)


def throughput_latency_figure(rows: Any, budget_ms: float | None = None) -> Figure:
    """Draw the 95th percentile of the latency against throughput, one point for each concurrency, or for each experiment with its name."""
    latency = latency_column(95)
    found = rows_of(rows, (THROUGHPUT, latency), "throughput against latency")
    tries = all(row.get("experiment") for row in found)
    every = [Series(row["experiment"], [row], np.zeros(1)) for row in found] if tries else series_of(found, "concurrency")
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(9, 6.6), layout="constrained")
        for number, series in enumerate(every):
            (x, across), (y, up) = series.values(THROUGHPUT), series.values(latency)
            _draw(axes, x, y, up, series, across=across, **_main_style(number, len(every)))
            for value, place in zip(series.x, zip(x, y, strict=True), strict=True):
                if np.isfinite(place).all() and not tries:
                    axes.annotate(f"{value:g}", place, xytext=(8, 8), fontweight="bold", bbox=_PAPER, **_NOTE)
        _from_zero(axes, "xy")
        budget_line(axes, budget_ms)
        axes.set(xlabel=THROUGHPUT_LABEL, ylabel=_latency_label(95))
        axes.grid(alpha=0.3)
        _unstable(axes, every)
        numbers = "" if tries else "number: concurrency"
        axes.legend(loc="best", frameon=True, framealpha=0.85, edgecolor="none", title=numbers, title_fontsize=13, alignment="left")
        _source(axes, found)
        return finished(figure)


def scale_figure(rows: Any, expected: Any = ()) -> Figure:
    """Draw throughput and mean time in the queue against the requests under way, one line for each number of servers.

    The rows are from :func:`helpers.scaling.by_concurrency`; those of a simulation, from :func:`helpers.scaling.expected`, are grey.
    """
    found = rows_of(rows, ("servers", "concurrency", THROUGHPUT, "queue_us"), "the figure of a fleet")
    measured, simulated = _by_servers(found), _by_servers(rows_of(expected) if len(expected) else [])
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(1, 2, figsize=(12, 5.6), layout="constrained")
        for axes, column in zip(panels, (THROUGHPUT, "queue_us"), strict=True):
            for number, series in enumerate(simulated):
                dashes: dict[str, Any] = {"linestyle": ("--", ":", "-.")[number % 3], "label": f"expected: {series.name}", "marker": ""}
                _draw(axes, series.x, series.values(column)[0], None, series, **{**series_style(number), "color": GREY, **dashes})
            for number, series in enumerate(measured):
                _draw(axes, series.x, *series.values(column), series, **_main_style(number, len(measured)))
            _from_zero(axes, "y")
            _axis_of_sizes(axes, measured, "Requests under way")
            axes.grid(alpha=0.3)
        panels[0].set_ylabel(THROUGHPUT_LABEL)
        panels[1].set_ylabel("Mean time in the queue (ms)")
        _legend_below(figure, panels[0], measured)
        _source(panels[0], found, panels[1])
        return finished(figure)


def _by_servers(rows: Sequence[Row]) -> list[Series]:
    made = []
    for servers in sorted({row["servers"] for row in rows}):
        own = sorted((row for row in rows if row["servers"] == servers), key=lambda row: row["concurrency"])
        made.append(Series(_servers(servers), own, np.array([row["concurrency"] for row in own], dtype=float)))
    return made


def _servers(number: int) -> str:
    return f"{number} server{'s' * (number > 1)}"


def capacity_figure(plan: Plan, measured: Any = ()) -> Figure:
    """Draw latency against the number of jobs, for the number of servers that is needed, one fewer and one more.

    Lines are the formula (M/M/c). Open points are the simulation with requests that all take the same time; they lie below, because a
    network takes about as long for each batch. Black points are rows measured at a request rate on a fleet.
    """
    wanted = [servers for servers in (plan.servers - 1, plan.servers, plan.servers + 1) if servers > 0]
    # Rows without such a latency say nothing here.
    points = [row for row in (rows_of(measured) if len(measured) else []) if row.get("latency_p95_us") is not None]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(9, 6.4), layout="constrained")
        for number, servers in enumerate(wanted):
            style, limit = series_style(number), plan.limit_jobs(servers)
            jobs = np.linspace(0, limit, _LINE + 1)[1:-1]
            line = [plan.latency_p95_ms(servers, each) for each in jobs]
            axes.plot(jobs, line, label=_servers(servers), **{**style, "marker": ""})
            for some in [part * limit for part in _SIMULATED]:
                seen = queueing.simulate(some * plan.traffic.events_per_s, plan.service_s, servers * plan.speed.parallel)
                latency_ms, half_ms = 1e3 * (seen.p95_s + plan.service_s), 1e3 * seen.p95_half_width_s
                axes.errorbar(some, latency_ms, half_ms, capsize=4, **{**style, "linestyle": "", **_OPEN})
        for row in points:
            number = wanted.index(row["servers"]) if row["servers"] in wanted else len(wanted)
            style = {**series_style(number), "color": DATA, "linestyle": "", "label": f"measured: {row['servers']} servers"}
            jobs = row["request_rate_per_s"] / plan.traffic.events_per_s
            latency, up = Series("", [row], np.array([jobs])).values("latency_p95_us")
            axes.errorbar(jobs, latency[0], up, capsize=4, zorder=5, **{**style, "markersize": 12})
        axes.axvline(plan.traffic.jobs, color=GREY, linewidth=1.4)
        axes.annotate(f"{plan.traffic.jobs:g} jobs", (plan.traffic.jobs, 0.93), xycoords=("data", "axes fraction"), xytext=(6, 0), **_NOTE)
        top = max([_TOP * plan.budget_ms, *(1.15 * row["latency_p95_us"] / 1e3 for row in points)])
        axes.set(xlim=(0, 1.08 * max(plan.limit_jobs(wanted[-1]), plan.traffic.jobs)), ylim=(0, top))
        budget_line(axes, plan.budget_ms)
        axes.set_xlabel(f"Jobs, each with {plan.traffic.events_per_s:.3g} events/s of {plan.traffic.jets_per_event:g} jets")
        axes.set_ylabel(_latency_label(95))
        axes.grid(alpha=0.3)
        figure.legend(loc="outside lower center", ncols=3)
        heading(axes, "Expected", "lines: M/M/c, open: simulated", plan.speed.source)
        return finished(figure)


# --- single requests -------------------------------------------------------------------------------------------------------


def latency_histogram_figure(latencies_us: ArrayLike) -> Figure:
    """Draw how the latencies (n,) of single requests, in µs, are distributed, with their median and 95th percentile."""
    values_ms = np.asarray(latencies_us, dtype=float) / 1e3
    edges = int(np.clip(3 * values_ms.size ** (1 / 3), 8, 40)) + 1
    bins = np.geomspace(values_ms.min() / 1.05, values_ms.max() * 1.05, edges)
    p50, p95 = np.percentile(values_ms, (50, 95))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(9, 6), layout="constrained")
        words = f"median {p50:.3g} ms, p95 {p95:.3g} ms"
        mplhep.histplot(np.histogram(values_ms, bins), yerr=True, ax=axes, label=words, flow="none", linewidth=2.2, color=DATA)
        for value, name, line in ((p50, "median", "-"), (p95, "p95", (0, (2, 2)))):
            axes.axvline(value, color=DATA, linewidth=1.6, linestyle=line, alpha=0.7)
            axes.annotate(name, (value, 1), bbox=_PAPER, xycoords=("data", "axes fraction"), xytext=(4, -6), va="top", **_NOTE)
        axes.set(xscale="log", xlim=(bins[0], bins[-1]), ylim=(0, 1.18 * axes.get_ylim()[1]))
        axes.set(xlabel="Latency seen by the client (ms)", ylabel="Requests per bin")
        _plain_ticks(axes.xaxis)
        figure.legend(loc="outside lower center")
        heading(axes, "Measured", f"{values_ms.size} requests")
        return finished(figure)


def warm_up_figure(latencies_us: ArrayLike) -> Figure:
    """Draw the latency (n,) of request after request, in µs, and a thin line where it settles: the median of the second half."""
    values_ms = np.asarray(latencies_us, dtype=float) / 1e3
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(layout="constrained")
        style = {**_main_style(0, 1), "label": "request after request"}
        axes.plot(np.arange(1, len(values_ms) + 1), values_ms, markevery=max(1, len(values_ms) // 40), **style)
        axes.axhline(np.median(values_ms[len(values_ms) // 2 :]), color=DATA, linewidth=1, alpha=0.6, zorder=0)
        axes.set(yscale="log", xlabel="Request number", ylabel="Latency (ms)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _plain_ticks(axes.yaxis)
        axes.grid(alpha=0.3, which="both")
        heading(axes, "Measured", "one request after the other")
        return finished(figure)


# --- bars ------------------------------------------------------------------------------------------------------------------


def latency_split_figure(rows: Any, *, share: bool = False) -> Figure:
    """Draw where the time of a request goes: one bar for each row, split into client, network, queue, input, compute and output.

    The parts are means over all requests of a row; percentiles cannot be split. Rows that do not tell all parts are left out. With
    ``share`` all bars are equally long, so that the parts of fast requests are seen beside slow ones; the total is still in ms.
    """
    split = [row for row in rows_of(rows, what="the split of the latency") if all(row.get(part) is not None for part in PARTS)]
    if not split:
        raise InputError("No row says where its time went.", f"Expected a value in each of: {', '.join(PARTS)}.")
    parts = [np.array([sum(row[each] for each in columns) for row in split]) / 1e3 for _, columns, _, _ in _PARTS]
    totals = np.sum(parts, axis=0)
    with plt.rc_context(BARS):
        figure, axes = plt.subplots(figsize=(11, 0.75 * len(split) + 2.9), layout="constrained")
        left, scale = np.zeros(len(split)), 100 / totals if share else np.ones(len(split))
        for (name, _, colour, hatch), values in zip(_PARTS, parts, strict=True):
            width = values * scale
            bars = axes.barh(range(len(split)), width, 0.62, left, label=name, color=colour, hatch=hatch, edgecolor="black", linewidth=0.9)
            roomy = [_short(value) if value > _ROOM * (totals * scale).max() else "" for value in width]
            axes.bar_label(bars, roomy, label_type="center", fontsize=13, bbox=_PAPER)
            left += width
        for position, (end, total) in enumerate(zip(left, totals, strict=True)):
            axes.annotate(f"{_short(total)} ms", (end, position), xytext=(8, 0), va="center", fontweight="bold", **_NOTE)
        _named_bars(axes, [_bar_name(row, recorded=not all(map(is_recorded, split))) for row in split])
        axes.set_xlabel("Share of the mean time of a request (%)" if share else "Mean time of a request (ms)")
        axes.set_xlim(0, 1.14 * left.max())
        legend = figure.legend(loc="outside lower center", ncols=len(_PARTS) + 1, columnspacing=1.2, handlelength=1.6)
        on_gpu = [row for row in split if not hardware(row).upper().startswith(("CPU", "DEVICE"))]
        if any(str(row["model"]).endswith("_PT") for row in on_gpu):
            legend.set_title(_LIBTORCH, FontProperties(size=SMALL))
        _source(axes, split)
        return finished(figure)


def _short(value: float) -> str:
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


def _bar_name(row: Row, *, recorded: bool) -> str:
    """What sets a bar apart, and whether others measured it, where not all do."""
    words = [_APART[name].format(row[name]) for name in ("batch", "variant", "concurrency") if row.get(name) not in (None, "")]
    where = f"\nrecorded, {hardware(row)}" if recorded and is_recorded(row) else ""
    return f"{row['model']}\n{', '.join(words)}{where}"


def lives_figure(lives: pd.DataFrame) -> Figure:
    """Draw the life of requests, from ``trace``, one below the other: how long each waited, was computed and was copied.

    Stages of an ensemble stand below the request that asked for them.
    """
    first = lives[lives["parent"] == -1]
    order = [row for asked in first.index for row in (asked, *lives.index[lives["parent"] == asked])]
    number = {asked: f"{place}: " if len(first) > 1 else "" for place, asked in enumerate(first.index, 1)}
    lives = lives.loc[order].reindex(columns=["model", "parent", *dict.fromkeys(stamp for _, *ends, _, _ in _LIFE for stamp in ends)])
    names = [number[asked] + model if asked in number else f"{model}    " for asked, model in lives["model"].items()]
    with plt.rc_context(BARS):
        figure, axes = plt.subplots(figsize=(11, min(0.42 * len(lives), 5) + 2.3), layout="constrained")
        for name, begin, end, colour, hatch in _LIFE:
            whole = name == _LIFE[0][0]
            width = lives[end] - lives[begin]
            places = np.flatnonzero(width.notna())
            style: dict[str, Any] = {"color": colour, "hatch": hatch, "edgecolor": "none" if whole else "black", "linewidth": 0.8}
            if places.size:
                axes.barh(places, width.iloc[places], 0.9 if whole else 0.72, lives[begin].iloc[places], label=name, **style)
        _named_bars(axes, names)
        axes.set_xlabel("Time since the first request came (ms)")
        axes.set_xlim(0, 1.02 * lives["REQUEST_END"].max())
        figure.legend(loc="outside lower center", ncols=len(_LIFE), columnspacing=1.2, handlelength=1.6)
        heading(axes, "Measured", "by the server's trace")
        return finished(figure)


def precision_figure(speeds: Any, costs: Sequence[Row]) -> Figure:
    """Draw the throughput of each variant, and beside it by how much the areas under its curves differ from those of the first.

    There is one measured row for each model, all under the same load; ``costs`` are from :func:`helpers.precision.cost`.
    """
    rows = rows_of(speeds, (THROUGHPUT,), "the figure of precisions")
    models = [str(row["model"]) for row in rows]
    if len({(row.get("batch"), row.get("concurrency")) for row in rows}) > 1 or len(set(models)) < len(models):
        raise InputError(
            "The rows are of different loads, or of one model twice.", "Expected one row for each model, all under the same load."
        )
    with plt.rc_context(BARS):
        figure, (left, right) = plt.subplots(1, 2, figsize=(12, 0.8 * len(rows) + 2.6), sharey=True, layout="constrained")
        values, spreads = (np.array([row.get(name) or 0.0 for row in rows]) for name in (THROUGHPUT, THROUGHPUT_SPREAD))
        colours = [GREY, *[COLOURS[0]] * (len(rows) - 1)]
        left.barh(range(len(rows)), values, 0.6, xerr=spreads, color=colours, edgecolor="black", linewidth=0.9, capsize=4)
        for place, (value, spread) in enumerate(zip(values, spreads, strict=True)):
            words = f"{value:.0f}" + (f"  (×{value / values[0]:.2f})" if place else "")
            left.annotate(words, (value + spread, place), xytext=(6, 0), va="center", **_NOTE)
        left.set_xlim(0, 1.35 * (values + spreads).max())
        left.set_xlabel(f"{THROUGHPUT_LABEL}, batch {rows[0]['batch']:g}")
        discriminants = list(dict.fromkeys(row["discriminant"] for row in costs))
        for number, name in enumerate(discriminants):
            found = [row for row in costs if row["discriminant"] == name and row["model"] in models[1:]]
            shift = 0.22 * (number - (len(discriminants) - 1) / 2)
            # In thousandths: changes are in the third or fourth digit.
            x, half = ([1e3 * row[key] for row in found] for key in ("auc_change", "auc_change_half_width"))
            style: dict[str, Any] = {**series_style(number), "linestyle": "", "capsize": 4, "label": name.replace("_", " ")}
            right.errorbar(x, [models.index(row["model"]) + shift for row in found], xerr=half, **style)
        right.axvline(0, color="black", linewidth=1, zorder=0)
        right.annotate("reference", (0, 0), xytext=(-8, 0), ha="right", va="center", **_NOTE)
        right.margins(x=0.25)
        right.grid(alpha=0.3, axis="x")
        right.set_xlabel("Change of AUC × 1000, with 95 % interval")
        _named_bars(left, [name.removeprefix(f"{models[0]}_") if place else f"{name}\n(32 bits)" for place, name in enumerate(models)])
        figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=len(discriminants))
        _source(left, rows, right)
        return finished(figure)


def experiments_figure(table: Experiments) -> Figure:
    """Draw a table of experiments: gains beside what others recorded, and latencies beside the budget."""
    if not len(table):
        raise InputError("There is no experiment to draw.", 'Type: table.measure("baseline")')
    seen = [table.judged(row["experiment"]) for row in table.rows]
    gains = np.array([1.0 if each is None else each.gain for each in seen])
    halves = np.array([0.0 if each is None else each.half_width or 0.0 for each in seen])
    elsewhere = {place: other for place, row in enumerate(table.rows) if (other := table.elsewhere(row["experiment"])) is not None}
    others = [other.gain for other in elsewhere.values()]
    latencies, ends = Series("", table.rows, np.zeros(len(table))).values("latency_p95_us")
    with plt.rc_context(BARS):
        figure, (left, right) = plt.subplots(1, 2, figsize=(12, 0.85 * len(table) + 3.2), sharey=True, layout="constrained")
        colours = [GREY if each is None else COLOURS[0] for each in seen]
        left.barh(range(len(gains)), gains, 0.6, xerr=halves, color=colours, edgecolor="black", linewidth=0.9, capsize=4)
        for place, (value, half) in enumerate(zip(gains, halves, strict=True)):
            left.annotate(f"×{value:.2f}", (value + half, place), xytext=(9, -11), va="center", **_NOTE)
        if elsewhere:
            style: dict[str, Any] = {**series_style(3), "color": COLOURS[2], "linestyle": "", "markersize": 11, "markeredgecolor": "white"}
            left.plot(others, list(elsewhere), **style, label="recorded elsewhere, over what it was there before the change")
        left.axvline(1, color="black", linewidth=1)
        left.set_xlim(0, 1.2 * max([*(gains + halves), *others]))
        left.set_xlabel("Throughput over that of what was changed")
        right.barh(range(len(table)), latencies, 0.6, xerr=ends, color="white", edgecolor="black", hatch="//", capsize=4)
        right.set_xlim(0, 1.15 * np.nanmax(np.append(latencies + ends[1], table.budget_ms or 0)))
        right.set_xlabel(_latency_label(95))
        _named_bars(left, [_experiment_name(table, row) for row in table.rows])
        if table.budget_ms:
            right.axvline(table.budget_ms, **_BUDGET)
            right.annotate(f"budget {table.budget_ms:g} ms", (table.budget_ms, len(table) - 0.45), xytext=(5, 4), **_NOTE)
        legend = figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=1, fontsize=SMALL)
        sources = [textwrap.fill(f"{table.rows[place]['experiment']}: {other.words}", 120) for place, other in elsewhere.items()]
        legend.set_title("\n".join(sources), FontProperties(size=SMALL))
        _source(left, table.rows, right)
        return finished(figure)


def _experiment_name(table: Experiments, row: Row) -> str:
    """The experiment, and what its gain is over: only bars over the same one can be compared."""
    reference = table.reference(row["experiment"])
    name = textwrap.fill(row["experiment"], 22)
    return name if reference is None else f"{name}\n" + textwrap.fill(f"over {reference['experiment']}", 28)


# --- points, axes and words ------------------------------------------------------------------------------------------------


def _main_style(number: int, of: int) -> dict[str, Any]:
    """The style of a measured series: black where it is alone."""
    return series_style(number) if of > 1 else {**series_style(number), "color": DATA}


def _grey_style(number: int, series: Series) -> dict[str, Any]:
    where = hardware(series.rows[0])
    name = series.name if where in series.name else f"{series.name}, {where}"
    shade = (GREY, "#a0a0a0", "#505050")[number % 3]
    return {**series_style(number), "color": shade, "linestyle": "--", "markersize": 7, "label": f"recorded: {name}"}


def _draw(axes: Axes, x: Floats, y: Floats, up: Floats | None, series: Series, across: Floats | None = None, **style: Any) -> None:
    """Points that a line joins, with (2, n) error bars; points that did not settle are open."""
    seen = np.isfinite(x + y)
    label = style.pop("label", series.name)
    settled, unsettled = seen & series.stable, seen & ~series.stable
    axes.plot(x[seen], y[seen], label=label if seen.any() else None, markevery=np.flatnonzero(settled[seen]).tolist(), **style)
    bars: dict[str, Any] = {"xerr": None if across is None else across[:, seen], "yerr": None if up is None else up[:, seen]}
    if bars["yerr"] is not None and any(each is not None and each.any() for each in bars.values()):
        # A bar that reaches below zero has no end on a logarithmic axis.
        bars["yerr"][0] = np.minimum(bars["yerr"][0], 0.99 * y[seen])
        axes.errorbar(x[seen], y[seen], **bars, fmt="none", ecolor=style["color"], elinewidth=1.6, capsize=4)
    if unsettled.any():
        axes.plot(x[unsettled], y[unsettled], **{**style, "linestyle": "", **_OPEN}, gid="unstable")


def _draw_ratio(axes: Axes, series: Series, first: Series, quantity: str, style: Mapping[str, Any]) -> None:
    """A series over the first one at the sizes that both have, each with its own error: that of the first stands on the first alone."""
    over, up = series.values(quantity)
    _, here, there = np.intersect1d(series.x, first.x, return_indices=True)
    if here.size:
        under = first.values(quantity)[0][there]
        common = Series(series.name, [series.rows[place] for place in here], series.x[here])
        _draw(axes, common.x, over[here] / under, up[:, here] / under, common, **{**style, "markersize": 6})


def _from_zero(axes: Axes, which: str) -> None:
    """A linear axis from zero that shows all points; very long error bars must not press these together."""
    for name in which:
        axes.set(**{f"{name}lim": (0, 1.2 * max(_shown(axes, name), default=1.0) or 1.0)})


def _logarithmic(axes: Axes) -> None:
    axes.set_yscale("log")
    if values := [value for value in _shown(axes, "y") if value > 0]:
        axes.set_ylim(min(values) / 2, max(values) * 2)
    _plain_ticks(axes.yaxis)


def _shown(axes: Axes, which: str) -> list[float]:
    """The coordinates of all points of series."""
    lines = [line for line in axes.get_lines() if not str(line.get_label()).startswith("_")]
    values = [np.asarray(line.get_xdata() if which == "x" else line.get_ydata(), dtype=float) for line in lines]
    return [float(value) for each in values for value in each[np.isfinite(each)]]


def _plain_ticks(axis: Axis) -> None:
    """Plain numbers at 1, 2 and 5 of each decade of a logarithmic axis: less than a decade has no power of ten to read."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(LogLocator(subs=range(1, 10), numticks=12))
    axis.set_minor_formatter(NullFormatter())


def _axis_of_sizes(axes: Axes, every: Iterable[Series], label: str) -> None:
    """A logarithmic axis with a tick at each size that was measured, and no others."""
    sizes = sorted({float(x) for series in every for x in series.x})
    axes.set_xscale("log", base=2)
    axes.set_xlim(sizes[0] / 1.25, sizes[-1] * 1.25)
    axes.xaxis.set_minor_locator(NullLocator())
    room = np.log2(sizes[-1] / sizes[0] or 1) / 12
    ticks = [size for place, size in enumerate(sizes) if not place or np.log2(size / sizes[place - 1]) >= room]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xlabel(label)


def _named_bars(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)


def _latency_label(percentile: int | None) -> str:
    return "Mean latency (ms)" if percentile is None else f"Latency, {percentile}th percentile (ms)"


def budget_line(axes: Axes, budget_ms: float | None, unit: str = "ms") -> None:
    """Draw the latency budget, in ms or another unit, as a line across axes with the latency upwards; None for no line."""
    if budget_ms is None:
        return
    axes.axhline(budget_ms, **_BUDGET)
    if budget_ms > axes.get_ylim()[1]:
        axes.set_ylim(top=1.15 * budget_ms)
    axes.annotate(f"budget {budget_ms:g} {unit}", (0, budget_ms), xytext=(20, 5), xycoords=("axes fraction", "data"), **_NOTE)


def _unstable(axes: Axes, every: Iterable[Series]) -> None:
    """A word in the legend about open points, where there are some."""
    if any((~series.stable).any() for series in every):
        axes.plot([], [], label="open: not stable", **{**series_style(0), "color": GREY, "linestyle": "", **_OPEN})


def _legend_below(figure: Figure, axes: Axes, every: Sequence[Series]) -> None:
    _unstable(axes, every)
    handles, names = axes.get_legend_handles_labels()
    # Two columns of long names are wider than the figure.
    figure.legend(handles, names, loc="outside lower center", ncols=1 if max(map(len, names)) > 45 else min(3, len(names)))


def _source(axes: Axes, rows: Sequence[Row], right_axes: Axes | None = None) -> None:
    """The heading: measured or recorded, with which tool, on what; recorded rows beside measured ones are for the legend to name."""
    own = [row for row in rows if not is_recorded(row)] or list(rows)
    tools = {f"perf_analyzer {row['perf_analyzer_version']}" for row in own if row.get("perf_analyzer_version")}
    devices = list(dict.fromkeys(hardware(row) for row in own))
    where = devices[0] if len(devices) == 1 else f"{len(devices)} devices"
    heading(axes, "Recorded" if is_recorded(own[0]) else "Measured", tools.pop() if len(tools) == 1 else "", where, right_axes)
