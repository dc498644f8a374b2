"""Figures of measurements: throughput, latency and where it goes, single requests, several servers.

At the end of a cell a figure shows itself, and ``figure.savefig("name.pdf")`` keeps it. Error bars are 95 % intervals, and a function
always draws the same kind of axis, whatever the values are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from helpers.errors import InputError
from helpers.measuring.table import COLUMNS, LATENCY, LATENCY_ENDS, PARTS, THROUGHPUT, THROUGHPUT_SPREAD, hardware, is_recorded, rows_of
from helpers.plots.style import BARS, BELOW, EDGE, GREY, NOTE, STYLE, decades, drawing, heading, named_bars, series_style
from helpers.scaling import queueing
from helpers.scaling.capacity import Plan
from helpers.tables import Row

Floats = NDArray[np.float64]

THROUGHPUT_LABEL, LATENCY_LABEL = "Throughput (inferences/s)", "Latency, 95th percentile (ms)"
# What can set two series of a figure apart beside the model.
_APART = ("variant", "servers", "batch", "concurrency", "request_rate_per_s", "instances", "protocol", "inputs", "device")
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
_GRID = {**STYLE, "axes.grid": True, "grid.alpha": 0.3}
_BUDGET: dict[str, Any] = {"color": "black", "linewidth": 1.4, "linestyle": (0, (6, 3)), "gid": "budget"}
_OPEN: dict[str, Any] = {"linestyle": "", "markerfacecolor": "white", "markeredgewidth": 2}
_PAPER: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.85}
# Parts of the limit at which a simulation is shown (beyond, it takes ever longer to settle), and the highest latency shown, as a multiple
# of the budget: the curves go up without end.
_SIMULATED, _TOP = (0.3, 0.55, 0.75, 0.9), 2.5


# --- series ----------------------------------------------------------------------------------------------------------------

# What one line joins: its name in the legend, and its rows, with every column of a measurement, in the order of what it runs along.
Series = tuple[str, pd.DataFrame]


def series_of(rows: Sequence[Row], along: str, always: Sequence[str] = ()) -> list[Series]:
    """Return rows that belong together in lines along a column; ``always`` is in the legend even where all rows agree."""
    table = _table(rows)
    if table[along].isna().any():
        raise InputError(f"A row has no {along}.", f"This figure runs along {along}, so every row needs one.")
    varying = [name for name in _APART if name != along and (name in always or table[name].nunique(dropna=False) > 1)]
    every = []
    for _, group in table.groupby(["model", "source", *varying], sort=False, dropna=False):
        name = ", ".join([str(group["model"].iloc[0]), *_words(group.iloc[0], varying)])
        every.append((name, group.sort_values(along, kind="stable")))
    return every


def _table(rows: Sequence[Row]) -> pd.DataFrame:
    table = pd.DataFrame(list(rows), dtype=object)
    return table.reindex(columns=list(dict.fromkeys([*table, *COLUMNS, *_APART])))


def _words(row: Any, names: Iterable[str]) -> list[str]:
    return [f"{name.replace('_', ' ')} {row[name]}" for name in names if pd.notna(row[name]) and row[name] != ""]


def _values(table: pd.DataFrame, column: str) -> tuple[Floats, Floats]:
    """Return (n,) throughput in inferences/s or times in ms, and (2, n) how far their intervals reach below and above, 0 if unknown."""
    values = table[column].to_numpy(float)
    if column == THROUGHPUT:
        return values, np.nan_to_num(np.stack([table[THROUGHPUT_SPREAD].to_numpy(float)] * 2))
    # The interval is that of the 95th percentile.
    apart = np.abs(table[list(LATENCY_ENDS)].to_numpy(float).T - values)
    return 1e-3 * values, 1e-3 * np.nan_to_num(apart) * (column == LATENCY)


def _styled(every: Sequence[Series]) -> list[tuple[Series, dict[str, Any]]]:
    """Measured series with their styles: black where one is alone."""
    alone = {"color": "black"} if len(every) == 1 else {}
    return [(series, {**series_style(number), **alone, "label": series[0]}) for number, series in enumerate(every)]


def _grey(every: Sequence[Series]) -> list[tuple[Series, dict[str, Any]]]:
    """Series by others with their styles, and their hardware in the legend."""
    made = []
    for number, (name, table) in enumerate(every):
        where = hardware(table.iloc[0].dropna())
        label = f"recorded: {name}" + ("" if where in name else f", {where}")
        shade = (GREY, "#a0a0a0", "#505050")[number % 3]
        made.append(((name, table), {**series_style(number), "color": shade, "linestyle": "--", "markersize": 7, "label": label}))
    return made


def _draw(axes: Axes, x: Any, y: Floats, up: Floats, stable: Any, across: Floats | None = None, **style: Any) -> None:
    """Points that a line joins, with (2, n) error bars; points that did not settle are open. What all figures of series share."""
    seen = np.isfinite(y)
    x, y, up, unsettled = np.asarray(x, float)[seen], y[seen], up[:, seen], np.equal(stable, False)[seen].astype(bool)
    label = style.pop("label")
    axes.plot(x, y, label=label if seen.any() else None, markevery=np.flatnonzero(~unsettled).tolist(), **style)
    # A bar that reaches below zero has no end on a logarithmic axis.
    up = np.stack([np.minimum(up[0], 0.99 * y), up[1]])
    bars: dict[str, Any] = {"fmt": "none", "ecolor": style["color"], "elinewidth": 1.6, "capsize": 4}
    if up.any() or across is not None:
        axes.errorbar(x, y, up, None if across is None else across[:, seen], **bars)
    if unsettled.any():
        axes.plot(x[unsettled], y[unsettled], **{**style, **_OPEN}, gid="unstable")


# --- throughput and latency ------------------------------------------------------------------------------------------------


def sweep_figure(rows: Any, budget_ms: float | None = None, reference: Any = ()) -> Figure:
    """Draw throughput and the latency's 95th percentile against batch size, and below them the ratio to the first series.

    There is a line for each model, and for each concurrency, protocol … where several are there. Open points did not settle. Rows by others
    are dashed and grey, with their hardware in the legend; ``reference`` adds such rows, from ``recorded(...)``. In the ratios, the error
    of the first series stands on its own points alone.
    """
    found = rows_of(rows, ("batch", THROUGHPUT), "the figure of a sweep")
    found += rows_of(reference, ("batch", THROUGHPUT), "the reference") if len(reference) else []
    measured, others = ([row for row in found if is_recorded(row) is whose] for whose in (False, True))
    styled = _styled(series_of(measured, "batch")) + _grey(series_of(others, "batch", always=("variant", "inputs", "concurrency")))
    first = styled[0][0][1]
    ratios = len(styled) > 1  # in panels of their own, below
    shape: dict[str, Any] = {"figsize": (12, 7.4 if ratios else 5.4), "height_ratios": (3, 1.15)[: 1 + ratios]}
    with drawing(1 + ratios, 2, _GRID, sharex=True, squeeze=False, **shape) as (figure, panels):
        for column, quantity in enumerate((THROUGHPUT, "latency_p95_us")):
            for (_, table), style in styled:
                _draw(panels[0, column], table["batch"], *_values(table, quantity), table["stable"], **style)
            for (_, table), style in styled * ratios:
                # At the sizes that both have, each with its own error: that of the first stands on the first alone.
                _, here, there = np.intersect1d(table["batch"], first["batch"], return_indices=True)
                both, under = table.iloc[here], _values(first.iloc[there], quantity)[0]
                over, up = _values(both, quantity)
                _draw(panels[1, column], both["batch"], over / under, up / under, both["stable"], **{**style, "markersize": 6})
                panels[1, column].axhline(1, color="black", linewidth=1, zorder=0)
                panels[1, column].set_ylabel("Ratio to\nthe first", fontsize=14)
            for axes in panels[:, column]:
                _logarithmic(axes)
            _axis_of_sizes(panels[-1, column], [row["batch"] for row in found], "Batch size")
        panels[0, 0].set_ylabel(THROUGHPUT_LABEL)
        panels[0, 1].set_ylabel(LATENCY_LABEL)
        budget_line(panels[0, 1], budget_ms)
        _legend_below(figure, panels[0, 0])
        _source(panels[0, 0], measured or others, panels[0, 1])
        return figure


def throughput_latency_figure(rows: Any, budget_ms: float | None = None) -> Figure:
    """Draw the 95th percentile of the latency against throughput, one point for each concurrency, or for each experiment with its name."""
    found = rows_of(rows, (THROUGHPUT, "latency_p95_us"), "throughput against latency")
    tries = all(row.get("experiment") for row in found)
    every = [(row["experiment"], _table([row])) for row in found] if tries else series_of(found, "concurrency")
    with drawing(style=_GRID, figsize=(9, 6.6)) as (figure, axes):
        for (_, table), style in _styled(every):
            (x, across), (y, up) = _values(table, THROUGHPUT), _values(table, "latency_p95_us")
            _draw(axes, x, y, up, table["stable"], across, **style)
            for concurrency, place in zip(table["concurrency"], zip(x, y, strict=True), strict=True):
                if not tries and np.isfinite(place).all():
                    axes.annotate(f"{concurrency:g}", place, xytext=(8, 8), fontweight="bold", bbox=_PAPER, **NOTE)
        axes.margins(x=0.08, y=0.12)  # room for the numbers beside the last points
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        budget_line(axes, budget_ms)
        axes.set(xlabel=THROUGHPUT_LABEL, ylabel=LATENCY_LABEL)
        _explain_open(axes)
        axes.legend(loc="best", frameon=True, framealpha=0.85, edgecolor="none", title="" if tries else "number: concurrency")
        _source(axes, found)
        return figure


def scale_figure(rows: Any, expected: Any = ()) -> Figure:
    """Draw throughput and mean time in the queue against the requests under way, one line for each number of servers.

    The rows are from :func:`helpers.scaling.by_concurrency`; those of a simulation, from ``expected``, are grey.
    """
    found = rows_of(rows, ("servers", "concurrency", THROUGHPUT, "queue_us"), "the figure of a fleet")
    simulated = series_of(rows_of(expected), "concurrency", always=("servers",)) if len(expected) else []
    with drawing(1, 2, _GRID, figsize=(12, 5.6)) as (figure, panels):
        for axes, column in zip(panels, (THROUGHPUT, "queue_us"), strict=True):
            for (name, table), line in zip(simulated, ("--", ":", "-.") * len(simulated), strict=False):
                axes.plot(table["concurrency"], _values(table, column)[0], color=GREY, linestyle=line, label=f"expected: {name}")
            for (_, table), style in _styled(series_of(found, "concurrency", always=("servers",))):
                _draw(axes, table["concurrency"], *_values(table, column), table["stable"], **style)
            axes.set_ylim(bottom=0)
            _axis_of_sizes(axes, [row["concurrency"] for row in found], "Requests under way")
        panels[0].set_ylabel(THROUGHPUT_LABEL)
        panels[1].set_ylabel("Mean time in the queue (ms)")
        _legend_below(figure, panels[0])
        _source(panels[0], found, panels[1])
        return figure


def capacity_figure(plan: Plan, measured: Any = ()) -> Figure:
    """Draw latency against the number of jobs, for the number of servers that is needed, one fewer and one more.

    Lines are the formula (M/M/c). Open points are the simulation with requests that all take the same time; they lie below, because a
    network takes about as long for each batch. Black stars are rows measured at a request rate on a fleet.
    """
    wanted = [servers for servers in (plan.servers - 1, plan.servers, plan.servers + 1) if servers > 0]
    points = rows_of(measured, ("latency_p95_us", "request_rate_per_s"), "the figure of a plan") if len(measured) else []
    with drawing(style=_GRID, figsize=(9, 6.4)) as (figure, axes):
        for number, servers in enumerate(wanted):
            style, limit = series_style(number), plan.limit_jobs(servers)
            jobs, some = np.linspace(0, limit, 201)[1:-1], np.multiply(_SIMULATED, limit)
            axes.plot(jobs, [plan.latency_p95_ms(servers, each) for each in jobs], **{**style, "marker": ""}, label=f"servers: {servers}")
            seen = [queueing.simulate(each * plan.traffic.events_per_s, plan.service_s, servers * plan.parallel) for each in some]
            axes.plot(some, [1e3 * (each.p95_s + plan.service_s) for each in seen], **{**style, **_OPEN})
        if points:
            table = _table(points)
            sent = table["request_rate_per_s"].to_numpy(float) / plan.traffic.events_per_s
            style = {"color": "black", "linestyle": "", "marker": "*", "markersize": 14, "capsize": 4, "zorder": 5}
            style["label"] = f"measured, servers: {', '.join(map(str, table['servers']))}"
            axes.errorbar(sent, *_values(table, "latency_p95_us"), **style)
        axes.axvline(plan.traffic.jobs, color=GREY, linewidth=1.4)
        axes.annotate(f"{plan.traffic.jobs:g} jobs", (plan.traffic.jobs, 0.93), xycoords=("data", "axes fraction"), xytext=(6, 0), **NOTE)
        top = max([_TOP * plan.budget_ms, *(1.15 * row["latency_p95_us"] / 1e3 for row in points)])
        axes.set(xlim=(0, 1.08 * max(plan.limit_jobs(wanted[-1]), plan.traffic.jobs)), ylim=(0, top))
        budget_line(axes, plan.budget_ms)
        axes.set_xlabel(f"Jobs, each with {plan.traffic.events_per_s:.3g} events/s of {plan.traffic.jets_per_event:g} jets")
        axes.set_ylabel(LATENCY_LABEL)
        figure.legend(ncols=3, **BELOW)
        heading(axes, "Expected", "lines: M/M/c, open: simulated", plan.source)
        return figure


def latency_split_figure(rows: Any, *, share: bool = False) -> Figure:
    """Draw where the time of a request goes: one bar for each row, split into client, network, queue, input, compute and output.

    The parts are means over all requests of a row; percentiles cannot be split. Rows that do not tell all parts are left out. With
    ``share`` all bars are equally long, so that the parts of fast requests are seen beside slow ones; the total is still in ms.
    """
    split = [row for row in rows_of(rows, PARTS, "the split of the latency") if None not in map(row.get, PARTS)]
    table = _table(split)
    totals = table[list(PARTS)].to_numpy(float).sum(axis=1) / 1e3
    unit, ends = (totals / 100 if share else np.ones(len(split))), np.zeros(len(split))
    with drawing(style=BARS, figsize=(11, 0.75 * len(split) + 2.9)) as (figure, axes):
        for name, columns, colour, hatch in _PARTS:
            widths = table[list(columns)].to_numpy(float).sum(axis=1) / 1e3 / unit
            axes.barh(range(len(split)), widths, 0.62, ends, label=name, color=colour, hatch=hatch, **EDGE)
            ends = ends + widths
        for position, (end, total) in enumerate(zip(ends, totals, strict=True)):
            axes.annotate(f"{total:.3g} ms", (end, position), xytext=(8, 0), va="center", fontweight="bold", **NOTE)
        named_bars(axes, [f"{row['model']}\n{', '.join(_words(row, ('batch', 'variant', 'concurrency')))}" for _, row in table.iterrows()])
        axes.set(xlabel="Share of the mean time of a request (%)" if share else "Mean time of a request (ms)", xlim=(0, 1.14 * ends.max()))
        figure.legend(ncols=len(_PARTS), **BELOW)
        _source(axes, split)
        return figure


def lives_figure(lives: pd.DataFrame) -> Figure:
    """Draw the life of requests, from ``trace``, one below the other: how long each waited, was computed and was copied.

    Stages of an ensemble stand below the request that asked for them.
    """
    first = lives[lives["parent"] == -1]
    order = [row for asked in first.index for row in (asked, *lives.index[lives["parent"] == asked])]
    number = {asked: f"{place}: " if len(first) > 1 else "" for place, asked in enumerate(first.index, 1)}
    lives = lives.loc[order].reindex(columns=["model", "parent", *dict.fromkeys(stamp for _, *ends, _, _ in _LIFE for stamp in ends)])
    with drawing(style=BARS, figsize=(11, min(0.42 * len(lives), 5) + 2.3)) as (figure, axes):
        for name, begin, end, colour, hatch in _LIFE:
            width = lives[end] - lives[begin]
            places = np.flatnonzero(width.notna())
            style: dict[str, Any] = {"height": 0.9, "edgecolor": "none"} if begin == "REQUEST_START" else {"height": 0.72, **EDGE}
            if places.size:
                left = lives[begin].iloc[places]
                axes.barh(places, width.iloc[places], left=left, label=name, color=colour, hatch=hatch, **style)
        named_bars(axes, [number[asked] + model if asked in number else f"{model}    " for asked, model in lives["model"].items()])
        axes.set(xlabel="Time since the first request came (ms)", xlim=(0, 1.02 * lives["REQUEST_END"].max()))
        figure.legend(ncols=len(_LIFE), **BELOW)
        heading(axes, "Measured", "by the server's trace")
        return figure


# --- axes and words -------------------------------------------------------------------------------------------------------


def _explain_open(axes: Axes) -> None:
    """A word in the legend about open points, where there are some."""
    if any(line.get_gid() == "unstable" for line in axes.get_lines()):
        axes.plot([], [], label="open: not stable", **{**series_style(0), "color": GREY, **_OPEN})


def _logarithmic(axes: Axes) -> None:
    """A logarithmic axis that shows all points of series; very long error bars must not press these together."""
    lines = [np.asarray(line.get_ydata(), dtype=float) for line in axes.get_lines() if not str(line.get_label()).startswith("_")]
    axes.set_yscale("log")
    if values := [value for line in lines for value in line if value > 0]:
        axes.set_ylim(min(values) / 2, max(values) * 2)
    decades(axes.yaxis)


def _axis_of_sizes(axes: Axes, sizes: Iterable[float], label: str) -> None:
    """A logarithmic axis with a tick at each size that was measured, and no others."""
    ticks = sorted(set(sizes))
    axes.set_xscale("log", base=2)
    axes.set_xlim(ticks[0] / 1.25, ticks[-1] * 1.25)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlabel(label)


def budget_line(axes: Axes, budget_ms: float | None) -> None:
    """Draw the latency budget as a line across axes with the latency, in ms, upwards; None for no line."""
    if budget_ms is None:
        return
    axes.axhline(budget_ms, **_BUDGET)
    if budget_ms > axes.get_ylim()[1]:
        axes.set_ylim(top=1.15 * budget_ms)
    axes.annotate(f"budget {budget_ms:g} ms", (0, budget_ms), xytext=(20, 5), xycoords=("axes fraction", "data"), **NOTE)


def _legend_below(figure: Figure, axes: Axes) -> None:
    _explain_open(axes)
    handles, names = axes.get_legend_handles_labels()
    # Two columns of long names are wider than the figure.
    figure.legend(handles, names, ncols=1 if max(map(len, names)) > 45 else min(3, len(names)), **BELOW)


def _source(axes: Axes, rows: Sequence[Row], right_axes: Axes | None = None) -> None:
    """The heading: measured or recorded, with which tool, on what."""
    tools = {f"perf_analyzer {row['perf_analyzer_version']}" for row in rows if row.get("perf_analyzer_version")}
    devices = {hardware(row) for row in rows}
    where = devices.pop() if len(devices) == 1 else f"{len(devices)} devices"
    heading(axes, "Recorded" if is_recorded(rows[0]) else "Measured", tools.pop() if len(tools) == 1 else "", where, right_axes)
