"""Response cache, warm-up, priorities, limits of the queue; and a bad config at any step leaves the old model serving."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

from helpers import paths, repository, scrape
from helpers.client import Client
from helpers.errors import ConfigError, ModelError
from helpers.repository.syntax import as_dict
from helpers.server import Server
from tests.served.optimise import MODEL, counted
from tests.support.processes import PATIENCE_S

Requests = Callable[..., list[dict[str, np.ndarray]]]
HIGH, LOW = 1, 2


def test_an_answer_from_the_cache_is_no_execution(own: Server, model: Path, client: Client, requests: Requests) -> None:
    repository.change_config(model, response_cache={"enable": True})
    own.reload(MODEL)
    first, other = requests(50, 50)
    before = scrape(own)
    answers = [client.infer(MODEL, jet)["softmax"] for jet in (first, first, other, first)]
    # The server looks at its cache only every two seconds.
    until(lambda: (scrape(own) - before).value("nv_cache_num_lookups") == 4)
    change = scrape(own) - before
    assert (change.value("nv_cache_num_hits"), change.value("nv_cache_num_misses")) == (2, 2)
    assert change.value("nv_inference_exec_count", model=MODEL) == 2
    assert change.value("nv_inference_request_success", model=MODEL) == 4
    np.testing.assert_array_equal(answers[0], answers[1])
    assert not np.array_equal(answers[0], answers[2])


@pytest.mark.slow
def test_a_model_that_does_not_ask_for_the_cache_has_none(own: Server, model: Path, client: Client, requests: Requests) -> None:
    own.reload(MODEL)
    jet = requests(50)[0]
    before = scrape(own)
    for _ in range(3):
        client.infer(MODEL, jet)
    assert (scrape(own) - before).value("nv_inference_exec_count", model=MODEL) == 3


@pytest.mark.slow
def test_warm_up_runs_before_the_first_request(own: Server, model: Path) -> None:
    shipped = repository.read_config(paths.models_dir() / MODEL)
    wanted = sum(max(1, entry.batch_size) * max(1, entry.count) for entry in shipped.model_warmup)
    assert wanted > 0
    for warm_up, runs in ((as_dict(shipped)["model_warmup"], wanted), (None, 0)):
        repository.change_config(model, model_warmup=warm_up)
        own.reload(MODEL)
        assert counted(own, MODEL, at_least=runs)["inferences"] == runs


def ask(own: Server, seconds: float, priority: int) -> float | str:
    """The place in which a request was run, or why it was refused."""
    with grpcclient.InferenceServerClient(own.grpc_url) as connection:
        tensor = grpcclient.InferInput("SECONDS", [1, 1], "FP32")
        tensor.set_data_from_numpy(np.full((1, 1), seconds, np.float32))
        try:
            return float(connection.infer("waiting", [tensor], priority=priority, client_timeout=PATIENCE_S).as_numpy("PLACE")[0, 0])
        except InferenceServerException as error:
            return str(error)


def pending(own: Server) -> float:
    """Requests in the queue of the model that waits."""
    return scrape(own).value("nv_inference_pending_request_count", model="waiting")


def until(condition: Callable[[], Any]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


def test_a_request_of_high_priority_overtakes_the_queue_and_a_full_queue_refuses(own: Server) -> None:
    own.reload("waiting")
    before = scrape(own)
    held = own.repository / "waiting" / "held"
    held.touch()
    with ThreadPoolExecutor(8) as pool:
        running = pool.submit(ask, own, -1.0, LOW)
        until(lambda: counted_running(own))
        low = []
        for number in range(4):
            low.append(pool.submit(ask, own, 0.0, LOW))
            until(lambda number=number: pending(own) == number + 1)
        refused = pool.submit(ask, own, 0.0, LOW).result()
        overtaking = pool.submit(ask, own, 0.0, HIGH)
        # A request of higher priority has a queue of its own, which has room.
        until(lambda: pending(own) == 5)
        held.unlink()
        high = overtaking.result()
        places = [future.result() for future in low]
    assert running.result() == 0
    assert high == 1
    assert places == [2, 3, 4, 5]
    assert "maximum queue size" in str(refused)
    change = scrape(own) - before
    # Seven were sent. What never came into the queue is no request to Triton's counters.
    assert change.value("nv_inference_request_success", model="waiting") == 6
    assert change.value("nv_inference_exec_count", model="waiting") == 6


def counted_running(own: Server) -> bool:
    """Whether the first request has left the queue: it is there, and nothing waits."""
    time.sleep(0.2)
    return pending(own) == 0


BAD = {
    "instances on a GPU that is not there": {"instance_group": [{"count": 1, "kind": "KIND_GPU", "gpus": [7]}]},
    "a number of threads that is none": {"parameters": {"intra_op_thread_count": {"string_value": "many"}}},
    "a preferred batch above the limit": {"dynamic_batching": {"preferred_batch_size": [501]}},
    "a warm-up file that is not there": {
        "model_warmup": [
            {
                "name": "lost",
                "batch_size": 1,
                "inputs": {"pf_points": {"data_type": "TYPE_FP32", "dims": [2, 50], "input_data_file": "nowhere"}},
            }
        ]
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("fields", BAD.values(), ids=BAD)
def test_a_bad_config_leaves_the_old_model_serving(own: Server, model: Path, client: Client, requests: Requests, fields: dict) -> None:
    jet = requests(50)[0]
    before, config = client.infer(MODEL, jet)["softmax"], own.config(MODEL)
    repository.change_config(model, **fields)
    with pytest.raises((ConfigError, ModelError)):
        own.reload(MODEL)
    assert own.is_ready()
    assert own.config(MODEL) == config
    np.testing.assert_array_equal(client.infer(MODEL, jet)["softmax"], before)
