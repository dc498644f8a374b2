"""A live view of a server inside a notebook: what it does for each model, twice a second, while other cells run.

One dashboard for each server: running the cell again replaces the one before. It stops with the server.
"""

from __future__ import annotations

import html
import threading
import time
from collections import deque
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import ipywidgets as widgets

from helpers.errors import CourseError
from helpers.metrics.load import BackgroundLoad
from helpers.metrics.metrics import Snapshot, scrape
from helpers.server.server import Server
from helpers.tables import cell

# Seconds between two updates (twice a second looks live and costs little), that the curves show, and over which rates are means (with
# less, slow models would jump between nothing and too much).
INTERVAL_S, HISTORY_S, WINDOW_S = 0.5, 60.0, 2.0
# Ends of the two sliders. A model may allow more; on a CPU one such request takes a second or so.
_MAX_BATCH, _MAX_CONCURRENCY = 64, 16

# Each column: of a row of `Difference.requests`, what turns its number into the unit, title, unit, and what it means, shown where the
# mouse points at it. All but the last are of the last two seconds.
QUANTITIES = (
    ("requests_per_s", 1, "Requests", "per s", "Requests answered, each with one or more inferences"),
    ("throughput_infer_per_s", 1, "Inferences", "per s", "Inferences made; answers from the response cache need none"),
    ("inferences_per_execution", 1, "Mean batch", "per execution", "How many inferences the model made at once"),
    ("queue_us", 1e-3, "Queue", "ms a request", "Mean time that a request waited for the model"),
    ("compute_us", 1e-3, "Compute", "ms a request", "Mean time of a request in the model, with its inputs and outputs"),
    ("pending", 1, "Pending", "requests", "Requests that wait at this moment"),
)
# One update: when, by a clock that nobody sets, and the row of each loaded model.
Reading = tuple[float, dict[str, dict[str, Any]]]

# Size of one curve in CSS pixels.
_WIDTH, _HEIGHT = 76, 30
_STYLE = """<style>
.course-dashboard { overflow-x: auto; line-height: 1.25; }
.course-dashboard table { border-collapse: collapse; }
.course-dashboard caption { text-align: left; caption-side: top; }
.course-dashboard th, .course-dashboard td { text-align: right; vertical-align: top; padding: 2px 4px; }
.course-dashboard th:first-child { text-align: left; overflow-wrap: anywhere; min-width: 6em; }
.course-dashboard small { font-weight: normal; font-size: 12px; white-space: nowrap; }
.course-dashboard b { display: block; font-weight: normal; font-size: 135%; font-variant-numeric: tabular-nums; }
.course-dashboard path { fill: none; stroke: #3b7dd8; stroke-width: 1.5; stroke-linecap: round; }
</style>"""


def sparkline(places: Sequence[float], values: Sequence[float | None], end: float, title: str) -> str:
    """Return one curve as SVG: values on a scale from 0 to ``end``, at places from 0 to 1; None leaves a gap.

    ``title`` is what a screen reader says.
    """
    drawn, pen = "", "M"
    for place, value in zip(places, values, strict=True):
        if value is not None:
            # Of a line that begins, a piece without length is a dot: it would not be seen else where it is alone.
            x, y = 2 + place * (_WIDTH - 4), _HEIGHT - 2 - value / end * (_HEIGHT - 4)
            drawn += f"{pen}{x:.1f} {y:.1f}" + ("h0" if pen == "M" else "")
        pen = "M" if value is None else "L"
    return f'<svg role="img" width="{_WIDTH}" height="{_HEIGHT}"><title>{html.escape(title)}</title><path d="{drawn}"/></svg>'


def page(history: Sequence[Reading]) -> str:
    """Return the table of the last minute's readings as HTML: a row for each model of the last one, a column for each quantity."""
    # The last reading is at the right end, one that is a minute older at the left end.
    last_s, models = history[-1]
    places = [1 - (last_s - steady_s) / HISTORY_S for steady_s, _ in history]
    head, cells = '<th scope="col">Model</th>', dict.fromkeys(sorted(models), "")
    for column, factor, title, unit, says in QUANTITIES:
        found = {model: [rows.get(model, {}).get(column) for _, rows in history] for model in cells}
        curves = {model: [None if value is None else factor * value for value in values] for model, values in found.items()}
        end = max((value for curve in curves.values() for value in curve if value is not None), default=0.0) or 1.0
        head += f'<th scope="col" title="{says}">{title}<br><small>{unit}<br>curve to {cell(end)}</small></th>'
        for model, curve in curves.items():
            now = cell(curve[-1]) or "–"
            drawn = sparkline(places, curve, end, f"{model}: {title.lower()}, {unit}: now {now}, on a scale from 0 to {cell(end)}")
            cells[model] += f'<td data-quantity="{column}"><b>{now}</b>{drawn}</td>'
    names = {model: html.escape(model) for model in cells}
    rows = "".join(f'<tr data-model="{name}"><th scope="row">{name}</th>{cells[model]}</tr>' for model, name in names.items())
    caption = f"Last reading {time.strftime('%H:%M:%S')}; numbers are means over {WINDOW_S:.0f} s, curves show the last minute."
    table = f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f'{_STYLE}<div class="course-dashboard">{table}</div>'


