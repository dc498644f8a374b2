"""Figures of measurements: throughput, latency and where it goes, warm-up, experiments, precision, several servers.

Typical use::

    rows = sweep(server, ["particlenet_AK4", "particlenet_AK4_PT"], batches=(1, 4, 16, 64))
    plots.sweep_figure(rows, budget_ms=50, reference=recorded("T4", "particlenet_AK4"))
    plots.latency_split_figure(rows)
    plots.throughput_latency_figure(rows, percentile=95, budget_ms=50)
    plots.latency_histogram_figure({"one at a time": times_us})

Each function returns a matplotlib figure: at the end of a cell it shows itself, and ``figure.savefig("name.pdf")`` keeps it. Error bars are
95 % intervals. The same function always draws the same kind of axis, whatever the values are.
"""

from __future__ import annotations

import itertools
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

from helpers.errors import InputError, quoted
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
    "config": "config {}",
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
# What is left of the mean where a row does not tell all parts: a missing one is no zero.
_REST = ("not split", "#e6e6e6", "--")
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
    """Rows that one line joins.

    Attributes:
        name: for the legend.
        rows: in the order of ``x``.
        x: (n,) what the line runs along, such as the batch size.
        recorded: whether somebody else, or another machine, measured them.
    """

    name: str
    rows: tuple[Row, ...]
    x: Floats
    recorded: bool

    def column(self, name: str) -> Floats:
        """Return (n,) the numbers of a column, NaN where a figure is missing."""
        return np.array([np.nan if row.get(name) is None else float(row[name]) for row in self.rows], dtype=float)

    def values(self, column: str) -> tuple[Floats, Floats]:
        """Return (n,) values, throughput in inferences/s and times in ms, and (2, n) how far their intervals reach below and above.

        That is 0 where it is not known; for a latency it is known only for the percentile that was measured for.
        """
        values = self.column(column)
        if column == THROUGHPUT:
            return values, np.nan_to_num(np.stack([self.column(THROUGHPUT_SPREAD)] * 2))
        known = np.array([latency_column(row.get("percentile")) == column for row in self.rows], dtype=bool)
        apart = np.abs([self.column(end) - values for end in LATENCY_ENDS])
        return 1e-3 * values, 1e-3 * np.nan_to_num(np.where(known, apart, np.nan))

    @property
    def stable(self) -> NDArray[np.bool_]:
        """(n,) whether the measurement settled; an unknown one counts as settled."""
        return np.array([row.get("stable") is not False for row in self.rows], dtype=bool)


def series_of(rows: Sequence[Row], along: str, *, always: Sequence[str] = ()) -> list[Series]:
    """Return rows that belong together, in the order of their first appearance.

    Args:
        rows: checked rows.
        along: the column that a line runs along.
        always: what the legend names even where all rows agree.

    Raises:
        InputError: a row has no value there, or two rows of one series have the same.
    """
    table = pd.DataFrame(list(rows), dtype=object).reindex(columns=["model", "source", along, *(set(_APART) - {along})])
    table = table.assign(source=table["source"].fillna(MEASURED), row=list(rows))
    if (lacking := table[along].isna()).any():
        model = table["model"][lacking].iloc[0]
        raise InputError(f"A row of {model!r} has no {along}.", f"This figure runs along {along}, so every row needs one.")
    apart = [name for name in _APART if name not in (along, "config")]
    varying = [name for name in apart if name in always or table[name].nunique(dropna=False) > 1]
    # The short name of a configuration says little: it is there only where nothing else sets two points apart.
    if table.duplicated(["model", "source", along, *varying]).any() and table["config"].nunique(dropna=False) > 1:
        varying.append("config")
    return [_series(group, along, varying) for _, group in table.groupby(["model", "source", *varying], sort=False, dropna=False)]


def _series(group: pd.DataFrame, along: str, varying: Sequence[str]) -> Series:
    group = group.sort_values(along, kind="stable")
    first: Row = group["row"].iloc[0]
    if (twice := group[along].duplicated()).any():
        raise InputError(
            f"Two rows of {first.get('model')!r} have {along} {group[along][twice].iloc[0]:g}, and nothing else sets them apart.",
            "A line has one point there.",
            "Draw them in two figures, or keep the newer row.",
        )
    words = [_APART[name].format(first[name]) for name in varying if first.get(name) not in (None, "")]
    name = ", ".join([str(first.get("model", "?")), *words])
    return Series(name, tuple(group["row"]), group[along].to_numpy(float), is_recorded(first))


