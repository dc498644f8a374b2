"""A live view of a server inside a notebook: what it does for each model, twice a second, while other cells run.

One dashboard for each server: running the cell again replaces the one before. It stops with the server.
"""

from __future__ import annotations

import html
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import ipywidgets as widgets

from helpers.errors import CourseError, InputError, quoted, suggestion
from helpers.metrics.load import BackgroundLoad
from helpers.metrics.metrics import Difference, Snapshot, scrape
from helpers.server.log import how
from helpers.server.server import Server

# Seconds between two updates (twice a second looks live and costs little), that the curves show, and over which rates are means (with
# less, slow models would jump between nothing and too much).
INTERVAL_S, HISTORY_S, WINDOW_S = 0.5, 60.0, 2.0
# Seconds without an answer after which the dashboard of a server that has not ended gives up: longer than a model takes to load.
PATIENCE_S = 10.0
# Ends of the two sliders. A model may allow more; on a CPU one such request takes a second or so.
_MAX_BATCH, _MAX_CONCURRENCY = 64, 16


# --- the numbers -----------------------------------------------------------------------------------------------------------

# Each column: name, title, unit, and what it means, shown where the mouse points at it. All but the last are of the last two seconds.
QUANTITIES = (
    ("requests_per_s", "Requests", "per s", "Requests answered, each with one or more inferences"),
    ("inferences_per_s", "Inferences", "per s", "Inferences made; answers from the response cache need none"),
    ("batch", "Mean batch", "per execution", "How many inferences the model made at once"),
    ("queue_ms", "Queue", "ms a request", "Mean time that a request waited for the model"),
    ("compute_ms", "Compute", "ms a request", "Mean time of a request in the model, with its inputs and outputs"),
    ("pending", "Pending", "requests", "Requests that wait at this moment"),
)


@dataclass(frozen=True)
class Reading:
    """One update: when, since 1970 and by a monotonic clock, and the quantities of each loaded model, None for nothing to average."""

    time: float
    steady_s: float
    models: dict[str, dict[str, float | None]]


def model_readings(change: Difference) -> dict[str, dict[str, float | None]]:
    """Return what each model did between two readings of the metrics page, by its name."""
    return {model: _quantities(total, change.seconds) for model, total in change.totals().items()}


def _quantities(total: Mapping[str, float], seconds: float) -> dict[str, float | None]:
    requests, inferences, executions = (total[f"nv_inference_{name}"] for name in ("request_success", "count", "exec_count"))
    compute_us = sum(total[f"nv_inference_compute_{part}_duration_us"] for part in ("input", "infer", "output"))
    return {
        "requests_per_s": requests / seconds,
        "inferences_per_s": inferences / seconds,
        "batch": inferences / executions if executions else None,
        "queue_ms": total["nv_inference_queue_duration_us"] / requests / 1000 if requests else None,
        "compute_ms": compute_us / requests / 1000 if requests else None,
        "pending": total["nv_inference_pending_request_count"],
    }


