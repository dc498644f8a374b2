"""One change of a deployment at a time, on the real server: each test asserts the effect by counters or configuration, not by timing."""

from __future__ import annotations

import time

from helpers.server import Server
from tests.support.processes import PATIENCE_S

MODEL = "particlenet_AK4"


def counted(server: Server, model: str, at_least: int = 0) -> dict[str, int]:
    """Inferences, executions and the time in the queue (ns) since the model was loaded.

    Args:
        server: which.
        model: which.
        at_least: wait until so many inferences are counted: the server counts a moment after it has answered.
    """
    deadline = time.monotonic() + PATIENCE_S
    while True:
        told = server.statistics(model)
        if int(told.get("inference_count", 0)) >= at_least or time.monotonic() > deadline:
            break
        time.sleep(0.02)
    queue = told["inference_stats"].get("queue", {})
    return {
        "inferences": int(told.get("inference_count", 0)),
        "executions": int(told.get("execution_count", 0)),
        "queue_ns": int(queue.get("ns", 0)),
    }


def batches_run(server: Server, model: str) -> dict[int, int]:
    """How often a batch of each size was run, as the server counts them."""
    return {int(entry["batch_size"]): int(entry["compute_infer"]["count"]) for entry in server.statistics(model)["batch_stats"]}
