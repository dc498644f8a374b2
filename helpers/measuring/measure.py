"""Measure a model with NVIDIA's perf_analyzer: one load, several in turn, or a whole sweep.

Typical use::

    row = measure(server, "particlenet_AK4", batch=10)
    one, four = measure_in_turn(server, "particlenet_AK4", {"batch": 1}, {"batch": 4})       # to be compared
    rows = sweep(server, ["particlenet_AK4", "particlenet_AK4_PT"], batches=(1, 4, 16, 64))

Where perf_analyzer does not run, such as on macOS, they return what this course recorded on a machine of its own, and say so; a recorded
row says so in its column ``source``.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tqdm.auto import tqdm

from helpers import machine
from helpers.client.client import RETRIES, Connection
from helpers.client.endpoint import QUERY_TIMEOUT_S
from helpers.client.problems import TransportError
from helpers.errors import CourseError, InputError, ModelError, RequestError, SetupError, quoted
from helpers.machine import serves_here
from helpers.measuring import perf_analyzer as tool
from helpers.measuring import recorded as records
from helpers.measuring.perf_analyzer import INPUT_DATA, PERCENTILE, TOOL_COLUMNS, Result, Run, Shapes, check_batch, execute, run_for
from helpers.measuring.program import Program, find_perf_analyzer
from helpers.measuring.statistics import LEAST_WINDOWS, interval, percentile_interval, windows_needed
from helpers.measuring.table import (
    COLUMNS,
    PERCENTILES,
    THROUGHPUT,
    THROUGHPUT_SPREAD,
    Row,
    Rows,
    append_row,
    folder_of,
    key_of,
    latency_column,
    read_rows,
    rows_of,
)
from helpers.metrics.gpu import placed_on
from helpers.paths import make_folder, root, shown, work_dir, writing
from helpers.paths import replace as replace_file
from helpers.repository.configs import instances_of
from helpers.repository.syntax import as_dict, parse

# Half width of the throughput's 95 % interval, as a fraction, at which a row counts as settled.
PRECISION = 0.05
# The same for the latency percentile, as a multiple: of as many requests it is known less well than a mean.
LATENCY_PRECISION = 2
# Requests in one window, at least: six windows then hold the 72 that a 95th percentile's interval needs.
WINDOW_REQUESTS = 15
# Length of a window in seconds, at least and at most: shorter ones show the machine's hiccups, longer ones cost a lesson's time.
WINDOW_S = (0.4, 3.0)
# The same where measurements take turns: there are more windows, and what the machine does in between hits all alike.
TURN_WINDOW_S = (0.2, 2.0)
# Windows of one run of the tool: it gives figures of its last three, and of no fewer.
RUN_WINDOWS = 3
# Turns of each measurement where they are compared: three pairs could settle a difference only where the machine is very quiet.
TURNS = 4
# Seconds that the windows of a row may take, whatever the precision: a row that is noisy then says so.
POINT_S = 5.0
# Windows of a short look, and of a quick run (``COURSE_QUICK=1``): for tests of everything around the numbers, and for a look at a
# notebook before class. The numbers are measured ones, their spreads are larger, and rows say so.
QUICK_WINDOWS, QUICK_TURNS, QUICK_WINDOW_S, QUICK_WARM_UPS = 3, 1, (0.2, 1.0), 1
# Length of a window of the warm-up in seconds: dozens of requests to a fast model. A slow one gets a number of requests instead.
WARM_UP_S = 0.2
# Rounds of warm-up at most: a network in TorchScript is slow twice for each new shape, and two instances see each shape anew.
WARM_UPS = 3
# The throughput of a warm-up below this fraction of what its median latency allows: slow first requests were among it.
_WARM = 0.75
# Batch sizes of a sweep, those of the course text; the ones above a model's limit are left out by default.
BATCHES = (1, 4, 8, 16, 32, 64, 128)
# The file of a sweep in its folder.
TABLE = "sweep.jsonl"
# The tool's own rule is switched off: by it, three windows within 10 % are good, whatever is asked for. On a crowded machine they differ
# by a factor of ten and more.
_ANY = 1e6


def quick() -> bool:
    """Return whether measurements are to be short rather than precise (``COURSE_QUICK=1``)."""
    return os.environ.get("COURSE_QUICK", "").lower() not in ("", "0", "false", "no")


# --- one load --------------------------------------------------------------------------------------------------------------


@dataclass
class Measurement:
    """One load on one model, with the arguments of :func:`measure`: warmed up once, then measured in runs of three windows.

    ``window_s`` is the length of a window in seconds, at least and at most.
    """

    server: Any
    model: str
    batch: int = 1
    concurrency: int = 1
    precision: float = PRECISION
    request_rate_per_s: float | None = None
    protocol: str | None = None
    percentile: int | None = PERCENTILE
    input_data: str | Path = "random"
    shapes: Shapes | None = None
    lengths: int | Mapping[str, int] | None = None
    program: Program | None = None
    window_s: tuple[float, float] | None = None
    results: list[Result] = field(default_factory=list, init=False)
    turns: dict[str, list[float | None]] = field(default_factory=dict, init=False)
    pilot: list[float] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        if not 0 < self.precision < 1 or self.concurrency < 1:
            raise InputError(
                f"precision={self.precision}, concurrency={self.concurrency} was given.",
                "Expected a fraction such as 0.05, and at least one request under way.",
            )
        self.program = self.program or find_perf_analyzer()
        load = {"concurrency": self.concurrency, "request_rate_per_s": self.request_rate_per_s, "percentile": self.percentile}
        given = {"shapes": self.shapes, "lengths": self.lengths, "input_data": self.input_data}
        self.run = run_for(self.server, self.model, protocol=self.protocol, batch=self.batch, **given, **load)
        self.known, config = about(self.server, self.model, self.protocol)
        _keep_config(work_dir() / "configs", self.model, self.known["config"], config)
        self._set_windows(None)

    def warm_up(self) -> None:
        """Send requests that do not count until the model is fast, and choose the length of the windows."""
        run = self.run
        under_way = run.concurrency if run.request_rate_per_s is None else 1
        enough = max(4, 2 * under_way)
        # The tool looks once a second whether a number of requests is complete, so a short time is tried first.
        timed = replace(run, window_ms=round(1000 * WARM_UP_S), max_trials=RUN_WINDOWS, stability_percent=_ANY, percentile=50)
        counted = replace(timed, window_ms=None, window_requests=enough, max_trials=1)
        each, rate, left = timed, None, QUICK_WARM_UPS if quick() else WARM_UPS
        while left:
            seen = execute(each, self.program, self.server).windows
            if each is timed and (not seen or seen[-1].throughput_infer_per_s * WARM_UP_S < enough * run.batch):
                each = counted
                continue
            left -= 1
            if not seen:
                continue
            rate, self.pilot = seen[-1].throughput_infer_per_s, [window.throughput_infer_per_s for window in seen]
            if rate > _WARM * under_way * run.batch / (seen[-1].latency_us * 1e-6) or run.request_rate_per_s is not None:
                break
        self._set_windows(rate)

    def _set_windows(self, rate: float | None) -> None:
        """Make windows long enough to hold enough requests; the shortest where the rate is not known."""
        shortest, longest = QUICK_WINDOW_S if quick() else self.window_s or WINDOW_S
        if self.run.request_rate_per_s is not None:
            rate = self.run.request_rate_per_s * self.run.batch
        seconds = min(max(WINDOW_REQUESTS * self.run.batch / rate if rate else shortest, shortest), longest)
        self.run = replace(self.run, window_ms=round(1000 * seconds), max_trials=RUN_WINDOWS, stability_percent=_ANY)
        self.ran = self.run

    def windows(self, max_seconds: float) -> int:
        """Return how many windows to measure, whatever they will show: from the scatter of the warm-up."""
        if quick():
            return QUICK_WINDOWS
        most = int(1000 * max_seconds / (self.run.window_ms or 1))
        return windows_needed(self.pilot, self.precision, max(most, LEAST_WINDOWS))

    def measure(self, turn: str = "") -> None:
        """Measure three windows; with a name of the turn, to be compared with what else was measured in it."""
        while True:
            result = execute(self.run, self.program, self.server)
            if result.figures or not any(each.figures for each in self.results):
                self.ran = self.run
            self.results.append(result)
            if result.figures or (self.run.window_ms or 0) > 1000 * WINDOW_S[1]:
                break
            # A window without a complete request: twice as long next time.
            self.run = replace(self.run, window_ms=2 * (self.run.window_ms or 1))
        if turn and result.figures:
            self.turns[turn] = [result.figures[THROUGHPUT], result.figures.get(latency_column(self.percentile))]

    def row(self) -> dict[str, Any]:
        """Return what was measured so far as a row, by :data:`~helpers.measuring.table.COLUMNS`."""
        row = row_of(self.ran, self.results, self.precision) | self.known
        row["perf_analyzer_version"] = self.program.version  # type: ignore[union-attr]
        behind = len(getattr(self.server, "servers", ()))
        if behind > 1:
            # The tool asks the front for the counters, and the front has one server answer that, always the same.
            row["note"] = "; ".join(filter(None, (row["note"], f"queue and compute times are those of one of the {behind} servers")))
        return row | ({"turns": dict(self.turns)} if self.turns else {})


def row_of(run: Run, results: Sequence[Result], precision: float = PRECISION) -> dict[str, Any]:
    """Return several runs of the tool as one row."""
    return dict.fromkeys(COLUMNS) | {
        **summary(results, run.percentile, precision),
        "model": run.model,
        "url": run.url,
        "protocol": run.protocol,
        "batch": run.batch,
        "concurrency": run.concurrency if run.request_rate_per_s is None else None,
        "request_rate_per_s": run.request_rate_per_s,
        "percentile": run.percentile,
        "inputs": run.inputs,
        "source": "measured",
        "time": now(),
        "command": str(run),
    }


def now() -> str:
    """Return the time as a row has it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def summary(results: Sequence[Result], percentile: int | None, precision: float = PRECISION) -> dict[str, Any]:
    """Return the figures of several runs together, with their intervals; a run without a result is left out if others have one."""
    results = [result for result in results if result.figures] or list(results)
    windows = [window for result in results for window in result.windows]
    numbers = _together([result.figures for result in results if result.figures])
    mean, spread = interval([window.throughput_infer_per_s for window in windows])
    latency = latency_column(percentile) if percentile in (*PERCENTILES, None) else ""
    half = None
    if not numbers:
        seen = "perf_analyzer gave no table: throughput and latency are of its windows" if windows else "no window held a complete request"
        numbers = {latency: sum(window.latency_us for window in windows) / len(windows)} if windows and latency else {}
        unsettled = [seen]
    else:
        mean, half = numbers[THROUGHPUT] or mean, _latency_half(percentile, results, numbers.get(latency))
        asked = [("throughput", spread, mean, precision)]
        asked += [(latency[8:-3], half, numbers.get(latency), LATENCY_PRECISION * precision)] if latency else []
        unsettled = [
            f"{name} not within {100 * wanted:.2g}%: {f'±{100 * each / value:.2g}%' if each and value else 'not known'}"
            for name, each, value, wanted in asked
            if each is None or not value or each > wanted * value
        ]
        unsettled += [f"after {len(windows)} windows"] if unsettled else []
    requests = [result.requests for result in results]
    return {
        **numbers,
        THROUGHPUT: mean,
        THROUGHPUT_SPREAD: spread,
        "latency_spread_us": half,
        "requests": sum(filter(None, requests)) if all(requests) else None,
        "windows": len(windows),
        "stable": not unsettled,
        "note": "; ".join(unsettled),
    }


