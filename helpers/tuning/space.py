"""What a search varies: the clients' traffic is given; instances, threads and batching make a combination.

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
# Dynamic batching. Without a wait it takes the requests that wait anyway. Half batches hold at most half of the requests that an instance
# has: while one half is worked on, the other waits, complete.
OFF, ON, HALVES = "off", "on", "on, half batches"
# How well a short look knows a latency percentile, as a fraction: it only has to show where to go.
LOOK_SPREAD = 0.2
# Instances that a search tries at most by default: each costs memory, and beyond the cores they only help models that wait.
MAX_INSTANCES = 8
# Parameter that sets the threads of an instance, by backend. Other backends have none.
THREADS = {"onnxruntime": "intra_op_thread_count", "pytorch": "INTRA_OP_THREAD_COUNT"}
LATENCY = latency_column(PERCENTILE)


@dataclass(frozen=True)
class Candidate:
    """One combination; ``threads`` are those of each instance, None where the backend has no such number.

    ``batching`` is :data:`OFF`, :data:`ON`, :data:`HALVES`, or in words what a model had before the search.
    """

    instances: int
    threads: int | None
    batching: str = OFF

    def __str__(self) -> str:
        threads = "" if self.threads is None else f" × {self.threads} thread{'s' * (self.threads != 1)}"
        return f"{self.instances} instance{'s' * (self.instances != 1)}{threads}, batching {self.batching}"

    def simplicity(self, start: Candidate) -> tuple[Any, ...]:
        """Return what orders combinations from the simplest: what there is already, then less batching, fewer instances and threads."""
        return (self != start, len(self.batching.split(",")), self.batching != OFF, self.instances * (self.threads or 1), str(self))


@dataclass(frozen=True)
class Goal:
    """The highest throughput whose latency, 95th percentile, is within the budget, for clients with so many requests under way."""

    batch: int
    concurrency: int
    budget_ms: float = math.inf

    def __str__(self) -> str:
        budget = "" if self.budget_ms == math.inf else f", p{PERCENTILE} ≤ {self.budget_ms:g} ms"
        return f"requests of batch {self.batch}, {self.concurrency} under way{budget}"

    def within(self, row: Mapping[str, Any]) -> bool:
        """True if a row's value is inside the budget."""
        return self.budget_ms == math.inf or (row.get(LATENCY) or math.inf) <= 1000 * self.budget_ms

    def kept(self, row: Mapping[str, Any]) -> bool | None:
        """True if the whole interval of the latency is inside the budget, False if all of it is outside; None where neither is known."""
        low, high = (row.get(end) for end in LATENCY_ENDS)
        if self.budget_ms == math.inf or (high is not None and high <= 1000 * self.budget_ms):
            return True
        return False if low is not None and low > 1000 * self.budget_ms else None

    def outcome(self, row: Mapping[str, Any]) -> tuple[str, str]:
        """Return what becomes of a row, and why. Over the budget is what is so beyond its spread; a short look may know none."""
        if not row[THROUGHPUT]:
            return FAILED, "no request was answered within a window"
        if self.within(row):
            return OK, ""
        unknown = row.get(LATENCY_ENDS[0]) is None
        over = self.kept(row) is False or (unknown and row[LATENCY] * (1 - LOOK_SPREAD) > 1000 * self.budget_ms)
        return OVER_BUDGET if over else UNSURE, f"{row[LATENCY] / 1000:.3g} ms"

    def rank(self, row: Mapping[str, Any]) -> tuple[float, float]:
        """Return a rank, larger is better: first whatever is inside the budget, and outside of it whatever is closer to it."""
        if row["outcome"] not in MEASURED:
            return (-1.0, 0.0)
        return (1.0, row[THROUGHPUT]) if self.within(row) else (0.0, -row[LATENCY])


def words(row: Mapping[str, Any]) -> str:
    """Return throughput and latency of a row with their intervals."""
    unknown = " (interval not known)" if all(row.get(end) is None for end in LATENCY_ENDS) else ""
    return (
        f"{with_spread(row[THROUGHPUT], row[THROUGHPUT_SPREAD])} inferences/s, p{PERCENTILE} {latency_words(row, PERCENTILE)} ms{unknown}"
    )