# --- throughput and latency ------------------------------------------------------------------------------------------------


def sweep_figure(rows: Any, percentile: int | None = 95, budget_ms: float | None = None, reference: Any = ()) -> Figure:
    """Draw throughput and latency against batch size, and below them the ratio to the first series.

    Open points did not settle. Rows by others are dashed and grey, with their hardware in the legend, wherever they come from: as
    ``reference``, or among ``rows`` beside measured ones. In the ratios, the error of the first series stands on its own points alone.

    Args:
        rows: measured rows, or a sweep. One line for each model, and for each concurrency, protocol … where several are there.
        percentile: of the latency: 50, 90, 95 or 99, or None for the mean. Its interval is drawn where it was measured for this one.
        budget_ms: draw a line at this latency.
        reference: rows from ``recorded(...)``, for comparison.

    Returns:
        Two panels for one series; with more, or a reference, two more with the ratios.

    Raises:
        InputError: no row, no such percentile, rows without batch size or throughput, or two rows for the same point.
    """
    latency = latency_column(percentile)
    found = rows_of(rows, ("batch", THROUGHPUT), "the figure of a sweep")
    given = len(reference) if isinstance(reference, Sequence) else reference is not None
    others = rows_of(reference, ("batch", THROUGHPUT), "the reference") if given else []
    measured = [row for row in found if not is_recorded(row)]
    if measured:
        others = [row for row in found if is_recorded(row)] + others
    main = series_of(measured or found, "batch")
    grey = series_of(others, "batch", always=("variant", "inputs", "concurrency")) if others else []
    styles = [_main_style(number, len(main)) for number in range(len(main))] + [_grey_style(*each) for each in enumerate(grey)]
    with plt.rc_context(STYLE):
        if len(styles) > 1:
            figure, panels = plt.subplots(
                2, 2, figsize=(12, 7.4), sharex=True, height_ratios=(3, 1.15), layout=ConstrainedLayoutEngine(hspace=0.0, h_pad=0.02)
            )
        else:
            figure, panels = plt.subplots(1, 2, figsize=(12, 5.4), squeeze=False, layout="constrained")
        for column, quantity in enumerate((THROUGHPUT, latency)):
            for series, style in zip([*main, *grey], styles, strict=True):
                _draw(panels[0, column], series.x, *series.values(quantity), series, **style)
                if len(panels) > 1:
                    _draw_ratio(panels[1, column], series, main[0], quantity, style)
            if all(np.isnan(series.column(quantity)).all() for series in main):
                panels[0, column].annotate("these rows have none", (0.5, 0.5), xycoords="axes fraction", ha="center")
            for axes in panels[:, column]:
                _logarithmic(axes)
                axes.grid(alpha=0.3)
            _axis_of_sizes(panels[-1, column], [*main, *grey], "Batch size")
            if len(panels) > 1:
                panels[1, column].axhline(1, color="black", linewidth=1, zorder=0)
                panels[1, column].set_ylabel("Ratio to\nthe first", fontsize=14)
        panels[0, 0].set_ylabel(THROUGHPUT_LABEL)
        panels[0, 1].set_ylabel(_latency_label(percentile))
        budget_line(panels[0, 1], budget_ms)
        _legend_below(figure, panels[0, 0], [*main, *grey])
        _source(panels[0, 0], measured or found, panels[0, 1])
        return finished(figure)


def throughput_latency_figure(rows: Any, percentile: int | None = 95, budget_ms: float | None = None) -> Figure:
    """Draw latency against throughput, one point for each concurrency: more at once bring more throughput, until they only wait.

    Args:
        rows: measured or recorded rows, or a sweep; experiments are points of their own, with their names.
        percentile: of the latency: 50, 90, 95 or 99, or None for the mean.
        budget_ms: draw a line at this latency.

    Raises:
        InputError: no row, no such percentile, or rows without throughput, latency or concurrency.
    """
    latency = latency_column(percentile)
    found = rows_of(rows, (THROUGHPUT, latency), "throughput against latency")
    along = "request_rate_per_s" if all(row.get("concurrency") is None for row in found) else "concurrency"
    tries = all(row.get("experiment") for row in found)
    every = [_named(row) for row in found] if tries else series_of(found, along)
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
        axes.set(xlabel=THROUGHPUT_LABEL, ylabel=_latency_label(percentile))
        axes.grid(alpha=0.3)
        _unstable(axes, every)
        numbers = "" if tries else "number: concurrency" if along == "concurrency" else "number: requests/s sent"
        axes.legend(loc="best", frameon=True, framealpha=0.85, edgecolor="none", title=numbers, title_fontsize=13, alignment="left")
        _source(axes, found)
        return finished(figure)


