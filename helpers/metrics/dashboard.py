"""A live view of a server inside a notebook: what it does for each model, twice a second, while other cells run.

Typical use::

    from helpers.metrics.dashboard import dashboard
    dashboard(server, load="particlenet_AK4")      # the last line of a cell: it shows itself and begins

With ``load`` it also sends requests, as many as its two sliders say. One dashboard for each server: running the cell again
replaces the one before. It stops with the server.
"""

from __future__ import annotations

import html
import math
import os
import shutil
import subprocess
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ipywidgets as widgets

from helpers import machine
from helpers.errors import CourseError, InputError, quoted, suggestion
from helpers.metrics.load import BackgroundLoad
from helpers.metrics.metrics import Difference, Sample, Snapshot, scrape
from helpers.server import Server
from helpers.server.log import how

# The dashboard: seconds between two updates (twice a second looks live and costs little), seconds that its curves show, and seconds over
# which rates are means (with less, slow models would jump between nothing and too much).
DASHBOARD_INTERVAL_S = 0.5
DASHBOARD_HISTORY_S = 60.0
DASHBOARD_WINDOW_S = 2.0

# Seconds without an answer after which the dashboard of a server that has not ended gives up: longer than a model takes to load.
DASHBOARD_PATIENCE_S = 10.0

_COMPUTE = tuple(f"nv_inference_compute_{part}_duration_us" for part in ("input", "infer", "output"))


@dataclass(frozen=True)
class ModelReading:
    """How one model did in the last two seconds or so; None where nothing happened that could be averaged.

    Attributes:
        requests_per_s: requests answered.
        inferences_per_s: inferences made, which a request has one or more of; none for answers from the cache.
        batch: inferences per execution: the batch that the model really ran.
        queue_ms: mean time that a request waited.
        compute_ms: mean time of a request in the model, with the handling of its inputs and outputs.
        pending: requests that wait now.
    """

    requests_per_s: float
    inferences_per_s: float
    batch: float | None
    queue_ms: float | None
    compute_ms: float | None
    pending: float | None


@dataclass(frozen=True)
class Reading:
    """One update.

    Attributes:
        time: seconds since 1970.
        models: by name, those that are loaded.
        machine: the samples that belong to no model: CPU, GPU, cache.
        steady_s: when, by a clock that nobody sets, for the curves; without it the time of day has to do.
    """

    time: float
    models: dict[str, ModelReading]
    machine: tuple[Sample, ...]
    steady_s: float | None = None


def model_readings(change: Difference) -> dict[str, ModelReading]:
    """Return what each model did between two readings of the metrics page, by its name."""
    totals: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for sample in change.samples:
        if "model" in sample.labels:
            totals[sample.labels["model"]][sample.metric] += sample.value
    return {model: _model_reading(total, change.seconds) for model, total in totals.items()}


def _model_reading(total: dict[str, float], seconds: float) -> ModelReading:
    requests, inferences = total["nv_inference_request_success"], total["nv_inference_count"]
    executions = total["nv_inference_exec_count"]
    compute_us = sum(total[name] for name in _COMPUTE)
    return ModelReading(
        requests_per_s=requests / seconds,
        inferences_per_s=inferences / seconds,
        batch=inferences / executions if executions else None,
        queue_ms=total["nv_inference_queue_duration_us"] / requests / 1000 if requests else None,
        compute_ms=compute_us / requests / 1000 if requests else None,
        # Servers older than 23.09 do not count those that wait.
        pending=total.get("nv_inference_pending_request_count"),
    )


class Rates:
    """Readings of one server, each with the rates since about two seconds before.

    Args:
        server: the server.
        window_s: seconds over which rates are means.
    """

    def __init__(self, server: Server, window_s: float = DASHBOARD_WINDOW_S) -> None:
        self._server = server
        self._window_s = window_s
        self._snapshots: deque[Snapshot] = deque()

    def read(self) -> Reading | None:
        """Return a new reading; None the first time, when there is nothing to compare it with.

        Raises:
            ServerError: the server does not answer.
            RequestError: what answers is no metrics page.
        """
        now = scrape(self._server, settle_s=0)
        # The oldest that is inside the window, and one before it.
        while len(self._snapshots) > 1 and now.seconds_since(self._snapshots[1]) >= self._window_s:
            self._snapshots.popleft()
        self._snapshots.append(now)
        before = self._snapshots[0]
        if now.seconds_since(before) <= 0:
            return None
        rest = tuple(sample for sample in now.samples if "model" not in sample.labels)
        return Reading(now.time, model_readings(now - before), rest, now.steady_s)


