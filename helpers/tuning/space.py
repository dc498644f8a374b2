"""What a search varies: the clients' traffic is given; models, instances, threads, batching and accelerators make a combination.

Each combination is a configuration of the model, and the one that the server has is one of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from helpers.measuring.measure import with_instances
from helpers.measuring.perf_analyzer import PERCENTILE
from helpers.measuring.table import LATENCY_ENDS, THROUGHPUT, THROUGHPUT_SPREAD, latency_column, latency_words, with_spread
from helpers.paths import read_text
from helpers.repository.configs import instances_of
from helpers.repository.syntax import as_dict, parse, render

Row = dict[str, Any]
# What may become of a combination; the latency of one that is perhaps over the budget has an interval that reaches across.
OK, OVER_BUDGET, UNSURE, REFUSED, FAILED = "ok", "over the budget", "perhaps over the budget", "refused by the server", "failed"
# Outcomes that have figures, and may win.
MEASURED = (OK, UNSURE, OVER_BUDGET)
# How well a short look knows a latency percentile, as a fraction: it only has to show where to go.
LOOK_SPREAD = 0.2
# Instances that a search tries at most by default: each costs memory, and beyond the cores they only help models that wait.
MAX_INSTANCES = 8
# The longest waits for a larger batch that it tries, in ms: a part of what a network takes for a jet, and a few times as much.
DELAYS_MS = (0.5, 2.0)
# Parameter that sets the threads of an instance, by backend. Other backends have none.
THREADS = {"onnxruntime": "intra_op_thread_count", "pytorch": "INTRA_OP_THREAD_COUNT"}
# The accelerators that a search tries, for ONNX models on a GPU in NVIDIA's container; nowhere else do they change anything.
TENSORRT: dict[str, dict[str, Any]] = {
    "tensorrt": {"name": "tensorrt"},
    "tensorrt FP16": {"name": "tensorrt", "parameters": {"precision_mode": "FP16"}},
}


@dataclass(frozen=True)
class Traffic:
    """What the clients send: entries in each request, and requests under way at any time."""

    batch: int
    concurrency: int

    def __str__(self) -> str:
        return f"requests of batch {self.batch}, {self.concurrency} under way"


@dataclass(frozen=True)
class Candidate:
    """One combination: a model, how many instances it has in all, and the threads of each (None where the backend has no such number).

    ``delay_ms`` is the longest that a request waits for others to make a batch with: 0 takes those that wait anyway, None is no dynamic
    batching. With ``halves``, and no delay, batches hold at most half of the requests that an instance has (``preferred_batch_size``):
    while one half is worked on, the other waits, complete. The accelerator is a name in :data:`TENSORRT`, or empty.
    """

    model: str
    instances: int
    threads: int | None
    delay_ms: float | None
    accelerator: str = ""
    halves: bool = False

    @property
    def batching(self) -> str:
        """Dynamic batching in words."""
        if self.halves:
            return "on, half batches"
        return "off" if self.delay_ms is None else f"on, waits {self.delay_ms:g} ms" if self.delay_ms else "on"

    def __str__(self) -> str:
        threads = "" if self.threads is None else f" × {_count(self.threads, 'thread')}"
        accelerator = f", {self.accelerator}" if self.accelerator else ""
        return f"{self.model}, {_count(self.instances, 'instance')}{threads}, batching {self.batching}{accelerator}"

    def simplicity(self, start: Candidate) -> tuple[Any, ...]:
        """Return what orders combinations from the simplest: what there is already, then fewer stanzas, instances and threads."""
        stanzas = (self.halves, bool(self.accelerator), bool(self.delay_ms), self.delay_ms is not None)
        return (self != start, sum(stanzas), self.instances * (self.threads or 1), self.instances, str(self))


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' * (number != 1)}"


@dataclass(frozen=True)
class Goal:
    """What is best: the highest throughput whose latency percentile is within the budget."""

    traffic: Traffic
    budget_ms: float = math.inf
    percentile: int = PERCENTILE

    def latency_ms(self, row: Mapping[str, Any]) -> float:
        """Return the latency that the budget is for, in ms; infinite where none is known."""
        value = row.get(latency_column(self.percentile))
        return math.inf if value is None else value / 1000

    def within(self, row: Mapping[str, Any]) -> bool:
        """True if a row's value is inside the budget."""
        return self.latency_ms(row) <= self.budget_ms

    def kept(self, row: Mapping[str, Any]) -> bool | None:
        """True if the whole interval of the latency is inside the budget, False if all of it is outside; None where neither is known."""
        low, high = (row.get(end) for end in LATENCY_ENDS)
        if self.budget_ms == math.inf or (high is not None and high <= 1000 * self.budget_ms):
            return True
        return False if low is not None and low > 1000 * self.budget_ms else None

    def over(self, row: Mapping[str, Any]) -> bool:
        """True if a row is over the budget beyond its spread; a short look, of few requests, may know none."""
        unknown = row.get(LATENCY_ENDS[0]) is None
        return self.kept(row) is False or (unknown and self.latency_ms(row) * (1 - LOOK_SPREAD) > self.budget_ms)

    def rank(self, row: Mapping[str, Any]) -> tuple[float, float]:
        """Return a rank, larger is better: first whatever is inside the budget, and outside of it whatever is closer to it."""
        if row["outcome"] not in MEASURED:
            return (-1.0, 0.0)
        return (1.0, row[THROUGHPUT]) if self.within(row) else (0.0, -self.latency_ms(row))

    def latency_words(self, row: Mapping[str, Any]) -> str:
        """Return the latency percentile of a row with its interval."""
        unknown = all(row.get(end) is None for end in LATENCY_ENDS)
        return f"p{self.percentile} {latency_words(row, self.percentile)} ms" + (" (interval not known)" if unknown else "")

    def words(self, row: Mapping[str, Any]) -> str:
        """Return throughput and latency of a row with their intervals."""
        return f"{with_spread(row[THROUGHPUT], row[THROUGHPUT_SPREAD])} inferences/s, {self.latency_words(row)}"