# Dashboards by the address of their servers: a cell that runs again must stop the one that it made before.
_RUNNING: dict[str, Dashboard] = {}


def dashboard(server: Server, load: str | None = None) -> Dashboard:
    """Show the work of a server live, and send it a load if asked: requests to this model, at first of batch 1, one at a time.

    Returns the dashboard, running. As the last line of a cell it shows itself; ``.stop()`` ends it.
    """
    if before := _RUNNING.pop(server.url, None):
        before.stop()
    _RUNNING[server.url] = shown = Dashboard(server, load)
    return shown


class Dashboard(widgets.VBox):  # type: ignore[misc]  # ipywidgets tells no types
    """See :func:`dashboard`. It has its ``load``, or None, and its widgets by name in ``controls``.

    A thread reads the server, and ends what was begun. It only sets traits of widgets: what a thread prints or plots is shown in another
    cell or nowhere. Callbacks of widgets run beside a busy cell or after it, as the version of ipykernel likes, and keep nobody waiting.
    """

    def __init__(self, server: Server, load: str | None = None) -> None:
        self.server = server
        self._snapshots: deque[Snapshot] = deque([scrape(server)], maxlen=round(WINDOW_S / INTERVAL_S) + 1)
        self.load = BackgroundLoad(server, load) if load else None
        self.history: deque[Reading] = deque(maxlen=round(HISTORY_S / INTERVAL_S))
        largest_batch = min(self.load.largest_batch, _MAX_BATCH) if self.load else 1
        slider = {"continuous_update": False, "style": {"description_width": "initial"}, "layout": {"width": "17em"}}
        self.controls = SimpleNamespace(
            stop=widgets.Button(description="Stop", icon="stop", layout={"width": "5.5em"}),
            batch=widgets.IntSlider(1, 1, largest_batch, description="Batch", **slider),
            concurrency=widgets.IntSlider(1, 0, _MAX_CONCURRENCY, description="Concurrency", **slider),
            state=widgets.HTML(),
            load_state=widgets.HTML(),
            table=widgets.HTML(),
        )
        for name, widget in vars(self.controls).items():
            widget.add_class(f"course-{name.replace('_', '-')}")
        sliders = [self.controls.batch, self.controls.concurrency] if self.load else []
        row = widgets.HBox([self.controls.stop, *sliders], layout={"flex_flow": "row wrap", "align_items": "center"})
        super().__init__([row, self.controls.state, self.controls.load_state, self.controls.table])
        self._stopped = threading.Event()
        self._reader = threading.Thread(target=self._run, name="course-dashboard", daemon=True)
        self.controls.stop.on_click(lambda _: self._stopped.set())
        for slider in sliders:
            slider.observe(self._change_load, names="value")
        self._reader.start()

    @property
    def running(self) -> bool:
        """True while it reads the server."""
        return self._reader.is_alive()

    def stop(self) -> None:
        """Stop reading and sending; return when both have ended."""
        self._stopped.set()
        self._reader.join()

    def _run(self) -> None:
        try:
            why = self._read()
        except Exception as error:  # a fault of ours must not look like a server that does nothing
            why = f"The dashboard failed: {type(error).__name__}: {error}"
        if self.load is not None:
            self.load.stop()
        self.controls.stop.disabled = True
        self._say(f"Stopped at {time.strftime('%H:%M:%S')}. {why}")

    def _read(self) -> str:
        """Read and show until it is stopped or the server has ended; return why it ends."""
        while not self._stopped.wait(INTERVAL_S):
            try:
                self._snapshots.append(scrape(self.server))
                change = self._snapshots[-1] - self._snapshots[0]
            except CourseError as error:
                if (state := self.server.state()) in ("stopped", "died"):
                    return f"The server {'was stopped' if state == 'stopped' else 'died: server.log() may say why'}."
                self._say(str(error))
            else:
                self._update((self._snapshots[-1].steady_s, {row["model"]: row for row in change.requests}))
                self._say("Running.")
        return "Run the cell again to start it again."

    def _update(self, reading: Reading) -> None:
        self.history.append(reading)
        self.controls.table.value = page(self.history)

    def _change_load(self, _: object) -> None:
        if self.load is not None:
            self.load.change(batch=self.controls.batch.value, concurrency=self.controls.concurrency.value)

    def _say(self, words: str) -> None:
        """Show how the dashboard is, in words that screen readers announce, and what was sent."""
        if self.load is not None:
            # The first sentence of an error says what happened; what to type is for a cell, and load.error has it all.
            last = f" Last: {self.load.error.split('. ')[0]}." if self.load.error else ""
            self.controls.load_state.value = html.escape(f"{self.load.sent} requests sent, {self.load.failed} failed.{last}")
        # Last: where it says that the dashboard has stopped, nothing else changes any more.
        self.controls.state.value = f'<span role="status">{html.escape(words)}</span>'
