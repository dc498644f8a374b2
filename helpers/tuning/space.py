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
from helpers.measuring.table import latency_column
from helpers.paths import read_text, server_env
from helpers.repository.configs import instances_of
from helpers.repository.syntax import parse, render

Row = dict[str, Any]
# What may become of a combination.
OK, OVER_BUDGET, OVER_MEMORY, REFUSED, FAILED = "ok", "over the budget", "over the memory limit", "refused by the server", "failed"
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
    """What the clients send: given, not searched.

    Attributes:
        batch: entries in each request.
        concurrency: requests under way at any time; None for a rate.
        request_rate_per_s: requests sent each second; None for a concurrency.
    """

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


@dataclass(frozen=True)
class Goal:
    """What is best: the highest throughput whose latency percentile is within the budget; for a request rate the lowest latency.

    Attributes:
        traffic: what the clients send.
        budget_ms: for the latency percentile, in ms; None for none.
        percentile: which one.
    """

    traffic: Traffic
    budget_ms: float | None = None
    percentile: int = PERCENTILE

    @property
    def quantity(self) -> str:
        """What a verdict compares: a given rate is served or not, so there latency tells candidates apart."""
        return "throughput" if self.traffic.concurrency else "latency"

    def latency_ms(self, row: Mapping[str, Any]) -> float | None:
        """The latency that the budget is for, in ms."""
        value = row.get(latency_column(self.percentile))
        return None if value is None else value / 1000

    def over(self, row: Mapping[str, Any]) -> bool:
        """Whether a row is over the budget beyond its spread; a short look, of few requests, knows none."""
        latency = self.latency_ms(row)
        if self.budget_ms is None or latency is None:
            return self.budget_ms is not None
        spread = row.get("latency_spread_us")
        return latency * (1 - LOOK_SPREAD) > self.budget_ms if spread is None else latency - spread / 1000 > self.budget_ms

    def within(self, row: Mapping[str, Any]) -> bool:
        """Whether a row's value is inside the budget."""
        latency = self.latency_ms(row)
        return self.budget_ms is None or (latency is not None and latency <= self.budget_ms)

    def served(self, row: Mapping[str, Any]) -> bool:
        """Whether the server keeps up with a request rate, as far as the spread allows to tell."""
        rate = self.traffic.request_rate_per_s
        most = (row.get("throughput_infer_per_s") or 0) + (row.get("throughput_spread_infer_per_s") or 0)
        return rate is None or most >= (1 - PRECISION) * rate * self.traffic.batch

    def fits(self, standing: Any) -> int:
        """Return 1 for what is inside the budget and serves the rate, 0 for what is not."""
        return int(self.within(standing.row()) and self.served(standing.row()))

    def rank(self, row: Mapping[str, Any]) -> tuple[float, ...]:
        """Larger is better; first whatever is inside the budget, and outside of it whatever is closer to it."""
        latency = self.latency_ms(row)
        if row.get("outcome", OK) not in MEASURED or latency is None:
            return (-1.0, 0.0)
        if not self.within(row) or not self.served(row):
            return (0.0, -latency if self.served(row) else (row.get("throughput_infer_per_s") or 0) - 1e9)
        return (1.0, row["throughput_infer_per_s"] if self.traffic.concurrency else -latency)


def simplicity(candidate: Candidate, start: Candidate) -> tuple[Any, ...]:
    """Return what orders combinations from the simplest: what there is already, then fewer stanzas, then fewer instances and threads."""
    stanzas = (candidate.halves, bool(candidate.accelerator), bool(candidate.delay_ms), candidate.delay_ms is not None)
    return (candidate != start, sum(stanzas), candidate.instances * (candidate.threads or 1), candidate.instances, str(candidate))


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' * (number != 1)}"


