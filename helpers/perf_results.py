"""What perf_analyzer says, as numbers: its CSV file by column name, the windows in its verbose output, and their spread."""

from __future__ import annotations

import csv
import io
import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Column of the tool's CSV file -> column of ours.
TOOL_COLUMNS = {
    "Inferences/Second": "throughput_infer_per_s",
    "Client Send": "client_send_us",
    "Network+Server Send/Recv": "network_us",
    "Server Queue": "queue_us",
    "Server Compute Input": "compute_input_us",
    "Server Compute Infer": "compute_infer_us",
    "Server Compute Output": "compute_output_us",
    "Client Recv": "client_recv_us",
    "p50 latency": "latency_p50_us",
    "p90 latency": "latency_p90_us",
    "p95 latency": "latency_p95_us",
    "p99 latency": "latency_p99_us",
}
# The parts of a request's latency, in the order in which they pass. Their sum is its mean.
PARTS = ("client_send_us", "network_us", "queue_us", "compute_input_us", "compute_infer_us", "compute_output_us", "client_recv_us")
# Every column of a measured row, in order.
COLUMNS = (
    *("model", "url", "protocol", "batch", "concurrency", "request_rate_per_s", "percentile"),
    *("throughput_infer_per_s", "throughput_spread_infer_per_s"),
    *("latency_avg_us", "latency_p50_us", "latency_p90_us", "latency_p95_us", "latency_p99_us", "latency_spread_us"),
    *PARTS,
    *("requests", "windows", "stable", "note", "inputs", "source", "device", "cpu", "server_version", "perf_analyzer_version"),
    *("time", "command", "instances", "config"),
)
_WINDOW = re.compile(r"Pass \[\d+\] throughput: ([\d.e+]+) infer/sec\. (?:Avg|p\d+) latency: (\d+) usec")
_REQUESTS = re.compile(r"^\s+Request count: (\d+)", re.MULTILINE)
# The 97.5 % point of Student's distribution by degrees of freedom: with three windows 1.96 would promise far too much.
_STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13, 2.12, 2.11, 2.10, 2.09, 2.09)


@dataclass(frozen=True)
class Window:
    """One window of a measurement.

    Attributes:
        throughput_infer_per_s: inferences per second, a batch of 8 counting 8.
        latency_us: the mean latency, or the percentile that was asked for, in µs.
    """

    throughput_infer_per_s: float
    latency_us: float


def windows(verbose: str) -> list[Window]:
    """The windows in what the tool says with ``-v``; those without a complete request are not among them."""
    return [Window(float(rate), float(latency)) for rate, latency in _WINDOW.findall(verbose)]


def requests(said: str) -> int | None:
    """How many requests the result is made of; None where the tool does not say."""
    found = _REQUESTS.search(said)
    return int(found[1]) if found else None


def figures(table: str) -> dict[str, float | None]:
    """The numbers of the tool's CSV file, which has one line for each load.

    Args:
        table: the file's text, with one line of results.

    Returns:
        By our column names, in inferences per second and µs; ``latency_avg_us`` is the sum of its parts. A column that the file
        does not have, or has empty, is None: a model made of others has no input, inference and output of its own.
    """
    row = next(csv.DictReader(io.StringIO(table)), {})
    result = {ours: _number(row.get(theirs)) for theirs, ours in TOOL_COLUMNS.items()}
    parts = [result[part] for part in PARTS if result[part] is not None]
    return {**result, "latency_avg_us": sum(parts) if len(parts) == len(PARTS) else None}


def _number(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def half_width(values: Sequence[float]) -> float | None:
    """Half width of the 95 % confidence interval of the mean, by Student's distribution; None for fewer than two values."""
    if len(values) < 2:
        return None
    factor = _STUDENT[min(len(values) - 1, len(_STUDENT)) - 1]
    return factor * statistics.stdev(values) / math.sqrt(len(values))


def together(runs: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """The means over several runs of the same kind, column by column; None where a run has no number."""
    names = dict.fromkeys(name for run in runs for name in run)
    return {name: _mean([run.get(name) for run in runs]) for name in names}


def _mean(values: Iterable[float | None]) -> float | None:
    known = list(values)
    return None if not known or None in known else statistics.fmean(value for value in known if value is not None)


def empty_row() -> dict[str, Any]:
    """A row with every column, all None."""
    return dict.fromkeys(COLUMNS)


def is_stable(spread: float | None, mean: float | None, precision: float) -> bool:
    """Whether a half width is inside the precision that was asked for."""
    return spread is not None and bool(mean) and spread <= precision * mean  # type: ignore[operator]