class Poller(threading.Thread):
    """Reads until :meth:`stop`, or until the server has ended.

    Args:
        server: the server.
        reader: called with each reading, in this thread; it must be quick.
        at_end: called once when the server is gone, with a sentence that says so. Not called after :meth:`stop`.
        interval_s: seconds between two readings.
    """

    def __init__(
        self,
        server: Server,
        reader: Callable[[Reading], None],
        at_end: Callable[[str], None],
        interval_s: float = DASHBOARD_INTERVAL_S,
    ) -> None:
        super().__init__(name="course-dashboard", daemon=True)
        self._server = server
        self._reader = reader
        self._at_end = at_end
        self._interval_s = interval_s
        self._stopped = threading.Event()

    def run(self) -> None:
        """Read, wait, and read again."""
        rates, answered, due = Rates(self._server), time.monotonic(), time.monotonic()
        while not self._stopped.is_set():
            reason = ""
            try:
                reading = rates.read()
                answered = time.monotonic()
                if reading is not None:
                    self._reader(reading)
            except CourseError as error:
                reason = self._end(str(error), time.monotonic() - answered)
            except Exception as error:  # a fault of ours must not look like a server that does nothing
                reason = f"The dashboard failed: {type(error).__name__}: {error}"
            if reason:
                if not self._stopped.is_set():
                    self._at_end(reason)
                return
            due = max(due + self._interval_s, time.monotonic())
            self._stopped.wait(due - time.monotonic())

    def stop(self) -> None:
        """Read no more; return when the thread has ended, unless this is the thread itself."""
        self._stopped.set()
        if self is not threading.current_thread() and self.is_alive():
            self.join()

    def _end(self, problem: str, silent_s: float) -> str:
        """Return why the reading ends; empty while there is hope."""
        state = self._server.state()
        if state == "died":
            return f"{how(self._server.returncode)} server.log() may say why."
        if state == "stopped":
            return "The server was stopped."
        if silent_s < DASHBOARD_PATIENCE_S:
            return ""
        return "The server does not answer any more." + (f" {problem}" if state != "unreachable" else "")


# Milliseconds between two lines of nvidia-smi for each GPU.
_SMI_PERIOD_MS = 1000
_SMI_FIELDS = ("index", "name", "utilization.gpu", "memory.used", "memory.total", "power.draw")


@dataclass(frozen=True)
class Gpu:
    """One line of nvidia-smi: utilisation from 0 to 1, memory in MiB, power in W; None for what this GPU does not tell."""

    index: str
    name: str
    utilization: float | None
    memory_used_mb: float | None
    memory_total_mb: float | None
    power_w: float | None


