"""What a search varies: the clients' traffic is given; models, instances, threads, batching and accelerators make a combination.

Each combination is a configuration of the model, and the one that the server has is one of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from helpers.measuring.measure import PRECISION, with_instances
from helpers.measuring.perf_analyzer import PERCENTILE
from helpers.measuring.table import LATENCY_ENDS, THROUGHPUT, THROUGHPUT_SPREAD, latency_column, latency_words, with_spread
from helpers.paths import read_text, server_env
from helpers.repository.configs import instances_of
from helpers.repository.syntax import as_dict, parse, render

Row = dict[str, Any]
# What may become of a combination.
OK, OVER_BUDGET, REFUSED, FAILED = "ok", "over the budget", "refused by the server", "failed"
# Its latency may be over the budget, or not: the interval reaches across.
UNSURE = "perhaps over the budget"
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
# Stanzas of the accelerators that a search tries: the list in which they stand, and the entry.
STANZAS: dict[str, tuple[str, dict[str, Any]]] = {
    "openvino": ("cpu_execution_accelerator", {"name": "openvino"}),
    "tensorrt": ("gpu_execution_accelerator", {"name": "tensorrt"}),
    "tensorrt FP16": ("gpu_execution_accelerator", {"name": "tensorrt", "parameters": {"precision_mode": "FP16"}}),
}


@dataclass(frozen=True)
class Traffic:
    """What the clients send: entries in each request, and requests under way at any time or sent each second."""

    batch: int
    concurrency: int | None
    request_rate_per_s: float | None = None

    def __str__(self) -> str:
        load = f"{self.concurrency} under way" if self.concurrency else f"{self.request_rate_per_s:g} each second"
        return f"requests of batch {self.batch}, {load}"


@dataclass(frozen=True)
class Candidate:
    """One combination.

    Attributes:
        model: name of the model.
        instances: how many in all.
        threads: of each instance; None where the backend has no such number.
        delay_ms: the longest that a request waits for others to make a batch with; 0 takes those that wait anyway, None is no
            dynamic batching.
        accelerator: name in :data:`STANZAS`, or empty.
        halves: batches hold at most half of the requests that an instance has, ``preferred_batch_size``: while one half is worked on, the
            other waits, complete. Only without a delay, and for clients that keep a number of requests under way.
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
    """What is best: the highest throughput whose latency percentile is within the budget; for a request rate the lowest latency."""

    traffic: Traffic
    budget_ms: float | None = None
    percentile: int = PERCENTILE

    @property
    def quantity(self) -> str:
        """What a verdict compares: a given rate is served or not, so there latency tells candidates apart."""
        return "throughput" if self.traffic.concurrency else "latency"

    def latency_ms(self, row: Mapping[str, Any]) -> float | None:
        """Return the latency that the budget is for, in ms."""
        value = row.get(latency_column(self.percentile))
        return None if value is None else value / 1000

    def within(self, row: Mapping[str, Any]) -> bool:
        """True if a row's value is inside the budget."""
        latency = self.latency_ms(row)
        return self.budget_ms is None or (latency is not None and latency <= self.budget_ms)

    def kept(self, row: Mapping[str, Any]) -> bool | None:
        """True if the whole interval of the latency is inside the budget, False if all of it is outside; None where neither is known."""
        low, high = (row.get(end) for end in LATENCY_ENDS)
        if self.budget_ms is None or (high is not None and high <= 1000 * self.budget_ms):
            return True
        return False if low is not None and low > 1000 * self.budget_ms else None

    def over(self, row: Mapping[str, Any]) -> bool:
        """True if a row is over the budget beyond its spread; a short look, of few requests, may know none."""
        latency = self.latency_ms(row)
        if self.budget_ms is None or latency is None:
            return self.budget_ms is not None
        return self.kept(row) is False or (row.get(LATENCY_ENDS[0]) is None and latency * (1 - LOOK_SPREAD) > self.budget_ms)

    def served(self, row: Mapping[str, Any]) -> bool:
        """True if the server keeps up with a request rate, as far as the spread allows to tell."""
        rate = self.traffic.request_rate_per_s
        most = (row.get(THROUGHPUT) or 0) + (row.get(THROUGHPUT_SPREAD) or 0)
        return rate is None or most >= (1 - PRECISION) * rate * self.traffic.batch

    def fits(self, row: Mapping[str, Any]) -> bool:
        """True if a row is inside the budget and serves the rate."""
        return self.within(row) and self.served(row)

    def rank(self, row: Mapping[str, Any]) -> tuple[float, ...]:
        """Return a rank, larger is better: first whatever is inside the budget, and outside of it whatever is closer to it."""
        latency = self.latency_ms(row)
        if row.get("outcome", OK) not in MEASURED or latency is None:
            return (-1.0, 0.0)
        if not self.fits(row):
            return (0.0, -latency if self.served(row) else (row.get(THROUGHPUT) or 0) - 1e9)
        return (1.0, row[THROUGHPUT] if self.traffic.concurrency else -latency)

    def latency_words(self, row: Mapping[str, Any]) -> str:
        """Return the latency percentile of a row with its interval."""
        unknown = all(row.get(end) is None for end in LATENCY_ENDS)
        return f"p{self.percentile} {latency_words(row, self.percentile)} ms" + (" (interval not known)" if unknown else "")

    def words(self, row: Mapping[str, Any]) -> str:
        """Return throughput and latency of a row with their intervals."""
        return f"{with_spread(row[THROUGHPUT], row[THROUGHPUT_SPREAD])} inferences/s, {self.latency_words(row)}"


