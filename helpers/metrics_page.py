"""The text of a metrics page, as numbers with names, labels and units."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from helpers.errors import InputError, quoted, suggestion

# Units by the end of a metric's name; the first that fits counts.
_UNITS = (
    ("_request_success", "requests"),
    ("_request_failure", "requests"),
    ("pending_request_count", "requests"),
    ("nv_inference_count", "inferences"),
    ("_exec_count", "executions"),
    ("_us", "µs"),
    ("_us_sum", "µs"),
    ("_us_count", "requests"),
    ("_ms_sum", "ms"),
    ("_ms_count", "requests"),
    ("_ms_bucket", "requests"),
    ("_bytes", "bytes"),
    ("_utilization", "ratio"),
    ("_power_usage", "W"),
    ("_power_limit", "W"),
    ("nv_energy_consumption", "J"),
    ("_per_model", "requests"),
)
# Units of numbers that say how things are now and can be added over models or GPUs; a ratio or a time cannot.
_ADDABLE = ("requests", "inferences", "executions", "bytes", "W")
# Labels whose values are numbers: of summaries and of histograms.
_NUMBERS = ("quantile", "le")


@dataclass(frozen=True)
class Sample:
    """One number on the metrics page.

    Attributes:
        metric: its full name, such as ``nv_inference_count``.
        counter: True for a number that only grows, False for one that says how things are now.
        labels: what it belongs to, such as ``{"model": "add_sub", "version": "1"}``.
        value: the number, in the unit that its name says.
    """

    metric: str
    counter: bool
    labels: dict[str, str]
    value: float

    @property
    def key(self) -> tuple[str, tuple[tuple[str, str], ...]]:
        """What makes it the same number in another reading."""
        return self.metric, tuple(sorted(self.labels.items()))

    def matches(self, metric: str, labels: Mapping[str, Any]) -> bool:
        """True if it has this name, with or without ``nv_`` in front, and these labels."""
        return self.metric in (metric, f"nv_{metric}") and all(
            name in self.labels and (self.labels[name] == str(value) or (name in _NUMBERS and _equal(self.labels[name], value)))
            for name, value in labels.items()
        )

    def row(self) -> dict[str, Any]:
        """It as a row of a tidy table."""
        rest = {name: value for name, value in self.labels.items() if name not in ("model", "version")}
        return {
            "model": self.labels.get("model", ""),
            "version": self.labels.get("version", ""),
            "metric": self.metric,
            "value": self.value,
            "unit": unit(self.metric),
            "labels": ", ".join(f"{name}={value}" for name, value in rest.items()),
        }


def parse(page: str) -> Iterable[Sample]:
    """Read the text of a metrics page.

    Raises:
        ValueError: it is none.
    """
    # The parser adds _total to the names of counters, as a later standard wants it; Triton's names have it nowhere.
    declared = set(re.findall(r"^# TYPE (\S+)", page, re.MULTILINE))
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            name = sample.name if sample.name in declared else sample.name.removesuffix("_total")
            grows = family.type in ("counter", "histogram") or (family.type == "summary" and sample.name.endswith(("_sum", "_count")))
            # Triton declares energy as a counter and cache totals as gauges, although they only grow.
            counter = grows or bool(re.fullmatch(r"nv_cache_num_(lookups|hits|misses|evictions)", name))
            yield Sample(name, counter, dict(sample.labels), float(sample.value))


def unit(metric: str) -> str:
    """The unit of a metric, from its name; empty for a plain number."""
    return next((name for ending, name in _UNITS if metric.endswith(ending)), "")


def value(samples: Sequence[Sample], metric: str, labels: Mapping[str, Any]) -> float:
    """Return the sum of the numbers with this name and these labels.

    Raises:
        InputError: there is none, or several that have no meaningful sum: quantiles, cumulative buckets, ratios, times.
    """
    found = _found(samples, metric, labels)
    for name, what in (("quantile", "quantiles"), ("le", "buckets, each with all that is below its upper edge")):
        # A counter may have a label of the same name, which says nothing of the kind.
        known = _known([sample for sample in found if sample.metric.endswith("_bucket") == sample.counter], name)
        if known and name not in labels:
            raise InputError(
                f"The metric {metric!r} has {what}; their sum means nothing.",
                f"It has {name} {quoted(known)}.",
                f'Type: value("{metric}", {name}="{known[-1] if name == "quantile" else known[0]}")',
            )
    if len(found) > 1 and not all(sample.counter or unit(sample.metric) in _ADDABLE for sample in found):
        names = dict.fromkeys(name for sample in found for name in sample.labels)
        apart = next(name for name in names if len({sample.labels.get(name) for sample in found}) > 1)
        known = _known(found, apart)
        raise InputError(
            f"The metric {metric!r} is there {len(found)} times; the sum of such numbers means nothing.",
            f"They belong to {apart} {quoted(known)}.",
            f'Add to the labels: {apart}="{known[0]}"',
        )
    return sum(sample.value for sample in found)


def histogram(samples: Sequence[Sample], metric: str, labels: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return counts and edges of a histogram, as :func:`numpy.histogram` does.

    Raises:
        InputError: the page has no such histogram, or several with different edges.
    """
    metric = metric.removesuffix("_bucket")
    name = f"{metric}_bucket"
    if not any(sample.matches(name, {}) for sample in samples):
        known = sorted({sample.metric.removesuffix("_bucket") for sample in samples if "le" in sample.labels})
        raise InputError(
            f"There is no histogram {metric!r} on the page.",
            f"It has {quoted(known)}.",
            suggestion(metric, known)
            or "Newer servers have one of the time to the first response: launch them with --metrics-config histogram_latencies=true.",
        )
    series: dict[tuple[tuple[str, str], ...], dict[float, float]] = {}
    for sample in _found(samples, name, labels):
        rest = tuple(sorted((label, text) for label, text in sample.labels.items() if label != "le"))
        series.setdefault(rest, {})[float(sample.labels["le"])] = sample.value
    tops = {tuple(sorted(buckets)) for buckets in series.values()}
    if len(tops) > 1:
        raise InputError(
            f"The histograms {metric!r} of {len(series)} models have different edges and cannot be added.",
            "Expected labels that leave one of them.",
            f'Type for example: histogram("{metric}", {", ".join(f"{label}={text!r}" for label, text in next(iter(series)))})',
        )
    top = np.array(tops.pop())
    below = np.array([sum(buckets[edge] for buckets in series.values()) for edge in top])
    return np.diff(below, prepend=0.0), np.concatenate([[0.0 if top[0] > 0 else -np.inf], top])


