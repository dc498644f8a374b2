"""Measure a model with NVIDIA's perf_analyzer: one load, several in turn to compare them, or a whole sweep.

Where perf_analyzer does not run, such as on macOS, they return what this course recorded on a machine of its own, and say so.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from helpers import machine
from helpers.client.client import Client
from helpers.client.endpoint import QUERY_TIMEOUT_S
from helpers.client.problems import TransportError
from helpers.errors import CourseError, InputError, ModelError, RequestError, SetupError
from helpers.measuring.perf_analyzer import FAILED, Result, Run, execute, run_for, show, words_of
from helpers.measuring.program import find_perf_analyzer
from helpers.measuring.recorded import recorded_sweep
from helpers.measuring.statistics import LEAST_WINDOWS, interval, percentile_interval, windows_needed
from helpers.measuring.table import (
    COLUMNS,
    LATENCY_ENDS,
    MEASURED,
    PERCENTILES,
    THROUGHPUT,
    THROUGHPUT_SPREAD,
    Row,
    Rows,
    append_row,
    folder_of,
    latency_column,
    plain,
    read_rows,
    rows_of,
)
from helpers.metrics.gpu import placed_on
from helpers.paths import root, shown
from helpers.repository.configs import instances_of
from helpers.terminal import Progress

# Half width of the throughput's 95 % interval, as a fraction, at which a row counts as settled; that of the latency, known less well than
# a mean, may be twice as large.
PRECISION, LATENCY_PRECISION = 0.05, 2
# Requests in one window, at least: six windows then hold the 72 that a 95th percentile's interval needs.
WINDOW_REQUESTS = 15
# Length of a window in seconds, at least and at most: shorter ones show the machine's hiccups, longer ones cost a lesson's time. Where
# measurements take turns there are more windows, and what the machine does in between hits all alike. The last is of quick ones.
WINDOW_S, TURN_WINDOW_S, QUICK_WINDOW_S = (0.4, 3.0), (0.2, 2.0), (0.2, 1.0)
# Windows of one run of the tool: it gives figures of its last three, and of no fewer.
RUN_WINDOWS = 3
# Turns of each measurement where they are compared: three pairs could settle a difference only where the machine is very quiet.
TURNS = 4
# Seconds that the windows of a row may take, whatever the precision: a row that is noisy then says so.
POINT_S = 5.0
# Rounds of warm-up at most (a network in TorchScript is slow twice for each new shape), those of a quick measurement, and the first
# length of their windows in ms.
WARM_UPS, QUICK_WARM_UPS, WARM_UP_MS = 4, 2, 200
# The throughput of a warm-up below this fraction of what its median latency allows: slow first requests were among it.
_WARM = 0.75
# Batch sizes of a sweep, those of the course text; the ones above a model's limit are left out by default.
BATCHES = (1, 4, 8, 16, 32, 64, 128)
# The file of a sweep in its folder.
TABLE = "sweep.jsonl"
# The tool's own rule is switched off: by it, three windows within 10 % are good, and on a crowded machine they differ tenfold.
_ANY = 1e6
# What makes a measurement the same as an earlier one. The address is not part of it, because a server launched again is as good.
_SAME = (
    *("model", "protocol", "batch", "concurrency", "request_rate_per_s", "percentile", "inputs", "shapes", "inputs_digest"),
    *("config", "device", "cpu", "server_version", "perf_analyzer_version"),
)


def quick() -> bool:
    """True if measurements are to be short rather than precise (``COURSE_QUICK=1``), for a look at a notebook before class."""
    return os.environ.get("COURSE_QUICK", "").lower() not in ("", "0", "false", "no")


def turns_now(turns: int = TURNS) -> int:
    """Return how many turns to measure; of a quick measurement one."""
    return 1 if quick() else turns


# --- one load --------------------------------------------------------------------------------------------------------------


class Measurement:
    """One load on one model, with the arguments of :func:`measure`: warmed up once, then measured in runs of three windows.

    ``window_s`` is the length of a window in seconds, at least and at most, where measurements take turns.
    """

    def __init__(
        self,
        server: Any,
        model: str,
        batch: int = 1,
        concurrency: int = 1,
        *,
        precision: float = PRECISION,
        window_s: tuple[float, float] | None = None,
        **options: Any,
    ) -> None:
        if not 0 < precision < 1 or not isinstance(concurrency, int) or concurrency < 1:
            raise InputError(
                f"precision={precision}, concurrency={concurrency} was given.",
                "Expected a fraction such as 0.05, and a whole number of requests under way, 1 or more.",
            )
        self.server, self.model, self.precision, self.window_s = server, model, precision, window_s
        self.run = run_for(server, model, batch=batch, concurrency=concurrency, **options)
        self.known = about(server, model, self.run.protocol)[0]
        self.results: list[Result] = []
        self.turns: dict[str, float] = {}
        self.pilot: list[float] = []

    def __str__(self) -> str:
        return f"{self.model}, batch {self.run.batch}, concurrency {self.run.concurrency}"

    def warm_up(self) -> None:
        """Send requests that do not count until the model is fast, and choose the length of the windows."""
        run, rate = self.run, 0.0
        # Three windows tell how many will be needed; where that is fixed, one is enough.
        trials = RUN_WINDOWS if self.window_s is None and not quick() else 1
        short = replace(run, window_ms=WARM_UP_MS, max_trials=trials, stability_percent=_ANY, percentile=50)
        for _ in range(QUICK_WARM_UPS if quick() else WARM_UPS):
            seen = execute(short, self.server).windows
            if seen:
                rate, self.pilot = seen[-1].throughput_infer_per_s, [window.throughput_infer_per_s for window in seen]
            if run.request_rate_per_s and seen:
                break
            if not seen or rate * short.window_ms < 1000 * max(4, 2 * run.concurrency) * run.batch:
                # A slow model: too few requests to tell.
                short = replace(short, window_ms=4 * short.window_ms, max_trials=1)
            elif rate > _WARM * run.concurrency * run.batch / (seen[-1].latency_us * 1e-6):
                break
        rate = run.request_rate_per_s * run.batch if run.request_rate_per_s else rate
        shortest, longest = QUICK_WINDOW_S if quick() else self.window_s or WINDOW_S
        seconds = min(max(WINDOW_REQUESTS * run.batch / rate if rate else shortest, shortest), longest)
        self.run = replace(run, window_ms=round(1000 * seconds), max_trials=RUN_WINDOWS, stability_percent=_ANY)

    def measure(self, turn: str = "") -> None:
        """Measure three windows; with a name of the turn, to be compared with what else was measured in it."""
        result = execute(self.run, self.server)
        while not result.figures and self.run.window_ms <= 1000 * WINDOW_S[1]:
            # A window without a complete request: twice as long next time.
            self.run = replace(self.run, window_ms=2 * self.run.window_ms)
            result = execute(self.run, self.server)
        self.results.append(result)
        if turn and result.figures:
            self.turns[turn] = result.figures[THROUGHPUT] or 0.0

    def measure_enough(self, max_seconds: float) -> None:
        """Measure as many windows as the scatter of the warm-up tells, whatever they will show."""
        most = max(int(1000 * max_seconds / self.run.window_ms), LEAST_WINDOWS)
        windows = RUN_WINDOWS if quick() else windows_needed(self.pilot, self.precision, most)
        for _ in range(-(-windows // RUN_WINDOWS)):
            self.measure()

    def row(self) -> dict[str, Any]:
        """Return what was measured so far as a row, by :data:`~helpers.measuring.table.COLUMNS`."""
        row = row_of(self.run, self.results, self.known, self.precision)
        behind = len(getattr(self.server, "servers", ()))
        if behind > 1:
            # The tool asks the front for the counters, and the front has one server answer that, always the same.
            row["note"] = "; ".join(filter(None, (row["note"], f"queue and compute times are those of one of the {behind} servers")))
        return row | ({"turns": dict(self.turns)} if self.turns else {})


def row_of(run: Run, results: Sequence[Result], known: Mapping[str, Any], precision: float = PRECISION) -> dict[str, Any]:
    """Return several runs of the tool as one row; ``known`` is what :func:`about` gives. A run without figures is left out."""
    results = [result for result in results if result.figures]
    windows = [window for result in results for window in result.windows]
    requests = [result.requests for result in results]
    figures = pd.DataFrame([result.figures for result in results], dtype=float)
    # Of a percentile the median, because the mean of percentiles is none.
    percentiles = figures.filter(like="latency_p").median(skipna=False)
    row = dict.fromkeys(COLUMNS) | plain({**figures.mean(skipna=False), **percentiles}) | run.sent() | dict(known)
    ends = _latency_ends(run.percentile, results, row[latency_column(run.percentile)])
    row |= {
        **{name: getattr(run, name) for name in ("model", "url", "protocol", "batch", "request_rate_per_s", "percentile")},
        "concurrency": run.concurrency if run.request_rate_per_s is None else None,
        THROUGHPUT_SPREAD: interval([window.throughput_infer_per_s for window in windows])[1],
        **dict(zip(LATENCY_ENDS, ends, strict=True)),
        "requests": sum(filter(None, requests)) if all(requests) else None,
        "windows": len(windows),
        "source": MEASURED,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": str(run),
    }
    note = _unsettled(row, precision)
    return row | {"stable": not note, "note": note}


def _unsettled(row: Mapping[str, Any], precision: float) -> str:
    """What of a row is not known as precisely as asked for; empty when all is."""
    if row[THROUGHPUT] is None:
        return "no window held a complete request"
    latency = row[latency_column(row["percentile"])]
    ends = [row[end] for end in LATENCY_ENDS]
    half = None if None in ends else max(abs(end - latency) for end in ends)
    notes = []
    quantities = (
        ("throughput", row[THROUGHPUT_SPREAD], row[THROUGHPUT], precision),
        (f"p{row['percentile']}", half, latency, LATENCY_PRECISION * precision),
    )
    for name, spread, value, wanted in quantities:
        if spread is None or spread > wanted * value:
            reached = "not known" if spread is None else f"±{float(f'{100 * spread / value:.2g}'):g}%"
            notes.append(f"{name} not within {100 * wanted:g}%: {reached}")
    return "; ".join([*notes, f"after {row['windows']} windows"]) if notes else ""


def _latency_ends(percentile: int, results: Sequence[Result], value: float | None) -> tuple[float | None, float | None]:
    """The ends of the latency's 95 % interval; None for one that is not known."""
    if value is None:
        return None, None
    seen, runs = [], []
    for result in results:
        total = sum(window.throughput_infer_per_s for window in result.windows)
        # The tool says how many requests a run had; its windows share them by their rates.
        share = (result.requests or 0) / total if total else 0.0
        seen += [(window.latency_us, round(share * window.throughput_infer_per_s)) for window in result.windows]
        reported = {each: figure for each in PERCENTILES if (figure := result.figures[latency_column(each)])}
        runs.append((reported, result.requests or 0))
    low, high = percentile_interval(percentile, seen, runs)
    # The value is the median of the runs' own, and the interval that of the windows: it may not leave the value outside.
    return None if low is None else min(low, value), None if high is None else max(high, value)