class NvidiaSmi:
    """``nvidia-smi`` in the background, where there is one and the server is on this machine: one line for each GPU each second."""

    def __init__(self, server: Server) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._text = ""
        self._gpus: dict[str, Gpu] = {}
        program = shutil.which("nvidia-smi") if server.is_here else None
        if program:
            query = [f"--query-gpu={','.join(_SMI_FIELDS)}", "--format=csv,noheader,nounits", f"--loop-ms={_SMI_PERIOD_MS}"]
            # A session of its own, so that a notebook's interrupt leaves it alone; without a reader its next line ends it.
            self._process = subprocess.Popen(
                [program, *query], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, start_new_session=True
            )
            assert self._process.stdout is not None
            os.set_blocking(self._process.stdout.fileno(), False)

    def read(self) -> list[Gpu]:
        """Return the last line on each GPU; empty where there is none."""
        if self._process is not None and self._process.stdout is not None:
            while chunk := self._process.stdout.read(65536):
                self._text += chunk.decode(errors="replace")
            *lines, self._text = self._text.split("\n")
            for line in lines:
                gpu = parse_smi(line)
                if gpu is not None:
                    self._gpus[gpu.index] = gpu
        return list(self._gpus.values())

    def close(self) -> None:
        """End it."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


def parse_smi(line: str) -> Gpu | None:
    """Read one line of nvidia-smi; None for a line that is no such one (it reports errors in the same place)."""
    words = [word.strip() for word in line.split(",")]
    if len(words) != len(_SMI_FIELDS) or not words[0].isdigit():
        return None

    percent, *others = (machine.number(word) for word in words[2:])
    return Gpu(words[0], words[1], None if percent is None else percent / 100, *others)


def machine_notes(samples: tuple[Sample, ...], gpus: list[Gpu]) -> list[str]:
    """Return sentences on the machine: CPU, GPUs as Triton sees them or why it sees none, GPUs as nvidia-smi sees them, the cache."""
    values = {sample.metric: sample.value for sample in samples}
    notes = []
    if values.get("nv_cpu_memory_total_bytes"):
        used, total = values["nv_cpu_memory_used_bytes"] / 1e9, values["nv_cpu_memory_total_bytes"] / 1e9
        busy = f"{values.get('nv_cpu_utilization', 0.0):.0%}"
        notes.append(f"Whole machine: CPU {busy} busy, memory {used:.1f} of {total:.1f} GB (refreshed by Triton every 2 s).")
    notes += _gpu_notes(samples, gpus)
    if values.get("nv_cache_num_lookups"):
        hits, lookups = values["nv_cache_num_hits"], values["nv_cache_num_lookups"]
        notes.append(f"Response cache, since the server's start: {hits:.0f} hits in {lookups:.0f} lookups ({hits / lookups:.0%}).")
    return notes


def _gpu_notes(samples: tuple[Sample, ...], gpus: list[Gpu]) -> list[str]:
    by_gpu: dict[str, dict[str, float]] = defaultdict(dict)
    for sample in samples:
        if sample.metric.startswith("nv_gpu_") and "gpu_uuid" in sample.labels:
            by_gpu[sample.labels["gpu_uuid"]][sample.metric] = sample.value
    notes = []
    for uuid, values in by_gpu.items():
        used, total = (values.get(f"nv_gpu_memory_{which}_bytes", 0.0) / 1e9 for which in ("used", "total"))
        busy, power = values.get("nv_gpu_utilization", 0.0), values.get("nv_gpu_power_usage", 0.0)
        notes.append(f"GPU {uuid[:12]}, by Triton: {busy:.0%} busy, memory {used:.1f} of {total:.1f} GB, {power:.0f} W.")
    if not by_gpu:
        notes.append(
            "No nv_gpu_… metrics, although nvidia-smi sees a GPU: this server does not measure it."
            if gpus
            else "No nv_gpu_… metrics: the server sees no GPU, so its models run on the CPU. That is no fault."
        )
    for gpu in gpus:
        parts = [f"{gpu.utilization:.0%} busy"] if gpu.utilization is not None else []
        if gpu.memory_used_mb is not None and gpu.memory_total_mb is not None:
            parts.append(f"memory {gpu.memory_used_mb / 1024:.1f} of {gpu.memory_total_mb / 1024:.1f} GiB")
        parts += [f"{gpu.power_w:.0f} W"] if gpu.power_w is not None else []
        notes.append(f"GPU {gpu.index} ({gpu.name}), by nvidia-smi: {', '.join(parts) or 'it tells no figures'}.")
    return notes


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
        field: of :class:`ModelReading`.
        title: above the column.
        unit: below the title.
        says: what it means, shown where the mouse points at it.
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
)


def number(value: float | None) -> str:
    """Return a value with three digits, as text of at most five characters; a dash for None."""
    if value is None:
        return "–"
    if value >= 99.95 or value == int(value):
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def scale_end(highest: float) -> float:
    """Return the smallest of 1, 2, 5, 10, 20, … (or 0.1, 0.2, …) that is not below the highest value; at least 0.1."""
    if highest <= 0.1:
        return 0.1
    step = 10.0 ** math.floor(math.log10(highest))
    return next(factor * step for factor in (1, 2, 5, 10) if factor * step >= highest * 0.999999)


def sparkline(places: Sequence[int], values: Sequence[float | None], end: float, title: str) -> str:
    """Return one curve over the last minute, as SVG.

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
    """Return where on the curve each reading is: the last at the right end, one that is a minute older at the left end."""
    times = [reading.time if reading.steady_s is None else reading.steady_s for reading in history]
    return [_RIGHT - int((times[-1] - time_) / DASHBOARD_HISTORY_S * (_RIGHT - _LEFT)) for time_ in times]