def scale_figure(rows: Any, expected: Any = ()) -> Figure:
    """Draw throughput and mean time in the queue against the requests under way, one line for each number of servers.

    Args:
        rows: from :func:`helpers.scaling.by_concurrency`.
        expected: rows of a simulation, drawn in grey; from :func:`helpers.scaling.expected`.

    Raises:
        InputError: no row, or rows without servers, throughput or queue.
    """
    found = rows_of(rows, ("servers", "concurrency", THROUGHPUT, "queue_us"), "the figure of a fleet")
    measured = _by_servers(found)
    simulated = _by_servers(rows_of(expected)) if len(expected) else []
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
    """One series for each number of servers, named by it."""
    made = []
    for servers in sorted({row["servers"] for row in rows}):
        own = series_of([row for row in rows if row["servers"] == servers], "concurrency")
        name = f"{servers} server{'s' * (servers > 1)}"
        made += [Series(f"{name}, {each.name}" if number else name, each.rows, each.x, each.recorded) for number, each in enumerate(own)]
    return made


def capacity_figure(plan: Plan, *, simulated: bool = True, measured: Any = ()) -> Figure:
    """Draw latency against the number of jobs, for the number of servers that is needed, one fewer and one more.

    Lines are the formula (M/M/c). Open points are the simulation with requests that all take the same time; they lie below, because a
    network takes about as long for each batch.

    Args:
        plan: from :func:`helpers.scaling.plan`.
        simulated: draw the simulation, which takes a second or two.
        measured: rows measured at a request rate on a fleet, with ``servers``, drawn as black points.
    """
    wanted = [servers for servers in (plan.servers - 1, plan.servers, plan.servers + 1) if servers > 0]
    # Rows without such a latency say nothing here.
    points = [row for row in (rows_of(measured) if len(measured) else []) if row.get("latency_p95_us") is not None]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(9, 6.4), layout="constrained")
        for number, servers in enumerate(wanted):
            style = series_style(number)
            jobs = np.linspace(0, plan.limit_jobs(servers), _LINE + 1)[1:-1]
            line = [plan.latency_p95_ms(servers, each) for each in jobs]
            axes.plot(jobs, line, label=f"{servers} server{'s' * (servers > 1)}", **{**style, "marker": ""})
            for some in [part * plan.limit_jobs(servers) for part in _SIMULATED] if simulated else ():
                rate, parallel = some * plan.traffic.events_per_s, servers * plan.speed.parallel
                seen = queueing.simulate(rate, plan.service_s, parallel, service="constant")
                latency_ms, half_ms = 1e3 * (seen.p95_s + plan.service_s), 1e3 * seen.p95_half_width_s
                axes.errorbar(some, latency_ms, half_ms, capsize=4, **{**style, "linestyle": "", **_OPEN})
        for row in points:
            number = wanted.index(row["servers"]) if row["servers"] in wanted else len(wanted)
            style = {**series_style(number), "color": DATA, "linestyle": "", "label": f"measured: {row['servers']} servers"}
            latency, up = series_of([row], "batch")[0].values("latency_p95_us")
            jobs = row["request_rate_per_s"] / plan.traffic.events_per_s
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