def measure(server: Any, model: str, batch: int = 1, concurrency: int = 1, *, max_seconds: float = POINT_S, **options: Any) -> Row:
    """Measure one model under one load: as many windows as the scatter of the warm-up tells, each with a number of requests.

    Args:
        server: a server, a fleet, or an address such as ``localhost:9001``.
        model: name of the model.
        batch: entries in each request.
        concurrency: requests under way at any time.
        max_seconds: seconds that the windows may take beyond six of them.
        **options: ``precision`` (0.05, the half width to reach, as a fraction), ``request_rate_per_s`` (in place of a concurrency),
            ``protocol`` (``grpc``), ``percentile`` (95), ``input_data`` (``random``, ``zero``, or a file; for several models, by model),
            ``lengths`` (of the axes that may have any, by the beginning of the input's name).

    Returns:
        A row; times in µs, None for what is not known. Its 95 % intervals hold while it was measured, and do not know what the machine does
        a minute later. A row whose precision was not reached has ``stable=False`` and says so in ``note``.
    """
    if not can_measure():
        return _recorded_row(server, {"model": model, "batch": batch, "concurrency": concurrency, **options})
    made = Measurement(server, model, batch, concurrency, **options)
    with Progress(lambda: f"measuring {model}, batch {batch}: {len(made.results)} runs"):
        made.warm_up()
        made.measure_enough(max_seconds)
    return Row.of(made.row())


