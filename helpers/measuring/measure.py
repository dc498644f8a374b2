"""Measure a model with NVIDIA's perf_analyzer: one load, several in turn to compare them, or a whole sweep.

Where perf_analyzer does not run, such as on macOS, they return what this course recorded on a machine of its own, and say so.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shlex
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
from helpers.errors import InputError, ModelError, SetupError
from helpers.measuring import table
from helpers.measuring.perf_analyzer import FAILED, NAME, InputData, Result, Run, checked, execute, find_perf_analyzer, show
from helpers.measuring.recorded import recorded_sweep
from helpers.measuring.statistics import LEAST_WINDOWS, interval, percentile_interval, windows_needed
from helpers.measuring.table import COLUMNS, LATENCY_ENDS, MEASURED, PARTS, PERCENTILES, THROUGHPUT, THROUGHPUT_SPREAD, Row, latency_column
from helpers.metrics.gpu import placed_on
from helpers.paths import read_lines, root, shown
from helpers.repository.configs import instances_of
from helpers.terminal import Progress

# Half width of the throughput's 95 % interval, as a fraction, at which a row counts as settled; that of a percentile may be twice as large.
PRECISION, LATENCY_PRECISION = 0.05, 2
# Requests in one window, at least: six windows then hold the 72 that a 95th percentile's interval needs.
WINDOW_REQUESTS = 15
# Length of a window in seconds, at least and at most: shorter ones show the machine's hiccups, longer ones cost a lesson's time. Where
# measurements take turns there are more windows, and what the machine does in between hits all alike.
WINDOW_S, TURN_WINDOW_S = (0.4, 3.0), (0.2, 2.0)
# Windows of one run of the tool: it gives figures of its last three, and of no fewer.
RUN_WINDOWS = 3
# Turns of each measurement where they are compared: three pairs could settle a difference only where the machine is very quiet.
TURNS = 4
# Seconds that the windows of a row may take, whatever the precision: a row that is noisy then says so.
POINT_S = 5.0
# Rounds of warm-up at most (a network in TorchScript is slow twice for each new shape), the first length of their windows, and which part
# of what their median latency allows says that no slow first request was among them.
WARM_UPS, WARM_UP_MS, WARM = 4, 200, 0.75
# The tool's own rule is switched off: by it, three windows within 10 % are good, and on a crowded machine they differ tenfold.
_ANY = 1e6
# What makes a measurement the same as an earlier one. The address is not part of it, because a server launched again is as good.
_SAME = (
    *("model", "protocol", "batch", "concurrency", "request_rate_per_s", "percentile", "inputs", "shapes", "inputs_digest"),
    *("config", "device", "cpu", "server_version", "perf_analyzer_version"),
)

T = TypeVar("T")


def quick() -> bool:
    """True if measurements are to be short rather than precise (``COURSE_QUICK=1``), for a look at a notebook before class."""
    return os.environ.get("COURSE_QUICK", "0") not in ("", "0")


def turns_now(turns: int = TURNS) -> int:
    """Return how many turns to measure; of a quick measurement one."""
    return 1 if quick() else turns


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
        protocol: str | None = None,
        lengths: Mapping[str, int] | None = None,
        input_data: InputData = "random",
        precision: float = PRECISION,
        window_s: tuple[float, float] | None = None,
        **others: Any,
    ) -> None:
        self.server, self.model, self.precision, self.window_s = server, model, precision, window_s
        with Client(server, protocol, timeout_s=QUERY_TIMEOUT_S) as connection:
            signature, self.config = connection.signature(model), connection.config(model)
            version, address = connection.transport.about().get("version"), connection.address
        shapes, data = checked(signature, batch, lengths or {}, input_data)
        way: dict[str, Any] = {"protocol": connection.protocol, "secure": address.secure, "access": connection.access}
        self.run = Run(model, str(address.dialled), batch=batch, concurrency=concurrency, shapes=shapes, input_data=data, **way, **others)
        # The columns of a row that do not change while a model is measured; None for what a server elsewhere does not tell.
        self.known = _placed(connection.server, model, self.config, address) | {
            "server_version": version,
            "perf_analyzer_version": find_perf_analyzer().version,
            "config": hashlib.sha256(json.dumps(self.config, sort_keys=True).encode()).hexdigest()[:8],
        }
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
        for _ in range(1 if quick() else WARM_UPS):
            if seen := execute(short, self.server).windows:
                self.pilot = [window.throughput_infer_per_s for window in seen]
                rate = self.pilot[-1]
            if run.request_rate_per_s and seen:
                break
            if not seen or rate * short.window_ms < 1000 * max(4, 2 * run.concurrency) * run.batch:
                # A slow model: too few requests to tell.
                short = replace(short, window_ms=4 * short.window_ms, max_trials=1)
            elif rate > WARM * run.concurrency * run.batch / (seen[-1].latency_us * 1e-6):
                break
        rate = run.request_rate_per_s * run.batch if run.request_rate_per_s else rate
        shortest, longest = TURN_WINDOW_S if quick() else self.window_s or WINDOW_S
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
        if len(getattr(self.server, "servers", ())) > 1:
            # The tool asks the front for the counters, and the front has one server answer that, always the same.
            row |= dict.fromkeys(("latency_avg_us", *PARTS[1:-1]))
        return row | ({"turns": dict(self.turns)} if self.turns else {})


def row_of(run: Run, results: Sequence[Result], known: Mapping[str, Any], precision: float = PRECISION) -> dict[str, Any]:
    """Return several runs of the tool as one row; ``known`` has further columns. A run without figures is left out."""
    results = [result for result in results if result.figures]
    windows = [window for result in results for window in result.windows]
    requests = [result.requests for result in results]
    figures = pd.DataFrame([result.figures for result in results], dtype=float)
    # Of a percentile the median, because the mean of percentiles is none.
    percentiles = figures.filter(like="latency_p").median(skipna=False)
    row = dict.fromkeys(COLUMNS) | table.plain({**figures.mean(skipna=False), **percentiles}) | run.sent() | dict(known)
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
    latency, ends = row[latency_column(row["percentile"])], [row[end] for end in LATENCY_ENDS]
    half = None if None in ends else max(abs(end - latency) for end in ends)
    known = {"throughput": (row[THROUGHPUT_SPREAD], row[THROUGHPUT], precision)}
    known[f"p{row['percentile']}"] = half, latency, LATENCY_PRECISION * precision
    notes = []
    for name, (spread, value, wanted) in known.items():
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
        runs.append(({each: result.figures[latency_column(each)] or 0.0 for each in PERCENTILES}, result.requests or 0))
    low, high = percentile_interval(percentile, seen, runs)
    # The value is the median of the runs' own, and the interval that of the windows: it may not leave the value outside.
    return None if low is None else min(low, value), None if high is None else max(high, value)


def measure(server: Any, model: str, batch: int = 1, concurrency: int = 1, *, max_seconds: float = POINT_S, **options: Any) -> Row:
    """Measure one model under one load: as many windows as the scatter of the warm-up tells, each with a number of requests.

    The server may be a fleet, too, or an address such as ``localhost:9001``; beyond six windows, they take ``max_seconds`` together.
    Options are ``precision`` (0.05, the half width to reach, as a fraction), ``request_rate_per_s`` (in place of a concurrency),
    ``protocol`` (``grpc``), ``percentile`` (95), ``input_data`` (``random``, ``zero``, or a file; for several models, by model), and
    ``lengths`` (of the axes that may have any, by the beginning of the input's name).

    Returns a row; times in µs, None for what is not known. Its 95 % intervals hold while it was measured, and do not know what the machine
    does a minute later. A row whose precision was not reached has ``stable=False`` and says so in ``note``.
    """
    if not can_measure():
        return _recorded_row(server, model, batch, concurrency, **options)
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
    given = [{"model": model, **options, **load} for load in loads]
    if not can_measure():
        return tuple(_recorded_row(server, **load) for load in given)
    made = [Measurement(server, **load, window_s=TURN_WINDOW_S) for load in given]
    turns = turns_now(turns)
    with Progress(f"measuring {len(made)} loads in turn", turns * len(made), "runs") as progress:
        for each in made:
            each.warm_up()
        for each, turn in in_turn(made, turns):
            each.measure(turn)
            progress.add()
    return tuple(Row.of(each.row()) for each in made)


def in_turn(measurements: Sequence[T], turns: int) -> Iterator[tuple[T, str]]:
    """Yield each in turn, every other turn backwards, and the name of the turn."""
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}"
    for number in range(turns):
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
    counted = {"device": device, "instances": instances_of(config)} if groups else {}
    return counted | {"cpu": machine.cpu() if here else None}


def must_own(server: Any, what: str) -> None:
    """Refuse, by a ModelError, what loads models again on a server of others."""
    if not getattr(server, "admin_headers", lambda _: {})("http"):
        happened = f"Only the owner of a server can {what}, because models are loaded again for it."
        raise ModelError(happened, "You are connected to it, but you did not launch it.", 'Type: server = launch_server("models")')


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
    again: bool = False,
    **options: Any,
) -> table.Rows:
    """Measure every combination. Killed or interrupted and typed again, it goes on where it was.

    Several models are measured in turn under each load, so that ``verdict`` can compare them pair by pair. All rows are kept in the folder
    ``output``; with ``again``, what they have is measured once more. Options are those of :func:`measure`.

    Returns the rows, in the order of the combinations; ``attrs`` has ``path`` of the file, and how many were measured ``before``.
    """
    names = [models] if isinstance(models, str) else list(models)
    if not can_measure():
        return recorded_sweep(names, batches, concurrencies, options.get("lengths"), options.get("input_data", "random"))
    options["window_s"] = TURN_WINDOW_S if len(names) > 1 else None
    loads = list(itertools.product(concurrencies, batches))
    # All is checked before anything runs.
    points = {(model, load): Measurement(server, model, load[1], load[0], **options) for model in names for load in loads}
    if not points:
        raise InputError("There is nothing to measure.", "Expected at least one model, one batch size and one concurrency.")
    file = table.folder_of(output) / "sweep.jsonl"
    known = [] if again else read_lines(file)
    rows = {key: row for key, point in points.items() if (row := _measured_before(known, point))}
    before = len(rows)
    with Progress("sweep", len(points), "points") as progress:
        progress.add(before)
        for load in loads:
            group = {key: points[key] for model in names if (key := (model, load)) not in rows}
            for point in group.values():
                progress.what = str(point)
                point.warm_up()
            if len(group) == 1:
                point.measure_enough(max_seconds)
            else:
                for point, turn in in_turn([*group.values()], turns_now()):
                    point.measure(turn)
            for key, point in group.items():
                rows[key] = point.row()
                # First of all: whatever happens next, this point is not lost.
                table.append_row(file, rows[key])
                progress.add()
    if before:
        # Before the table or the figure of them, which looks like new.
        print(f"{before} of {len(points)} points were measured before (again=True measures all).")
    return table.Rows.of([rows[key] for key in points], f"In {shown(file)}.", path=str(file), before=before)


def _measured_before(rows: Sequence[dict[str, Any]], point: Measurement) -> dict[str, Any] | None:
    """The latest row of the same, newer than the model's files where these are at hand."""
    repository, wanted = getattr(point.server, "repository", None), point.row()
    files = (Path(repository) / point.model).glob("[0-9]*/*") if repository is not None else ()
    # The time of a row has whole seconds.
    changed = max((int(path.stat().st_mtime) for path in files if path.is_file()), default=0)
    # Of a machine elsewhere the processor is not known, so its address tells it apart.
    same = _SAME if wanted["cpu"] else (*_SAME, "url")
    found = (row for row in reversed(rows) if all(row.get(name) == wanted[name] for name in same))
    return next((row for row in found if datetime.fromisoformat(row["time"]).timestamp() >= changed), None)


def can_measure() -> bool:
    """True if the tool runs here; says in one sentence when it does not."""
    try:
        find_perf_analyzer()
        return True
    except SetupError as error:
        print(f"{error.happened} What follows was recorded on another machine without a GPU, which each row names.")
        return False


def _recorded_row(
    server: Any, model: str, batch: int = 1, concurrency: int = 1, lengths: Any = None, input_data: Any = "random", **others: Any
) -> Row:
    """The recorded row of a load on the models as they came; a SetupError for a working copy, which people change."""
    repository = getattr(server, "repository", None)
    if repository is not None and Path(repository).resolve() != (root() / "models").resolve():
        find_perf_analyzer()
    return Row.of(table.rows_of(recorded_sweep([model], [batch], [concurrency], lengths, input_data))[0])


def perf_analyzer(command: str) -> int:
    """Run a whole command, print what it says, and return its exit status: 0 done, 2 no agreement, 99 it failed or does not run here."""
    words = shlex.split(command.replace("\\\n", " "))
    return show(words[words[:1] == [NAME] :]) if can_measure() else FAILED