class Rates:
    """Readings of one server, each with the rates since about two seconds before."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._snapshots: deque[Snapshot] = deque()

    def read(self) -> Reading | None:
        """Return a new reading; None the first time, when there is nothing to compare it with."""
        now = scrape(self._server, settle_s=0)
        # The oldest that is inside the window, and one before it.
        while len(self._snapshots) > 1 and now.steady_s - self._snapshots[1].steady_s >= WINDOW_S:
            self._snapshots.popleft()
        self._snapshots.append(now)
        change = now - self._snapshots[0]
        return Reading(now.time, now.steady_s, model_readings(change)) if change.seconds else None


# --- the table -------------------------------------------------------------------------------------------------------------

# Size of one curve in CSS pixels.
_WIDTH, _HEIGHT = 76, 30
_STYLE = """<style>
.course-dashboard { overflow-x: auto; line-height: 1.25; }
.course-dashboard table { border-collapse: collapse; }
.course-dashboard caption { text-align: left; caption-side: top; }
.course-dashboard th, .course-dashboard td { text-align: right; vertical-align: top; padding: 2px 4px; }
.course-dashboard thead th { vertical-align: bottom; }
.course-dashboard tbody th { padding-top: 5px; }
.course-dashboard tbody tr { border-top: 1px solid color-mix(in srgb, currentColor 20%, transparent); }
.course-dashboard th:first-child { text-align: left; overflow-wrap: anywhere; min-width: 6em; }
.course-dashboard small { font-weight: normal; font-size: 12px; white-space: nowrap; }
.course-dashboard b { display: block; font-weight: normal; font-size: 135%; font-variant-numeric: tabular-nums; }
.course-dashboard path { fill: none; stroke: #3b7dd8; stroke-width: 1.5; stroke-linecap: round; }
</style>"""


def number(value: float | None) -> str:
    """Return a value with three digits, as text of at most five characters; a dash for None."""
    if value is None:
        return "–"
    if value >= 99.95 or value == int(value):
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


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


def page(history: Sequence[Reading], models: Sequence[str]) -> str:
    """Return the table of the last minute's readings as HTML: a row for each model, a column for each quantity."""
    # The last reading is at the right end, one that is a minute older at the left end.
    places = [1 - (history[-1].steady_s - each.steady_s) / HISTORY_S for each in history]
    head, cells = '<th scope="col">Model</th>', dict.fromkeys(models, "")
    for field, title, unit, says in QUANTITIES:
        curves = {model: [reading.models.get(model, {}).get(field) for reading in history] for model in models}
        end = max((value for curve in curves.values() for value in curve if value is not None), default=0.0) or 1.0
        head += f'<th scope="col" title="{says}">{title}<br><small>{unit}<br>curve to {number(end)}</small></th>'
        for model, curve in curves.items():
            now = number(curve[-1])
            drawn = sparkline(places, curve, end, f"{model}: {title.lower()}, {unit}: now {now}, on a scale from 0 to {number(end)}")
            cells[model] += f'<td data-quantity="{field}"><b>{now}</b>{drawn}</td>'
    names = {model: html.escape(model) for model in models}
    rows = "".join(f'<tr data-model="{name}"><th scope="row">{name}</th>{cells[model]}</tr>' for model, name in names.items())
    clock = time.strftime("%H:%M:%S", time.localtime(history[-1].time))
    return (
        f'{_STYLE}<div class="course-dashboard"><table><caption>Last reading {clock}; numbers are means over {WINDOW_S:.0f} s, curves show '
        f"the last minute.</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


# --- the widgets -----------------------------------------------------------------------------------------------------------

# Running dashboards by the address of their servers: a cell that runs again must stop the one that it made before.
_RUNNING: dict[str, Dashboard] = {}


def dashboard(server: Server, load: str | None = None) -> Dashboard:
    """Show the work of a server live, and send it a load if asked: requests to this model, at first of batch 1, one at a time.

    Returns the dashboard, running. As the last line of a cell it shows itself; ``.stop()`` ends it.
    """
    shown = Dashboard(server, load)
    shown.start()
    return shown


class Dashboard:
    """See :func:`dashboard`.

    Callbacks of widgets and several threads meet here: callbacks run beside a busy cell or after it, as the version of ipykernel
    likes. So what changes the state holds a lock, what may take long is done in a thread of its own, and threads only set
    traits of widgets: they never print and never plot.

    Attributes:
        load: the background load, or None.
        history: the readings of the last minute, oldest first.
        controls: the widgets: ``start``, ``stop``, ``load_model``, ``batch``, ``concurrency``, ``state``, ``load_state`` and
            ``table``, each with a CSS class ``course-…``.
    """

    def __init__(self, server: Server, load: str | None = None) -> None:
        if not isinstance(server, Server):
            raise InputError(
                f"{server!r} is no Server.", "Expected what launch_server or connect returns.", 'Type: dashboard(connect("host:9000"))'
            )
        self.models = sorted({model.name for model in server.models() if model.state == "READY"})
        if load and load not in self.models:
            raise InputError(f"The model {load!r} is not loaded.", f"Loaded are {quoted(self.models)}.", suggestion(load, self.models))
        self.server = server
        self.load = BackgroundLoad(server, load) if load else None
        self.history: deque[Reading] = deque(maxlen=round(HISTORY_S / INTERVAL_S))
        self.controls = _widgets(self.models, load, self._largest_batch(load) if load else 1)
        self._lock = threading.RLock()
        self._stopped: threading.Event | None = None
        self._reader: threading.Thread | None = None
        self.controls.start.on_click(lambda _: self.start())
        # In a thread: a button must not wait for the requests that are under way.
        self.controls.stop.on_click(lambda _: _thread(self.stop).start())
        for setting, widget in (("model", "load_model"), ("batch", "batch"), ("concurrency", "concurrency")):
            getattr(self.controls, widget).observe(lambda change, name=setting: self._change_load(name, change["new"]), names="value")

    @property
    def running(self) -> bool:
        """True while it reads the server."""
        return self._stopped is not None

    def start(self) -> None:
        """Begin to read and to send; another dashboard of this server stops. Nothing happens when it runs already."""
        before = _RUNNING.get(self.server.url)
        _RUNNING[self.server.url] = self
        if before is not None and before is not self:
            before._stop("■ Replaced by a newer dashboard.")
        with self._lock:
            if self._stopped is not None:
                return
            self.history.clear()
            # No old numbers while new ones are on their way.
            self.controls.table.value = "Waiting for the first two readings."
            self._stopped = threading.Event()
            self._say("● Running.")
            self.controls.load_state.value = "Beginning to send." if self.load else ""
            self._reader = _thread(self._read, self._stopped)
            self._reader.start()
            if self.load is not None:
                try:
                    self.load.start(wait=False)
                except CourseError as error:
                    self.controls.load_state.value = html.escape(f"✘ {error}")

    def stop(self) -> None:
        """Stop reading and sending; return when both have ended."""
        self._stop("■ Stopped.")

    def _stop(self, why: str) -> None:
        with self._lock:
            stopped, self._stopped = self._stopped, None
        if stopped is None:
            return
        stopped.set()
        if self._reader is not None and self._reader is not threading.current_thread():
            self._reader.join()
        if self.load is not None:
            self.load.stop()
            self._say_what_was_sent()
        self._say(f"{why} ({time.strftime('%H:%M:%S')})")

    # --- in the reader's thread ---------------------------------------------------------------------------------------

    def _read(self, stopped: threading.Event) -> None:
        """Read, show and wait, until the dashboard is stopped or the server has ended."""
        rates, answered, due = Rates(self.server), time.monotonic(), time.monotonic()
        while not stopped.is_set():
            reason = ""
            try:
                reading = rates.read()
                answered = time.monotonic()
                if reading is not None:
                    self._update(reading)
            except CourseError as error:
                reason = self._ended(str(error), time.monotonic() - answered)
            except Exception as error:  # a fault of ours must not look like a server that does nothing
                reason = f"The dashboard failed: {type(error).__name__}: {error}"
            if reason:
                self._stop(f"✖ Stopped: {reason}")
                return
            due = max(due + INTERVAL_S, time.monotonic())
            stopped.wait(due - time.monotonic())

    def _update(self, reading: Reading) -> None:
        self.history.append(reading)
        self.controls.table.value = page(self.history, self.models)
        self._say_what_was_sent()

    def _ended(self, problem: str, silent_s: float) -> str:
        """Return why the reading ends; empty while there is hope."""
        state = self.server.state()
        if state == "died":
            return f"{how(self.server.returncode)} server.log() may say why."
        if state == "stopped":
            return "The server was stopped."
        return f"The server does not answer any more. {problem}" if silent_s >= PATIENCE_S else ""

    # --- the load and what is said ------------------------------------------------------------------------------------

    def _largest_batch(self, model: str) -> int:
        return min(max(int(self.server.config(model).get("max_batch_size", 0)), 1), _MAX_BATCH)

    def _change_load(self, setting: str, value: Any) -> None:
        """Do what a slider says."""
        if self.load is None:
            return
        try:
            with self._lock:
                if setting != "model":
                    self.load.change(**{setting: value})
                    return
                # The batch first, or the slider would stand beyond what the new model takes.
                largest = self._largest_batch(value)
                self.load.change(model=value, batch=min(self.controls.batch.value, largest))
                self.controls.batch.max = largest
        except CourseError as error:
            self.controls.load_state.value = html.escape(f"✘ {error}")

    def _say_what_was_sent(self) -> None:
        # A load that did not start has said why, and counts nothing.
        if self.load is not None and (self.load.sent or self.load.error):
            # The first sentence of an error says what happened; what to type is for a cell, and load.error has it all.
            last = f" Last: {self.load.error.split('. ')[0]}." if self.load.error else ""
            self.controls.load_state.value = html.escape(f"{self.load.sent} requests sent, {self.load.failed} failed.{last}")

    def _say(self, how: str) -> None:
        """Show how the dashboard is: a mark, and words that screen readers announce."""
        self.controls.start.disabled, self.controls.stop.disabled = self.running, not self.running
        self.controls.state.value = f'<span aria-hidden="true">{how[0]}</span> <span role="status">{html.escape(how[2:])}</span>'

    def _repr_mimebundle_(self, **options: Any) -> Any:
        return self.controls.whole._repr_mimebundle_(**options)

    def __repr__(self) -> str:
        return f"Dashboard of {self.server.url} ({'running' if self.running else 'stopped'})"


def _thread(target: Callable[..., None], *arguments: Any) -> threading.Thread:
    return threading.Thread(target=target, args=arguments, name="course-dashboard", daemon=True)


def _widgets(loaded: Sequence[str], load: str | None, largest_batch: int) -> SimpleNamespace:
    """Everything that is on the screen: the controls in one row, what they do, the table."""
    short = {"width": "5.5em"}
    slider = {"continuous_update": False, "style": {"description_width": "initial"}, "layout": {"width": "17em"}}
    made: dict[str, Any] = {
        "start": widgets.Button(description="Start", icon="play", layout=short),
        "stop": widgets.Button(description="Stop", icon="stop", layout=short),
        "load_model": widgets.Dropdown(options=list(loaded), value=load, tooltip="Send requests to", layout={"width": "12em"}),
        "batch": widgets.IntSlider(1, 1, largest_batch, description="Batch", **slider),
        "concurrency": widgets.IntSlider(1, 0, _MAX_CONCURRENCY, description="Concurrency", **slider),
        "state": widgets.HTML(),
        "load_state": widgets.HTML(),
        "table": widgets.HTML(),
    }
    for name, widget in made.items():
        widget.add_class(f"course-{name.replace('_', '-')}")
    row = [made[name] for name in ("start", "stop", *(("load_model", "batch", "concurrency") if load else ()))]
    whole = widgets.VBox(
        [
            widgets.HBox(row, layout={"flex_flow": "row wrap", "align_items": "center"}),
            *(made[name] for name in ("state", "load_state", "table")),
        ]
    )
    return SimpleNamespace(whole=whole, **made)