def _found(samples: Sequence[Sample], metric: str, labels: Mapping[str, Any]) -> list[Sample]:
    """Return the samples with this name and these labels, at least one; raise InputError if there is none."""
    found = [sample for sample in samples if sample.matches(metric, {})]
    if not found:
        names = sorted({sample.metric for sample in samples})
        if {f"{metric}_bucket", f"nv_{metric}_bucket"} & set(names):
            raise InputError(
                f"The metric {metric!r} is a histogram, and no single number.",
                "It has a count, a sum and buckets.",
                f'Type: histogram("{metric}"), or value("{metric}_sum") / value("{metric}_count") for the mean',
            )
        raise InputError(
            f"There is no metric {metric!r} on the page.", suggestion(metric, names), "Look at all of them with: print(scrape(server))"
        )
    for name, wanted in labels.items():
        rest = [sample for sample in found if sample.matches(metric, {name: wanted})]
        if not rest:
            known = _known(found, name)
            names = dict.fromkeys(key for sample in found for key in sample.labels)
            where = f"It is there for {quoted(known)}." if known else f"It has the labels {quoted(names)}."
            raise InputError(f"The metric {metric!r} is not there for {name} {wanted!r}.", where, suggestion(str(wanted), known))
        found = rest
    return found


def _known(samples: Sequence[Sample], name: str) -> list[str]:
    """Return the values of a label, sorted: numbers by their size."""
    texts = sorted({sample.labels[name] for sample in samples if name in sample.labels})
    with suppress(ValueError):
        texts = sorted(texts, key=float)
    return texts


def _equal(text: str, value: Any) -> bool:
    """True if both are the same number: ``le="30.0"`` is 30."""
    try:
        return float(text) == float(value)
    except (TypeError, ValueError):
        return False
