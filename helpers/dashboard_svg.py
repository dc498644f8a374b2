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

from helpers import settings
from helpers.dashboard_poller import ModelReading, Reading

# Size of one curve, in CSS pixels.
_WIDTH, _HEIGHT = 96, 30
# A blue that keeps a contrast of 4.5 : 1 on white and on JupyterLab's dark ground.
_INK = "#3b7dd8"
_STYLE = """<style>
.course-dashboard { overflow-x: auto; line-height: 1.25; }
.course-dashboard table { border-collapse: collapse; }
.course-dashboard caption { text-align: left; caption-side: top; }
.course-dashboard th, .course-dashboard td { text-align: right; vertical-align: bottom; padding: 2px 6px; }
.course-dashboard th:first-child { text-align: left; }
.course-dashboard tbody tr { border-top: 1px solid color-mix(in srgb, currentColor 20%, transparent); }
.course-dashboard small { font-weight: normal; font-size: 85%; white-space: nowrap; }
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
    if value >= 99.95 or value.is_integer():
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def scale_end(highest: float) -> float:
    """The smallest of 1, 2, 5, 10, 20, … (or 0.1, 0.2, …) that is not below the highest value; at least 0.1."""
    if highest <= 0.1:
        return 0.1
    step = 10.0 ** math.floor(math.log10(highest))
    return next(factor * step for factor in (1, 2, 5, 10) if factor * step >= highest * 0.999999)


def sparkline(values: Sequence[tuple[float, float | None]], end: float, title: str) -> str:
    """One curve over the last minute.

    Args:
        values: seconds before now (0 to the history's length) and value, oldest first; None leaves a gap.
        end: value at the upper edge; the lower edge is 0.
        title: what a screen reader says.
    """
    pieces: list[list[tuple[float, float]]] = [[]]
    for age, value in values:
        if value is None:
            pieces.append([])
        else:
            x = _WIDTH - 3 - age / settings.DASHBOARD_HISTORY_S * (_WIDTH - 4)
            pieces[-1].append((x, _HEIGHT - 1 - min(value / end, 1) * (_HEIGHT - 4)))
    lines = "".join(_line(piece) for piece in pieces if piece)
    dot = '<circle cx="{:.1f}" cy="{:.1f}" r="2.2" fill="{}" stroke="none"/>'.format(*pieces[-1][-1], _INK) if pieces[-1] else ""
    base = f'<path d="M0 {_HEIGHT - 0.5}H{_WIDTH}" stroke="currentColor" stroke-opacity="0.35"/>'
    return (
        f'<svg role="img" width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}" fill="none" stroke="{_INK}" '
        f'stroke-width="1.5"><title>{html.escape(title)}</title>{base}{lines}{dot}</svg>'
    )


def _line(piece: list[tuple[float, float]]) -> str:
    # A line of one point would not be seen: it gets half a pixel.
    points = piece if len(piece) > 1 else [piece[0], (piece[0][0] + 0.5, piece[0][1])]
    return f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'


def page(history: Sequence[Reading], models: Sequence[str], notes: Sequence[str]) -> str:
    """The whole table: one row for each model, one column for each quantity.

    Args:
        history: the readings of the last minute, oldest first; at least one.
        models: the models to show; those that are not loaded get dashes.
        notes: sentences below the table.
    """
    last = history[-1]
    ends = {quantity.field: scale_end(max(_values(history, models, quantity.field), default=0.0)) for quantity in QUANTITIES}
    head = "".join(
        f'<th scope="col" title="{quantity.says}">{quantity.title}<br><small>{quantity.unit}<br>'
        f"curve to {number(ends[quantity.field])}</small></th>"
        for quantity in QUANTITIES
    )
    rows = "".join(_row(history, model, ends) for model in models)
    clock = time.strftime("%H:%M:%S", time.localtime(last.time))
    caption = f"Last reading {clock}; numbers are means over {settings.DASHBOARD_WINDOW_S:.0f} s, curves show the last minute."
    below = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    return (
        f'{_STYLE}<div class="course-dashboard"><table><caption>{caption}</caption>'
        f'<thead><tr><th scope="col">Model</th>{head}</tr></thead><tbody>{rows}</tbody></table><ul>{below}</ul></div>'
    )


def _row(history: Sequence[Reading], model: str, ends: Mapping[str, float]) -> str:
    now = history[-1].time
    cells = []
    for quantity in QUANTITIES:
        curve = [(now - reading.time, _value(reading, model, quantity.field)) for reading in history]
        value = number(curve[-1][1])
        title = f"{model}: {quantity.title.lower()}, {quantity.unit}: now {value}, on a scale from 0 to {number(ends[quantity.field])}"
        drawn = sparkline(curve, ends[quantity.field], title) if any(known is not None for _, known in curve) else ""
        cells.append(f'<td data-quantity="{quantity.field}"><b>{value}</b>{drawn}</td>')
    return f'<tr data-model="{html.escape(model)}"><th scope="row">{html.escape(model)}</th>{"".join(cells)}</tr>'


def _value(reading: Reading, model: str, field: str) -> float | None:
    one: ModelReading | None = reading.models.get(model)
    return None if one is None else getattr(one, field)


def _values(history: Sequence[Reading], models: Sequence[str], field: str) -> list[float]:
    found = (_value(reading, model, field) for reading in history for model in models)
    return [value for value in found if value is not None]
