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
from helpers.client.problems import Refused
from helpers.errors import AccessError, InputError, RequestError, ServerError, quoted, suggestion
from helpers.tables import as_html, as_text, without_empty

# Seconds that reading the metrics waits first: Triton answers a request a moment before it counts it.
METRICS_SETTLE_S = 0.02
# The parts of a request's time inside the server, in the order in which they pass.
PARTS = ("queue", "compute_input", "compute_infer", "compute_output")
# Units by the end of a metric's name; the first that fits counts.
_UNITS = {
    **dict.fromkeys(("_request_success", "_request_failure", "pending_request_count", "_us_count", "_ms_count", "_ms_bucket"), "requests"),
    **{"nv_inference_count": "inferences", "_exec_count": "executions", "_us": "µs", "_us_sum": "µs", "_ms_sum": "ms", "_bytes": "bytes"},
    **{"_utilization": "ratio", "_power_usage": "W", "_power_limit": "W", "nv_energy_consumption": "J", "_per_model": "requests"},
}
# Units of numbers that say how things are now and can be added over models or GPUs; a ratio or a time cannot.
_ADDABLE = ("requests", "inferences", "executions", "bytes", "W")


@dataclass(frozen=True)
class Sample:
    """One number on the metrics page: its full name, whether it only grows, its labels, and the value in the unit that its name says."""

    metric: str
    counter: bool
    labels: dict[str, str]
    value: float

    @property
    def unit(self) -> str:
        """Its unit, from its name; empty for a plain number."""
        return next((unit for ending, unit in _UNITS.items() if self.metric.endswith(ending)), "")

    @property
    def addable(self) -> bool:
        """True if a sum with others means something: not of buckets, each of which holds the one before, and not of ratios or times."""
        return "le" not in self.labels and (self.counter or ("quantile" not in self.labels and self.unit in _ADDABLE))

    def row(self) -> dict[str, Any]:
        """Return it as a row of a tidy table."""
        rest = {name: value for name, value in self.labels.items() if name not in ("model", "version")}
        named = {name: self.labels.get(name, "") for name in ("model", "version")}
        return {**named, "metric": self.metric, "value": self.value, "unit": self.unit, "labels": _words(rest)}


class _Numbers:
    """What a reading and the difference of two have in common: numbers by name and labels."""

    samples: tuple[Sample, ...]

    def value(self, metric: str, **labels: Any) -> float:
        """Return a number by its name, ``nv_`` may be left out; summed over the labels that are not given.

        What is no counter is that of the later reading. An InputError where the page has no such number, or several that have no
        meaningful sum.
        """
        named = [sample for sample in self.samples if sample.metric in (metric, f"nv_{metric}")]
        if not named:
            names = sorted({sample.metric for sample in self.samples})
            raise InputError(
                f"There is no metric {metric!r} on the page.", suggestion(metric, names), "Look at all of them with: print(scrape(server))"
            )
        found = [sample for sample in named if all(sample.labels.get(name) == str(wanted) for name, wanted in labels.items())]
        if not found or (len(found) > 1 and not all(sample.addable for sample in found)):
            asked = f" with {_words(labels)}" if labels else ""
            there = quoted(_words(sample.labels) for sample in found or named)
            many = f"there {len(found)} times{asked}; the sum of such numbers means nothing" if found else f"not there{asked}"
            raise InputError(f"The metric {metric!r} is {many}.", f"It is there with {there}.", "Give the labels of the one that you mean.")
        return sum(sample.value for sample in found)


