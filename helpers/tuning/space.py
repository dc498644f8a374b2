"""What a search varies: the clients' traffic is given; instances, threads and batching make a combination.

Each combination is a configuration of the model, and the one that the server has is one of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from google.protobuf import json_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from helpers.measuring.perf_analyzer import PERCENTILE
from helpers.measuring.table import LATENCY_ENDS, THROUGHPUT, THROUGHPUT_SPREAD, latency_column, latency_words, with_spread
from helpers.repository.configs import instances_of
from helpers.repository.syntax import render

Row = dict[str, Any]
# What may become of a combination; the latency of one that is perhaps over the budget has an interval that reaches across.
OK, OVER_BUDGET, UNSURE, REFUSED, FAILED = "ok", "over the budget", "perhaps over the budget", "refused by the server", "failed"
# Outcomes that have figures, and may win.
MEASURED = (OK, UNSURE, OVER_BUDGET)
# Dynamic batching. Without a wait it takes the requests that wait anyway. Half batches hold at most half of the requests that an instance
# has: while one half is worked on, the other waits, complete.
OFF, ON, HALVES = "off", "on", "on, half batches"
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
        return (row.get(LATENCY) or math.inf) <= 1000 * self.budget_ms

    def kept(self, row: Mapping[str, Any]) -> bool | None:
        """True if the whole interval of the latency is inside the budget, False if all of it is outside; None where neither is known."""
        low, high = row.get(LATENCY_ENDS[0]) or 0.0, row.get(LATENCY_ENDS[1]) or math.inf
        return True if high <= 1000 * self.budget_ms else False if low > 1000 * self.budget_ms else None

    def outcome(self, row: Mapping[str, Any]) -> tuple[str, str]:
        """Return what becomes of a row, and why. Over the budget is what is so beyond its spread; a short look may know none."""
        if not row[THROUGHPUT]:
            return FAILED, "no request was answered within a window"
        if self.within(row):
            return OK, ""
        return UNSURE if self.kept(row) is None else OVER_BUDGET, f"{row[LATENCY] / 1000:.3g} ms"

    def rank(self, row: Mapping[str, Any]) -> tuple[float, float]:
        """Return a rank, larger is better: first whatever is inside the budget, and outside of it whatever is closer to it."""
        if row["outcome"] not in MEASURED:
            return (-1.0, 0.0)
        return (1.0, row[THROUGHPUT]) if self.within(row) else (0.0, -row[LATENCY])


def words(row: Mapping[str, Any]) -> str:
    """Return throughput and latency of a row with their intervals."""
    rate = with_spread(row[THROUGHPUT], row[THROUGHPUT_SPREAD])
    return f"{rate} inferences/s, p{PERCENTILE} {latency_words(row, PERCENTILE)} ms"


@dataclass(frozen=True)
class Found:
    """A model as a search begins with it: its configuration as the server reports it, and which combination that is.

    Beside them what limits the search: instances that are worth a look, ascending; cores to share out among them as threads, None where
    the backend has no such number; and whether the server may put requests together.
    """

    config: Mapping[str, Any]
    place: Candidate
    instances: tuple[int, ...]
    cores: int | None
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
        threads = given or (max(1, cores // instances) if embedded else cores)
        delay_ms = int(config.get("dynamic_batching", {}).get("max_queue_delay_microseconds", 0)) / 1000
        batching = OFF if "dynamic_batching" not in config else f"{ON}, waits {delay_ms:g} ms" if delay_ms else ON
        # An instance more than there are requests under way never has anything to do.
        most = min(limit or min(MAX_INSTANCES, max(2, cores)), goal.concurrency)
        return cls(
            config,
            Candidate(instances, threads if key else None, batching),
            tuple(sorted({number for number in (*(2**power for power in range(10)), cores, most) if number <= most})),
            cores if key else None,
            # Room for two requests in a batch, and more than one under way.
            int(config.get("max_batch_size", 0)) >= 2 * goal.batch and goal.concurrency > 1 and "sequence_batching" not in config,
        )

    def beside(self, candidate: Candidate, step: int) -> Candidate | None:
        """Return the next larger (``step`` 1) or smaller (-1) number of instances, the cores shared out among them; None at the end."""
        numbers = [number for number in self.instances if (number - candidate.instances) * step > 0]
        return self.shared_out(replace(candidate, instances=numbers[0 if step > 0 else -1])) if numbers else None

    def shared_out(self, candidate: Candidate) -> Candidate:
        """Return the combination in which the instances have as many threads as there are cores, and each has one at least."""
        return replace(candidate, threads=max(1, self.cores // candidate.instances)) if self.cores else candidate

    def config_for(self, candidate: Candidate, goal: Goal) -> dict[str, Any]:
        """Return the configuration of a combination: what was found, and the parts of it that the search varies."""
        config = dict(self.config)
        if candidate == self.place:
            return config
        kinds = [{"kind": group["kind"]} for group in config.get("instance_group", []) if group.get("kind")]
        config["instance_group"] = [{**(kinds or [{}])[0], "count": candidate.instances}]
        if candidate.threads is not None:
            threads = {THREADS[str(config["backend"])]: {"string_value": str(candidate.threads)}}
            config["parameters"] = config.get("parameters", {}) | threads
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

    def written(self, candidate: Candidate, goal: Goal) -> str:
        """Return the configuration of a combination as the text of a ``config.pbtxt``."""
        return render(json_format.ParseDict(self.config_for(candidate, goal), ModelConfig(), ignore_unknown_fields=True))