def latency_histogram_figure(
    latencies_us: Mapping[str, ArrayLike] | ArrayLike, *, server: tuple[ArrayLike, ArrayLike] | None = None, budget_ms: float | None = None
) -> Figure:
    """Draw how the latencies of single requests are distributed, with their median and 95th percentile.

    Args:
        latencies_us: what the client saw, (n,) in µs; or several such, by their names in the legend.
        server: a histogram of the server itself, drawn below: counts (m,) and edges (m + 1,) in ms, as ``change.histogram(…)`` gives
            them where the server has one.
        budget_ms: draw a line at this latency.

    Raises:
        InputError: nothing to draw, or something that is no list of numbers.
    """
    named = _latencies(latencies_us)
    every = np.concatenate(list(named.values())) / 1e3
    bins = np.geomspace(every.min() / 1.05, every.max() * 1.05, int(np.clip(3 * every.size ** (1 / 3), 8, 40)) + 1)
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(2 if server else 1, 1, figsize=(9, 9 if server else 6), squeeze=False, layout="constrained")
        axes = panels[0, 0]
        for number, (name, values) in enumerate(named.items()):
            style = {key: _main_style(number, len(named))[key] for key in ("color", "linestyle")}
            p50, p95 = np.percentile(values / 1e3, (50, 95))
            label = f"{name}: " * bool(name) + f"median {p50:.3g} ms, p95 {p95:.3g} ms"
            mplhep.histplot(np.histogram(values / 1e3, bins), yerr=True, ax=axes, label=label, flow="none", linewidth=2.2, **style)
            for value, words in ((p50, "median"), (p95, "p95")):
                axes.axvline(value, color=style["color"], linewidth=1.6, linestyle=(0, (2, 2)) if words == "p95" else "-", alpha=0.7)
                at: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "xytext": (4, -6 - 16 * number), "va": "top", **_NOTE}
                axes.annotate(words, (value, 1), bbox=_PAPER, **at)
        axes.set(xscale="log", xlim=(bins[0], bins[-1]), ylim=(0, 1.18 * axes.get_ylim()[1]))
        axes.set(xlabel="Latency seen by the client (ms)", ylabel="Requests per bin")
        _plain_ticks(axes.xaxis)
        if budget_ms is not None:
            axes.axvline(budget_ms, **_BUDGET, label=f"budget {budget_ms:g} ms")
        figure.legend(loc="outside lower center")
        heading(axes, "Measured", f"{every.size} requests")
        if server:
            counts, edges = (np.asarray(each, dtype=float) for each in server)
            # Bins of one width each: the last has no end, and the others are far from equal.
            names = [f"{low:g} to {high:g}" if np.isfinite(high) else f"over {low:g}" for low, high in itertools.pairwise(edges)]
            mplhep.histplot(counts, np.arange(len(counts) + 1), ax=panels[1, 0], yerr=True, histtype="fill", color=COLOURS[0], flow="none")
            panels[1, 0].set_xticks(np.arange(len(counts)) + 0.5, names)
            panels[1, 0].set(xlabel="Time in the server, by its own histogram (ms)", ylabel="Requests per bin")
            panels[1, 0].xaxis.set_minor_locator(NullLocator())
        return finished(figure)


