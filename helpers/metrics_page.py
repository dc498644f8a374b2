"""The text of a metrics page, as numbers with names, labels and units."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

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

    def matches(self, metric: str, labels: dict[str, str]) -> bool:
        """Whether it has this name, with or without ``nv_`` in front, and these labels."""
        return self.metric in (metric, f"nv_{metric}") and all(self.labels.get(name) == str(value) for name, value in labels.items())

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


def value(samples: tuple[Sample, ...], metric: str, labels: dict[str, Any]) -> float:
    """The sum of the numbers with this name and these labels.

    Raises:
        InputError: there is none.
    """
    found = [sample.value for sample in samples if sample.matches(metric, labels)]
    if found:
        return sum(found)
    same_name = [sample for sample in samples if sample.matches(metric, {})]
    if not same_name:
        names = sorted({sample.metric for sample in samples})
        raise InputError(
            f"There is no metric {metric!r} on the page.", suggestion(metric, names), "Look at all of them with: print(scrape(server))"
        )
    name, value = next(
        (item for item in labels.items() if not any(sample.matches(metric, dict([item])) for sample in same_name)), ("labels", labels)
    )
    known = sorted({sample.labels[name] for sample in same_name if name in sample.labels})
    raise InputError(
        f"The metric {metric!r} is not there for {name} {value!r}.", f"It is there for {quoted(known)}.", suggestion(str(value), known)
    )
