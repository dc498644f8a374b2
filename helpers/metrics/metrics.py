"""The server's own counters: read them, and say what happened between two readings: ``scrape(server) - before``."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from helpers.client.endpoint import NO_ACCESS, Access, parse_address
from helpers.client.http import ask
from helpers.errors import AccessError, InputError, RequestError, quoted, suggestion
from helpers.tables import Table, without_empty

# Seconds that reading the metrics waits first: Triton answers a request a moment before it counts it, on a busy machine over 0.02 s (seen).
_SETTLE_S = 0.1
# The parts of a request's time inside the server, in the order in which they pass.
PARTS = ("queue", "compute_input", "compute_infer", "compute_output")


@dataclass(frozen=True)
class Sample:
    """One number on the metrics page: its full name, whether it only grows, its labels, and the value in the unit that its name says."""

    metric: str
    counter: bool
    labels: dict[str, str]
    value: float

    def row(self) -> dict[str, Any]:
        """Return it as a row of a tidy table."""
        labels = dict(self.labels)
        row = {"model": labels.pop("model", ""), "version": labels.pop("version", ""), "metric": self.metric, "value": self.value}
        return row | {"labels": _words(labels), "kind": "counter" if self.counter else "gauge"}


class _Numbers:
    """What a reading and the difference of two have in common: numbers by name and labels."""

    samples: tuple[Sample, ...]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All numbers as a tidy table: model, version, metric, value, the other labels, and whether it is a counter or a gauge."""
        return [sample.row() for sample in self.samples]

    def _tables(self) -> list[Table]:
        return [Table(without_empty(self.rows), f"{len(self.samples)} numbers on the page.")]

    def __repr__(self) -> str:
        return "\n\n".join(map(repr, self._tables()))

    def _repr_html_(self) -> str:
        return "".join(table._repr_html_() for table in self._tables())

    def value(self, metric: str, **labels: Any) -> float:
        """Return a number by its name, ``nv_`` may be left out; a counter is summed over the labels that are not given.

        What is no counter is that of the later reading. An InputError where the page has no such number, or several that are no counters.
        """
        named = [sample for sample in self.samples if sample.metric in (metric, f"nv_{metric}")]
        if not named:
            raise InputError(f"There is no metric {metric!r} on the page.", suggestion(metric, {sample.metric for sample in self.samples}))
        found = [sample for sample in named if all(sample.labels.get(name) == str(wanted) for name, wanted in labels.items())]
        # Buckets hold each the one before; a ratio, a time or a temperature has no sum.
        if not found or (len(found) > 1 and not all(sample.counter and "le" not in sample.labels for sample in found)):
            asked = f" with {_words(labels)}" if labels else ""
            there = quoted(_words(sample.labels) for sample in found or named)
            many = f"there {len(found)} times{asked}; the sum of such numbers means nothing" if found else f"not there{asked}"
            raise InputError(f"The metric {metric!r} is {many}.", f"It is there with {there}.", "Give the labels of the one that you mean.")
        return sum(sample.value for sample in found)


@dataclass(frozen=True, repr=False)
class Snapshot(_Numbers):
    """One reading of the metrics page: when, by a clock that nobody sets, and its samples."""

    steady_s: float
    samples: tuple[Sample, ...]

    def __sub__(self, before: Snapshot) -> Difference:
        """Return what happened since an older reading; an InputError where a counter was higher then."""
        old = {(sample.metric, *sorted(sample.labels.items())): sample.value for sample in before.samples if sample.counter}
        samples = []
        for sample in self.samples:
            start = old.get((sample.metric, *sorted(sample.labels.items())), 0.0)
            if sample.counter and sample.value < start:
                whose = sample.labels.get("model", "the server")
                happened = f"The counters of {whose} were higher at the first reading: they started again from zero, or it is later."
                raise InputError(happened, "Expected: after - before.", "Run the cell with the first reading again, then this one.")
            samples.append(replace(sample, value=sample.value - start))
        return Difference(self.steady_s - before.steady_s, tuple(samples))


