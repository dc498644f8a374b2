"""What the dashboard looks like: a table of numbers, each with the curve of its last minute beside it, as HTML with inline SVG.

Every number stands there as text; the curves need no colour to be read, take the page's own text colour, and have titles for
screen readers.
"""

from __future__ import annotations

import html
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from helpers.dashboard_poller import DASHBOARD_HISTORY_S, DASHBOARD_WINDOW_S, Reading

# Size of one curve, in CSS pixels, and units of its drawing in one pixel: whole numbers make short text, made fast.
_WIDTH, _HEIGHT, _UNITS = 76, 30, 10
# Left, right, upper and lower end of the curve in it, in these units: the dot at its end must fit in.
_LEFT, _RIGHT, _TOP, _BOTTOM = 10, 730, 30, 280
# A blue that keeps a contrast of 4.5 : 1 on white and on JupyterLab's dark ground.
_INK = "#3b7dd8"
_STYLE = """<style>
.course-dashboard { overflow-x: auto; line-height: 1.25; }
.course-dashboard table { border-collapse: collapse; }
.course-dashboard caption { text-align: left; caption-side: top; }
.course-dashboard th, .course-dashboard td { text-align: right; vertical-align: top; padding: 2px 4px; }
.course-dashboard thead th { vertical-align: bottom; }
.course-dashboard th:first-child { text-align: left; }
.course-dashboard tbody th { padding-top: 5px; }
.course-dashboard tbody tr { border-top: 1px solid color-mix(in srgb, currentColor 20%, transparent); }
.course-dashboard small { font-weight: normal; font-size: 80%; white-space: nowrap; }
.course-dashboard b { display: block; font-weight: normal; font-size: 135%; font-variant-numeric: tabular-nums; }
.course-dashboard ul { margin: 4px 0; padding-left: 1.2em; }
</style>"""


@dataclass(frozen=True)
class Quantity:
    """One column.

    Attributes:
        field: of :class:`~helpers.dashboard_poller.ModelReading`.
        title: above the column.
        unit: below the title.
        says: what it means, for those who point at it.
    """

    field: str
    title: str
    unit: str
    says: str


QUANTITIES = (
    Quantity("requests_per_s", "Requests", "per s", "Requests answered, each with one or more inferences"),
    Quantity("inferences_per_s", "Inferences", "per s", "Inferences made; answers from the response cache need none"),
    Quantity("batch", "Mean batch", "per execution", "How many inferences the model made at once"),
    Quantity("queue_ms", "Queue", "ms a request", "Mean time that a request waited for the model"),
    Quantity("compute_ms", "Compute", "ms a request", "Mean time of a request in the model, with its inputs and outputs"),
    Quantity("pending", "Pending", "requests", "Requests that wait at this moment"),
    Quantity("cpu_cores", "CPU", "cores", "CPU time per time of the processes of this model"),
    Quantity("memory_mb", "Memory", "MB", "RAM of the processes of this model"),
)


def number(value: float | None) -> str:
    """A value with three digits, as text of at most five characters; a dash for None."""
    if value is None:
        return "–"
    if value >= 99.95 or value == int(value):
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def scale_end(highest: float) -> float:
    """The smallest of 1, 2, 5, 10, 20, … (or 0.1, 0.2, …) that is not below the highest value; at least 0.1."""
    if highest <= 0.1:
        return 0.1
    step = 10.0 ** math.floor(math.log10(highest))
    return next(factor * step for factor in (1, 2, 5, 10) if factor * step >= highest * 0.999999)


def sparkline(places: Sequence[int], values: Sequence[float | None], end: float, title: str) -> str:
    """One curve over the last minute.

    Args:
        places: where on the time axis the values are, from :func:`time_axis`.
        values: oldest first; None leaves a gap.
        end: value at the upper edge, which larger ones do not pass; the lower edge is 0.
        title: what a screen reader says.
    """
    pieces: list[list[str]] = [[]]
    for place, value in zip(places, values, strict=True):
        if value is None:
            if pieces[-1]:
                pieces.append([])
        else:
            pieces[-1].append(f"{place},{_BOTTOM - int((value if value < end else end) / end * (_BOTTOM - _TOP))}")
    # A piece of one point would not be seen: with round ends, a line from it to itself is a dot.
    lines = "".join(f'<polyline points="{" ".join(piece if len(piece) > 1 else piece * 2)}"/>' for piece in pieces if piece)
    dot = '<circle cx="{}" cy="{}" r="22" fill="{}" stroke="none"/>'.format(*pieces[-1][-1].split(","), _INK) if pieces[-1] else ""
    wide, high = _WIDTH * _UNITS, _HEIGHT * _UNITS
    base = f'<path d="M0 {high - 5}H{wide}" stroke="currentColor" stroke-opacity="0.35" stroke-width="10"/>'
    return (
        f'<svg role="img" width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {wide} {high}" fill="none" stroke="{_INK}" stroke-width="15" '
        f'stroke-linecap="round"><title>{html.escape(title)}</title>{base}{lines}{dot}</svg>'
    )


def time_axis(history: Sequence[Reading]) -> list[int]:
    """Where on the curve each reading is: the last at the right end, one that is a minute older at the left end."""
    times = [reading.time if reading.steady_s is None else reading.steady_s for reading in history]
    return [_RIGHT - int((times[-1] - time_) / DASHBOARD_HISTORY_S * (_RIGHT - _LEFT)) for time_ in times]


def page(history: Sequence[Reading], models: Sequence[str], notes: Sequence[str]) -> str:
    """The whole table: one row for each model, one column for each quantity.

    Args:
        history: the readings of the last minute, oldest first; at least one.
        models: the models to show; those that are not loaded get dashes.
        notes: sentences below the table.
    """
    curves = {
        (model, quantity.field): [getattr(reading.models.get(model), quantity.field, None) for reading in history]
        for model in models
        for quantity in QUANTITIES
    }
    ends = {}
    for quantity in QUANTITIES:
        known = (value for model in models for value in curves[model, quantity.field] if value is not None)
        ends[quantity.field] = scale_end(max(known, default=0.0))
    head = "".join(
        f'<th scope="col" title="{quantity.says}">{quantity.title}<br><small>{quantity.unit}<br>'
        f"curve to {number(ends[quantity.field])}</small></th>"
        for quantity in QUANTITIES
    )
    places = time_axis(history)
    rows = "".join(_row(model, places, curves, ends) for model in models)
    clock = time.strftime("%H:%M:%S", time.localtime(history[-1].time))
    caption = f"Last reading {clock}; numbers are means over {DASHBOARD_WINDOW_S:.0f} s, curves show the last minute."
    below = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    return (
        f'{_STYLE}<div class="course-dashboard"><table><caption>{caption}</caption>'
        f'<thead><tr><th scope="col">Model</th>{head}</tr></thead><tbody>{rows}</tbody></table><ul>{below}</ul></div>'
    )


def _row(model: str, places: Sequence[int], curves: Mapping[tuple[str, str], Sequence[float | None]], ends: Mapping[str, float]) -> str:
    cells = []
    for quantity in QUANTITIES:
        values, end = curves[model, quantity.field], ends[quantity.field]
        now = number(values[-1])
        title = f"{model}: {quantity.title.lower()}, {quantity.unit}: now {now}, on a scale from 0 to {number(end)}"
        drawn = "" if all(value is None for value in values) else sparkline(places, values, end, title)
        cells.append(f'<td data-quantity="{quantity.field}"><b>{now}</b>{drawn}</td>')
    return f'<tr data-model="{html.escape(model)}"><th scope="row">{html.escape(model)}</th>{"".join(cells)}</tr>'
