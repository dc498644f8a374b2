"""Measure where perf_analyzer runs; elsewhere, such as on macOS, go on with what this course recorded on a machine of its own.

Typical use, as :mod:`helpers.perf` and :mod:`helpers.sweep` have it::

    from helpers.measuring import measure, sweep
    rows = sweep(server, ["particlenet_AK4", "particlenet_AK4_PT"], batches=(1, 4, 16, 64))

A recorded row says so in its column ``source``, and every figure shows it. What has no recorded counterpart says that in a sentence.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from helpers import perf, perf_facts, perf_run, recorded, recorded_runs, settings, tune_report
from helpers import sweep as sweeps
from helpers import tune as tuning
from helpers.client.client import Connection
from helpers.errors import InputError, SetupError


@functools.wraps(perf.measure)
def measure(server: Any, model: str, batch: int = 1, concurrency: int = 1, **options: Any) -> dict[str, Any]:
    """One measurement, or the recorded row of the same load; for a working copy, which people change, of the same configuration, too."""
    if _can_measure():
        return perf.measure(server, model, batch, concurrency, **options)
    inputs = Path(options.get("input_data", "random")).name
    config = _config_of_working_copy(server, model, options.get("protocol"))
    if config is None:
        return recorded.recorded_sweep(model, (batch,), (concurrency,), options.get("lengths"), inputs)[0]
    if row := recorded_runs.recorded_experiment(model, batch, concurrency, inputs, config):
        return row
    raise InputError(
        f"There is no recorded row of {model!r} as it is configured now, with requests of {batch}, {concurrency} under way, and "
        f"inputs {inputs}.",
        "The settings of notebook 09 were recorded; a setting of your own can only be measured.",
        "Go on with the next cell.",
    )


@functools.wraps(perf_run.perf_analyzer)
def perf_analyzer(*arguments: str) -> int:
    """The tool with these very arguments, or what it said to the same ones on another machine."""
    if _can_measure():
        return perf_run.perf_analyzer(*arguments)
    run = recorded_runs.recorded_command(perf_run.words_of(*arguments))
    print(run.said)
    return run.status


@functools.wraps(tuning.tune)
def tune(server: Any, model: str, batch: int = 1, **options: Any) -> tune_report.Tuned | None:
    """A search; where nothing can be measured a sentence, and None."""
    if _can_measure():
        return tuning.tune(server, model, batch, **options)
    print("Nothing was searched, because a search measures. What searches found on another machine is in benchmarks/TUNE.md.")
    return None


@functools.wraps(sweeps.sweep)
def sweep(
    server: Any,
    models: str | Sequence[str],
    batches: Iterable[int] | None = None,
    concurrencies: Iterable[int] = (1,),
    *,
    lengths: int | Mapping[str, int] | None = None,
    **options: Any,
) -> sweeps.Sweep:
    """A sweep, or the recorded rows of the same loads."""
    if _can_measure():
        return sweeps.sweep(server, models, batches, concurrencies, lengths=lengths, **options)
    inputs = Path(options.get("input_data", "random")).name
    rows = recorded.recorded_sweep(models, batches, concurrencies, lengths, inputs)
    return sweeps.Sweep(rows, recorded.sweep_file())


def _config_of_working_copy(server: Any, model: str, protocol: str | None) -> str | None:
    """The short name of the configuration that is served; None where the course's models are served as they are, and elsewhere."""
    repository = getattr(server, "repository", None)
    if repository is None or Path(repository).resolve() == (settings.root() / "models").resolve():
        return None
    connection = Connection(server, protocol, settings.QUERY_TIMEOUT_S, settings.RETRIES)
    try:
        return perf_facts.config_name(perf_facts.reported_config(connection, model))
    finally:
        connection.close()


@functools.cache
def _can_measure() -> bool:
    """Whether the tool runs here; says once in one sentence when it does not."""
    try:
        perf.find_perf_analyzer()
    except SetupError as error:
        machines = " and ".join(sorted({row["cpu"] for row in [*recorded.recorded_sweep(), *recorded_runs.recorded_experiments()]}))
        print(f"{error.happened} What follows was recorded on another machine ({machines}, no GPU; each row names its own).")
        return False
    return True