@dataclass(frozen=True)
class Found:
    """A model as a search finds it.

    Attributes:
        model: its name.
        config: as the server reports it.
        loaded: whether it was loaded before.
        place: the combination that this configuration is.
        max_batch: entries that the server may put into one batch during the search; None for the model's own limit.
    """

    model: str
    config: Mapping[str, Any]
    loaded: bool
    place: Candidate
    max_batch: int | None = None

    @property
    def limited(self) -> bool:
        """Whether the limit changes anything: the model takes larger batches."""
        return self.max_batch is not None and int(self.config.get("max_batch_size", 0)) > self.max_batch

    @property
    def base(self) -> dict[str, Any]:
        """The configuration that the search starts from: as it was found, with the limit on batches."""
        limit = {"max_batch_size": self.max_batch} if self.limited else {}
        batching = dict(self.config.get("dynamic_batching") or {})
        if limit and any(size > limit["max_batch_size"] for size in batching.get("preferred_batch_size", [])):
            # The server refuses a preferred batch that is above the limit.
            del batching["preferred_batch_size"]
            limit["dynamic_batching"] = batching
        return {**self.config, **limit}

    def config_for(self, candidate: Candidate, traffic: Traffic) -> dict[str, Any]:
        """The configuration of a combination: what was found, and the parts of it that the search varies.

        With a wait, the batch that ends it is the largest one that this traffic can make, ``preferred_batch_size``; with half batches it is
        half of that.
        """
        if candidate == self.place:
            return self.base
        config = with_instances(self.base, candidate.instances)
        key = THREADS.get(str(config.get("backend")))
        if key and candidate.threads is not None:
            config["parameters"] = {**config.get("parameters", {}), key: {"string_value": str(candidate.threads)}}
        if candidate.delay_ms != self.place.delay_ms or candidate.instances != self.place.instances or candidate.halves:
            _set_batching(config, candidate, traffic)
        if candidate.accelerator != self.place.accelerator:
            _set_accelerator(config, candidate.accelerator)
        return config


