"""Where the time of ``ExaTrk`` goes: the stages of the ensemble, from the server's own counters.

Typical use::

    before = scrape(server)
    client.infer_many("ExaTrk", [{"FEATURES": event.features} for event in events])
    stage_times(scrape(server) - before)
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from helpers.client import Client
from helpers.errors import InputError
from helpers.metrics import Difference
from helpers.tables import as_html, as_text
from helpers.tracks import Event

# In the order in which an event passes them.
STAGES = ("ExaTrk_embedding", "ExaTrk_graph", "ExaTrk_filter", "ExaTrk_gnn", "ExaTrk_tracks")


# What an output is called where the next stages take it.
_TAKEN_AS = {"embedding_output": "embedding", "kept_edges": "edge_index"}


def inputs_of_stage(client: Client, stage: str, features: np.ndarray) -> dict[str, np.ndarray]:
    """What a stage gets for an event: the stages before it are asked in turn.

    Args:
        client: to a server with the stages.
        stage: one of :data:`STAGES`.
        features: (n, 3) the event's hits, as ``ExaTrk`` takes them.
    """
    values: dict[str, Any] = {"sp_features": features}
    for name in STAGES[: STAGES.index(stage) + 1]:
        inputs = {tensor["name"]: values[tensor["name"]] for tensor in client.metadata(name)["inputs"]}
        if name == stage:
            break
        values |= {_TAKEN_AS.get(output, output): array for output, array in client.infer(name, inputs).items()}
    return inputs


class StageTimes(Sequence[dict[str, Any]]):
    """One row for each stage: stage, events, and mean times per event in ms: total = queue + infer + other.

    ``infer`` is the time in the model, ``queue`` the time spent waiting for it, ``other`` everything else: tensors in and out.
    """

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self.rows = list(rows)

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)

    def __repr__(self) -> str:
        return as_text(self.rows)

    def _repr_html_(self) -> str:
        return as_html(self.rows)


def stage_times(difference: Difference) -> StageTimes:
    """The mean time of an event in each stage.

    Args:
        difference: two readings of the metrics, subtracted.

    Raises:
        InputError: no event passed the stages between the two readings.
    """
    by_model = {row["model"]: row for row in difference.requests}
    rows = [_row(by_model[stage]) for stage in STAGES if stage in by_model and by_model[stage]["requests"]]
    if not rows:
        raise InputError(
            "No event passed a stage of ExaTrk between the two readings.",
            "Expected at least one.",
            'Send one in between: client.infer("ExaTrk", ...)',
        )
    return StageTimes(rows)


def _row(row: dict[str, Any]) -> dict[str, Any]:
    total, queue, infer = (row[name] / 1000 for name in ("request_us", "queue_us", "compute_infer_us"))
    return {
        "stage": row["model"],
        "events": row["requests"],
        "total_ms": total,
        "queue_ms": queue,
        "infer_ms": infer,
        "other_ms": max(total - queue - infer, 0.0),
    }


@dataclass(frozen=True)
class EventRate:
    """How fast a server answered.

    Attributes:
        mean: events per second, over all rounds.
        spread: half the range of the rounds, in events per second.
        at_once: requests that were under way at once.
    """

    mean: float
    spread: float
    at_once: int

    def __str__(self) -> str:
        return f"{self.mean:.1f} ± {self.spread:.1f} events/s"

    __repr__ = __str__


def events_per_second(client: Client, events: Sequence[Event], at_once: int, rounds: int = 3, model: str = "ExaTrk") -> EventRate:
    """Send events again and again, and take the time.

    Args:
        client: connected to the server.
        events: sent once in each round.
        at_once: requests under way at once.
        rounds: how often; one more at the start is not counted.
        model: ``ExaTrk`` or ``ExaTrk_bls``.
    """
    requests = [{"FEATURES": event.features} for event in events]
    seconds = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        client.infer_many(model, requests, max_in_flight=at_once)
        seconds.append(time.perf_counter() - start)
    rates = [len(requests) / one for one in seconds[1:]]
    return EventRate(len(requests) * rounds / sum(seconds[1:]), (max(rates) - min(rates)) / 2, at_once)
