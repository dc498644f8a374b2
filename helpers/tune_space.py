"""The values that a search chooses from: instances, threads of each, dynamic batching with its longest wait, accelerators.

The model itself varies as well: other formats and precisions of the same network are other models with the same inputs and outputs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from helpers import settings
from helpers.tune_candidate import Candidate, Traffic
from helpers.tune_config import Found, can_batch


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
    most = limit or min(settings.TUNE_MAX_INSTANCES, max(2, cores))
    # An instance more than there are requests under way never has anything to do.
    most = min(most, traffic.concurrency) if traffic.concurrency else most
    powers = [2**power for power in range(10)]
    instances = {number for number in (*powers, cores, most) if number <= most}
    threads = {number for number in (*powers, cores) if number <= cores}
    delays: list[float | None] = [place.delay_ms]
    if can_batch(config, traffic):
        waits = [wait for wait in settings.TUNE_DELAYS_MS if budget_ms is None or wait <= budget_ms / 2]
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
    return ("openvino",) if any(settings.server_env().glob(library)) else ()


def beside(candidate: Candidate, axes: Axes, cores: int, step: int) -> Candidate | None:
    """The next larger (``step`` 1) or smaller (-1) number of instances, with the cores shared out among them; None at the end."""
    numbers = [number for number in axes.instances if (number - candidate.instances) * step > 0]
    if not numbers:
        return None
    instances = min(numbers) if step > 0 else max(numbers)
    return replace(candidate, instances=instances, threads=axes.threads_for(instances, cores))