def measure_in_turn(server: Any, model: str, *loads: Mapping[str, Any], turns: int = TURNS, **options: Any) -> tuple[Row, ...]:
    """Measure several loads in turn, A, B, B, A …, so that what the machine does meanwhile hits all alike.

    Loads say what differs, such as ``{"batch": 4, "concurrency": 2}`` or ``{"model": …}``; options, as for :func:`measure`, are for all.
    A turn is three windows of each. Returns a row for each load; ``verdict`` compares them pair by pair.
    """
    given = [{"model": model, "batch": 1, "concurrency": 1, **options, **load} for load in loads]
    if not can_measure():
        return tuple(_recorded_row(server, load) for load in given)
    made = [Measurement(server, **load, window_s=TURN_WINDOW_S) for load in given]
    turns = turns_now(turns)
    with Progress(f"measuring {len(made)} loads in turn", turns * len(made), "runs") as progress:
        for each in made:
            each.warm_up()
        for _ in take_turns(made, turns):
            progress.add()
    return tuple(Row.of(each.row()) for each in made)


def take_turns(
    measurements: Sequence[Measurement], turns: int, prepare: Callable[[Measurement], object] = lambda made: None
) -> Iterator[Measurement]:
    """Measure three windows of each in turn, every other turn backwards, and yield each after a run of it.

    ``prepare`` is called before each run, such as to load its configuration.
    """
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}"
    for number in range(turns):
        for made in measurements if number % 2 == 0 else measurements[::-1]:
            prepare(made)
            made.measure(f"{name}-{number}")
            yield made


