"""Measure a model with NVIDIA's perf_analyzer.

Typical use::

    from helpers.perf import measure, perf_analyzer
    perf_analyzer("-m particlenet_AK4 -u localhost:9001 -i grpc -b 10 …")    # the tool itself, with these very arguments
    row = measure(server, "particlenet_AK4", batch=10)                       # the same, quicker, as a row of a table
    row["throughput_infer_per_s"], row["latency_p95_us"], row["stable"]
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from helpers import perf_facts, perf_results, settings, sweep_files
from helpers.client.client import Connection
from helpers.errors import InputError
from helpers.perf_command import Run, Shapes, run_for
from helpers.perf_program import Program, find_perf_analyzer
from helpers.perf_run import Result, execute, perf_analyzer

__all__ = ["Program", "Result", "Run", "execute", "find_perf_analyzer", "measure", "perf_analyzer", "run_for"]

# The throughput of a warm-up below this fraction of what its median latency allows: slow first requests were among it.
_WARM = 0.75


def measure(
    server: Any,
    model: str,
    batch: int = 1,
    concurrency: int = 1,
    *,
    precision: float = settings.PERF_PRECISION,
    request_rate_per_s: float | None = None,
    protocol: str | None = None,
    percentile: int | None = settings.PERF_PERCENTILE,
    input_data: str | Path = "random",
    shapes: Shapes | None = None,
    lengths: int | Mapping[str, int] | None = None,
    warm_up: bool = True,
    max_seconds: float = settings.PERF_POINT_S,
    program: Program | None = None,
) -> dict[str, Any]:
    """Measure one model under one load, as long as it takes to know the throughput well enough.

    Runs of three windows follow one another until the half width of the throughput's 95 % interval, by Student's distribution
    over all windows, is inside ``precision``, or the time is over. The windows hold a number of requests rather than a number of
    seconds; how long that is comes from the warm-up, which also lets the model see each new shape before anything counts.

    Args:
        server: a :class:`~helpers.server.Server`, a :class:`~helpers.fleet.Fleet` (its throughput and latencies are the client's; its
            times inside the server are those of one of its servers, and ``fleet.shares()`` has all), or an address such as
            ``localhost:9001``.
        model: name of the model.
        batch: entries in each request.
        concurrency: requests under way at any time.
        precision: the half width to reach, as a fraction of the throughput.
        request_rate_per_s: requests sent each second, in place of a concurrency.
        protocol: ``grpc`` (the default) or ``http``.
        percentile: the latency that is looked at, in percent; None for the mean.
        input_data: ``random``, ``zero``, or a file of :mod:`helpers.load_inputs`.
        shapes: by input name, its shape without the batch axis.
        lengths: length of the axes that may have any, by the beginning of the input's name, or one for all.
        warm_up: send requests that do not count, first.
        max_seconds: seconds after which no further run is begun.
        program: which perf_analyzer; the first that runs by default.

    Returns:
        A row with the columns :data:`helpers.perf_results.COLUMNS`; times in µs. ``throughput_spread_infer_per_s`` and
        ``latency_spread_us`` are half widths of 95 % intervals. A row whose precision was not reached has ``stable=False`` and
        says so in ``note``; what was not measured is None. The configuration that ``config`` names is kept in ``work/configs``.

    Raises:
        CourseError: the measurement could not be made; the text says why.
    """
    if not 0 < precision < 1 or concurrency < 1 or max_seconds <= 0:
        raise InputError(
            f"precision={precision}, concurrency={concurrency}, max_seconds={max_seconds} was given.",
            "Expected a fraction such as 0.05, at least one request under way, and seconds above 0.",
        )
    if settings.quick():
        max_seconds = min(max_seconds, settings.QUICK_POINT_S)
    program = program or find_perf_analyzer()
    load = {"concurrency": concurrency, "request_rate_per_s": request_rate_per_s, "percentile": percentile}
    given = {"shapes": shapes, "lengths": lengths, "input_data": input_data}
    run = run_for(server, model, protocol=protocol, batch=batch, **given, **load)
    connection = Connection(server, protocol, settings.QUERY_TIMEOUT_S, settings.RETRIES)
    try:
        known = perf_facts.facts(connection, model)
        _keep_config(model, known["config"], perf_facts.reported_config(connection, model))
    finally:
        connection.close()
    rate = _warm(run, program, server) if warm_up else None
    run = replace(run, window_ms=_window_ms(run, rate, precision), max_trials=settings.PERF_WINDOWS, stability_percent=_ANY)
    run, results = _rounds(run, program, server, precision, max_seconds)
    row = _row(run, results, precision) | known | {"perf_analyzer_version": program.version}
    behind = len(getattr(server, "servers", ()))
    if behind > 1:
        # The tool asks the front for the counters, and the front has one server answer that, always the same.
        row["note"] = "; ".join(filter(None, (row["note"], f"queue and compute times are those of one of the {behind} servers")))
    return row


def _keep_config(model: str, name: str, config: dict[str, Any]) -> None:
    """Write the configuration under the short name that the row has, into ``work/configs``, unless it is there already."""
    folder = settings.work_dir() / "configs"
    if not sweep_files.config_path(folder, model, name).exists():
        sweep_files.write_config(folder, model, name, config)


# The tool's own rule is switched off: by it, three windows within 10 % are good, whatever is asked for. On a crowded machine they differ
# by a factor of ten and more.
_ANY = 1e6


def _warm(run: Run, program: Program, server: Any) -> float | None:
    """Let the model see this load until it is fast; returns its inferences per second then, None when that is not known."""
    under_way = run.concurrency if run.request_rate_per_s is None else 1
    enough = max(4, 2 * under_way)
    # The tool looks once a second whether a number of requests is complete, so a short time is tried first.
    timed = replace(run, window_ms=round(1000 * settings.PERF_WARM_UP_S), max_trials=1, percentile=50)
    counted = replace(timed, window_ms=None, window_requests=enough)
    each, rate, left = timed, None, settings.QUICK_WARM_UPS if settings.quick() else settings.PERF_WARM_UPS
    while left:
        seen = execute(each, program, server).windows
        if each is timed and (not seen or seen[-1].throughput_infer_per_s * settings.PERF_WARM_UP_S < enough * run.batch):
            each = counted
            continue
        left -= 1
        if not seen:
            continue
        rate = seen[-1].throughput_infer_per_s
        possible = under_way * run.batch / (seen[-1].latency_us * 1e-6)
        if rate > _WARM * possible or run.request_rate_per_s is not None:
            break
    return rate


def _window_ms(run: Run, rate: float | None, precision: float) -> int:
    """How long a window must be to hold enough requests; the shortest where the rate is not known. A short look takes short ones."""
    shortest, longest = settings.QUICK_WINDOW_S if settings.quick() else settings.PERF_WINDOW_S
    if precision >= settings.TUNE_LOOK_PRECISION:
        shortest = min(shortest, settings.QUICK_WINDOW_S[0])
    if run.request_rate_per_s is not None:
        rate = run.request_rate_per_s * run.batch
    seconds = settings.PERF_WINDOW_REQUESTS * run.batch / rate if rate else shortest
    return round(1000 * min(max(seconds, shortest), longest))


def _rounds(run: Run, program: Program, server: Any, precision: float, max_seconds: float) -> tuple[Run, list[Result]]:
    """Runs of three windows until the precision is reached or the time is over, and the command that gave the last result.

    A run without a result is left out if others have one.
    """
    results: list[Result] = []
    begin, ran = time.monotonic(), run
    while True:
        results.append(execute(run, program, server))
        if results[-1].figures or not any(result.figures for result in results):
            ran = run
        if not results[-1].figures:
            # A window without a complete request: twice as long next time.
            run = replace(run, window_ms=2 * (run.window_ms or 1))
        rates = [window.throughput_infer_per_s for result in results if result.figures for window in result.windows]
        if rates and perf_results.is_stable(perf_results.half_width(rates), sum(rates) / len(rates), precision):
            break
        too_short = not rates and (run.window_ms or 0) <= 1000 * settings.PERF_WINDOW_S[1]
        if time.monotonic() - begin > max_seconds and not too_short:
            break
    return ran, [result for result in results if result.figures] or results


def _row(run: Run, results: list[Result], precision: float) -> dict[str, Any]:
    windows = [window for result in results for window in result.windows]
    rates, latencies = [w.throughput_infer_per_s for w in windows], [w.latency_us for w in windows]
    numbers = perf_results.together([result.figures for result in results])
    mean = numbers.get("throughput_infer_per_s") or (sum(rates) / len(rates) if rates else None)
    spread, note = perf_results.half_width(rates), ""
    stable = bool(numbers) and perf_results.is_stable(spread, mean, precision)
    if not numbers:
        note = (
            "no window held a complete request" if not windows else "perf_analyzer gave no table: throughput and latency are of its windows"
        )
        key = "latency_avg_us" if run.percentile is None else f"latency_p{run.percentile}_us"
        numbers = {key: sum(latencies) / len(latencies)} if latencies and key in perf_results.COLUMNS else {}
    elif not stable:
        scatter = f"±{100 * spread / mean:.2g}%" if spread and mean else "not known"
        note = f"not within {100 * precision:.2g}%: {scatter} after {len(windows)} windows"
    requests = [result.requests for result in results]
    return (
        perf_results.empty_row()
        | numbers
        | {
            "model": run.model,
            "url": run.url,
            "protocol": run.protocol,
            "batch": run.batch,
            "concurrency": run.concurrency if run.request_rate_per_s is None else None,
            "request_rate_per_s": run.request_rate_per_s,
            "percentile": run.percentile,
            "throughput_infer_per_s": mean,
            "throughput_spread_infer_per_s": spread,
            "latency_spread_us": perf_results.half_width(latencies),
            "requests": sum(filter(None, requests)) if all(requests) else None,
            "windows": len(windows),
            "stable": stable,
            "note": note,
            "inputs": run.inputs,
            "source": "measured",
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": str(run),
        }
    )
