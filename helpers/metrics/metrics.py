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
from helpers.tables import as_html, as_text, without_empty

# Seconds that reading the metrics waits first: Triton answers a request a moment before it counts it.
_SETTLE_S = 0.02
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
        """Return it as a row of a tidy table: model, version, metric, value, and the other labels."""
        rest = {name: value for name, value in self.labels.items() if name not in ("model", "version")}
        named = {name: self.labels.get(name, "") for name in ("model", "version")}
        return {**named, "metric": self.metric, "value": self.value, "labels": _words(rest)}


class _Numbers:
    """What a reading and the difference of two have in common: numbers by name and labels."""

    samples: tuple[Sample, ...]

    def value(self, metric: str, **labels: Any) -> float:
        """Return a number by its name, ``nv_`` may be left out; a counter is summed over the labels that are not given.

        What is no counter is that of the later reading. An InputError where the page has no such number, or several that are no counters.
        """
        named = [sample for sample in self.samples if sample.metric in (metric, f"nv_{metric}")]
        if not named:
            names = sorted({sample.metric for sample in self.samples})
            raise InputError(
                f"There is no metric {metric!r} on the page.", suggestion(metric, names), "Look at all of them with: print(scrape(server))"
            )
        found = [sample for sample in named if all(sample.labels.get(name) == str(wanted) for name, wanted in labels.items())]
        # Buckets hold each the one before; a ratio, a time or a temperature has no sum.
        if not found or (len(found) > 1 and not all(sample.counter and "le" not in sample.labels for sample in found)):
            asked = f" with {_words(labels)}" if labels else ""
            there = quoted(_words(sample.labels) for sample in found or named)
            many = f"there {len(found)} times{asked}; the sum of such numbers means nothing" if found else f"not there{asked}"
            raise InputError(f"The metric {metric!r} is {many}.", f"It is there with {there}.", "Give the labels of the one that you mean.")
        return sum(sample.value for sample in found)


@dataclass(frozen=True)
class Snapshot(_Numbers):
    """One reading of the metrics page: when, by a clock that nobody sets, and its samples."""

    steady_s: float
    samples: tuple[Sample, ...]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All numbers as a tidy table."""
        return [sample.row() for sample in self.samples]

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
        note = f" Note: the counters of {quoted(sorted(restarted))} started again from zero, so what came before that is missing."
        return Difference(seconds, tuple(samples), note if restarted else "")

    def __repr__(self) -> str:
        return as_text(without_empty(self.rows))

    def _repr_html_(self) -> str:
        return as_html(without_empty(self.rows))


@dataclass(frozen=True)
class Difference(_Numbers):
    """What happened between two readings, so many seconds apart: counters as differences, other numbers as they are now.

    ``note`` says whose counters started again from zero in between.
    """

    seconds: float
    samples: tuple[Sample, ...]
    note: str = ""

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All numbers as a tidy table, whose ``kind`` is ``difference`` or ``now``."""
        return [{**sample.row(), "kind": "difference" if sample.counter else "now"} for sample in self.samples]

    @property
    def requests(self) -> list[dict[str, Any]]:
        """One row for each model that was asked: how much, how fast, and where the time of a request went.

        Columns: model, requests, failures, inferences, executions, inferences_per_execution, pending (requests that wait now),
        requests_per_s, throughput_infer_per_s, and mean times per successful request inside the server in µs: request_us = queue_us +
        compute_us + overhead_us, where compute_us = compute_input_us + compute_infer_us + compute_output_us. Triton counts ``compute`` for
        requests that were not answered from the response cache, and its PyTorch backend for GPUs reports kernels under output.
        """
        return [row for row in self.per_model if row["requests"] or row["failures"]]

    @property
    def per_model(self) -> list[dict[str, Any]]:
        """The same rows for all models that are loaded; None for a mean of nothing."""
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

    def inferences_per_execution(self, model: str) -> float:
        """Return the mean batch that the model ran: above the clients' own batch when the server put requests together."""
        executions = self.value("nv_inference_exec_count", model=model)
        if not executions:
            raise InputError(f"The model {model!r} did not run between the two readings.", "Expected a request that it answered.")
        return self.value("nv_inference_count", model=model) / executions

    def _tables(self) -> list[list[dict[str, Any]]]:
        parts = ("request", *PARTS, "overhead")
        columns = {"model": "model", "inferences_per_execution": "inferences per execution", **{f"{part}_us": part for part in parts}}
        means = [{shown: row[name] for name, shown in columns.items()} for row in self.requests]
        return [table for table in (without_empty([row for row in self.rows if row["value"]]), means) if table]

    def __repr__(self) -> str:
        return "\n".join([f"In {self.seconds:.3g} s:{self.note}", "\n\n".join(map(as_text, self._tables()))])

    def _repr_html_(self) -> str:
        captions = (f"In {self.seconds:.3g} s.{self.note}", "Means per request, in µs.")
        return "".join(as_html(table, caption=caption) for table, caption in zip(self._tables() or [[]], captions))


def scrape(server: Any, *, access: Access | None = None) -> Snapshot:
    """Read a server's metrics page.

    Args:
        server: a :class:`~helpers.server.Server`, or the address of the metrics port, such as ``localhost:9002`` or
            ``http://localhost:9002/metrics``.
        access: token and trusted certificates, where only an address is given and the page is behind a proxy that wants them.
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
