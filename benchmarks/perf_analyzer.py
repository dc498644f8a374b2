"""One measurement with NVIDIA's own load generator, always of the same length: the rounds of the benchmark show the spread."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from helpers.measuring.perf_analyzer import Run, execute
from helpers.measuring.program import VERSION, Program, find_perf_analyzer

__all__ = ["VERSION", "Load", "Program", "find_perf_analyzer", "measure"]

# Three windows are one measurement; they need not agree.
WINDOW_MS, WINDOWS, STABILITY_PERCENT = 500, 3, 1e6


@dataclass(frozen=True)
class Load:
    """What perf_analyzer measured.

    Attributes:
        infer_per_s: inferences per second, a batch of 8 counting 8.
        p50_us: median latency of a request in µs.
        p95_us: 95th percentile of the latency in µs.
    """

    infer_per_s: float
    p50_us: float
    p95_us: float


def measure(
    program: Program,
    grpc_url: str,
    model: str,
    batch: int,
    concurrency: int,
    *,
    input_data: str | Path = "random",
    window_ms: int = WINDOW_MS,
) -> Load:
    """Send requests for about two seconds, or longer.

    Args:
        program: which perf_analyzer.
        grpc_url: the server's gRPC port.
        model: the model's name.
        batch: batch size of each request.
        concurrency: requests under way at any time.
        input_data: what is sent, as :class:`~helpers.measuring.perf_analyzer.Run` has it.
        window_ms: length of each of the windows.
    """
    run = Run(
        model,
        grpc_url,
        batch=batch,
        concurrency=concurrency,
        percentile=None,
        input_data=input_data,
        window_ms=window_ms,
        max_trials=WINDOWS,
        stability_percent=STABILITY_PERCENT,
    )
    figures = execute(run, program).figures
    wanted = [figures.get(name) for name in ("throughput_infer_per_s", "latency_p50_us", "latency_p95_us")]
    if None in wanted:
        raise RuntimeError(f"{model}, batch {batch}: no request ended within {window_ms} ms")
    return Load(*(value for value in wanted if value is not None))