def limited(config: Mapping[str, Any], max_batch: int | None) -> dict[str, Any]:
    """Return a configuration whose batches have so many entries at most."""
    if max_batch is None or int(config.get("max_batch_size", 0)) <= max_batch:
        return dict(config)
    # The server refuses a preferred batch that is above the limit.
    batching = {name: value for name, value in config.get("dynamic_batching", {}).items() if name != "preferred_batch_size"}
    return {**config, "max_batch_size": max_batch, **({"dynamic_batching": batching} if "dynamic_batching" in config else {})}


@dataclass(frozen=True)
class Found:
    """A model as a search begins with it: its configuration as the server reports it, and which combination that is."""

    config: Mapping[str, Any]
    place: Candidate
    max_batch: int | None = None

    @classmethod
    def of(cls, model: str, config: Mapping[str, Any], cores: int, embedded: bool, max_batch: int | None = None) -> Found:
        """Return it, with batches of ``max_batch`` entries at most.

        The embedded server's backends share the cores out among instances when a configuration names no threads; those of a container give
        all cores to each.
        """
        instances = instances_of(config)
        key = THREADS.get(str(config.get("backend"))) if not on_gpu(config) else None
        given = int(config.get("parameters", {}).get(key, {}).get("string_value", "0")) if key else 0
        threads = (given or (max(1, cores // instances) if embedded else cores)) if key else None
        batching = config.get("dynamic_batching")
        delay_ms = None if batching is None else int(batching.get("max_queue_delay_microseconds", 0)) / 1000
        entries = config.get("optimization", {}).get("execution_accelerators", {}).get("gpu_execution_accelerator", [])
        entry: Mapping[str, Any] = entries[0] if entries else {}
        accelerator = "tensorrt FP16" if entry.get("parameters", {}).get("precision_mode") == "FP16" else str(entry.get("name", ""))
        return cls(limited(config, max_batch), Candidate(model, instances, threads, delay_ms, accelerator), max_batch)

    def config_for(self, candidate: Candidate, traffic: Traffic, written: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the configuration of a combination: what was found, and the parts of it that the search varies.

        ``written`` is what stands in the model's own file, to be changed in place of what the server has made of it.
        """
        base = dict(self.config) if written is None else limited(written, self.max_batch)
        if candidate == self.place:
            return base
        config = with_instances(base, candidate.instances)
        key = THREADS.get(str(self.config.get("backend")))
        if key and candidate.threads is not None:
            config["parameters"] = {**config.get("parameters", {}), key: {"string_value": str(candidate.threads)}}
        if candidate.delay_ms != self.place.delay_ms or candidate.instances != self.place.instances or candidate.halves:
            kept = config.pop("dynamic_batching", None) or {}
            if candidate.delay_ms is not None:
                config["dynamic_batching"] = self._batching(kept, candidate, traffic)
        if candidate.accelerator != self.place.accelerator:
            optimization = {name: value for name, value in config.pop("optimization", {}).items() if name != "execution_accelerators"}
            if candidate.accelerator:
                optimization["execution_accelerators"] = {"gpu_execution_accelerator": [TENSORRT[candidate.accelerator]]}
            config |= {"optimization": optimization} if optimization else {}
        return config

    def _batching(self, kept: Mapping[str, Any], candidate: Candidate, traffic: Traffic) -> dict[str, Any]:
        batching = {name: value for name, value in kept.items() if name not in ("preferred_batch_size", "max_queue_delay_microseconds")}
        if candidate.delay_ms:
            batching["max_queue_delay_microseconds"] = round(1000 * candidate.delay_ms)
        # A wait ends when the batch is the largest one that this traffic can make.
        if candidate.halves or candidate.delay_ms:
            batching["preferred_batch_size"] = [self.reachable(candidate, traffic)]
        return batching

    def reachable(self, candidate: Candidate, traffic: Traffic) -> int:
        """Return the largest batch that a combination can put together, in entries: of whole requests, shared out among the instances."""
        if candidate.delay_ms is None:
            return traffic.batch
        most = min(int(self.config.get("max_batch_size", 0)) // traffic.batch, -(-traffic.concurrency // candidate.instances))
        return max(1, most // 2 if candidate.halves else most) * traffic.batch

    def written(self, candidate: Candidate, traffic: Traffic, repository: Path | None, remark: str) -> str:
        """Return a combination as text to copy: the model's own file, where it is known, with what varies changed, below a remark."""
        path = repository / candidate.model / "config.pbtxt" if repository else None
        own = as_dict(parse(read_text(path), str(path))) if path is not None and path.exists() else None
        config = json_format.ParseDict(self.config_for(candidate, traffic, own), ModelConfig(), ignore_unknown_fields=True)
        config.name = candidate.model
        return "".join(f"# {line}\n" for line in remark.splitlines()) + render(config)


def on_gpu(config: Mapping[str, Any]) -> bool:
    """True if instances of the model run on a GPU."""
    return any("GPU" in str(group.get("kind", "")) for group in config.get("instance_group", []))


@dataclass(frozen=True)
class Axes:
    """The values that a search may choose from, for one model, as :class:`Candidate` has them, ascending and None first.

    ``halves`` says whether half batches are worth a look; a full grid leaves them out.
    """

    instances: tuple[int, ...]
    threads: tuple[int | None, ...]
    delays_ms: tuple[float | None, ...]
    accelerators: tuple[str, ...] = ("",)
    halves: bool = False

    @property
    def combinations(self) -> int:
        """How many a full grid would measure."""
        return len(self.instances) * len(self.threads) * len(self.delays_ms) * len(self.accelerators)

    def threads_for(self, instances: int, cores: int) -> int | None:
        """Return the most threads for each of so many instances with which all have a core of their own; else the fewest."""
        numbers = [number for number in self.threads if number is not None]
        return max((number for number in numbers if number * instances <= cores), default=min(numbers)) if numbers else None

    def beside(self, candidate: Candidate, cores: int, step: int) -> Candidate | None:
        """Return the next larger (``step`` 1) or smaller (-1) number of instances, the cores shared out among them; None at the end."""
        numbers = [number for number in self.instances if (number - candidate.instances) * step > 0]
        if not numbers:
            return None
        instances = min(numbers) if step > 0 else max(numbers)
        return replace(candidate, instances=instances, threads=self.threads_for(instances, cores))


def axes_for(found: Found, goal: Goal, cores: int, limit: int | None, embedded: bool) -> Axes:
    """Return the values that are worth a look for a model: no request waits for a batch longer than half of the budget."""
    traffic, place, config = goal.traffic, found.place, found.config
    # An instance more than there are requests under way never has anything to do.
    most = min(limit or min(MAX_INSTANCES, max(2, cores)), traffic.concurrency)
    powers = [2**power for power in range(10)]
    waits = {wait for wait in DELAYS_MS if wait <= goal.budget_ms / 2} | {place.delay_ms or 0.0, 0.0}
    # Room for two requests in a batch, and more than one under way.
    batches = int(config.get("max_batch_size", 0)) >= 2 * traffic.batch and traffic.concurrency > 1 and "sequence_batching" not in config
    tensorrt = tuple(TENSORRT) if config.get("backend") == "onnxruntime" and on_gpu(config) and not embedded else ()
    return Axes(
        tuple(sorted({number for number in (*powers, cores, most) if number <= most})),
        (None,) if place.threads is None else tuple(sorted({number for number in (*powers, cores) if number <= cores})),
        (None, *sorted(waits)) if batches else (place.delay_ms,),
        tuple(dict.fromkeys(["", *tensorrt, place.accelerator])),
        batches,
    )