def _together(runs: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Means over runs, column by column; of a percentile the median, because the mean of percentiles is none."""
    names = dict.fromkeys(name for run in runs for name in run)
    values = {name: [run.get(name) for run in runs] for name in names}
    middle = {name: sorted(known) for name, known in values.items() if None not in known}
    return {
        name: None
        if name not in middle
        else (middle[name][(len(runs) - 1) // 2] + middle[name][len(runs) // 2]) / 2
        if name.startswith("latency_p")
        else sum(middle[name]) / len(runs)
        for name in names
    }


def _latency_half(percentile: int | None, results: Sequence[Result], value: float | None) -> float | None:
    """How far the farther end of the latency's 95 % interval is from its value; None where an end is not known."""
    windows = [window for result in results for window in result.windows]
    if value is None or not windows:
        return None
    if percentile is None:
        return interval([window.latency_us for window in windows])[1]
    sizes, runs = [], []
    for result in results:
        rates = [window.throughput_infer_per_s for window in result.windows]
        # The tool says how many requests a run had; its windows share them by their rates.
        sizes += [round((result.requests or 0) * rate / sum(rates)) for rate in rates]
        reported = {each: result.figures[f"latency_p{each}_us"] for each in PERCENTILES if result.figures.get(f"latency_p{each}_us")}
        runs.append((reported, result.requests or 0))
    ends = percentile_interval(percentile, [(window.latency_us, size) for window, size in zip(windows, sizes, strict=True)], runs)  # type: ignore[arg-type]
    return None if None in ends else max(abs(end - value) for end in ends if end is not None)


def measure(
    server: Any,
    model: str,
    batch: int = 1,
    concurrency: int = 1,
    *,
    windows: int | None = None,
    warm_up: bool = True,
    max_seconds: float = POINT_S,
    **options: Any,
) -> Row:
    """Measure one model under one load.

    How many windows there are is decided before, from the scatter of the warm-up: a measurement that stops when it looks good promises
    too much. Each window holds a number of requests.

    Args:
        server: a :class:`~helpers.server.Server`, a :class:`~helpers.fleet.Fleet` (its throughput and latencies are the client's; its
            times inside the server are those of one of its servers, and ``fleet.shares()`` has all), or an address such as
            ``localhost:9001``.
        model: name of the model.
        batch: entries in each request.
        concurrency: requests under way at any time.
        windows: how many windows, at least; by default as many as the precision takes, from six on.
        warm_up: send requests that do not count, first.
        max_seconds: seconds that the windows may take beyond six of them.
        **options: ``precision`` (0.05, the half width to reach, as a fraction), ``request_rate_per_s`` (in place of a concurrency),
            ``protocol`` (``grpc``), ``percentile`` (95; None for the mean), ``input_data`` (``random``, ``zero``, or a file of
            :mod:`helpers.measuring.inputs`), ``shapes`` (by input name, without the batch axis), ``lengths`` (of the axes that may have
            any, by the beginning of the input's name, or one for all), ``program`` (which perf_analyzer).

    Returns:
        A row with the columns :data:`helpers.measuring.table.COLUMNS`; times in µs. ``throughput_spread_infer_per_s`` and
        ``latency_spread_us`` are half widths of 95 % intervals: they hold while it was measured, and do not know what the machine does a
        minute later, so what is to be compared is measured in turn. A row whose precision was not reached has ``stable=False`` and says
        so in ``note``; what was not measured is None. The configuration that ``config`` names is kept in ``work/configs``.

    Raises:
        CourseError: the measurement could not be made; the text says why.
    """
    if max_seconds <= 0:
        raise InputError(f"max_seconds={max_seconds} was given.", "Expected seconds above 0.")
    if options.get("program") is None and not can_measure():
        return recorded_row(server, model, batch, concurrency, options)
    made = Measurement(server, model, batch, concurrency, **options)
    if warm_up:
        made.warm_up()
    for _ in range(-(-(windows or made.windows(max_seconds)) // RUN_WINDOWS)):
        made.measure()
    return Row.of(made.row())


def measure_in_turn(server: Any, model: str, *loads: Mapping[str, Any], turns: int = TURNS, **options: Any) -> tuple[Row, ...]:
    """Measure several loads in turn, A, B, B, A …, so that what the machine does meanwhile hits all alike.

    Args:
        server: as for :func:`measure`.
        model: name of the model, for loads that name no other.
        *loads: what differs: arguments of :func:`measure` such as ``{"batch": 4, "concurrency": 2}`` or ``{"model": …}``.
        turns: runs of three windows of each.
        **options: arguments of :func:`measure` for all.

    Returns:
        A row for each load; ``verdict`` compares them pair by pair.

    Raises:
        CourseError: a measurement could not be made; the text says why.
    """
    given = [{"model": model, "batch": 1, "concurrency": 1, **options, **load} for load in loads]
    if options.get("program") is None and not can_measure():
        return tuple(
            recorded_row(server, *(load.pop(name) for name in ("model", "batch", "concurrency")), load) for load in map(dict, given)
        )
    made = [Measurement(server, **load, window_s=TURN_WINDOW_S) for load in given]
    for each in made:
        each.warm_up()
    for _ in take_turns(made, QUICK_TURNS if quick() else turns):
        pass
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


def perf_analyzer(*arguments: str) -> int:
    """Run the tool with these very arguments, and print what it says; or what it said to the same ones on another machine.

    Args:
        *arguments: one word each, or a whole command in one text; the word ``perf_analyzer`` and line ends may be in it.

    Returns:
        Its exit status: 0 done, 2 the windows did not agree, 99 it failed.
    """
    if can_measure():
        return tool.perf_analyzer(*arguments)
    run = records.recorded_command(tool.words_of(*arguments))
    print(run.said)
    return run.status


# --- what stands beside a measurement --------------------------------------------------------------------------------------


def about(server: Any, model: str, protocol: str | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the columns of a row that do not change while a model is measured, and its configuration as the server reports it.

    ``device`` is ``CPU``, or the GPU's name; ``config`` a short name that changes with the configuration. What a server elsewhere does
    not tell is None.
    """
    with closing(Connection(server, protocol, QUERY_TIMEOUT_S, RETRIES)) as connection:
        config = connection.ask(lambda: connection.transport.config(model, ""), model)
        groups = config.get("instance_group", [])
        here = getattr(connection.server, "owned", False) or serves_here(connection.address.host, connection.address.port)
        on_gpu = any("GPU" in group.get("kind", "") for group in groups)
        if on_gpu and getattr(connection.server, "runtime", "") == "embedded":
            # Asked for a GPU that its library cannot use, a model runs on the processor.
            on_gpu = placed_on(connection.server.log(lines=0), model) != "CPU"
        try:
            version = str(connection.transport.about()["version"])
        except (TransportError, KeyError):
            version = None
        return {
            "device": ((machine.device() if here else "GPU") if on_gpu else "CPU") if groups else None,
            "cpu": machine.cpu() if here else None,
            "server_version": version,
            "instances": instances_of(config) if groups else None,
            "config": config_name(config),
        }, config


def config_name(config: Mapping[str, Any]) -> str:
    """Return a short name for a configuration, the same for equal ones."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:8]


def _keep_config(folder: Path, model: str, name: str, config: Mapping[str, Any]) -> None:
    """Write a configuration under the short name that the row has, unless it is there already."""
    path = folder / model / f"config_{name}.json"
    if not path.exists():
        with writing(path):
            make_folder(path.parent)
            replace_file(path, json.dumps(config, indent=1, sort_keys=True) + "\n")


def measured_key(run: Run, known: Mapping[str, Any], program: Program, *more: Any) -> str:
    """Return what makes a measurement the same as an earlier one: load, inputs, configuration, machine, versions, and whatever more."""
    host = urlsplit(f"//{run.url}").hostname or ""
    # Not the port, because a server launched again is as good; but that of a tunnel's end, whose machine is not known.
    where = known["cpu"] or (run.url if machine.is_loopback(host) else host)
    load = (run.model, run.protocol, run.batch, run.concurrency, run.request_rate_per_s, run.percentile, run.inputs)
    data = Path(run.input_data)
    stats = (data.stat().st_size, data.stat().st_mtime_ns) if str(run.input_data) not in INPUT_DATA else None
    versions = known["device"], known["server_version"], program.version, known["config"]
    return key_of(load, {name: list(shape) for name, shape in run.shapes.items()}, stats, where, versions, *more)


def measured_before(rows: Sequence[dict[str, Any]], key: str, server: Any, model: str) -> dict[str, Any] | None:
    """Return the latest row with a key that is newer than the model's files, where these are at hand; None when there is none."""
    repository = getattr(server, "repository", None)
    files = (Path(repository) / model).glob("[0-9]*/*") if repository is not None else ()
    # The time of a row has whole seconds.
    changed = max((int(path.stat().st_mtime) for path in files if path.is_file()), default=0)
    found = (row for row in reversed(rows) if row.get("key") == key)
    return next((row for row in found if datetime.fromisoformat(row["time"]).timestamp() >= changed), None)


# --- a sweep ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Point:
    """One measurement of a sweep; ``config`` is loaded first, None for the configuration that is there."""

    model: str
    label: str
    config: dict[str, Any] | None = field(hash=False)
    batch: int
    concurrency: int

    def __str__(self) -> str:
        label = f" ({self.label.strip('_')})" if self.label else ""
        return f"{self.model}{label}, batch {self.batch}, concurrency {self.concurrency}"


def sweep(
    server: Any,
    models: str | Sequence[str],
    batches: Iterable[int] | None = None,
    concurrencies: Iterable[int] = (1,),
    *,
    instances: Iterable[int] = (),
    configs: Mapping[str, str | dict[str, Any]] | None = None,
    output: str | Path | None = None,
    max_seconds: float = POINT_S,
    windows: int | None = None,
    again: bool = False,
    silent: bool = False,
    **options: Any,
) -> Rows:
    """Measure every combination. Killed or interrupted and typed again, it goes on where it was.

    Several models are measured in turn under each load, so that ``verdict`` can compare them pair by pair.

    Args:
        server: a :class:`~helpers.server.Server`, or an address such as ``localhost:9001``.
        models: one name or several.
        batches: batch sizes; by default 1 to 128 as in the course text, as far as the model goes.
        concurrencies: requests under way at any time.
        instances: numbers of model instances to load, on a server of one's own; what was loaded before is loaded again afterwards.
        configs: by name, whole configurations to load, as ``config.pbtxt`` text or as a dictionary; likewise.
        output: folder for the results, by default ``work/sweeps``: ``sweep.jsonl`` with all rows, and for each model and batch
            ``<model>/<model>_batch<b>.csv`` as perf_analyzer writes it.
        max_seconds: as for :func:`measure`.
        windows: as for :func:`measure`.
        again: measure also what was measured before.
        silent: show no progress.
        **options: as for :func:`measure`.

    Returns:
        The rows, in the order of the combinations, with those that an earlier call had measured. ``attrs`` has ``path`` of the file,
        ``before`` (how many were measured before) and ``rougher`` (how many of those less precisely than asked for now).

    Raises:
        InputError: a batch size is above a model's limit, or something else does not fit; nothing was measured.
        CourseError: the sweep cannot go on; every point so far is kept, and the text says how to go on.
        KeyboardInterrupt: it was interrupted; likewise.
    """
    if options.get("program") is None and not can_measure():
        inputs = Path(options.get("input_data", "random")).name
        return records.recorded_sweep(models, batches, concurrencies, options.get("lengths"), inputs)
    points = _plan(server, models, batches, concurrencies, tuple(instances), configs, options)
    work = _Sweep(server, folder_of(output or "work/sweeps"), {"program": find_perf_analyzer(), **options}, windows, max_seconds, again)
    with tqdm(total=len(points), unit="point", disable=silent) as bar:
        work.bar = bar
        try:
            for group in _groups(points):
                work.measure(group)
        except KeyboardInterrupt:
            bar.write(f"interrupted; {work.kept(len(points))}")
            raise
        except CourseError as error:
            raise RequestError(
                f"The sweep stopped at {work.at}: {error.happened}", f"{work.kept(len(points))}.", error.todo or error.expected
            ) from error
    return _shown([work.rows[point] for point in map(str, points)], work.table, work.before, work.rougher)


def read_sweep(path: str | Path = "work/sweeps") -> Rows:
    """Return everything that was ever measured into a folder.

    Args:
        path: the folder of a sweep, or its ``sweep.jsonl``.

    Raises:
        InputError: there is no such file.
    """
    folder = folder_of(path)
    file = folder if folder.suffix == ".jsonl" else folder / TABLE
    if not file.exists():
        raise InputError(f"There is no sweep in {shown(folder)}.", f"Expected the file {TABLE} of an earlier sweep.")
    return _shown(read_rows(file), file)


def _shown(rows: list[dict[str, Any]], path: Path, before: int = 0, rougher: int = 0) -> Rows:
    parts = [f"In {shown(path)}"]
    parts += [f"{before} points were measured before"] if before else []
    parts += [f"{rougher} of these less precisely than asked for now (again=True measures all again)"] if rougher else []
    return Rows.of(rows, f"{'; '.join(parts)}.", path=str(path), before=before, rougher=rougher)


def _plan(
    server: Any,
    models: str | Sequence[str],
    batches: Iterable[int] | None,
    concurrencies: Iterable[int],
    instances: Iterable[int],
    configs: Mapping[str, str | dict[str, Any]] | None,
    options: Mapping[str, Any],
) -> list[_Point]:
    """All points in order, checked before anything runs."""
    names = list(dict.fromkeys([models] if isinstance(models, str) else models))
    loads = _numbers("concurrencies", concurrencies)
    counts = _numbers("instances", instances) if instances else []
    if not names or not loads:
        raise InputError("There is nothing to measure.", "Expected at least one model, one batch size and one concurrency.")
    if counts or configs:
        must_own(server, "sweep over instances or configurations")
    points = []
    for model in names:
        sizes = _batches(server, model, batches, options.get("protocol"))
        # Asks for the shapes as well: better now than after half of the sweep.
        given = {name: options[name] for name in ("protocol", "shapes", "lengths", "input_data") if name in options}
        run_for(server, model, batch=sizes[0], **given)
        base = server.config(model) if counts or configs else None
        named: list[tuple[str, dict[str, Any] | None]] = [(f"_{name}", _as_config(text, name)) for name, text in (configs or {}).items()]
        setups = [
            (f"{label}_instances{count}", with_instances(config or base or {}, count))
            for label, config in named or [("", None)]
            for count in counts
        ] or (named or [("", None)])
        points += [_Point(model, *setup, batch, load) for setup in setups for load in loads for batch in sizes]
    return points


def must_own(server: Any, what: str) -> None:
    """Refuse what loads models again on a server of others.

    Raises:
        ModelError: it is not one's own.
    """
    if not getattr(server, "admin_headers", lambda _: {})("http"):
        raise ModelError(
            f"Only the owner of a server can {what}, because models are loaded again for it.",
            "You are connected to it, but you did not launch it.",
            'Type: server = launch_server("models")',
        )


def _batches(server: Any, model: str, batches: Iterable[int] | None, protocol: str | None) -> list[int]:
    with closing(Connection(server, protocol, QUERY_TIMEOUT_S, RETRIES)) as connection:
        signature = connection.signature(model)
    most = max(1, signature.max_batch_size)
    if batches is None:
        return [batch for batch in BATCHES if batch <= most]
    sizes = _numbers("batches", batches)
    too_large = [batch for batch in sizes if batch > most]
    if len(too_large) > 1:
        limit = f"max_batch_size is {signature.max_batch_size}" if signature.batched else "it takes no batches (max_batch_size is 0)"
        listed = quoted(map(str, too_large)).replace("'", "")
        raise InputError(f"The batch sizes {listed} are too large for {model!r}: {limit}.", "Nothing was measured.", "Leave them out.")
    for batch in too_large or sizes:
        check_batch(signature, batch)
    return sizes


def _numbers(what: str, values: Iterable[int]) -> list[int]:
    numbers = list(dict.fromkeys(values))
    if wrong := [value for value in numbers if not isinstance(value, int) or isinstance(value, bool) or value < 1]:
        raise InputError(f"{what} has {wrong[0]!r}.", "Expected whole numbers, 1 or more.", f"Type for example: {what}=(1, 4)")
    if not numbers:
        raise InputError(f"{what} is empty.", "Expected at least one number.")
    return numbers


def _as_config(given: str | dict[str, Any], name: str) -> dict[str, Any]:
    return dict(given) if isinstance(given, dict) else as_dict(parse(given, f"the configuration {name!r}"))


def with_instances(config: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Return the configuration with so many instances, on the same kind of device as before."""
    kinds = [group["kind"] for group in config.get("instance_group", []) if group.get("kind")]
    return {**config, "instance_group": [{**({"kind": kinds[0]} if kinds else {}), "count": count}]}


def _groups(points: Sequence[_Point]) -> list[list[_Point]]:
    """Points that are measured in turn: several models under one load, as they are loaded; and all points of a model to load."""
    loaded = [point for point in points if point.config is None]
    by_load: dict[tuple[int, int], list[_Point]] = {}
    for point in loaded:
        by_load.setdefault((point.concurrency, point.batch), []).append(point)
    others = [point for point in points if point.config is not None]
    return [*by_load.values(), *(list(group) for _, group in itertools.groupby(others, lambda point: point.model))]


class _Sweep:
    """A sweep under way."""

    def __init__(self, server: Any, folder: Path, options: dict[str, Any], windows: int | None, max_seconds: float, again: bool) -> None:
        self.server, self.folder, self.options, self.windows, self.max_seconds = server, folder, options, windows, max_seconds
        self.table, self.again = folder / TABLE, again
        self.rows: dict[str, dict[str, Any]] = {}
        self.before = self.rougher = 0
        self.at: _Point | str = "its beginning"
        self.bar: Any = None
        self._known = read_rows(self.table)

    def kept(self, total: int) -> str:
        """Return what there is, in words."""
        return f"{len(self.rows)} of {total} points are in {shown(self.table)}; typed again, it goes on from there"

    def measure(self, points: list[_Point]) -> None:
        """Measure a group; configurations that were changed on the way are put back, whatever happens."""
        if points[0].config is not None:
            with config_kept(self.server, points[0].model):
                loaded = None
                for point in points:
                    self.at = point
                    if (point.label, point.config) != loaded:
                        self.server.load(point.model, config=point.config)
                        loaded = point.label, point.config
                    self._together([point])
        else:
            self._together(points)

    def _together(self, points: Sequence[_Point]) -> None:
        made: dict[_Point, tuple[Measurement, str]] = {}
        for point in points:
            self.at = point
            self.bar.set_description_str(str(point))
            window_s = {"window_s": TURN_WINDOW_S} if len(points) > 1 else {}
            each = Measurement(self.server, point.model, point.batch, point.concurrency, **self.options, **window_s)
            key = measured_key(each.run, each.known, each.program)  # type: ignore[arg-type]
            row = None if self.again else measured_before(self._known, key, self.server, point.model)
            if row is None:
                each.warm_up()
                made[point] = each, key
                continue
            self.before += 1
            self.rougher += (row[THROUGHPUT_SPREAD] or 0) > each.precision * (row[THROUGHPUT] or 0)
            self._done(point, row)
        measurements = [each for each, _ in made.values()]
        if len(measurements) > 1:
            turns = QUICK_TURNS if quick() else -(-self.windows // RUN_WINDOWS) if self.windows else TURNS
            for _ in take_turns(measurements, turns):
                pass
        for each in measurements if len(measurements) == 1 else ():
            for _ in range(-(-(self.windows or each.windows(self.max_seconds)) // RUN_WINDOWS)):
                each.measure()
        for point, (each, key) in made.items():
            row = each.row() | {"key": key}
            # First of all: whatever happens next, this point is not lost.
            append_row(self.table, row)
            self._done(point, row)

    def _done(self, point: _Point, row: dict[str, Any]) -> None:
        self.rows[str(point)] = row
        own = (row["model"], row["batch"], row["config"])
        _write_tool_table(self.folder, point.label, [each for each in (*self._known, *self.rows.values()) if _load(each) == own])
        self.bar.update()
        self.bar.set_postfix_str(f"{row[THROUGHPUT] or 0:.4g} infer/s")


def _load(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["model"], row["batch"], row["config"]


@contextmanager
def config_kept(server: Any, *models: str) -> Iterator[None]:
    """Put the configurations of models back at the end, also after an interrupt; a server that has died has none to put back."""
    original = {model: server.config(model) for model in models}
    try:
        yield
    finally:
        for model, config in original.items():
            try:
                if server.config(model) != config:
                    server.load(model, config=config)
            except KeyboardInterrupt:
                server.load(model, config=config)
                raise
            except CourseError:
                if server.is_alive():
                    raise


def _write_tool_table(folder: Path, label: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write ``<model>/<model><label>_batch<b>.csv`` with perf_analyzer's own columns, a line for each load, the latest of each."""
    latest = {(row["concurrency"], row["request_rate_per_s"]): row for row in rows}
    ordered = sorted(latest.values(), key=lambda row: (row["concurrency"] or 0, row["request_rate_per_s"] or 0))
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    # The first column is the load, as the tool calls it.
    lines.writerow(("Concurrency", *TOOL_COLUMNS))
    for row in ordered:
        numbers = (row[name] for name in TOOL_COLUMNS.values())
        lines.writerow((row["concurrency"] or row["request_rate_per_s"], *("" if n is None else f"{n:g}" for n in numbers)))
    path = folder / ordered[0]["model"] / f"{ordered[0]['model']}{label}_batch{ordered[0]['batch']}.csv"
    with writing(path):
        make_folder(path.parent)
        replace_file(path, text.getvalue())


# --- where the tool does not run -------------------------------------------------------------------------------------------

_said_so = False


def can_measure() -> bool:
    """Return whether the tool runs here; say once in one sentence when it does not."""
    global _said_so
    try:
        find_perf_analyzer()
        return True
    except SetupError as error:
        if not _said_so:
            machines = " and ".join(sorted({row["cpu"] for row in records.own_rows()}))
            print(f"{error.happened} What follows was recorded on another machine ({machines}, no GPU; each row names its own).")
            _said_so = True
        return False


def recorded_row(server: Any, model: str, batch: int, concurrency: int, options: Mapping[str, Any]) -> Row:
    """Return the recorded row of a load; for a working copy, which people change, of the same configuration, too."""
    inputs = Path(options.get("input_data", "random")).name
    repository = getattr(server, "repository", None)
    if repository is None or Path(repository).resolve() == (root() / "models").resolve():
        return Row.of(rows_of(records.recorded_sweep(model, (batch,), (concurrency,), options.get("lengths"), inputs))[0])
    config = about(server, model, options.get("protocol"))[0]["config"]
    return Row.of(records.recorded_experiment(model, batch, concurrency, inputs, config))