@dataclass(frozen=True)
class Snapshot(_Numbers):
    """One reading of the metrics page: when, by a clock that nobody sets; its samples; and when in seconds since 1970."""

    steady_s: float
    samples: tuple[Sample, ...]
    time: float = 0.0

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All numbers as a tidy table: model, version, metric, value, unit, labels."""
        return [sample.row() for sample in self.samples]

    @property
    def models(self) -> list[str]:
        """Names of the models that the page tells about: those that are loaded."""
        return sorted({sample.labels["model"] for sample in self.samples if "model" in sample.labels})

    def __sub__(self, before: Snapshot) -> Difference:
        """Return what happened between two readings."""
        seconds = self.steady_s - before.steady_s
        if seconds < 0:
            raise InputError("The second reading is older than the first.", "Expected: after - before.")
        old = {(sample.metric, *sorted(sample.labels.items())): sample.value for sample in before.samples if sample.counter}
        samples, restarted = [], set()
        for sample in self.samples:
            start = old.get((sample.metric, *sorted(sample.labels.items())), 0.0) if sample.counter else 0.0
            if sample.counter and sample.value < start:
                # The server was restarted, or the model loaded again.
                restarted.add(sample.labels.get("model", "the server"))
                start = 0.0
            samples.append(replace(sample, value=sample.value - start))
        notes = []
        if restarted:
            notes.append(f"the counters of {quoted(sorted(restarted))} started again from zero, so what came before that is missing")
        if gone := sorted(set(before.models) - set(self.models)):
            notes.append(f"{quoted(gone)} is not loaded any more")
        return Difference(seconds, tuple(samples), tuple(notes))

    def __repr__(self) -> str:
        return as_text(without_empty(self.rows))

    def _repr_html_(self) -> str:
        return as_html(without_empty(self.rows))


@dataclass(frozen=True)
class Difference(_Numbers):
    """What happened between two readings, so many seconds apart: counters as differences, other numbers as they are now.

    ``notes`` say what makes them less than certain, such as counters that started again from zero.
    """

    seconds: float
    samples: tuple[Sample, ...]
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All numbers as a tidy table: model, version, metric, value, unit, labels, kind (``difference`` or ``now``)."""
        return [{**sample.row(), "kind": "difference" if sample.counter else "now"} for sample in self.samples]

    @property
    def requests(self) -> list[dict[str, Any]]:
        """One row for each model that was asked: how much, how fast, and where the time of a request went.

        Columns: model, requests, failures, inferences, executions, inferences_per_execution, throughput_infer_per_s, and mean times per
        successful request inside the server in µs: request_us = queue_us + compute_input_us + compute_infer_us + compute_output_us +
        overhead_us. Triton counts ``compute`` for requests that were not answered from the response cache, and its PyTorch backend for
        GPUs reports kernels under output.
        """
        rows = [self._row(model, total) for model, total in self.totals().items()]
        return [row for row in rows if row["requests"] or row["failures"]]

    def totals(self) -> dict[str, dict[str, float]]:
        """Return the numbers of each model by metric, summed over all other labels; 0 for a metric that is not there."""
        found: dict[str, dict[str, float]] = {}
        for sample in self.samples:
            if "model" in sample.labels:
                found.setdefault(sample.labels["model"], defaultdict(float))[sample.metric] += sample.value
        return found

    def inferences_per_execution(self, model: str) -> float:
        """Return the mean batch that the model ran: above the clients' own batch when the server put requests together."""
        executions = self.value("nv_inference_exec_count", model=model)
        if not executions:
            raise InputError(
                f"The model {model!r} did not run between the two readings.", "Expected at least one request that it answered."
            )
        return self.value("nv_inference_count", model=model) / executions

    def _row(self, model: str, total: Mapping[str, float]) -> dict[str, Any]:
        requests, inferences, executions = (total[f"nv_inference_{name}"] for name in ("request_success", "count", "exec_count"))
        parts = {f"{part}_us": total[f"nv_inference_{part}_duration_us"] for part in PARTS}
        request_us = total["nv_inference_request_duration_us"]
        times = {"request_us": request_us, **parts, "overhead_us": request_us - sum(parts.values())}
        return {
            "model": model,
            "requests": requests,
            "failures": total["nv_inference_request_failure"],
            "inferences": inferences,
            "executions": executions,
            "inferences_per_execution": inferences / executions if executions else None,
            "throughput_infer_per_s": inferences / self.seconds if self.seconds > 0 else None,
            **{name: value / requests if requests else None for name, value in times.items()},
        }

    def _tables(self) -> list[list[dict[str, Any]]]:
        parts = ("request", "queue", "compute_input", "compute_infer", "compute_output", "overhead")
        columns = {"model": "model", "inferences_per_execution": "inferences per execution", **{f"{part}_us": part for part in parts}}
        means = [{shown: row[name] for name, shown in columns.items()} for row in self.requests]
        return [table for table in (without_empty([row for row in self.rows if row["value"]]), means) if table]

    def __repr__(self) -> str:
        tables = "\n\n".join(map(as_text, self._tables()))
        return "\n".join([f"In {self.seconds:.3g} s:", tables, *(f"Note: {note}." for note in self.notes)])

    def _repr_html_(self) -> str:
        captions = (f"In {self.seconds:.3g} s." + "".join(f" Note: {note}." for note in self.notes), "Means per request, in µs.")
        return "".join(as_html(table, caption=caption) for table, caption in zip(self._tables() or [[]], captions))


def scrape(server: Any, settle_s: float = METRICS_SETTLE_S, *, access: Access | None = None) -> Snapshot:
    """Read a server's metrics page.

    Args:
        server: a :class:`~helpers.server.Server`, or the address of the metrics port, such as ``localhost:9002`` or
            ``http://localhost:9002/metrics``.
        settle_s: seconds to wait first, because Triton answers a request a moment before it counts it.
        access: token and trusted certificates, where only an address is given and the page is behind a proxy that wants them.
    """
    url = server if isinstance(server, str) else getattr(server, "metrics_url", None)
    if not url:
        raise InputError(
            f"An object of type {type(server).__name__} without a metrics address was given.",
            "Expected a Server or the address of its metrics port.",
            'Type for example: scrape("localhost:9002")',
        )
    address = parse_address(url)
    path = urlsplit(url if "://" in url else f"//{url}").path
    given = getattr(server, "metrics_access", NO_ACCESS) if access is None else access
    time.sleep(settle_s)
    try:
        page = ask(address, path if path.strip("/") else "/metrics", access=given)
        return Snapshot(time.monotonic(), tuple(parse(page)), time.time())
    except (ServerError, RequestError, ValueError, TypeError) as error:
        # What speaks another protocol, such as the gRPC port, answers, but not in HTTP.
        silent = isinstance(error, ServerError) and not (isinstance(error.__cause__, Refused) and error.__cause__.reason == "protocol")
        if isinstance(error, AccessError) or silent:
            raise
        raise RequestError(
            f"What answers at {address} is no metrics page.",
            "By the course's convention HTTP has the base port (9000), gRPC the next (9001) and metrics the one after (9002).",
            f'If you gave the HTTP port, type: scrape("{address.host}:{address.port + 2}")',
        ) from error


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
