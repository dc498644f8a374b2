"""The checkers of notebook 06 against the real server, with right, wrong and untouched answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import requests

from helpers import jets
from helpers.client import Client
from helpers.course import ____
from helpers.course.judge import Kind
from helpers.metrics import Difference, scrape
from helpers.metrics.load import BackgroundLoad
from helpers.server import Server
from tests.support.judging import is_judged as _is
from tests.support.processes import PATIENCE_S, wait_until

pytestmark = pytest.mark.slow

MODEL = "particlenet_AK4"


@pytest.fixture(scope="module")
def page(server: Server) -> str:
    """The page as it is after the launch; other tests come later."""
    return requests.get(server.metrics_url, timeout=PATIENCE_S).text


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Client]:
    with Client(server) as one:
        yield one


@pytest.fixture(scope="module")
def ten_jets(client: Client, page: str) -> dict[str, np.ndarray]:
    return jets.Tagger(client, MODEL).inputs(jets.read("ak4")[:10])


def test_6_1(server: Server, page: str) -> None:
    line = next(line for line in page.splitlines() if line.startswith(f'nv_inference_request_success{{model="{MODEL}"'))
    true = int(line.split()[-1])
    assert true > 1, "the model is warmed up"
    inferences = next(line for line in page.splitlines() if line.startswith(f'nv_inference_count{{model="{MODEL}"')).split()[-1]
    _is("6.1", Kind.CORRECT, f"{true} requests, and none was yours", server, page, true)
    _is("6.1", Kind.CORRECT, "warm-up", server, page, str(true))
    if float(inferences) != true:
        _is("6.1", Kind.NOT_YET, "That is `nv_inference_count`", server, page, float(inferences))
    _is("6.1", Kind.NOT_YET, "the line of `add_sub`", server, page, 0)
    _is("6.1", Kind.NOT_YET, "Look for `nv_inference_request_success`", server, page, true + 0.5)
    _is("6.1", Kind.NOT_YET, "should be one number", server, page, "many")
    _is("6.1", Kind.CANNOT_TELL, "on the page", server, "", true)
    _is("6.1", Kind.NOT_ATTEMPTED, "blank", server, page, ____)


def test_6_2(server: Server, client: Client, ten_jets: dict[str, np.ndarray]) -> None:
    def after(*batches: int) -> tuple[Any, list[Any]]:
        before = scrape(server)
        answers = [
            client.infer(MODEL, {name: np.resize(array, (size, *array.shape[1:])) for name, array in ten_jets.items()}) for size in batches
        ]
        return before, answers

    _is("6.2", Kind.CORRECT, "4 requests with 40 inferences, in 4 executions", server, *after(10, 10, 10, 10))
    _is("6.2", Kind.CORRECT, "40 inferences", server, *after(5, 15, 10, 10))
    _is("6.2", Kind.NOT_YET, "1 requests and 40 inferences", server, *after(40))
    _is("6.2", Kind.NOT_YET, "40 requests and 40 inferences", server, *after(*[1] * 40))
    _is("6.2", Kind.NOT_YET, "wanted are 4 with 10 jets in each", server, *after(10, 10))
    _is("6.2", Kind.NOT_YET, "counted 0 requests", server, scrape(server), None)
    _is("6.2", Kind.CANNOT_TELL, "needs `before`", server, None, [])
    _is("6.2", Kind.NOT_ATTEMPTED, "blank", server, scrape(server), ____)


def test_6_3(server: Server, client: Client, ten_jets: dict[str, np.ndarray]) -> None:
    before = scrape(server)
    for _ in range(20):
        client.infer(MODEL, ten_jets)
    change = scrape(server) - before
    total_us = change.value("nv_inference_request_duration_us", model=MODEL)
    mean_ms = total_us / 20 / 1000
    _is("6.3", Kind.CORRECT, "in 20 requests", server, change, mean_ms)
    _is("6.3", Kind.CORRECT, f"{mean_ms:.2f} ms", server, change, round(mean_ms, 2))
    _is("6.3", Kind.NOT_YET, "microseconds", server, change, mean_ms * 1000)
    _is("6.3", Kind.NOT_YET, "Divide it by the other number", server, change, total_us / 1000)
    _is("6.3", Kind.NOT_YET, "time per jet", server, change, mean_ms / 10)
    _is("6.3", Kind.NOT_YET, "Take duration and requests from `change`", server, change, 12345.678)
    _is("6.3", Kind.NOT_YET, "should be one number", server, change, "fast")
    _is("6.3", Kind.CANNOT_TELL, "`change`", server, before, mean_ms)
    _is("6.3", Kind.CANNOT_TELL, "there was no request", server, _nothing(server), mean_ms)
    _is("6.3", Kind.NOT_ATTEMPTED, "blank", server, change, ____)


def _nothing(server: Server) -> Difference:
    before = scrape(server)
    return scrape(server) - before


def _mean_batch(change: Difference) -> float:
    return change.value("nv_inference_count", model=MODEL) / change.value("nv_inference_exec_count", model=MODEL)


def _busy(server: Server, batch: int, concurrency: int, together: float = 1.0) -> Difference:
    """Eight executions under load, of which each had so many jets: where other programs keep the machine busy, it takes several looks."""
    looks = [scrape(server)]

    def is_busy() -> bool:
        looks.append(scrape(server))
        change = looks[-1] - looks[0]
        if change.value("nv_inference_exec_count", model=MODEL) < 8:
            del looks[1]
            return False
        if _mean_batch(change) < together:
            del looks[0]
            return False
        return True

    with BackgroundLoad(server, MODEL, batch, concurrency) as load:
        wait_until(lambda: load.sent > 0)
        looks[0] = scrape(server)
        wait_until(is_busy)
    return looks[1] - looks[0]


def test_6_5(server: Server) -> None:
    together = _busy(server, 1, 16, together=1.6)
    mean = _mean_batch(together)
    _is("6.5", Kind.CORRECT, f"{mean:.2f} jets at once", server, together, mean)
    _is("6.5", Kind.CORRECT, "jets at once", server, together, round(mean, 2))
    _is("6.5", Kind.NOT_YET, "the inverse; turn it round", server, together, 1 / mean)
    _is("6.5", Kind.NOT_YET, "Divide the inferences", server, together, mean + 1)
    _is("6.5", Kind.NOT_YET, "should be one number", server, together, None)
    _is("6.5", Kind.NOT_ATTEMPTED, "blank", server, together, ____)
    _is("6.5", Kind.NOT_YET, "Move *Concurrency* higher", server, _busy(server, 1, 1), 1.0)
    _is("6.5", Kind.NOT_YET, "Set *Batch* back to 1", server, _busy(server, 8, 1), 8.0)
    _is("6.5", Kind.NOT_YET, "did not run", server, _nothing(server), 1.0)
    _is("6.5", Kind.CANNOT_TELL, "`busy`", server, None, mean)
