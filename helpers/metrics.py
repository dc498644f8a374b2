"""The server's own counters: read them, and say what happened between two readings.

Typical use::

    from helpers import scrape
    before = scrape(server)
    client.infer("add_sub", INPUT0=x, INPUT1=y)
    after = scrape(server)
    after - before                                       # a table; .rows is the same as a list of dictionaries
    (after - before).value("nv_inference_count", model="add_sub")
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from helpers import metrics_page
from helpers.client.endpoint import NO_ACCESS, Access, Address, parse_address
from helpers.client.http import ask
from helpers.client.problems import Refused
from helpers.errors import AccessError, InputError, RequestError, ServerError, quoted
from helpers.metrics_page import Sample
from helpers.tables import as_html, as_text

# Seconds that reading the metrics waits first: Triton answers a request a moment before it counts it (on a machine with eight busy
# processes per core, one reading in 300 straight after an answer came too early).
METRICS_SETTLE_S = 0.02

# The parts of a request's time inside the server, in the order in which they pass.
_PARTS = ("queue", "compute_input", "compute_infer", "compute_output")


@dataclass(frozen=True)
class Snapshot:
    """One reading of the metrics page.

    Attributes:
        time: when, in seconds since 1970.
        samples: the numbers, in the order of the page.
        steady_s: when, by a clock that nobody sets; its zero means nothing. Without it the time of day has to do.
    """

    time: float
    samples: tuple[Sample, ...] = field(repr=False)
    steady_s: float | None = field(default=None, repr=False)

    def seconds_since(self, before: Snapshot) -> float:
        """Seconds between two readings, right also when the time of day was changed in between."""
        if self.steady_s is not None and before.steady_s is not None:
            return self.steady_s - before.steady_s
        return self.time - before.time

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All numbers as a tidy table: model, version, metric, value, unit, labels."""
        return [sample.row() for sample in self.samples]

    @property
    def models(self) -> list[str]:
        """Names of the models that the page tells about: those that are loaded."""
        return sorted({sample.labels["model"] for sample in self.samples if "model" in sample.labels})

    def value(self, metric: str, **labels: Any) -> float:
        """Return a number by its name, ``nv_`` may be left out; summed over the labels that are not given.

        Raises:
            InputError: the page has no such number, or several that have no meaningful sum: name a ``quantile`` of a summary,
                an upper edge ``le`` of a histogram, or the one of several models or GPUs whose ratio or time it is.
        """
        return metrics_page.value(self.samples, metric, labels)

    def histogram(self, metric: str, **labels: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return a histogram of the page as :func:`numpy.histogram` does: counts (n) and edges (n + 1) in the metric's unit.

        The last edge is infinite. Triton does not say where the first bin begins: 0, or minus infinity where its end is not positive.
        Histograms of several models are added.

        Raises:
            InputError: the page has no such histogram, or the models have different edges.
        """
        return metrics_page.histogram(self.samples, metric, labels)

    def __sub__(self, before: Snapshot) -> Difference:
        return difference(before, self)

    def __repr__(self) -> str:
        return as_text(_without_empty(self.rows))

    def _repr_html_(self) -> str:
        return as_html(_without_empty(self.rows))


@dataclass(frozen=True)
class Difference:
    """What happened between two readings: counters as differences, other numbers as they are now.

    Attributes:
        seconds: time between the readings.
        samples: the numbers.
        notes: what makes them less than certain, such as counters that began anew.
    """

    seconds: float
    samples: tuple[Sample, ...] = field(repr=False)
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All numbers as a tidy table: model, version, metric, value, unit, labels, kind (``difference`` or ``now``)."""
        return [{**sample.row(), "kind": "difference" if sample.counter else "now"} for sample in self.samples]

    def value(self, metric: str, **labels: Any) -> float:
        """As :meth:`Snapshot.value`; quantiles are those of the second reading."""
        return metrics_page.value(self.samples, metric, labels)

    def histogram(self, metric: str, **labels: Any) -> tuple[np.ndarray, np.ndarray]:
        """As :meth:`Snapshot.histogram`, with the counts between the two readings."""
        return metrics_page.histogram(self.samples, metric, labels)

    @property
    def requests(self) -> list[dict[str, Any]]:
        """One row for each model that was asked: how much, how fast, and where the time of a request went.

        Columns: model, version, requests, failures, inferences, executions, inferences_per_execution,
        throughput_infer_per_s, and mean times per successful request inside the server in µs: request_us = queue_us +
        compute_input_us + compute_infer_us + compute_output_us + overhead_us. Triton counts ``compute`` for requests that
        were not answered from the response cache, and its PyTorch backend for GPUs reports kernels under output.
        """
        versions = {
            (sample.labels.get("model", ""), sample.labels.get("version", "")): None for sample in self.samples if "model" in sample.labels
        }
        rows = [self._request_row(model, version) for model, version in versions]
        return [row for row in rows if row["requests"] or row["failures"]]

    def inferences_per_execution(self, model: str) -> float:
        """The mean batch that the model ran: above the clients' own batch when the server put requests together.

        Raises:
            InputError: the model did not run between the two readings, or is not on the page.
        """
        executions = self.value("nv_inference_exec_count", model=model)
        if not executions:
            raise InputError(
                f"The model {model!r} did not run between the two readings.", "Expected at least one request that it answered."
            )
        return self.value("nv_inference_count", model=model) / executions

    def __repr__(self) -> str:
        parts = [f"In {self.seconds:.3g} s:", as_text(self._changed())]
        if self.requests:
            parts += ["", as_text(self.requests)]
        return "\n".join([*parts, *(f"Note: {note}." for note in self.notes)])

    def _repr_html_(self) -> str:
        caption = f"In {self.seconds:.3g} s." + "".join(f" Note: {note}." for note in self.notes)
        return as_html(self._changed(), caption=caption) + (as_html(self.requests, caption="Means per request.") if self.requests else "")

    def _changed(self) -> list[dict[str, Any]]:
        return _without_empty([row for row in self.rows if row["value"]])

    def _request_row(self, model: str, version: str) -> dict[str, Any]:
        def count(metric: str) -> float:
            own = {"model": model, "version": version} if version else {"model": model}
            return sum(sample.value for sample in self.samples if sample.matches(metric, own))

        requests, inferences, executions = (
            count("nv_inference_request_success"),
            count("nv_inference_count"),
            count("nv_inference_exec_count"),
        )
        total = count("nv_inference_request_duration_us")
        parts = {f"{part}_us": count(f"nv_inference_{part}_duration_us") for part in _PARTS}
        times = {"request_us": total, **parts, "overhead_us": total - sum(parts.values())}
        return {
            "model": model,
            "version": version,
            "requests": requests,
            "failures": count("nv_inference_request_failure"),
            "inferences": inferences,
            "executions": executions,
            "inferences_per_execution": inferences / executions if executions else None,
            "throughput_infer_per_s": inferences / self.seconds if self.seconds > 0 else None,
            **{name: value / requests if requests else None for name, value in times.items()},
        }


def scrape(server: Any, settle_s: float = METRICS_SETTLE_S, *, access: Access | None = None) -> Snapshot:
    """Read a server's metrics page.

    Args:
        server: a :class:`~helpers.server.Server`, or the address of the metrics port, such as ``localhost:9002`` or
            ``http://localhost:9002/metrics``.
        settle_s: seconds to wait first, because Triton answers a request a moment before it counts it.
        access: token and trusted certificates, where only an address is given and the page is behind a proxy that wants them.

    Raises:
        InputError: the address is none.
        ServerError: nothing answers there.
        RequestError: what answers is no metrics page.
    """
    url = server if isinstance(server, str) else getattr(server, "metrics_url", None)
    if not url and hasattr(server, "servers"):
        raise InputError(
            "A fleet has no counters of its own, each of its servers has.",
            "Expected one of them.",
            "Type: scrape(fleet.servers[0]), or fleet.shares() for all together.",
        )
    if not url:
        raise InputError(
            f"An object of type {type(server).__name__} without a metrics address was given.",
            "Expected a Server or the address of its metrics port.",
            'Type for example: scrape("localhost:9002")',
        )
    address = parse_address(url)
    path = urlsplit(url if "://" in url else f"//{url}").path
    time.sleep(settle_s)
    try:
        page = ask(address, path if path.strip("/") else "/metrics", access=access or getattr(server, "metrics_access", NO_ACCESS))
        return Snapshot(time.time(), tuple(metrics_page.parse(page)), time.monotonic())
    except AccessError:
        raise
    except ServerError as error:
        if not (isinstance(error.__cause__, Refused) and error.__cause__.reason == "protocol"):
            raise
        raise _no_page(address, "it does not answer in HTTP") from error
    except (RequestError, ValueError, TypeError) as error:
        raise _no_page(address, str(error)) from error


def _no_page(address: Address, reason: str) -> RequestError:
    return RequestError(
        f"What answers at {address} is no metrics page ({' '.join(reason.split())[:120]}).",
        "By the course's convention HTTP has the base port (9000), gRPC the next (9001) and metrics the one after (9002).",
        f'If you gave the HTTP port, type: scrape("{address.host}:{address.port + 2}")',
    )


def difference(before: Snapshot, after: Snapshot) -> Difference:
    """What happened between two readings; ``after - before`` is the same."""
    seconds = after.seconds_since(before)
    if seconds < 0:
        raise InputError("The second reading is older than the first.", "Expected: after - before.")
    old = {sample.key: sample.value for sample in before.samples}
    samples, restarted = [], []
    for sample in after.samples:
        value = sample.value
        if sample.counter:
            # A counter that shrank began anew from zero: the server was restarted, or the model loaded again.
            start = old.get(sample.key, 0.0)
            if value < start:
                restarted.append(sample.labels.get("model", "the server"))
                start = 0.0
            value -= start
        samples.append(Sample(sample.metric, sample.counter, sample.labels, value))
    gone = sorted(set(before.models) - set(after.models))
    notes = []
    if restarted:
        notes.append(f"the counters of {quoted(sorted(set(restarted)))} began anew, so what came before that is missing")
    if gone:
        notes.append(f"{quoted(gone)} is not loaded any more")
    return Difference(seconds, tuple(samples), tuple(notes))


def _without_empty(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    used = {name for row in rows for name, value in row.items() if value != ""}
    return [{name: value for name, value in row.items() if name in used} for row in rows]