# --- what stands beside a measurement --------------------------------------------------------------------------------------


def about(server: Any, model: str, protocol: str | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the columns of a row that do not change while a model is measured, and its configuration as the server reports it.

    ``device`` is ``CPU``, or the GPU's name; ``config`` a short name, the same for equal configurations. What a server elsewhere does
    not tell is None.
    """
    with Client(server, protocol, timeout_s=QUERY_TIMEOUT_S) as connection:
        config = connection.config(model)
        groups = config.get("instance_group", [])
        server = connection.server
        here = getattr(server, "owned", False) or machine.serves_here(connection.address.host, connection.address.port)
        on_gpu = any("GPU" in group.get("kind", "") for group in groups)
        if on_gpu and server is not None and getattr(server, "runtime", "") == "embedded":
            # Asked for a GPU that its library cannot use, a model runs on the processor.
            on_gpu = placed_on(server.log(lines=0), model) != "CPU"
        try:
            version = str(connection.transport.about()["version"])
        except (TransportError, KeyError):
            version = None
    return {
        "device": ((machine.device() if here else "GPU") if on_gpu else "CPU") if groups else None,
        "cpu": machine.cpu() if here else None,
        "server_version": version,
        "perf_analyzer_version": find_perf_analyzer().version,
        "instances": instances_of(config) if groups else None,
        "config": hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:8],
    }, config


def must_own(server: Any, what: str) -> None:
    """Refuse, by a ModelError, what loads models again on a server of others."""
    if not getattr(server, "admin_headers", lambda _: {})("http"):
        raise ModelError(
            f"Only the owner of a server can {what}, because models are loaded again for it.",
            "You are connected to it, but you did not launch it.",
            'Type: server = launch_server("models")',
        )


@contextmanager
def config_kept(server: Any, *models: str) -> Iterator[dict[str, dict[str, Any]]]:
    """Give the configurations of models, and put them back at the end, also after an interrupt; a server that has died has none."""
    original = {model: server.config(model) for model in models}
    try:
        yield original
    finally:
        for model, config in original.items():
            try:
                if server.config(model) != config:
                    server.load(model, config=config)
            except CourseError:
                if server.is_alive():
                    raise


# --- a sweep ---------------------------------------------------------------------------------------------------------------


def sweep(
    server: Any,
    models: str | Sequence[str],
    batches: Iterable[int] | None = None,
    concurrencies: Iterable[int] = (1,),
    *,
    output: str | Path | None = None,
    max_seconds: float = POINT_S,
    again: bool = False,
    **options: Any,
) -> Rows:
    """Measure every combination. Killed or interrupted and typed again, it goes on where it was.

    Several models are measured in turn under each load, so that ``verdict`` can compare them pair by pair.

    Args:
        server: a server, or an address such as ``localhost:9001``.
        models: one name or several.
        batches: batch sizes; by default 1 to 128 as in the course text, as far as the model goes.
        concurrencies: requests under way at any time.
        output: folder for ``sweep.jsonl`` with all rows, by default ``work/sweeps``.
        max_seconds: as for :func:`measure`.
        again: measure also what was measured before.
        **options: as for :func:`measure`.

    Returns:
        The rows, in the order of the combinations; ``attrs`` has ``path`` of the file, and how many were measured ``before``.
    """
    names = list(dict.fromkeys([models] if isinstance(models, str) else models))
    if not can_measure():
        return recorded_sweep(names, batches, concurrencies, options.get("lengths"), options.get("input_data", "random"))
    options["window_s"] = TURN_WINDOW_S if len(names) > 1 else None
    points = _plan(server, names, batches, concurrencies, options)
    table, at = folder_of(output or "work/sweeps") / TABLE, "its beginning"
    known = [] if again else read_rows(table)
    rows = {point: row for point in points if (row := _measured_before(known, point))}
    before = len(rows)
    loads: dict[tuple[int, int], list[Measurement]] = {}
    for point in points:
        if point not in rows:
            loads.setdefault((point.run.concurrency, point.run.batch), []).append(point)
    with Progress(lambda: at, len(points), "points") as progress:
        progress.add(before)
        try:
            for group in loads.values():
                for point in group:
                    at = str(point)
                    point.warm_up()
                if len(group) == 1:
                    group[0].measure_enough(max_seconds)
                else:
                    list(take_turns(group, turns_now()))
                for point in group:
                    rows[point] = point.row()
                    # First of all: whatever happens next, this point is not lost.
                    append_row(table, rows[point])
                    progress.add()
        except CourseError as error:
            kept = f"{len(rows)} of {len(points)} points are in {shown(table)}; typed again, it goes on from there."
            raise RequestError(f"The sweep stopped at {at}: {error.happened}", kept, error.todo or error.expected) from error
    if before:
        # Before the table or the figure of them, which looks like new.
        print(f"{before} of {len(points)} points were measured before (again=True measures all).")
    return Rows.of([rows[point] for point in points], f"In {shown(table)}.", path=str(table), before=before)


def _plan(
    server: Any, names: Sequence[str], batches: Iterable[int] | None, concurrencies: Iterable[int], options: Mapping[str, Any]
) -> list[Measurement]:
    """All points in order, checked before anything runs."""
    loads, sizes = list(dict.fromkeys(concurrencies)), None if batches is None else list(dict.fromkeys(batches))
    points = []
    for model in names:
        with Client(server, options.get("protocol"), timeout_s=QUERY_TIMEOUT_S) as connection:
            largest = max(1, connection.signature(model).max_batch_size)
        fitting = [batch for batch in BATCHES if batch <= largest]
        points += [Measurement(server, model, batch, load, **options) for load in loads for batch in (fitting if sizes is None else sizes)]
    if not points:
        raise InputError("There is nothing to measure.", "Expected at least one model, one batch size and one concurrency.")
    return points


def _measured_before(rows: Sequence[dict[str, Any]], point: Measurement) -> dict[str, Any] | None:
    """The latest row of the same, newer than the model's files where these are at hand; None when there is none."""
    repository, wanted = getattr(point.server, "repository", None), point.row()
    files = (Path(repository) / point.model).glob("[0-9]*/*") if repository is not None else ()
    # The time of a row has whole seconds.
    changed = max((int(path.stat().st_mtime) for path in files if path.is_file()), default=0)
    # Of a machine elsewhere the processor is not known, so its address tells it apart.
    same = _SAME if wanted["cpu"] else (*_SAME, "url")
    found = (row for row in reversed(rows) if all(row.get(name) == wanted[name] for name in same))
    return next((row for row in found if datetime.fromisoformat(row["time"]).timestamp() >= changed), None)


# --- the tool itself, and where it does not run ----------------------------------------------------------------------------


def can_measure() -> bool:
    """True if the tool runs here; says in one sentence when it does not."""
    try:
        find_perf_analyzer()
        return True
    except SetupError as error:
        print(f"{error.happened} What follows was recorded on another machine without a GPU, which each row names.")
        return False


def _recorded_row(server: Any, load: Mapping[str, Any]) -> Row:
    """The recorded row of a load on the models as they came; a SetupError for a working copy, which people change."""
    repository = getattr(server, "repository", None)
    if repository is not None and Path(repository).resolve() != (root() / "models").resolve():
        find_perf_analyzer()
    inputs = load.get("input_data", "random")
    return Row.of(rows_of(recorded_sweep([load["model"]], (load["batch"],), (load["concurrency"],), load.get("lengths"), inputs))[0])


def perf_analyzer(*arguments: str) -> int:
    """Run the tool with these very arguments, and print what it says.

    Arguments are one word each, or a whole command in one text, with the word ``perf_analyzer`` and line ends. Returns its exit status: 0
    done, 2 the windows did not agree, 99 it failed, or does not run here.
    """
    return show(words_of(*arguments)) if can_measure() else FAILED
