"""The checkers of notebook 09 with right, wrong and untouched answers; those that look at a server, on a real one."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import jets, repository, scrape
from helpers.client import Client
from helpers.course import ____, exercise
from helpers.course.judge import Kind
from helpers.measuring.experiments import Experiments
from helpers.measuring.input_files import write_jets
from helpers.measuring.perf_analyzer import Run
from helpers.measuring.table import Row
from helpers.repository import compare
from helpers.server import Server, launch_server
from tests.support.judging import is_judged as _is
from tests.support.measured_rows import row
from tests.support.processes import PATIENCE_S

MODEL = "particlenet_AK4"
TWO = "2 instances"
NAMES = {"baseline": (200, 5, 9000, 300), TWO: (390, 8, 8000, 300)}


def _cost(method: str, change: float, half: float) -> dict[str, Any]:
    changes = {"auc_change": change, "auc_change_half_width": half, "largest_change": 0.1 * (method != "")}
    return {"model": f"{MODEL}{method}", "discriminant": "b_vs_light", **changes}


COSTS = [_cost("", 0.0, 0.0), _cost("_fp16", 0.0, 0.0001), _cost("_int8_static", -0.0008, 0.0006)]


@pytest.fixture
def table() -> Experiments:
    made = Experiments(None, MODEL, batch=1, concurrency=8, budget=1.5)
    for name, figures in NAMES.items():
        made._add(name, row(figures, batch=1, concurrency=8), executed_batch=1.0)
    return made


@pytest.fixture(scope="module")
def server(work: Any, free_base_port: Callable[[], int]) -> Iterator[Server]:
    repository.checkout(MODEL, fresh=True)
    repository.change_config(MODEL, model_warmup=None, instance_group=[{"count": 1, "kind": "KIND_CPU"}], dynamic_batching=None)
    with launch_server("work/models", load=[MODEL], base_port=free_base_port(), name="optimise-checkers") as running:
        yield running


def test_instances(server: Server, table: Experiments) -> None:
    text = "instance_group [ { count: 2 kind: KIND_CPU } ]"
    _is("9.1", Kind.NOT_ATTEMPTED, "blank", server, table, ____)
    _is("9.1", Kind.NOT_YET, "the server runs 1. Write `count: 2`", server, table, text)
    repository.change_config(MODEL, text)
    _is("9.1", Kind.NOT_YET, "says 2 instance(s), and the server runs 1. Reload", server, table, text)
    server.reload(MODEL)
    _is("9.1", Kind.CORRECT, "reports 2 instances. Seen from the baseline: Faster", server, table, text)
    _is("9.1", Kind.CANNOT_TELL, "needs `table`", server, [1, 2], text)
    del table._rows["2 instances"]
    _is("9.1", Kind.CANNOT_TELL, "no experiment '2 instances'", server, table, text)


@pytest.fixture(scope="module")
def alike(server: Server) -> Iterator[list[Any]]:
    with Client(server) as client:
        inputs = jets.Tagger(client, MODEL).inputs(jets.read("ak4")[:64])
        yield [{name: tensor[i : i + 1] for name, tensor in inputs.items()} for i in range(64)]


def _batcher(server: Server, own: Callable[[Any, int], Any]) -> Iterator[Callable[[Any], Any]]:
    """A batcher like that of the notebook; ``own`` says what client n of a batch gets."""
    waiting: queue.Queue[Any] = queue.Queue()

    def batcher(jet: Any) -> Any:
        answer: Future[Any] = Future()
        waiting.put((jet, answer))
        return answer.result(timeout=PATIENCE_S)

    def collect_and_send(client: Client) -> None:
        while (first := waiting.get()) is not None:
            time.sleep(0.002)
            batch = [first, *(waiting.get() for _ in range(waiting.qsize()))]
            scores = client.infer(MODEL, {name: np.concatenate([jet[name] for jet, _ in batch]) for name in first[0]})["softmax"]
            for n, (_, answer) in enumerate(batch):
                answer.set_result(own(scores, n))

    with Client(server) as client:
        thread = threading.Thread(target=collect_and_send, args=[client])
        thread.start()
        yield batcher
        waiting.put(None)
        thread.join()


@pytest.mark.parametrize(
    ("own", "kind", "words"),
    [
        (lambda scores, n: scores[n : n + 1], Kind.CORRECT, "Each client got its own scores, and 64 jets came in"),
        (lambda scores, n: scores[n], Kind.CORRECT, "Each client got its own scores"),
        (lambda scores, n: scores[:1], Kind.NOT_YET, "got the scores of another jet"),
        (lambda scores, n: np.concatenate([scores, scores]), Kind.NOT_YET, "its row alone"),
        (lambda scores, n: None, Kind.NOT_YET, "Client 0 got nothing (`None`) of shape []"),
        (lambda scores, n: scores[n : n + 1] / 2, Kind.NOT_YET, "Client 0 got the scores of another jet"),
    ],
)
def test_a_batcher_of_ones_own(server: Server, alike: list[Any], own: Any, kind: Kind, words: str) -> None:
    for batcher in _batcher(server, own):
        _is("9.2", kind, words, server, batcher, alike)


def test_a_batcher_that_answers_nobody(server: Server, alike: list[Any]) -> None:
    def late(_: Any) -> Any:
        raise TimeoutError

    _is("9.2", Kind.NOT_YET, "waited 10 s for its answer", server, late, alike)
    _is("9.2", Kind.NOT_YET, "Expected the function", server, 3, alike)
    _is("9.2", Kind.CANNOT_TELL, "needs `server`", "localhost", late, alike)
    with Client(server) as client:
        _is("9.2", Kind.CANNOT_TELL, "none found company", server, lambda jet: client.infer(MODEL, jet)["softmax"], alike)


@pytest.mark.slow
def test_batching(server: Server) -> None:
    repository.change_config(MODEL, dynamic_batching=None)
    server.reload(MODEL)
    client, inputs = Client(server), jets.Tagger(Client(server), MODEL).inputs(jets.read("ak4")[:64])
    alike = [{name: tensor[i : i + 1] for name, tensor in inputs.items()} for i in range(64)]
    tagger, sample = jets.Tagger(client, MODEL), jets.read("ak4")[:64]
    ragged = [tagger.inputs(sample[i : i + 1]) for i in range(64)]

    def sent(answer: Callable[[float, float], Any]) -> Callable[[list[Any]], Any]:
        def jets_per_run(requests: list[Any]) -> Any:
            before = scrape(server)
            client.infer_many(MODEL, requests, max_in_flight=8)
            change = scrape(server) - before
            return answer(*(change.value(f"nv_inference_{name}", model=MODEL) for name in ("count", "exec_count")))

        return jets_per_run

    right = sent(lambda jets, runs: jets / runs)
    _is("9.3", Kind.NOT_YET, "reports no `dynamic_batching`", server, right, alike, ragged)
    repository.change_config(MODEL, "dynamic_batching { }")
    server.reload(MODEL)
    for _ in range(5):
        # A busy machine may send them one by one, or put ragged ones together: then nobody can tell.
        outcome = exercise("9.3").judge(server, right, alike, ragged)
        assert outcome.kind in (Kind.CORRECT, Kind.CANNOT_TELL), outcome
        if outcome.kind is Kind.CORRECT:
            assert "jets in each run when all have one shape" in outcome.text
            break
    undivided = "`jets_per_run(...)` is 64. Divide it by the other number"
    _is("9.3", Kind.NOT_YET, undivided, server, sent(lambda jets, runs: jets), alike, ragged)
    _is("9.3", Kind.NOT_YET, "`jets_per_run(...)` is 3.3. Divide the 64 jets by the", server, sent(lambda *_: 3.3), alike, ragged)
    _is("9.3", Kind.NOT_YET, "`jets_per_run(...)` should be one number, and it is nothing", server, sent(lambda *_: None), alike, ragged)
    _is("9.3", Kind.NOT_YET, "Expected the function", server, 3.0, alike, ragged)
    _is("9.3", Kind.CANNOT_TELL, "somebody else", server, lambda _: 3.0, alike, ragged)
    turned = exercise("9.3").judge(server, sent(lambda jets, runs: runs / jets), alike, ragged)
    assert turned.kind is Kind.CANNOT_TELL or "turn it round" in turned.text, turned
    client.close()


def test_accelerator() -> None:
    stanza = {"name": "x", "optimization": {"execution_accelerators": {"gpu_execution_accelerator": [{"name": "tensorrt"}]}}}
    view = compare({"name": "x"}, stanza, stanza | {"instance_group": [{"kind": "KIND_CPU"}]})
    _is("9.4", Kind.CORRECT, "it needs a GPU", view, "a GPU")
    _is("9.4", Kind.CORRECT, "it needs a GPU", view, "gpu")
    _is("9.4", Kind.NOT_ATTEMPTED, "blank", view, ____)
    for wrong in ("no GPU", "it works without a GPU", "not a GPU", "TensorRT", "luck", 3):
        _is("9.4", Kind.NOT_YET, "is not what the remark says", view, wrong)
    for without in (compare({"name": "x"}, stanza, stanza), compare(*3 * [{"name": "x"}])):
        _is("9.4", Kind.CANNOT_TELL, "says of no accelerator that it has no effect", without, "GPU")
    _is("9.4", Kind.CANNOT_TELL, "needs `view`", 3, "GPU")


def test_precision() -> None:
    fp16, int8, costs = f"{MODEL}_fp16", f"{MODEL}_int8_static", COSTS
    _is("9.5", Kind.CORRECT, "1 of 2 stay above -0.001", costs, [fp16])
    _is("9.5", Kind.CORRECT, "1 of 2", costs, fp16)
    _is("9.5", Kind.NOT_ATTEMPTED, "blank", costs, ____)
    _is("9.5", Kind.NOT_YET, "for certain means all of it", costs, [fp16, int8])
    _is("9.5", Kind.NOT_YET, f"So `{fp16}` belongs into `safe`", costs, [])
    _is("9.5", Kind.NOT_YET, "`safe` is 'fp16'. Expected names among", costs, ["fp16"])
    _is("9.5", Kind.NOT_YET, "Expected a list", costs, 3)
    _is("9.5", Kind.CANNOT_TELL, "stumbled", 3, [fp16])


def _unfair_gains(server: Server, counted: Any, table: Experiments, best: Any) -> None:
    """Other jets, or shorter ones, are another task."""

    def sent(file: Path) -> dict[str, Any]:
        return Run(MODEL, "localhost:9001", input_data=file).sent()

    jets_file = write_jets(server, MODEL)
    table.rows[0] |= sent(jets_file)
    _is("9.6", Kind.CORRECT, "is 2.50 (", server, counted, table, best(**sent(jets_file)), COSTS)
    few = jets_file.with_name("few.json")
    few.write_text(json.dumps({"data": json.loads(jets_file.read_text())["data"][:2]}))
    random = {"inputs": "random", "shapes": "pf_points:2,5", "inputs_digest": None}
    for other in (random, sent(write_jets(server, MODEL, lengths={"pf": 20})), sent(few), {"inputs": "gone.json"}):
        _is("9.6", Kind.NOT_YET, "with other inputs", server, counted, table, best(**other), COSTS)
    table.rows[0] |= {"inputs": "random", "shapes": "", "inputs_digest": None}


@pytest.mark.slow
def test_challenge(server: Server, table: Experiments) -> None:
    counted = scrape(server)

    def best(throughput: float = 500, p95: float = 12000, half: float = 300, **changes: Any) -> dict[str, Any]:
        return row((throughput, 6, p95, half), **{"batch": 4, "concurrency": 2, "requests": 6, **changes})

    _is("9.6", Kind.CANNOT_TELL, "has seen 0 requests", server, counted, table, best(), COSTS)
    with Client(server) as client:
        jet = jets.Tagger(client, MODEL).inputs(jets.read("ak4")[:1])
        client.infer_many(MODEL, [jet] * 6)
    _is("9.6", Kind.CORRECT, "is 2.50 (", server, counted, table, best(), COSTS)
    _is("9.6", Kind.CORRECT, "is 2.50 (", server, counted, table, Row.of(best()), COSTS)
    _is("9.6", Kind.NOT_ATTEMPTED, "blank", server, counted, table, ____, COSTS)
    _is("9.6", Kind.NOT_YET, "over the budget of 13.5 ms", server, counted, table, best(p95=25000), COSTS)
    _is("9.6", Kind.NOT_YET, "Your entry is not faster than the baseline", server, counted, table, best(150), COSTS)
    _is("9.6", Kind.CANNOT_TELL, "larger gain", server, counted, table, best(214), COSTS)
    _is("9.6", Kind.CANNOT_TELL, "may be over 13.5 ms or not", server, counted, table, best(p95=14000, half=900), COSTS)
    _is("9.6", Kind.CANNOT_TELL, "may be over 13.5 ms or not", server, counted, table, best(p95=13000, half=900), COSTS)
    _is(
        "9.6", Kind.CANNOT_TELL, "percentile is not known, of 6 requests", server, counted, table, best() | {"latency_high_us": None}, COSTS
    )
    _is("9.6", Kind.NOT_YET, "is a measurement of `add_sub`", server, counted, table, best(model="add_sub"), COSTS)
    _is("9.6", Kind.NOT_YET, "Expected a row of your table", server, counted, table, None, COSTS)
    lossy = f"`{MODEL}_int8_static` may lose 0.0014 of the AUC, more than exercise 9.5 allows"
    _is("9.6", Kind.NOT_YET, lossy, server, counted, table, best(model=f"{MODEL}_int8_static"), COSTS)
    _is("9.6", Kind.CANNOT_TELL, "stumbled", server, counted, table, best(model=f"{MODEL}_int8_static"), None)
    _unfair_gains(server, counted, table, best)
    repository.change_config(MODEL, response_cache={"enable": True})
    server.reload(MODEL)
    _is("9.6", Kind.NOT_YET, "remembered answers", server, counted, table, best(), COSTS)