def page(history: Sequence[Reading], models: Sequence[str], notes: Sequence[str]) -> str:
    """Return the whole table as HTML: one row for each model, one column for each quantity.

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


# Ends of its two sliders. A model may allow more; on a CPU one such request takes a second or so.
DASHBOARD_MAX_BATCH = 64
DASHBOARD_MAX_CONCURRENCY = 16


class Controls:
    """Everything that is on the screen.

    The CSS classes ``course-…`` are there for tests, and for people who want another look.

    Args:
        loaded: the models that can be chosen.
        shown: those that are chosen at first.
        load: the model that gets the load at first, or None for no load at all.
        largest_batch: the end of the slider for that model.

    Attributes:
        start: the button.
        stop: the button.
        boxes: a check box for each model, by its name.
        load_model: which model gets the load.
        batch: entries in each of its requests.
        concurrency: its requests under way at once.
        whole: all of it.
    """

    def __init__(self, loaded: Sequence[str], shown: Sequence[str], load: str | None, largest_batch: int) -> None:
        self.start = _marked(widgets.Button(description="Start", icon="play", layout={"width": "7em"}), "course-start")
        self.stop = _marked(widgets.Button(description="Stop", icon="stop", layout={"width": "7em"}), "course-stop")
        self._state = _marked(widgets.HTML(), "course-state")
        self.boxes = {
            name: widgets.Checkbox(value=name in shown, description=name, indent=False, layout={"width": "auto", "margin": "0 14px 0 0"})
            for name in loaded
        }
        style = {"description_width": "9em"}
        wide = {"width": "26em"}
        self.load_model = widgets.Dropdown(
            options=list(loaded), value=load, description="Send requests to", style=style, layout={"width": "26em"}
        )
        self.batch = widgets.IntSlider(1, 1, largest_batch, description="Batch", continuous_update=False, style=style, layout=wide)
        self.concurrency = widgets.IntSlider(
            1, 0, DASHBOARD_MAX_CONCURRENCY, description="Concurrency", continuous_update=False, style=style, layout=wide
        )
        for name, widget in {"load-model": self.load_model, "batch": self.batch, "concurrency": self.concurrency}.items():
            _marked(widget, f"course-{name}")
        self._load_state = _marked(widgets.HTML(), "course-load-state")
        self._table = _marked(widgets.HTML(), "course-table")
        wrap = {"flex_flow": "row wrap", "align_items": "center"}
        loading = [
            self.load_model,
            widgets.HBox([self.batch, self.concurrency], layout=wrap),
            self._load_state,
        ]
        self.whole = widgets.VBox(
            [
                widgets.HBox([self.start, self.stop, self._state], layout=wrap),
                widgets.HBox([widgets.Label("Models", layout={"margin": "0 14px 0 2px"}), *self.boxes.values()], layout=wrap),
                *(loading if load else []),
                self._table,
            ]
        )

    def connect(self, start: Callable[[], None], stop: Callable[[], None], load: Callable[..., None], models: Callable[[], None]) -> None:
        """Set what is called when a widget is used: ``load`` with the name of a setting and its new value."""
        self.start.on_click(lambda _: start())
        self.stop.on_click(lambda _: stop())
        for name, widget in (("model", self.load_model), ("batch", self.batch), ("concurrency", self.concurrency)):
            widget.observe(lambda change, name=name: load(**{name: change["new"]}), names="value")
        for box in self.boxes.values():
            box.observe(lambda _: models(), names="value")

    @property
    def chosen(self) -> list[str]:
        """The models to show."""
        return [name for name, box in self.boxes.items() if box.value]

    def show_state(self, mark: str, text: str, running: bool) -> None:
        """The line beside the buttons; it is announced by screen readers."""
        self.start.disabled, self.stop.disabled = running, not running
        self._state.value = f'<span role="status"><span aria-hidden="true">{mark}</span> {html.escape(text)}</span>'

    def forget(self) -> None:
        """Show no old numbers while new ones are on their way."""
        self.show_load("Beginning to send.")
        self.show_table("Waiting for the first two readings.")

    def show_load(self, text: str) -> None:
        """The line below the load's sliders."""
        self._load_state.value = f'<div style="line-height:1.3;margin-left:9.6em">{html.escape(text)}</div>'

    def show_table(self, page: str) -> None:
        """The table."""
        self._table.value = page

    def leave_only_state(self) -> None:
        """Take away everything but the line that says what has become of it."""
        rest = [widget for widget in _all(self.whole) if widget not in (self.whole, self._state)]
        self.whole.children = (self._state,)
        for widget in rest:
            widget.close()

    def close(self) -> None:
        """Take everything away."""
        for widget in _all(self.whole):
            widget.close()


