"""A live view of a server inside a notebook: what it does for each model, twice a second, while other cells run.

Typical use::

    from helpers.dashboard import dashboard
    dashboard(server, load="particlenet_AK4")      # the last line of a cell: it shows itself and begins

With ``load`` it also sends requests, as many as its two sliders say. One dashboard for each server: running the cell again
replaces the one before. It stops with the server.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from helpers import dashboard_svg
from helpers.background_load import BackgroundLoad
from helpers.dashboard_controls import DASHBOARD_MAX_BATCH, Controls
from helpers.dashboard_poller import DASHBOARD_HISTORY_S, DASHBOARD_INTERVAL_S, Poller, Reading
from helpers.dashboard_usage import ModelProcesses, NvidiaSmi, machine_notes
from helpers.errors import CourseError, InputError, quoted, suggestion
from helpers.server import Server

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
        self._processes = ModelProcesses(server)
        self._smi: NvidiaSmi | None = None
        self._notes: list[str] = []
        self._replaced = False

    # --- start and stop -----------------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether it reads the server."""
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
        """Stop reading and sending; returns when both have ended."""
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
        self.history.append(replace(reading, models=self._processes.add_to(reading.models)))
        smi = self._smi
        self._notes = machine_notes(reading.machine, smi.read() if smi else [])
        if not self._processes.known:
            self._notes.append(
                "CPU and memory of single models are known only for the embedded server, where each has processes of its own."
            )
        self._draw()
        self._show_load()

    def _ended(self, why: str) -> None:
        self._stop("✖", f"Stopped: {why}")

    # --- what is shown ------------------------------------------------------------------------------------------------

    def _draw(self) -> None:
        history = list(self.history)
        if history:
            self.controls.show_table(dashboard_svg.page(history, self.controls.chosen, self._notes))

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
        """Show an error beside the load: in a callback or a thread nobody would see it."""
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
