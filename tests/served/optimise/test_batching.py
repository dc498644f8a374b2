"""Dynamic batching: what was put together, what it cost in the queue, and the shapes that prevent it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from helpers import jets, repository
from helpers.client import Client
from helpers.server import Server
from tests.served.optimise import MODEL, batches_run, counted

Requests = Callable[..., list[dict[str, np.ndarray]]]
# Long enough for eight requests to arrive on a crowded machine, so that they do not go off one by one.
WAIT_US = 2_000_000
# Longer still where a second batch is not to begin before the first is full.
WAITS_LONG = "dynamic_batching { preferred_batch_size: [ 4 ] max_queue_delay_microseconds: 20000000 }"
WAITS = f"dynamic_batching {{ preferred_batch_size: [ 4 ] max_queue_delay_microseconds: {WAIT_US} }}"


@pytest.mark.slow
def test_without_it_each_request_is_an_execution(own: Server, model: Path, client: Client, requests: Requests) -> None:
    own.reload(MODEL)
    assert "dynamic_batching" not in own.config(MODEL)
    client.infer_many(MODEL, requests(*[50] * 8), max_in_flight=8)
    seen = counted(own, MODEL, at_least=8)
    assert (seen["inferences"], seen["executions"]) == (8, 8)
    assert batches_run(own, MODEL) == {1: 8}


@pytest.mark.slow
def test_requests_of_one_shape_run_in_batches_of_about_the_preferred_size(
    own: Server, model: Path, client: Client, requests: Requests
) -> None:
    repository.change_config(model, WAITS_LONG)
    own.reload(MODEL)
    eight = requests(*[50] * 8)
    together = client.infer_many(MODEL, eight, max_in_flight=8)
    seen = counted(own, MODEL, at_least=8)
    assert (seen["inferences"], seen["executions"]) == (8, 2)
    # Four and four, unless a request comes while the server closes a batch: then three and five.
    sizes = batches_run(own, MODEL)
    assert sum(size * count for size, count in sizes.items()) == 8 and max(sizes) <= 5, sizes
    repository.change_config(model, "dynamic_batching { }")
    own.reload(MODEL)
    alone = [client.infer(MODEL, jet) for jet in eight[:1]]
    np.testing.assert_allclose(together[0]["softmax"], alone[0]["softmax"], atol=1e-5)


@pytest.mark.slow
def test_a_lone_request_pays_the_whole_delay_in_the_queue(own: Server, model: Path, client: Client, requests: Requests) -> None:
    repository.change_config(model, "dynamic_batching { preferred_batch_size: [ 4 ] max_queue_delay_microseconds: 200000 }")
    own.reload(MODEL)
    client.infer(MODEL, requests(50)[0])
    assert counted(own, MODEL, at_least=1)["queue_ns"] >= 200_000 * 1000
    repository.change_config(model, "dynamic_batching { }")
    own.reload(MODEL)
    client.infer(MODEL, requests(50)[0])
    assert counted(own, MODEL, at_least=1)["queue_ns"] < 200_000 * 1000


@pytest.mark.slow
def test_jets_of_different_lengths_are_not_put_together(own: Server, model: Path, client: Client, requests: Requests) -> None:
    """CMSSW pads to the longest jet of an event: two events seldom have the same shape."""
    repository.change_config(model, WAITS)
    own.reload(MODEL)
    client.infer_many(MODEL, requests(*range(50, 58)), max_in_flight=8)
    seen = counted(own, MODEL, at_least=8)
    assert (seen["inferences"], seen["executions"]) == (8, 8)
    # The same eight jets, padded to one length on the client's side, are put together.
    client.infer_many(MODEL, requests(*[57] * 8), max_in_flight=8)
    after = counted(own, MODEL, at_least=16)
    assert after["executions"] - seen["executions"] == 2


@pytest.mark.slow
def test_events_with_different_numbers_of_jets_share_a_run_when_their_jets_have_one_length(
    own: Server, model: Path, client: Client
) -> None:
    """As CMSSW asks: one request for each event, with all its jets."""
    sample = jets.read("ak4")[:60]
    tagger = jets.Tagger(client, MODEL)
    number = np.asarray(sample["event"])
    events = {len(event): event for event in (sample[number == each] for each in np.unique(number))}
    chosen = [event for _, event in sorted(events.items())]
    counts = [len(event) for event in chosen]
    assert len(counts) >= 3, counts
    waits = f"dynamic_batching {{ preferred_batch_size: [ {sum(counts)} ] max_queue_delay_microseconds: {WAIT_US} }}"
    repository.change_config(model, waits)
    own.reload(MODEL)
    client.infer_many(MODEL, [tagger.inputs(event, candidates=50, vertices=4) for event in chosen], max_in_flight=8)
    assert counted(own, MODEL, at_least=sum(counts)) | {"queue_ns": 0} == {"inferences": sum(counts), "executions": 1, "queue_ns": 0}
    assert batches_run(own, MODEL) == {sum(counts): 1}
    # Padded to the longest jet of each event, as CMSSW does, they have as many shapes as there are events.
    padded = [tagger.inputs(event) for event in chosen]
    assert len({(tensors["pf_points"].shape[-1], tensors["sv_points"].shape[-1]) for tensors in padded}) == len(chosen)
    client.infer_many(MODEL, padded, max_in_flight=8)
    assert counted(own, MODEL, at_least=2 * sum(counts))["executions"] == 1 + len(chosen)
    assert batches_run(own, MODEL) == {sum(counts): 1, **dict.fromkeys(counts, 1)}
