"""The thread behind the dashboard: reads the server's metrics twice a second and turns counters into rates."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass

from helpers import ending
from helpers.errors import CourseError
from helpers.metrics import Difference, Snapshot, scrape
from helpers.metrics_page import Sample
from helpers.server import Server

# The dashboard: seconds between two updates (twice a second looks live and costs little), seconds that its curves show, and seconds over
# which rates are means (with less, slow models would jump between nothing and too much).
DASHBOARD_INTERVAL_S = 0.5
DASHBOARD_HISTORY_S = 60.0
DASHBOARD_WINDOW_S = 2.0

# Seconds without an answer after which the dashboard of a server that has not ended gives up: longer than a model takes to load.
DASHBOARD_PATIENCE_S = 10.0

_COMPUTE = tuple(f"nv_inference_compute_{part}_duration_us" for part in ("input", "infer", "output"))
# What is said when the server is gone, by its state.
_ENDS = {
    "stopped": "The server was stopped.",
    "unreachable": "The server does not answer any more.",
}


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
        cpu_cores: CPU time per time, of the model's own processes, where it has some.
        memory_mb: RAM of these processes.
    """

    requests_per_s: float
    inferences_per_s: float
    batch: float | None
    queue_ms: float | None
    compute_ms: float | None
    pending: float | None
    cpu_cores: float | None = None
    memory_mb: float | None = None


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
    """What each model did between two readings of the metrics page.

    Args:
        change: their difference.
    """
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
        """A new reading; None the first time, when there is nothing to compare it with.

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
        machine = tuple(sample for sample in now.samples if "model" not in sample.labels)
        return Reading(now.time, model_readings(now - before), machine, now.steady_s)


class Poller(threading.Thread):
    """Reads until it is told to stop, or until the server has ended.

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
        """Read no more; returns when the thread has ended, unless this is the thread itself."""
        self._stopped.set()
        if self is not threading.current_thread() and self.is_alive():
            self.join()

    def _end(self, problem: str, silent_s: float) -> str:
        """Why the reading ends; empty while there is hope."""
        state = self._server.state()
        if state == "died":
            return f"{ending.how(self._server.returncode)} server.log() may say why."
        if state == "stopped":
            return _ENDS[state]
        if silent_s < DASHBOARD_PATIENCE_S:
            return ""
        return _ENDS["unreachable"] if state == "unreachable" else f"{_ENDS['unreachable']} {problem}"