def _marked(widget: Any, name: str) -> Any:
    widget.add_class(name)
    return widget


def _all(widget: Any) -> list[Any]:
    """A widget with all that is in it; layouts and styles, too, are objects in the browser."""
    inner = [part for child in getattr(widget, "children", ()) for part in _all(child)]
    styles = [part for part in (getattr(widget, "layout", None), getattr(widget, "style", None)) if isinstance(part, widgets.Widget)]
    return [*inner, *styles, widget]


# Running dashboards by the address of their servers: a cell that runs again must stop the one that it made before.
_RUNNING: dict[str, Dashboard] = {}
_RUNNING_LOCK = threading.Lock()


def dashboard(server: Server, models: str | Sequence[str] | None = None, load: str | None = None) -> Dashboard:
    """Show a server's work live, and send it a load if asked.

    Args:
        server: from ``launch_server`` or ``connect``.
        models: the models to show at first; all that are loaded by default.
        load: a model to send requests to: at first of batch 1, one at a time.

    Returns:
        The dashboard, running. As the last line of a cell it shows itself; ``.stop()`` ends it.

    Raises:
        InputError: there is no such model, or no Server was given.
        ServerError: the server does not answer.
    """
    shown = Dashboard(server, models, load)
    shown.start()
    return shown


class Dashboard:
    """See :func:`dashboard`.

    Callbacks of widgets and several threads meet here: callbacks run beside a busy cell or after it, as the version of ipykernel
    likes. So what changes the state holds a lock, what may take long is done in a thread of its own, and threads only set
    traits of widgets: they never print and never plot.

    Attributes:
        server: the server.
        load: the background load, or None.
        history: the readings of the last minute, oldest first.
        controls: the widgets.
    """

    def __init__(self, server: Server, models: str | Sequence[str] | None = None, load: str | None = None) -> None:
        if not isinstance(server, Server):
            raise InputError(
                f"{server!r} is no Server.", "Expected what launch_server or connect returns.", 'Type: dashboard(connect("host:9000"))'
            )
        self.server = server
        loaded = sorted({model.name for model in server.models() if model.state == "READY"})
        shown = [models] if isinstance(models, str) else loaded if models is None else list(models)
        for name in [*shown, *([load] if load else [])]:
            if name not in loaded:
                raise InputError(f"The model {name!r} is not loaded.", f"Loaded are {quoted(loaded)}.", suggestion(name, loaded))
        self.load = BackgroundLoad(server, load) if load else None
        self.history: deque[Reading] = deque(maxlen=round(DASHBOARD_HISTORY_S / DASHBOARD_INTERVAL_S))
        self.controls = Controls(loaded, shown, load, self._largest_batch(load) if load else 1)
        self.controls.connect(self.start, self._stop_soon, self._change_load, self._draw)
        self._lock = threading.RLock()
        self._poller: Poller | None = None
        self._smi: NvidiaSmi | None = None
        self._notes: list[str] = []
        self._replaced = False

    # --- start and stop -----------------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """True while it reads the server."""
        return self._poller is not None

    def start(self) -> None:
        """Begin to read and to send; another dashboard of this server stops. Nothing happens when it runs already.

        Raises:
            InputError: a newer dashboard has taken its place.
        """
        if self._replaced:
            raise InputError("This dashboard was replaced by a newer one.", "", "Type: dashboard(server)")
        with _RUNNING_LOCK:
            before = _RUNNING.get(self.server.url)
            _RUNNING[self.server.url] = self
        if before is not None and before is not self:
            before._retire()
        with self._lock:
            if self._poller is not None:
                return
            self.history.clear()
            self.controls.forget()
            self._smi = NvidiaSmi(self.server)
            self.controls.show_state("●", "Running.", True)
            self._poller = Poller(self.server, self._update, self._ended)
            self._poller.start()
            with self._errors_shown():
                if self.load is not None:
                    self.load.start(wait=False)

    def stop(self) -> None:
        """Stop reading and sending; return when both have ended."""
        self._stop("■", "Stopped.")

    def close(self) -> None:
        """Stop, and take the widgets away."""
        self.stop()
        self.controls.close()

    def _stop(self, mark: str, why: str) -> None:
        with self._lock:
            poller, self._poller = self._poller, None
            smi, self._smi = self._smi, None
        if poller is None:
            return
        with _RUNNING_LOCK:
            if _RUNNING.get(self.server.url) is self:
                del _RUNNING[self.server.url]
        poller.stop()
        if smi is not None:
            smi.close()
        if self.load is not None:
            ran = self.load.running
            self.load.stop()
            # A load that did not start has said why, beside which the counts of the one before mean nothing.
            if ran:
                self._show_load()
        self.controls.show_state(mark, f"{why} ({time.strftime('%H:%M:%S')})", False)

    def _stop_soon(self) -> None:
        """Stop without keeping the caller, a button, waiting for the requests that are under way."""
        threading.Thread(target=self.stop, name="course-dashboard-stop", daemon=True).start()

    def _retire(self) -> None:
        """Make room for a newer dashboard of the same server."""
        self._replaced = True
        self._stop("■", "Replaced by a newer dashboard.")
        self.controls.leave_only_state()

    # --- in the poller's thread ---------------------------------------------------------------------------------------

    def _update(self, reading: Reading) -> None:
        self.history.append(reading)
        smi = self._smi
        self._notes = machine_notes(reading.machine, smi.read() if smi else [])
        self._draw()
        self._show_load()

    def _ended(self, why: str) -> None:
        self._stop("✖", f"Stopped: {why}")

    # --- what is shown ------------------------------------------------------------------------------------------------

    def _draw(self) -> None:
        history = list(self.history)
        if history:
            self.controls.show_table(page(history, self.controls.chosen, self._notes))

    def _show_load(self) -> None:
        load = self.load
        if load is None:
            return
        text = f"{load.sent} requests sent, {load.failed} failed."
        if load.errors:
            # The first sentence says what happened; what to type is for a cell, and load.errors has it all.
            text += f" Last: {list(load.errors)[-1].split('. ')[0]}."
        self.controls.show_load(text)

    @contextmanager
    def _errors_shown(self) -> Iterator[None]:
        """Show an error beside the load: in a callback or a thread it would not be seen."""
        try:
            yield
        except CourseError as error:
            self.controls.show_load(f"✘ {error}")

    # --- the load -----------------------------------------------------------------------------------------------------

    def _largest_batch(self, model: str) -> int:
        return min(max(int(self.server.config(model).get("max_batch_size", 0)), 1), DASHBOARD_MAX_BATCH)

    def _change_load(self, **change: Any) -> None:
        """Do what a slider says."""
        if self.load is None:
            return
        with self._lock, self._errors_shown():
            if "model" in change:
                # The batch first, or the slider would stand beyond what the new model takes.
                largest = self._largest_batch(change["model"])
                change["batch"] = min(self.controls.batch.value, largest)
                self.load.change(**change)
                self.controls.batch.max = largest
            else:
                self.load.change(**change)

    # --- itself -------------------------------------------------------------------------------------------------------

    def _repr_mimebundle_(self, **options: Any) -> Any:
        return self.controls.whole._repr_mimebundle_(**options)

    def __repr__(self) -> str:
        return f"Dashboard of {self.server.url} ({'running' if self.running else 'stopped'})"