def warm_up_figure(latencies_us: Mapping[str, ArrayLike] | ArrayLike) -> Figure:
    """Draw the latency of request after request, and a thin line where it settles: the median of the second half.

    Args:
        latencies_us: the latencies in µs in order, (n,); or several such, by their names in the legend.

    Raises:
        InputError: nothing to draw, or something that is no list of numbers.
    """
    named = _latencies(latencies_us)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(layout="constrained")
        for number, (name, values) in enumerate(named.items()):
            style = _main_style(number, len(named))
            axes.plot(np.arange(1, len(values) + 1), values / 1e3, label=name or None, markevery=max(1, len(values) // 40), **style)
            if len(values) > 3:
                steady = float(np.median(values[len(values) // 2 :])) / 1e3
                axes.axhline(steady, color=style["color"], linewidth=1, alpha=0.6, zorder=0)
        axes.set(yscale="log", xlabel="Request number", ylabel="Latency (ms)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _plain_ticks(axes.yaxis)
        axes.grid(alpha=0.3, which="both")
        if any(named):
            axes.legend()
        heading(axes, "Measured", "one request after the other")
        return finished(figure)


def _latencies(given: Mapping[str, ArrayLike] | ArrayLike) -> dict[str, Floats]:
    named = given if isinstance(given, Mapping) else {"": given}
    if not named:
        raise InputError("There is not one latency to draw.", "Expected the latencies of requests in order, in µs.")
    made = {}
    for name, values in named.items():
        try:
            numbers = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError):
            numbers = np.empty((0, 0))
        if numbers.ndim != 1 or not numbers.size or not np.all(numbers > 0):
            raise InputError(
                f"The latencies{f' of {name!r}' if name else ''} are no list of positive numbers.",
                "Expected one latency for each request, in the order in which they were sent, in µs.",
            )
        made[str(name)] = numbers
    return made


# --- bars ------------------------------------------------------------------------------------------------------------------


def latency_split_figure(rows: Any, *, share: bool = False) -> Figure:
    """Draw where the time of a request goes: one bar for each row, split into client, network, queue, input, compute and output.

    The parts are means over all requests of a row; percentiles cannot be split.

    Args:
        rows: measured or recorded rows, or a sweep. What a row does not split is a part of its own; a row without any of the parts, or
            with one missing and no mean to tell how much that is, is left out.
        share: make all bars equally long, so that the parts of fast requests are seen beside slow ones; the total is still in ms.

    Raises:
        InputError: no row, or no row with any of the parts.
    """
    table = pd.DataFrame(found := rows_of(rows, what="the split of the latency")).reindex(columns=[*PARTS, "latency_avg_us"]).astype(float)
    whole, some = table[list(PARTS)].notna().all(axis=1), table[list(PARTS)].notna().any(axis=1)
    drawn = whole | (some & table["latency_avg_us"].notna())
    if not drawn.any():
        raise InputError("No row says where its time went.", f"Expected a value in one of: {', '.join(PARTS)}.")
    split, table, whole = [row for row, good in zip(found, drawn, strict=True) if good], table[drawn] / 1e3, whole[drawn]
    parts = [(name, table[list(columns)].sum(axis=1).to_numpy(), colour, hatch) for name, columns, colour, hatch in _PARTS]
    if not whole.all():
        rest = (table["latency_avg_us"] - table[list(PARTS)].sum(axis=1)).clip(lower=0).where(~whole, 0.0)
        parts.append((_REST[0], rest.to_numpy(), *_REST[1:]))
    totals = np.sum([values for _, values, _, _ in parts], axis=0)
    with plt.rc_context(BARS):
        figure, axes = plt.subplots(figsize=(11, 0.75 * len(split) + 2.9), layout="constrained")
        left, scale = np.zeros(len(split)), 100 / totals if share else np.ones(len(split))
        for name, values, colour, hatch in parts:
            width = values * scale
            bars = axes.barh(range(len(split)), width, 0.62, left, label=name, color=colour, hatch=hatch, edgecolor="black", linewidth=0.9)
            labels = [f"{value:.2g}" if value < 10 else f"{value:.0f}" for value in width]
            roomy = [label if value > _ROOM * (totals * scale).max() else "" for label, value in zip(labels, width, strict=True)]
            axes.bar_label(bars, roomy, label_type="center", fontsize=13, bbox=_PAPER)
            left += width
        for position, (end, total) in enumerate(zip(left, totals, strict=True)):
            words = f"{total:.2g} ms" if total < 10 else f"{total:.0f} ms"
            axes.annotate(words, (end, position), xytext=(8, 0), va="center", fontweight="bold", **_NOTE)
        _named_bars(axes, _bar_names(split))
        axes.set_xlabel("Share of the mean time of a request (%)" if share else "Mean time of a request (ms)")
        axes.set_xlim(0, 1.14 * left.max())
        legend = figure.legend(loc="outside lower center", ncols=len(_PARTS) + 1, columnspacing=1.2, handlelength=1.6)
        on_gpu = [row for row in split if not hardware(row).upper().startswith(("CPU", "DEVICE"))]
        if any(str(row.get("model")).endswith("_PT") for row in on_gpu):
            legend.set_title(_LIBTORCH, FontProperties(size=SMALL))
        _source(axes, split)
        return finished(figure)


# The parts of a request's life: name, and between which timestamps; colours and hatches are those of the split of the latency.
_LIFE = (
    ("whole request", "REQUEST_START", "REQUEST_END", _REST[1], ""),
    ("queue", "QUEUE_START", "COMPUTE_START", *_PARTS[2][2:]),
    ("input", "COMPUTE_START", "COMPUTE_INPUT_END", *_PARTS[3][2:]),
    ("compute", "COMPUTE_INPUT_END", "COMPUTE_OUTPUT_START", *_PARTS[4][2:]),
    ("output", "COMPUTE_OUTPUT_START", "COMPUTE_END", *_PARTS[5][2:]),
)


def lives_figure(lives: pd.DataFrame) -> Figure:
    """Draw the life of requests on one axis of time: how long each waited, was computed and was copied, one below the other.

    Stages of an ensemble stand below the request that asked for them.

    Args:
        lives: from :func:`helpers.metrics.lives.trace`, times in ms.

    Raises:
        InputError: no such table, or an empty one.
    """
    if not isinstance(lives, pd.DataFrame) or lives.empty or not {"model", "parent", "REQUEST_END"} <= set(lives):
        raise InputError("There is no request whose life could be drawn.", "Expected what trace(...) returned.")
    first = lives[lives["parent"] == -1]
    order = [row for asked in first.index for row in (asked, *lives.index[lives["parent"] == asked])]
    number = {asked: f"{place}: " if len(first) > 1 else "" for place, asked in enumerate(first.index, 1)}
    lives = lives.loc[order].reindex(columns=["model", "parent", *dict.fromkeys(stamp for _, *ends, _, _ in _LIFE for stamp in ends)])
    names = [number[asked] + model if asked in number else f"{model}    " for asked, model in lives["model"].items()]
    with plt.rc_context(BARS):
        figure, axes = plt.subplots(figsize=(11, min(0.42 * len(lives), 5) + 2.3), layout="constrained")
        for name, begin, end, colour, hatch in _LIFE:
            width, edge = lives[end] - lives[begin], "none" if name == _LIFE[0][0] else "black"
            drawn = width.notna().to_numpy()
            places, left = np.flatnonzero(drawn), lives[begin].to_numpy(float)[drawn]
            style: dict[str, Any] = {"color": colour, "hatch": hatch, "edgecolor": edge, "linewidth": 0.8}
            if drawn.any():
                axes.barh(places, width.to_numpy(float)[drawn], 0.72 if edge == "black" else 0.9, left, label=name, **style)
        _named_bars(axes, names)
        axes.set_xlabel("Time since the first request came (ms)")
        axes.set_xlim(0, 1.02 * lives["REQUEST_END"].max())
        figure.legend(loc="outside lower center", ncols=len(_LIFE), columnspacing=1.2, handlelength=1.6)
        heading(axes, "Measured", "by the server's trace")
        return finished(figure)


def _bar_names(rows: Sequence[Row]) -> list[str]:
    """What sets the bars apart; the batch size always, for it is what people ask first."""
    names = []
    for row in rows:
        model, *others = series_of([row], "batch", always=("variant", "concurrency"))[0].name.split(", ")
        recorded = f"\nrecorded, {hardware(row)}" if is_recorded(row) and not all(map(is_recorded, rows)) else ""
        words = ", ".join([f"batch {row['batch']:g}", *others])
        names.append(f"{model}\n{words}{recorded}")
    return names


def precision_figure(speeds: Any, costs: Sequence[Row]) -> Figure:
    """Draw the throughput of each variant, and beside it by how much the areas under its curves differ from those of the first.

    Args:
        speeds: one measured row for each model, all under the same load; the first is the reference.
        costs: what :func:`helpers.precision.cost` returns for these models.

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
    with plt.rc_context(BARS):
        figure, (left, right) = plt.subplots(1, 2, figsize=(12, 0.8 * len(rows) + 2.6), sharey=True, layout="constrained")
        values, spreads = (np.array([row.get(name) or 0.0 for row in rows]) for name in (THROUGHPUT, THROUGHPUT_SPREAD))
        colours = [GREY, *[COLOURS[0]] * (len(rows) - 1)]
        left.barh(range(len(rows)), values, 0.6, xerr=spreads, color=colours, edgecolor="black", linewidth=0.9, capsize=4)
        for place, (value, spread) in enumerate(zip(values, spreads, strict=True)):
            words = f"{value:.0f}" + (f"  (×{value / values[0]:.2f})" if place else "")
            left.annotate(words, (value + spread, place), xytext=(6, 0), va="center", **_NOTE)
        left.set_xlim(0, 1.35 * (values + spreads).max())
        load = "same load" if rows[0].get("batch") is None else f"batch {rows[0]['batch']:g}"
        left.set_xlabel(f"{THROUGHPUT_LABEL}, {load}")
        _draw_costs(right, models, costs)
        short = [name.removeprefix(f"{models[0]}_") if place else f"{name}\n(32 bits)" for place, name in enumerate(models)]
        _named_bars(left, short)
        handles, names = right.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=len(names))
        _source(left, rows, right)
        return finished(figure)


def _draw_costs(axes: Axes, models: Sequence[str], costs: Sequence[Row]) -> None:
    """Changes of AUCs, in thousandths: they are in the third or fourth digit."""
    discriminants = list(dict.fromkeys(row["discriminant"] for row in costs))
    for number, name in enumerate(discriminants):
        found = [row for row in costs if row["discriminant"] == name and row["model"] in models[1:]]
        shift = 0.22 * (number - (len(discriminants) - 1) / 2)
        x, half = ([1e3 * row[key] for row in found] for key in ("auc_change", "auc_change_half_width"))
        style: dict[str, Any] = {**series_style(number), "linestyle": "", "capsize": 4, "label": name.replace("_", " ")}
        axes.errorbar(x, [models.index(row["model"]) + shift for row in found], xerr=half, **style)
    axes.axvline(0, color="black", linewidth=1, zorder=0)
    axes.annotate("reference", (0, 0), xytext=(-8, 0), ha="right", va="center", **_NOTE)
    axes.margins(x=0.25)
    axes.grid(alpha=0.3, axis="x")
    axes.set_xlabel("Change of AUC × 1000, with 95 % interval")


def experiments_figure(table: Experiments) -> Figure:
    """Draw a table of experiments: gains beside what others recorded, and latencies beside the budget.

    Args:
        table: with at least one experiment.

    Raises:
        InputError: there is none.
    """
    if not len(table):
        raise InputError("There is no experiment to draw.", 'Type: table.measure("baseline")')
    seen = [table.judged(row["experiment"]) for row in table.rows]
    gains = np.array([1.0 if each is None else each.gain for each in seen])
    halves = np.array([0.0 if each is None else each.half_width or 0.0 for each in seen])
    elsewhere = {place: other for place, row in enumerate(table.rows) if (other := table.elsewhere(row["experiment"])) is not None}
    with plt.rc_context(BARS):
        figure, (left, right) = plt.subplots(1, 2, figsize=(12, 0.85 * len(table) + 3.2), sharey=True, layout="constrained")
        colours = [GREY if each is None else COLOURS[0] for each in seen]
        left.barh(range(len(gains)), gains, 0.6, xerr=halves, color=colours, edgecolor="black", linewidth=0.9, capsize=4)
        for place, (value, half) in enumerate(zip(gains, halves, strict=True)):
            left.annotate(f"×{value:.2f}", (value + half, place), xytext=(9, -11), va="center", **_NOTE)
        if elsewhere:
            left.plot(
                [other.gain for other in elsewhere.values()],
                list(elsewhere),
                **{**series_style(3), "color": COLOURS[2], "linestyle": "", "markersize": 11, "markeredgecolor": "white"},
                label="recorded elsewhere, over what it was there before the change",
            )
        left.axvline(1, color="black", linewidth=1)
        left.set_xlim(0, 1.2 * max([*(gains + halves), *(other.gain for other in elsewhere.values())]))
        left.set_xlabel("Throughput over that of what was changed")
        each_one = [series_of([row], "batch")[0].values("latency_p95_us") for row in table.rows]
        latencies, ends = (np.concatenate(each, axis=-1) for each in zip(*each_one, strict=True))
        right.barh(range(len(table)), latencies, 0.6, xerr=ends, color="white", edgecolor="black", hatch="//", capsize=4)
        right.set_xlim(0, 1.15 * np.nanmax(np.append(latencies + ends[1], table.budget_ms or 0)))
        right.set_xlabel(_latency_label(95))
        _named_bars(left, [_experiment_name(table, row) for row in table.rows])
        if table.budget_ms:
            right.axvline(table.budget_ms, **_BUDGET)
            right.annotate(f"budget {table.budget_ms:g} ms", (table.budget_ms, len(table) - 0.45), xytext=(5, 4), **_NOTE)
        legend = figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=1, fontsize=SMALL)
        sources = [textwrap.fill(f"{table.rows[place]['experiment']}: {other}", 120) for place, other in elsewhere.items()]
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
    style = {"label": series.name, **style}
    label = style.pop("label")
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
        common = Series(series.name, tuple(series.rows[place] for place in here), series.x[here], series.recorded)
        _draw(axes, common.x, over[here] / under, up[:, here] / under, common, **{**style, "markersize": 6})


def _named(row: Row) -> Series:
    """An experiment as a series of one point."""
    return Series(str(row["experiment"]), (row,), np.zeros(1), is_recorded(row))


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
    lines = [
        line.get_xdata() if which == "x" else line.get_ydata() for line in axes.get_lines() if not str(line.get_label()).startswith("_")
    ]
    return [float(value) for line in lines for value in np.asarray(line, dtype=float) if np.isfinite(value)]


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
    """Draw the latency budget, as a line across.

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
