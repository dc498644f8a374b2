"""Measure a model with NVIDIA's perf_analyzer: one load, several in turn to compare them, or a whole sweep.

Where perf_analyzer does not run, such as on macOS, they return what this course recorded on a machine of its own, and say so.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from helpers import machine
from helpers.client.client import Client
from helpers.client.endpoint import QUERY_TIMEOUT_S, Address
from helpers.errors import InputError, SetupError
from helpers.measuring.perf_analyzer import RUN_WINDOWS, InputData, Result, Run, checked, execute, find_perf_analyzer
from helpers.measuring.statistics import LEAST_WINDOWS, interval, percentile_interval, windows_needed
from helpers.measuring.table import COLUMNS, LATENCY, LATENCY_ENDS, MEASURED, PARTS, THROUGHPUT, THROUGHPUT_SPREAD, Row, Rows, plain
from helpers.metrics.gpu import placed_on
from helpers.paths import append_line, in_work, models_dir, read_lines, root, shown
from helpers.repository.configs import instances_of
from helpers.terminal import Progress

# Half width of the throughput's 95 % interval, as a fraction, at which a row counts as settled; that of a percentile may be twice as large.
PRECISION, LATENCY_PRECISION = 0.05, 2
# Requests in one window, at least: six windows then hold the 72 that a 95th percentile's interval needs. Of the three of a quick
# measurement that is not asked.
WINDOW_REQUESTS, QUICK_REQUESTS = 15, 5
# Length of a window in seconds, at least and at most: shorter ones show the machine's hiccups, longer ones cost a lesson's time. Where
# measurements take turns there are more windows, and what the machine does in between hits all alike. Quick ones show that it works.
WINDOW_S, TURN_WINDOW_S, QUICK_WINDOW_S = (0.4, 3.0), (0.2, 2.0), (0.1, 2.0)
# Turns of each measurement where they are compared: three pairs could settle a difference only where the machine is very quiet.
TURNS = 4
# Seconds that the windows of a row may take, whatever the precision: a row that is noisy then says so.
POINT_S = 5.0
# Rounds of warm-up at most (a network in TorchScript is slow twice for each new shape), the first length of their windows, and which part
# of what their median latency allows says that no slow first request was among them.
WARM_UPS, WARM_UP_MS, WARM = 4, 200, 0.75
T = TypeVar("T")


def quick() -> bool:
    """True if measurements are to be short rather than precise (``COURSE_QUICK=1``), for a look at a notebook before class."""
    return os.environ.get("COURSE_QUICK", "0") not in ("", "0")


class Measurement:
    """One load on one model, with the arguments of :func:`measure`: warmed up once, then measured in runs of three windows."""

    def __init__(
        self,
        server: Any,
        model: str,
        batch: int = 1,
        concurrency: int = 1,
        *,
        lengths: Mapping[str, int] | None = None,
        input_data: InputData = "random",
        precision: float = PRECISION,
        request_rate_per_s: float | None = None,
        in_turn: bool = False,
    ) -> None:
        self.server, self.model, self.precision, self.in_turn = server, model, precision, in_turn
        with Client(server, timeout_s=QUERY_TIMEOUT_S) as connection:
            signature, self.config = connection.signature(model), connection.config(model)
            version, address = connection.about().get("version"), connection.address
        shapes, data = checked(signature, batch, lengths or {}, input_data)
        way: dict[str, Any] = {"protocol": connection.protocol, "secure": address.secure, "access": connection.access}
        load: dict[str, Any] = {"batch": batch, "concurrency": concurrency, "request_rate_per_s": request_rate_per_s}
        self.run = Run(model, str(address.dialled), shapes=shapes, input_data=data, **way, **load)
        # The columns of a row that do not change while a model is measured; None for what a server elsewhere does not tell.
        self.known = _placed(connection.server, model, self.config, address) | {
            "server_version": version,
            "config": hashlib.sha256(json.dumps(self.config, sort_keys=True).encode()).hexdigest()[:8],
        }
        self.results: list[Result] = []
        self.turns: dict[str, float] = {}

    def warm_up(self) -> list[float]:
        """Send requests that do not count until the model is fast, and choose the length of the windows; return the last rates."""
        run, rates, rate = self.run, [], 0.0
        window_s = QUICK_WINDOW_S if quick() else TURN_WINDOW_S if self.in_turn else WINDOW_S
        trials = 1 if self.in_turn or quick() else RUN_WINDOWS
        short = replace(run, window_ms=WARM_UP_MS, windows=trials, percentile=50)
        for _ in range(1 if quick() else WARM_UPS):
            if seen := execute(short, self.server).windows:
                rates = [window.throughput_infer_per_s for window in seen]
                rate = rates[-1]
            if not seen or rate * short.window_ms < 1000 * max(4, 2 * run.concurrency) * run.batch:
                # A slow model: too few requests to tell.
                short = replace(short, window_ms=4 * short.window_ms, windows=1)
            elif rate > WARM * run.concurrency * run.batch / (seen[-1].latency_us * 1e-6):
                break
        # Those under way may end at once: of these there are two rounds also in a quick window.
        requests = min(WINDOW_REQUESTS, max(QUICK_REQUESTS, 2 * run.concurrency)) if quick() else WINDOW_REQUESTS
        seconds = min(max(requests * run.batch / rate if rate else 0.0, window_s[0]), window_s[1])
        self.run = replace(run, window_ms=round(1000 * seconds))
        return rates

    def measure(self, turn: str = "") -> None:
        """Measure three windows; with a name of the turn, to be compared with what else was measured in it."""
        while not (result := execute(self.run, self.server)).figures and self.run.window_ms <= 1000 * WINDOW_S[1]:
            # A window without a complete request: twice as long next time.
            self.run = replace(self.run, window_ms=2 * self.run.window_ms)
        self.results.append(result)
        if turn and result.figures:
            self.turns[turn] = result.figures[THROUGHPUT] or 0.0

    def row(self) -> dict[str, Any]:
        """Return what was measured so far as a row, by :data:`~helpers.measuring.table.COLUMNS`."""
        row = row_of(self.run, self.results, self.known | {"perf_analyzer_version": find_perf_analyzer().version}, self.precision)
        if len(getattr(self.server, "servers", ())) > 1:
            # The tool asks the front for the counters, and the front has one server answer that, always the same.
            row |= dict.fromkeys(("latency_avg_us", *PARTS[1:-1]))
        return row | ({"turns": dict(self.turns)} if self.turns else {})


def row_of(run: Run, results: Sequence[Result], known: Mapping[str, Any], precision: float = PRECISION) -> dict[str, Any]:
    """Return several runs of the tool as one row; ``known`` has further columns. A run without figures is left out."""
    results = [result for result in results if result.figures]
    windows = [window for result in results for window in result.windows]
    figures = pd.DataFrame([result.figures for result in results], dtype=float)
    # Of a percentile the median, because the mean of percentiles is none.
    percentiles = figures.filter(like="latency_p").median(skipna=False)
    row: dict[str, Any] = dict.fromkeys(COLUMNS) | plain({**figures.mean(skipna=False), **percentiles}) | run.sent() | dict(known)
    rates = [window.throughput_infer_per_s for window in windows]
    low, high = percentile_interval([window[1:] for window in windows], [(result.figures, result.requests) for result in results])
    # The value is the median of the runs' own, and the interval that of the windows: it may not leave the value outside.
    p95, low, high = row[LATENCY], low and min(low, row[LATENCY]), high and max(high, row[LATENCY])
    spread, half = interval(rates), None if low is None or high is None else max(p95 - low, high - p95)
    asked = ("throughput", row[THROUGHPUT], spread, precision), ("p95", p95, half, LATENCY_PRECISION * precision)
    wide = [f"{name} not within {100 * wanted:g}%" for name, value, known, wanted in asked if known is None or known > wanted * value]
    return row | {
        **{name: getattr(run, name) for name in ("model", "url", "protocol", "batch", "request_rate_per_s")},
        "concurrency": run.concurrency if run.request_rate_per_s is None else None,
        **{THROUGHPUT_SPREAD: spread, LATENCY_ENDS[0]: low, LATENCY_ENDS[1]: high},
        "requests": sum(result.requests for result in results),
        "windows": len(windows),
        "stable": not wide,
        "note": "; ".join(wide),
        "source": MEASURED,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": str(run),
    }


def measure(server: Any, model: str, batch: int = 1, concurrency: int = 1, *, max_seconds: float = POINT_S, **options: Any) -> Row:
    """Measure one model under one load: as many windows as the scatter of the warm-up tells, each with a number of requests.

    The server may be a fleet, too, or an address such as ``localhost:9001``; beyond six windows, they take ``max_seconds`` together.
    Options are ``precision`` (0.05, the half width to reach, as a fraction), ``request_rate_per_s`` (in place of a concurrency),
    ``input_data`` (``random``, or a file; for several models, by model), and ``lengths`` (of axes that may have any, by the input's name).

    Returns a row; times in µs, None for what is not known. Its 95 % intervals hold while it was measured, and do not know what the machine
    does a minute later. A row whose precision was not reached has ``stable=False`` and says so in ``note``.
    """
    made = [Measurement(server, model, batch, concurrency, **options)]
    (row,) = recorded_instead(made) or _measured(made, max_seconds=max_seconds)
    return Row.of(row)


def measure_in_turn(server: Any, model: str, *loads: Mapping[str, Any], turns: int = TURNS, **options: Any) -> tuple[Row, ...]:
    """Measure several loads in turn, A, B, B, A …, so that what the machine does meanwhile hits all alike.

    Loads say what differs, such as ``{"batch": 4, "concurrency": 2}`` or ``{"model": …}``; options, as for :func:`measure`, are for all.
    A turn is three windows of each. Returns a row for each load; ``verdict`` compares them pair by pair.
    """
    if not loads:
        todo = 'Type: measure_in_turn(server, model, {"batch": 1}, {"batch": 8})'
        raise InputError("Loads are measured in turn, and none was given.", "", todo)
    made = [Measurement(server, **{"model": model, **options, **load}, in_turn=True) for load in loads]
    return tuple(map(Row.of, recorded_instead(made) or _measured(made, turns)))


def _measured(loads: Sequence[Measurement], turns: int = TURNS, max_seconds: float = POINT_S) -> list[dict[str, Any]]:
    """The rows of loads that take turns, or of one alone, with as many runs as its warm-up tells."""
    first = loads[0]
    what = f"measuring {len(loads)} loads in turn" if first.in_turn else f"measuring {first.model}, batch {first.run.batch}"
    with Progress(what, unit="runs") as progress:
        pilots = [each.warm_up() for each in loads]
        if first.in_turn:
            runs = list(in_turn(loads, turns))
        else:
            most = max(int(1000 * max_seconds / first.run.window_ms), LEAST_WINDOWS)
            windows = RUN_WINDOWS if quick() else windows_needed(pilots[0], first.precision, most)
            runs = [(first, "")] * -(-windows // RUN_WINDOWS)
        progress.total = len(runs)
        for each, turn in runs:
            each.measure(turn)
            progress.add()
    return [each.row() for each in loads]


def sweep_file() -> Path:
    """Return the file of the course's own sweep."""
    return root() / "notebooks" / "data" / "recorded_sweep.jsonl"


def recorded_instead(loads: Sequence[Measurement]) -> list[dict[str, Any]]:
    """Return the recorded rows of the same loads where perf_analyzer does not run, and say so; none where it does.

    A SetupError where one of them was not recorded, or where the models are a working copy, which people change.
    """
    try:
        find_perf_analyzer()
    except SetupError as error:
        changed = getattr(loads[0].server, "repository", None) not in (None, models_dir().resolve())
        known = {} if changed else {_load_of(row): row for row in read_lines(sweep_file())}
        rows = [known.get(_load_of(vars(each.run) | each.run.sent()), {}) for each in loads]
        if not all(rows):
            raise
        print(f"{error.happened} What follows was recorded on another machine without a GPU, which each row names.")
        return rows
    return []


def _load_of(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells a load from others: of the inputs' names without the place that TorchScript's have, in any order."""
    shapes = sorted(re.sub(r"__\d+", "", row["shapes"]).split())
    return *(row[name] for name in ("model", "batch", "concurrency", "request_rate_per_s", "inputs")), *shapes


def in_turn(measurements: Sequence[T], turns: int = TURNS) -> Iterator[tuple[T, str]]:
    """Yield each in turn, every other turn backwards, and the name of the turn; of a quick measurement there is one turn."""
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}"
    for number in range(1 if quick() else turns):
        for made in measurements if number % 2 == 0 else measurements[::-1]:
            yield made, f"{name}-{number}"


def _placed(server: Any, model: str, config: Mapping[str, Any], address: Address) -> dict[str, Any]:
    """On what a model runs, and how many instances of it."""
    groups = config.get("instance_group", [])
    here = getattr(server, "owned", False) or machine.serves_here(address.host, address.port)
    on_gpu = any("GPU" in group.get("kind", "") for group in groups)
    if on_gpu and getattr(server, "runtime", "") == "embedded":
        # Asked for a GPU that its library cannot use, a model runs on the processor.
        on_gpu = placed_on(server.log(lines=0), model) != "CPU"
    device = (machine.device() if here else "GPU") if on_gpu else "CPU"
    return {"cpu": machine.cpu() if here else None} | ({"device": device, "instances": instances_of(config)} if groups else {})


@contextmanager
def config_kept(server: Any, *models: str) -> Iterator[dict[str, dict[str, Any]]]:
    """Give the configurations of models, and put them back at the end, also after an interrupt; a server that has died has none."""
    original = {model: server.config(model) for model in models}
    try:
        yield original
    finally:
        for model, config in original.items() if server.is_alive() else ():
            if server.config(model) != config:
                server.load(model, config=config)


def sweep(
    server: Any,
    models: str | Sequence[str],
    batches: Iterable[int] = (1,),
    concurrencies: Iterable[int] = (1,),
    *,
    output: str | Path = "work/sweeps",
    max_seconds: float = POINT_S,
    **options: Any,
) -> Rows:
    """Measure every combination; each row is in a file of the folder ``output`` as soon as it was measured.

    Several models are measured in turn under each load, so that ``verdict`` can compare them pair by pair. Options are those of
    :func:`measure`. Returns the rows, in the order of the models, and of the combinations; ``attrs["path"]`` is the file.
    """
    names = [models] if isinstance(models, str) else list(dict.fromkeys(models))
    loads = [
        [Measurement(server, name, batch, concurrency, in_turn=len(names) > 1, **options) for name in names]
        for concurrency, batch in itertools.product(concurrencies, batches)
    ]
    # All is checked before anything runs.
    file, rows = sweep_file(), recorded_instead([each for load in loads for each in load])
    if not rows:
        file = in_work(output) / "sweep.jsonl"
        with Progress("sweep", len(loads), "loads") as progress:
            for load in loads:
                for row in _measured(load, max_seconds=max_seconds):
                    # First of all: whatever happens next, this row is not lost.
                    append_line(file, row)
                    rows.append(row)
                progress.add()
    return Rows.of(sorted(rows, key=lambda row: names.index(row["model"])), f"In {shown(file)}.", path=str(file))