def place_of(model: str, config: Mapping[str, Any], cores: int, embedded: bool) -> Candidate:
    """The combination that a reported configuration is.

    Args:
        model: name of the model.
        config: as the server reports it.
        cores: of the server.
        embedded: whether it is the embedded server, whose backends share the cores out among instances when nobody says how many
            threads; those of a container give all cores to each.
    """
    instances = instances_of(config)
    key = THREADS.get(str(config.get("backend"))) if not on_gpu(config) else None
    given = int(config.get("parameters", {}).get(key, {}).get("string_value", "0")) if key else 0
    threads = (given or (max(1, cores // instances) if embedded else cores)) if key else None
    batching = config.get("dynamic_batching")
    delay_ms = None if batching is None else int(batching.get("max_queue_delay_microseconds", 0)) / 1000
    return Candidate(model, instances, threads, delay_ms, _accelerator(config))


def on_gpu(config: Mapping[str, Any]) -> bool:
    """Whether instances of the model run on a GPU."""
    return any("GPU" in str(group.get("kind", "")) for group in config.get("instance_group", []))


def can_batch(config: Mapping[str, Any], traffic: Traffic) -> bool:
    """Whether the server can put requests of this traffic together: room for two in a batch, and more than one under way."""
    room = int(config.get("max_batch_size", 0)) >= 2 * traffic.batch
    return room and traffic.concurrency != 1 and "sequence_batching" not in config


def reachable_batch(config: Mapping[str, Any], instances: int, traffic: Traffic) -> int:
    """The largest batch that requests under way can make, shared out among the instances; for a rate, the model's limit."""
    limit = max(1, int(config.get("max_batch_size", 0)))
    if not traffic.concurrency:
        return limit
    return min(limit // traffic.batch, -(-traffic.concurrency // instances)) * traffic.batch or traffic.batch


def reachable(config: Mapping[str, Any], candidate: Candidate, traffic: Traffic) -> int:
    """The largest batch that a combination can put together, for the guidance."""
    if candidate.delay_ms is None:
        return traffic.batch
    return (half_batch if candidate.halves else reachable_batch)(config, candidate.instances, traffic)


def half_batch(config: Mapping[str, Any], instances: int, traffic: Traffic) -> int:
    """Half of the requests that an instance has under way, in entries; one request where there is no half."""
    return max(1, reachable_batch(config, instances, traffic) // traffic.batch // 2) * traffic.batch


def _set_batching(config: dict[str, Any], candidate: Candidate, traffic: Traffic) -> None:
    kept = config.pop("dynamic_batching", None) or {}
    if candidate.delay_ms is None:
        return
    batching = {name: value for name, value in kept.items() if name not in ("preferred_batch_size", "max_queue_delay_microseconds")}
    if candidate.halves:
        batching["preferred_batch_size"] = [half_batch(config, candidate.instances, traffic)]
    elif candidate.delay_ms:
        batching["max_queue_delay_microseconds"] = round(1000 * candidate.delay_ms)
        if traffic.concurrency:
            batching["preferred_batch_size"] = [reachable_batch(config, candidate.instances, traffic)]
    config["dynamic_batching"] = batching


def _set_accelerator(config: dict[str, Any], name: str) -> None:
    optimization = {key: value for key, value in config.get("optimization", {}).items() if key != "execution_accelerators"}
    if name:
        where, entry = STANZAS[name]
        optimization["execution_accelerators"] = {where: [entry]}
    config["optimization"] = optimization


def _accelerator(config: Mapping[str, Any]) -> str:
    lists = config.get("optimization", {}).get("execution_accelerators", {})
    entries = [entry for entries in lists.values() for entry in entries]
    if not entries:
        return ""
    precision = entries[0].get("parameters", {}).get("precision_mode", "")
    return f"{entries[0]['name']} {precision}".strip() if precision != "FP32" else str(entries[0]["name"])


@dataclass(frozen=True)
class Axes:
    """The values that a search may choose from, for one model.

    Attributes:
        instances: numbers of instances, ascending.
        threads: threads of each, ascending; ``(None,)`` where there is no such number.
        delays_ms: as :attr:`Candidate.delay_ms`; None, no batching, first.
        accelerators: names in :data:`STANZAS`; empty for none.
        halves: whether half batches are worth a look, see :attr:`Candidate.halves`. A full grid leaves them out.
    """

    instances: tuple[int, ...] = (1, 2)
    threads: tuple[int | None, ...] = (1, 2)
    delays_ms: tuple[float | None, ...] = (None, 0.0)
    accelerators: tuple[str, ...] = ("",)
    halves: bool = False

    def candidates(self, model: str) -> Iterator[Candidate]:
        """Every combination, as a full grid would measure them."""
        for values in itertools.product(self.instances, self.threads, self.delays_ms, self.accelerators):
            yield Candidate(model, *values)

    def threads_for(self, instances: int, cores: int) -> int | None:
        """The most threads for each of so many instances with which all have a core of their own; else the fewest."""
        numbers = [number for number in self.threads if number is not None]
        return max((number for number in numbers if number * instances <= cores), default=min(numbers)) if numbers else None


def axes_for(found: Found, traffic: Traffic, cores: int, limit: int | None, budget_ms: float | None, here: Sequence[str]) -> Axes:
    """The values that are worth a look for a model under this traffic.

    Args:
        found: the model.
        traffic: what the clients send.
        cores: of the server.
        limit: instances at most; None for the default.
        budget_ms: the latency budget; nobody waits for a batch longer than half of it.
        here: accelerators that have an effect on this server.
    """
    config, place = found.base, found.place
    most = limit or min(MAX_INSTANCES, max(2, cores))
    # An instance more than there are requests under way never has anything to do.
    most = min(most, traffic.concurrency) if traffic.concurrency else most
    powers = [2**power for power in range(10)]
    instances = {number for number in (*powers, cores, most) if number <= most}
    threads = {number for number in (*powers, cores) if number <= cores}
    delays: list[float | None] = [place.delay_ms]
    if can_batch(config, traffic):
        waits = [wait for wait in DELAYS_MS if budget_ms is None or wait <= budget_ms / 2]
        delays = [None, 0.0, *sorted({*waits, *([place.delay_ms] if place.delay_ms else [])})]
    accelerators = ["", *here] if config.get("backend") == "onnxruntime" else [""]
    return Axes(
        tuple(sorted(instances)),
        tuple(sorted(threads)) if place.threads is not None else (None,),
        tuple(delays),
        tuple(dict.fromkeys([*accelerators, place.accelerator])),
        halves=len(delays) > 1 and bool(traffic.concurrency),
    )


def fitting(axes: Axes, found: Found, traffic: Traffic, limit: int | None) -> Axes:
    """Values that somebody named, without those that mean nothing for a model."""
    return Axes(
        tuple(sorted(number for number in axes.instances if limit is None or number <= limit)) or (found.place.instances,),
        tuple(sorted(axes.threads, key=lambda number: number or 0)) if found.place.threads is not None else (None,),
        axes.delays_ms if can_batch(found.base, traffic) else (found.place.delay_ms,),
        axes.accelerators if found.config.get("backend") == "onnxruntime" else ("",),
        halves=axes.halves and can_batch(found.base, traffic) and bool(traffic.concurrency),
    )


def accelerators_here(runtime: str, gpu: bool) -> tuple[str, ...]:
    """Execution accelerators that change anything for an ONNX model on such a server.

    TensorRT needs a GPU and the ONNX Runtime of NVIDIA's container; OpenVINO on the embedded server an ONNX Runtime built with it.
    """
    if runtime != "embedded":
        return ("tensorrt", "tensorrt FP16") if gpu else ()
    library = "lib/python3*/site-packages/onnxruntime/capi/libonnxruntime_providers_openvino.so"
    return ("openvino",) if any(server_env().glob(library)) else ()


def beside(candidate: Candidate, axes: Axes, cores: int, step: int) -> Candidate | None:
    """The next larger (``step`` 1) or smaller (-1) number of instances, with the cores shared out among them; None at the end."""
    numbers = [number for number in axes.instances if (number - candidate.instances) * step > 0]
    if not numbers:
        return None
    instances = min(numbers) if step > 0 else max(numbers)
    return replace(candidate, instances=instances, threads=axes.threads_for(instances, cores))


def winner_text(config: Mapping[str, Any], repository: Path | None, model: str, remark: str) -> str:
    """The configuration as text to copy: the model's own file where it is known, with the varied parts changed.

    Args:
        config: the whole configuration, as the server takes it.
        repository: where the model's file may be.
        model: name of the model.
        remark: lines for the beginning, without ``#``.
    """
    whole = json_format.ParseDict(dict(config), ModelConfig(), ignore_unknown_fields=True)
    whole.name = model
    path = repository / model / "config.pbtxt" if repository else None
    if path is not None and path.exists():
        own = parse(read_text(path), str(path))
        _vary(own, whole)
        whole = own
    return "".join(f"# {line}\n" for line in remark.splitlines()) + render(whole)


def _vary(config: ModelConfig, winner: ModelConfig) -> None:
    """Give a configuration the winner's instances, parameters, batches and accelerators; what the server only filled in stays out."""
    for name in ("instance_group", "parameters", "dynamic_batching"):
        config.ClearField(name)
    # A limit on batches that was given for the search.
    config.max_batch_size = min(config.max_batch_size, winner.max_batch_size)
    for group in winner.instance_group:
        config.instance_group.add(count=group.count, kind=group.kind, gpus=group.gpus)
    for key in winner.parameters:
        config.parameters[key].CopyFrom(winner.parameters[key])
    if winner.HasField("dynamic_batching"):
        config.dynamic_batching.CopyFrom(winner.dynamic_batching)
        if not config.dynamic_batching.priority_queue_policy:
            config.dynamic_batching.ClearField("priority_queue_policy")
    accelerators = winner.optimization.execution_accelerators
    if accelerators.ByteSize() or config.optimization.execution_accelerators.ByteSize():
        config.optimization.execution_accelerators.CopyFrom(accelerators)