@dataclass(frozen=True)
class Found:
    """A model as a search finds it: its configuration as the server reports it, whether it was loaded, and which combination that is.

    ``max_batch`` limits what the server may put into one batch during the search; None for the model's own limit.
    """

    model: str
    config: Mapping[str, Any]
    loaded: bool
    place: Candidate
    max_batch: int | None = None

    @property
    def limited(self) -> bool:
        """True if the limit changes anything: the model takes larger batches."""
        return self.max_batch is not None and int(self.config.get("max_batch_size", 0)) > self.max_batch

    @property
    def base(self) -> dict[str, Any]:
        """The configuration that the search starts from."""
        return self._limited(self.config)

    def _limited(self, config: Mapping[str, Any]) -> dict[str, Any]:
        if not self.limited:
            return dict(config)
        batching = dict(config.get("dynamic_batching") or {})
        if any(size > self.max_batch for size in batching.get("preferred_batch_size", [])):
            # The server refuses a preferred batch that is above the limit.
            del batching["preferred_batch_size"]
        own = {"dynamic_batching": batching} if "dynamic_batching" in config else {}
        return {**config, "max_batch_size": self.max_batch, **own}

    def config_for(self, candidate: Candidate, traffic: Traffic, written: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the configuration of a combination: what was found, and the parts of it that the search varies.

        With a wait, the batch that ends it is the largest one that this traffic can make, ``preferred_batch_size``; with half batches it is
        half of that. ``written`` is what stands in the model's own file, to be changed in place of what the server has made of it.
        """
        base = self.base if written is None else self._limited(written)
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
            optimization = {key: value for key, value in config.pop("optimization", {}).items() if key != "execution_accelerators"}
            if candidate.accelerator:
                where, entry = STANZAS[candidate.accelerator]
                optimization["execution_accelerators"] = {where: [entry]}
            config |= {"optimization": optimization} if optimization else {}
        return config

    def _batching(self, kept: Mapping[str, Any], candidate: Candidate, traffic: Traffic) -> dict[str, Any]:
        batching = {name: value for name, value in kept.items() if name not in ("preferred_batch_size", "max_queue_delay_microseconds")}
        if candidate.delay_ms:
            batching["max_queue_delay_microseconds"] = round(1000 * candidate.delay_ms)
        if candidate.halves or (candidate.delay_ms and traffic.concurrency):
            batching["preferred_batch_size"] = [reachable(self.base, candidate, traffic)]
        return batching

    def written(self, candidate: Candidate, traffic: Traffic, repository: Path | None, remark: str) -> str:
        """Return the configuration of a combination as text to copy: the model's own file, where it is known, with what varies changed.

        ``remark`` has the lines for its beginning, without ``#``.
        """
        path = repository / self.model / "config.pbtxt" if repository else None
        own = as_dict(parse(read_text(path), str(path))) if path is not None and path.exists() else None
        config = json_format.ParseDict(self.config_for(candidate, traffic, own), ModelConfig(), ignore_unknown_fields=True)
        config.name = self.model
        return "".join(f"# {line}\n" for line in remark.splitlines()) + render(config)


def place_of(model: str, config: Mapping[str, Any], cores: int, embedded: bool) -> Candidate:
    """Return the combination that a reported configuration is.

    The embedded server's backends share the cores out among instances when a configuration names no threads; those of a container give all
    cores to each.
    """
    instances = instances_of(config)
    key = THREADS.get(str(config.get("backend"))) if not on_gpu(config) else None
    given = int(config.get("parameters", {}).get(key, {}).get("string_value", "0")) if key else 0
    threads = (given or (max(1, cores // instances) if embedded else cores)) if key else None
    batching = config.get("dynamic_batching")
    delay_ms = None if batching is None else int(batching.get("max_queue_delay_microseconds", 0)) / 1000
    lists = config.get("optimization", {}).get("execution_accelerators", {})
    entry: Mapping[str, Any] = next((entry for entries in lists.values() for entry in entries), {})
    precision = entry.get("parameters", {}).get("precision_mode", "").replace("FP32", "")
    return Candidate(model, instances, threads, delay_ms, f"{entry.get('name', '')} {precision}".strip())


def on_gpu(config: Mapping[str, Any]) -> bool:
    """True if instances of the model run on a GPU."""
    return any("GPU" in str(group.get("kind", "")) for group in config.get("instance_group", []))


def can_batch(config: Mapping[str, Any], traffic: Traffic) -> bool:
    """True if the server can put requests of this traffic together: room for two in a batch, and more than one under way."""
    room = int(config.get("max_batch_size", 0)) >= 2 * traffic.batch
    return room and traffic.concurrency != 1 and "sequence_batching" not in config


def reachable(config: Mapping[str, Any], candidate: Candidate, traffic: Traffic) -> int:
    """Return the largest batch that a combination can put together, in entries.

    It is of whole requests: those under way are shared out among the instances; for a rate, the model's limit counts.
    """
    if candidate.delay_ms is None:
        return traffic.batch
    limit = max(1, int(config.get("max_batch_size", 0)))
    most = limit // traffic.batch
    if traffic.concurrency:
        most = min(most, -(-traffic.concurrency // candidate.instances))
    elif not candidate.halves:
        return limit
    return max(1, most // 2 if candidate.halves else most) * traffic.batch


@dataclass(frozen=True)
class Axes:
    """The values that a search may choose from, for one model, as :class:`Candidate` has them.

    Instances and threads ascend; threads are ``(None,)`` where there is no such number; in the delays None, no batching, is the first.
    ``halves`` says whether half batches are worth a look; a full grid leaves them out.
    """

    instances: tuple[int, ...] = (1, 2)
    threads: tuple[int | None, ...] = (1, 2)
    delays_ms: tuple[float | None, ...] = (None, 0.0)
    accelerators: tuple[str, ...] = ("",)
    halves: bool = False

    def candidates(self, model: str) -> Iterator[Candidate]:
        """Yield every combination, as a full grid would measure them."""
        for values in itertools.product(self.instances, self.threads, self.delays_ms, self.accelerators):
            yield Candidate(model, *values)

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

    def fitting(self, found: Found, traffic: Traffic, limit: int | None) -> Axes:
        """Return these values without those that mean nothing for a model."""
        batches = can_batch(found.base, traffic)
        return Axes(
            tuple(sorted(number for number in self.instances if limit is None or number <= limit)) or (found.place.instances,),
            tuple(sorted(self.threads, key=lambda number: number or 0)) if found.place.threads is not None else (None,),
            self.delays_ms if batches else (found.place.delay_ms,),
            self.accelerators if found.config.get("backend") == "onnxruntime" else ("",),
            self.halves and batches and bool(traffic.concurrency),
        )


def axes_for(found: Found, traffic: Traffic, cores: int, limit: int | None, budget_ms: float | None, here: Sequence[str]) -> Axes:
    """Return the values that are worth a look for a model under this traffic, with the accelerators that have an effect ``here``.

    No request waits for a batch longer than half of the budget.
    """
    most = limit or min(MAX_INSTANCES, max(2, cores))
    # An instance more than there are requests under way never has anything to do.
    most = min(most, traffic.concurrency) if traffic.concurrency else most
    powers = [2**power for power in range(10)]
    waits = {wait for wait in DELAYS_MS if budget_ms is None or wait <= budget_ms / 2} | {found.place.delay_ms or 0.0}
    every = Axes(
        tuple({number for number in (*powers, cores, most) if number <= most}),
        tuple({number for number in (*powers, cores) if number <= cores}),
        (None, *sorted({0.0, *waits})),
        tuple(dict.fromkeys(["", *here, found.place.accelerator])),
        halves=True,
    )
    return every.fitting(found, traffic, None)


def accelerators_here(runtime: str, gpu: bool) -> tuple[str, ...]:
    """Return the execution accelerators that change anything for an ONNX model on such a server.

    TensorRT needs a GPU and the ONNX Runtime of NVIDIA's container; OpenVINO on the embedded server an ONNX Runtime built with it.
    """
    if runtime != "embedded":
        return ("tensorrt", "tensorrt FP16") if gpu else ()
    library = "lib/python3*/site-packages/onnxruntime/capi/libonnxruntime_providers_openvino.so"
    return ("openvino",) if any(server_env().glob(library)) else ()