@dataclass(frozen=True, repr=False)
class Difference(_Numbers):
    """What happened between two readings, so many seconds apart: counters as differences, other numbers as they are now."""

    seconds: float
    samples: tuple[Sample, ...]

    @property
    def requests(self) -> list[dict[str, Any]]:
        """One row for each loaded model: how much, how fast, and where the time of a request went; None for a mean of nothing.

        Columns: model, requests, failures, inferences, executions, inferences_per_execution, pending (requests that wait now),
        requests_per_s, throughput_infer_per_s, and mean times per successful request inside the server in µs: request_us = queue_us +
        compute_us + overhead_us, where compute_us = compute_input_us + compute_infer_us + compute_output_us. Triton counts ``compute`` for
        requests that were not answered from the response cache, and its PyTorch backend for GPUs reports kernels under output.
        """
        totals: dict[str, dict[str, float]] = {}
        for sample in self.samples:
            if "model" in sample.labels:
                total = totals.setdefault(sample.labels["model"], defaultdict(float))
                total[sample.metric.removeprefix("nv_inference_")] += sample.value
        return [{"model": model, **self._means(total)} for model, total in totals.items()]

    def _means(self, total: Mapping[str, float]) -> dict[str, Any]:
        requests, inferences, executions = (total[name] for name in ("request_success", "count", "exec_count"))
        times = {f"{part}_us": total[f"{part}_duration_us"] for part in ("request", *PARTS)}
        times["compute_us"] = sum(times[f"{part}_us"] for part in PARTS[1:])
        times["overhead_us"] = times["request_us"] - times["queue_us"] - times["compute_us"]
        return {
            "requests": requests,
            "failures": total["request_failure"],
            "inferences": inferences,
            "executions": executions,
            "inferences_per_execution": inferences / executions if executions else None,
            "pending": total["pending_request_count"],
            "requests_per_s": requests / self.seconds if self.seconds else None,
            "throughput_infer_per_s": inferences / self.seconds if self.seconds else None,
            **{name: value / requests if requests else None for name, value in times.items()},
        }

    def _tables(self) -> list[Table]:
        parts = ("request", *PARTS, "overhead")
        columns = {"model": "model", "inferences_per_execution": "inferences per execution", **{f"{part}_us": part for part in parts}}
        asked = [row for row in self.requests if row["requests"] or row["failures"]]
        means = without_empty({shown: row[name] for name, shown in columns.items()} for row in asked)
        moved = without_empty(row for row in self.rows if row["value"])
        shown = [Table(moved, f"In {self.seconds:.3g} s; gauges as they are now."), Table(means, "Means per request, in µs.")]
        return shown if means else shown[:1]


def scrape(server: Any, *, access: Access | None = None) -> Snapshot:
    """Read the metrics page of a server, or at an address such as ``localhost:9002`` or ``http://localhost:9002/metrics``.

    ``access`` is token and trusted certificates, where only an address is given and the page is behind a proxy that wants them.
    """
    url = getattr(server, "metrics_url", server)
    address = parse_address(url)
    path = urlsplit(url if "://" in url else f"//{url}").path
    given = getattr(server, "metrics_access", NO_ACCESS) if access is None else access
    time.sleep(_SETTLE_S)
    try:
        page = ask(address, path if path.strip("/") else "/metrics", access=given)
        return Snapshot(time.monotonic(), tuple(parse(page)))
    except AccessError:
        raise
    except (RequestError, ValueError, TypeError) as error:
        advice = f'If you gave the HTTP port, type: scrape("{address.host}:{address.port + 2}")'
        raise RequestError(f"What answers at {address} is no metrics page.", "", advice) from error


def parse(page: str) -> Iterable[Sample]:
    """Read the text of a metrics page; a ValueError where it is none."""
    # The parser adds _total to the names of counters, as a later standard wants it; Triton's names have it nowhere.
    declared = set(re.findall(r"^# TYPE (\S+)", page, re.MULTILINE))
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            name = sample.name if sample.name in declared else sample.name.removesuffix("_total")
            grows = family.type in ("counter", "histogram") or (family.type == "summary" and sample.name.endswith(("_sum", "_count")))
            # Triton declares energy as a counter and cache totals as gauges, although they only grow.
            counter = grows or bool(re.fullmatch(r"nv_cache_num_(lookups|hits|misses|evictions)", name))
            yield Sample(name, counter, dict(sample.labels), float(sample.value))


def _words(labels: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in labels.items())