@dataclass(frozen=True)
class Found:
    """A model as a search begins with it: its configuration as the server reports it, and which combination that is.

    Beside them the values that are worth a look, ascending: of instances, of threads, and whether the server may put requests together.
    """

    config: Mapping[str, Any]
    place: Candidate
    instances: tuple[int, ...]
    threads: tuple[int | None, ...]
    batches: bool

    @classmethod
    def of(cls, config: Mapping[str, Any], goal: Goal, cores: int, limit: int | None = None, *, embedded: bool = True) -> Found:
        """Return it, with ``limit`` instances at most.

        The embedded server's backends share the cores out among instances when a configuration names no threads; those of a container give
        all cores to each.
        """
        instances = instances_of(config)
        on_gpu = any("GPU" in str(group.get("kind", "")) for group in config.get("instance_group", []))
        key = None if on_gpu else THREADS.get(str(config.get("backend")))
        given = int(config.get("parameters", {}).get(key, {}).get("string_value", "0"))
        threads = (given or (max(1, cores // instances) if embedded else cores)) if key else None
        delay_ms = int(config.get("dynamic_batching", {}).get("max_queue_delay_microseconds", 0)) / 1000
        batching = OFF if "dynamic_batching" not in config else f"{ON}, waits {delay_ms:g} ms" if delay_ms else ON
        # An instance more than there are requests under way never has anything to do.
        most = min(limit or min(MAX_INSTANCES, max(2, cores)), goal.concurrency)
        powers = [2**power for power in range(10)]
        return cls(
            config,
            Candidate(instances, threads, batching),
            tuple(sorted({number for number in (*powers, cores, most) if number <= most})),
            (None,) if threads is None else tuple(sorted({number for number in (*powers, cores) if number <= cores})),
            # Room for two requests in a batch, and more than one under way.
            int(config.get("max_batch_size", 0)) >= 2 * goal.batch and goal.concurrency > 1 and "sequence_batching" not in config,
        )

    @property
    def combinations(self) -> int:
        """How many a full grid would measure; it leaves half batches out."""
        return len(self.instances) * len(self.threads) * (2 if self.batches else 1)

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

    def config_for(self, candidate: Candidate, goal: Goal, written: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the configuration of a combination: what was found, and the parts of it that the search varies.

        ``written`` is what stands in the model's own file, to be changed in place of what the server has made of it.
        """
        config = dict(self.config if written is None else written)
        if candidate == self.place:
            return config
        kinds = [{"kind": group["kind"]} for group in config.get("instance_group", []) if group.get("kind")]
        config["instance_group"] = [{**(kinds or [{}])[0], "count": candidate.instances}]
        if candidate.threads is not None:
            key = THREADS[str(self.config["backend"])]
            config["parameters"] = {**config.get("parameters", {}), key: {"string_value": str(candidate.threads)}}
        if candidate.batching != self.place.batching:
            kept = config.pop("dynamic_batching", {})
            batching = {name: each for name, each in kept.items() if name not in ("preferred_batch_size", "max_queue_delay_microseconds")}
            if candidate.batching == HALVES:
                batching["preferred_batch_size"] = [self.reachable(candidate, goal)]
            if candidate.batching != OFF:
                config["dynamic_batching"] = batching
        return config

    def reachable(self, candidate: Candidate, goal: Goal) -> int:
        """Return the largest batch that a combination can put together, in entries: of whole requests, shared out among the instances."""
        if candidate.batching == OFF:
            return goal.batch
        most = min(int(self.config.get("max_batch_size", 0)) // goal.batch, -(-goal.concurrency // candidate.instances))
        return max(1, most // 2 if candidate.batching == HALVES else most) * goal.batch

    def written(self, candidate: Candidate, goal: Goal, repository: Path | None, remark: str) -> str:
        """Return a combination as text to copy: the model's own file, where it is known, with what varies changed, below a remark."""
        path = repository / self.config["name"] / "config.pbtxt" if repository else None
        own = as_dict(parse(read_text(path), str(path))) if path is not None and path.exists() else None
        config = json_format.ParseDict(self.config_for(candidate, goal, own), ModelConfig(), ignore_unknown_fields=True)
        config.name = self.config["name"]
        return "".join(f"# {line}\n" for line in remark.splitlines()) + render(config)
