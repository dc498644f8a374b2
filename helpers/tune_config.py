"""From a combination to a configuration of the model, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from helpers.repository.configs import instances_of
from helpers.sweep_plan import with_instances
from helpers.tune_candidate import Candidate, Traffic

# Parameter that sets the threads of an instance, by backend. Other backends have none.
THREADS = {"onnxruntime": "intra_op_thread_count", "pytorch": "INTRA_OP_THREAD_COUNT"}
# Stanzas of the accelerators that a search tries: the list in which they stand, and the entry.
STANZAS: dict[str, tuple[str, dict[str, Any]]] = {
    "openvino": ("cpu_execution_accelerator", {"name": "openvino"}),
    "tensorrt": ("gpu_execution_accelerator", {"name": "tensorrt"}),
    "tensorrt FP16": ("gpu_execution_accelerator", {"name": "tensorrt", "parameters": {"precision_mode": "FP16"}}),
}


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
