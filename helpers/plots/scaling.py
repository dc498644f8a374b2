"""Figures of several servers: throughput and queue against load, and latency against the number of jobs.

Typical use::

    scale_figure([*one, *two], expected([*one, *two]))
    capacity_figure(plan(traffic, row, budget_ms=50))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.measuring.table import LATENCY_ENDS, THROUGHPUT, rows_of
from helpers.plot_rows import Series, half_widths, series_of
from helpers.plots.performance import batch_axis, budget_line, draw_band, draw_points, source_heading, unstable_mark
from helpers.plots.style import COLOURS, GREY, STYLE, finished, heading, series_style
from helpers.scaling import queueing
from helpers.scaling.capacity import Plan

# Points of a line of the formula, and simulated points on it.
_LINE, _POINTS = 200, 4
# Parts of the limit at which the simulation is shown: beyond, it takes ever longer to settle.
_SIMULATED = (0.3, 0.55, 0.75, 0.9)
# The highest latency shown, as a multiple of the budget: the curves go up without end.
_TOP = 2.5


def scale_figure(rows: Any, expected: Any = ()) -> Figure:
    """Throughput and mean time in the queue against the requests under way, one line for each number of servers.

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
        figure, panels = plt.subplots(1, 2, figsize=(12.5, 5.6), layout="constrained")
        for axes, column in zip(panels, (THROUGHPUT, "queue_us"), strict=True):
            unit = 1.0 if column == THROUGHPUT else 1e-3
            for number, series in enumerate(simulated):
                grey = {"color": GREY, "marker": "", "linestyle": ("--", ":", "-.")[number % 3], "label": f"expected: {series.name}"}
                draw_points(axes, series.x, unit * series.column(column), series, number, **grey)
            for number, series in enumerate(measured):
                draw_points(axes, series.x, unit * series.column(column), series, number)
                if column == THROUGHPUT:
                    draw_band(axes, series.x, series.column(column), half_widths(series, column), series_style(number)["color"])
            axes.set_ylim(0, 1.2 * max(float(np.nanmax(unit * series.column(column))) for series in [*measured, *simulated]) or 1)
            batch_axis(axes, sorted({float(x) for series in measured for x in series.x}), "Requests under way")
            axes.grid(alpha=0.3)
        panels[0].set_ylabel("Throughput (jets/s)")
        panels[1].set_ylabel("Mean time in the queue (ms)")
        unstable_mark(panels[0], measured)
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=min(4, len(names)))
        source_heading(panels[0], found, panels[1])
        return finished(figure)


def _by_servers(rows: Sequence[Any]) -> list[Series]:
    """One series for each number of servers, named by it."""
    made = []
    for servers in sorted({row["servers"] for row in rows}):
        own = [row for row in rows if row["servers"] == servers]
        (series, *more) = series_of(own, "concurrency")
        name = f"{servers} server{'s' * (servers > 1)}"
        made.append(Series(name, series.rows, series.x, series.recorded))
        made += [Series(f"{name}, {other.name}", other.rows, other.x, other.recorded) for other in more]
    return made


def capacity_figure(plan: Plan, *, simulated: bool = True, measured: Any = ()) -> Figure:
    """Latency against the number of jobs, for the number of servers that is needed, one fewer and one more.

    Lines are the formula (M/M/c). Open points are the simulation with requests that all take the same time, with the 95 % interval of
    its percentile; they lie below, because a network takes about as long for each batch.

    Args:
        plan: from :func:`helpers.capacity.plan`.
        simulated: draw the simulation, which takes a second or two.
        measured: rows measured at a request rate on a fleet, with ``servers``, drawn as filled points.
    """
    wanted = [servers for servers in (plan.servers - 1, plan.servers, plan.servers + 1) if servers > 0]
    points = rows_of(measured) if len(measured) else []
    top = max([_TOP * plan.budget_ms, *(1.15 * row["latency_p95_us"] / 1e3 for row in points if row.get("latency_p95_us"))])
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(9, 6.4), layout="constrained")
        for number, servers in enumerate(wanted):
            jobs = np.linspace(0, plan.limit_jobs(servers), _LINE + 1)[1:-1]
            style = {"color": COLOURS[number], "linestyle": series_style(number)["linestyle"]}
            axes.plot(jobs, [plan.latency_p95_ms(servers, one) for one in jobs], label=f"{servers} server{'s' * (servers > 1)}", **style)
            if simulated:
                _draw_simulation(axes, plan, servers, number)
        _draw_measured(axes, plan, points, wanted)
        axes.axvline(plan.traffic.jobs, color=GREY, linewidth=1.4)
        words = {"xycoords": ("data", "axes fraction"), "xytext": (6, 0), "textcoords": "offset points", "fontsize": 13, "color": "#505050"}
        axes.annotate(f"{plan.traffic.jobs:g} jobs", (plan.traffic.jobs, 0.93), **words)
        axes.set(xlim=(0, 1.08 * max(plan.limit_jobs(wanted[-1]), plan.traffic.jobs)), ylim=(0, top))
        budget_line(axes, plan.budget_ms)
        axes.set_xlabel(f"Jobs, each with {plan.traffic.events_per_s:.3g} events/s of {plan.traffic.jets_per_event:g} jets")
        axes.set_ylabel("Latency, 95th percentile (ms)")
        axes.grid(alpha=0.3)
        figure.legend(loc="outside lower center", ncols=3)
        heading(axes, "Expected", "lines: M/M/c, open points: simulated", plan.speed.source)
        return finished(figure)


def _draw_simulation(axes: Axes, plan: Plan, servers: int, number: int) -> None:
    for part in _SIMULATED:
        jobs = part * plan.limit_jobs(servers)
        rate = jobs * plan.traffic.events_per_s
        seen = queueing.simulate(rate, plan.service_s, servers * plan.speed.parallel, service="constant")
        style = {**series_style(number), "linestyle": "", "markerfacecolor": "white", "markeredgewidth": 2}
        axes.errorbar(jobs, 1e3 * (seen.p95_s + plan.service_s), 1e3 * seen.p95_half_width_s, capsize=4, **style)


def _draw_measured(axes: Axes, plan: Plan, rows: Sequence[Any], wanted: Sequence[int]) -> None:
    for row in rows:
        # Rows without such a latency say nothing here.
        if row.get("latency_p95_us") is None:
            continue
        jobs = row["request_rate_per_s"] / plan.traffic.events_per_s
        number = wanted.index(row["servers"]) if row["servers"] in wanted else len(wanted)
        style = {**series_style(number), "linestyle": "", "markersize": 12, "label": f"measured: {row['servers']} servers"}
        ends = [row.get(name) for name in LATENCY_ENDS]
        bars = None if None in ends else [[abs(end - row["latency_p95_us"]) / 1e3] for end in ends]
        axes.errorbar(jobs, row["latency_p95_us"] / 1e3, bars, capsize=4, **style)


__all__ = ["capacity_figure", "scale_figure"]
