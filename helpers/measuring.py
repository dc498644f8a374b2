"""Measure where perf_analyzer runs; elsewhere, such as on macOS, go on with what this course recorded on a machine of its own.

Typical use, as :mod:`helpers.perf` and :mod:`helpers.sweep` have it::

    from helpers.measuring import measure, sweep
    rows = sweep(server, ["particlenet_AK4", "particlenet_AK4_PT"], batches=(1, 4, 16, 64))

A recorded row says so in its column ``source``, and every figure shows it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from helpers import perf, recorded
from helpers import sweep as sweeps
from helpers.errors import SetupError


@functools.wraps(perf.measure)
def measure(server: Any, model: str, batch: int = 1, concurrency: int = 1, **options: Any) -> dict[str, Any]:
    """One measurement, or the recorded row of the same load."""
    if _can_measure():
        return perf.measure(server, model, batch, concurrency, **options)
    inputs = Path(options.get("input_data", "random")).name
    return recorded.recorded_sweep(model, (batch,), (concurrency,), options.get("lengths"), inputs)[0]


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


@functools.cache
def _can_measure() -> bool:
    """Whether the tool runs here; says once in one sentence when it does not."""
    try:
        perf.find_perf_analyzer()
    except SetupError as error:
        machine = recorded.recorded_sweep()[0]["cpu"]
        print(f"{error.happened} What follows was recorded on another machine ({machine}, no GPU).")
        return False
    return True
