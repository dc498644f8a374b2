"""Large requests, of which a tau has 423 kB: by every way to a real server, from a terminal, and from perf_analyzer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests
import tritonclient.grpc as triton_grpc

from helpers import measure, perf_analyzer, scrape, sweep, taus
from helpers.__main__ import main
from helpers.client import Client
from helpers.measuring.input_files import write_real
from helpers.server import Server
from tests.support.memory import shared

pytestmark = pytest.mark.slow

OUTPUT = "main_output/Softmax"
TAU_BYTES = 4 * 105_703
# Sums of 32-bit numbers in another order.
SAME = 1e-5


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Client]:
    with Client(server) as one:
        yield one


@pytest.fixture(scope="module")
def sample() -> taus.Taus:
    return taus.read()


@pytest.fixture(scope="module")
def few(sample: taus.Taus) -> dict[str, np.ndarray]:
    return taus.tensors(sample.take(range(8)))


@pytest.fixture(scope="module")
def expected(client: Client, few: dict[str, np.ndarray]) -> np.ndarray:
    """The taus one by one."""
    return np.concatenate(
        [client.infer(taus.MODEL, {name: tensor[[number]] for name, tensor in few.items()})[OUTPUT] for number in range(8)]
    )


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_both_protocols_give_the_same(server: Server, few: dict[str, np.ndarray], expected: np.ndarray, protocol: str) -> None:
    assert np.abs(expected.sum(axis=1) - 1).max() < SAME and np.ptp(expected, axis=0).min() > 0.1, "eight taus that differ"
    with Client(server, protocol) as one:
        answer = one.infer(taus.MODEL, few)
    assert answer.requests == 1 and np.abs(answer[OUTPUT] - expected).max() < SAME


def test_as_json_and_compressed(server: Server, few: dict[str, np.ndarray], expected: np.ndarray) -> None:
    two = {name: tensor[:2] for name, tensor in few.items()}
    body = {"inputs": [{"name": n, "shape": a.shape, "datatype": "FP32", "data": a.ravel().tolist()} for n, a in two.items()]}
    url = f"http://{server.http_url}/v2/models/{taus.MODEL}/infer"
    answer = requests.post(url, json=body, headers=server.headers, timeout=60).json()
    assert np.abs(np.reshape(answer["outputs"][0]["data"], (2, 4)) - expected[:2]).max() < SAME
    packed = [triton_grpc.InferInput(name, tensor.shape, "FP32").set_data_from_numpy(tensor) for name, tensor in two.items()]
    with triton_grpc.InferenceServerClient(server.grpc_url) as by_grpc:
        for algorithm in ("gzip", "deflate"):
            zipped = by_grpc.infer(taus.MODEL, packed, headers=server.headers, compression_algorithm=algorithm)
            assert np.abs(zipped.as_numpy(OUTPUT) - expected[:2]).max() < SAME


@pytest.mark.parametrize("way", ["grpc", "http", "shared memory"])
def test_a_hundred_taus_are_one_request_of_42_megabytes(server: Server, sample: taus.Taus, expected: np.ndarray, way: str) -> None:
    many = taus.tensors(sample.take(np.arange(100) % 8))
    assert sum(tensor.nbytes for tensor in many.values()) == 100 * TAU_BYTES
    before = scrape(server)
    if way == "shared memory":
        with shared(server, taus.MODEL, many) as answer:
            probabilities = answer.as_numpy(OUTPUT)
    else:
        with Client(server, way) as one:
            probabilities = one.infer(taus.MODEL, many)[OUTPUT]
    assert np.abs(probabilities - expected[np.arange(100) % 8]).max() < SAME
    assert (scrape(server) - before).value("nv_inference_exec_count", model=taus.MODEL) == 1


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_infer_in_a_terminal_sends_taus(server: Server, capsys: pytest.CaptureFixture[str], protocol: str, expected: np.ndarray) -> None:
    url = server.grpc_url if protocol == "grpc" else server.http_url
    assert main(["infer", "-m", taus.MODEL, "-u", url, "-p", protocol, "-b", "2"]) == 0
    said = capsys.readouterr().out
    # The table wraps.
    values = said.split("(2, 4)")[1].split(",")
    assert [float(number) for number in values[:4]] == pytest.approx(expected[0], abs=2e-3)
    assert "(2, 21, 21, 86)" in said


def test_the_course_texts_command(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """As printed there, but for the address and for eight requests in place of several windows: a hundred taus may take seconds."""
    command = (
        f"perf_analyzer -m deeptau_nosplit --percentile=95 -u {server.grpc_url} -i grpc --async -p 9000 --concurrency-range 4:4 -b 100"
    )
    assert perf_analyzer(f"{command} --request-count 8") == 0
    assert "Batch size: 100" in capsys.readouterr().out


def test_real_taus_are_measured_beside_jets(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The course text's sweep, with inputs of its own for each of the two models."""
    monkeypatch.setenv("COURSE_QUICK", "1")
    models = ["particlenet_AK4", taus.MODEL]
    files = {model: write_real(server, model) for model in models}
    rows = sweep(server, models, (2,), (4,), output=tmp_path, input_data=files)
    assert rows[["model", "batch", "concurrency"]].values.tolist() == [[model, 2, 4] for model in models]
    assert (rows["throughput_infer_per_s"] > 0).all()
    assert [Path(name).name for name in rows["inputs"]] == [files[model].name for model in models]
    assert files[taus.MODEL].stat().st_size < 12e6, "small enough to be read in a moment"
    few = json.loads(files[taus.MODEL].read_text())["data"][:2]
    (tmp_path / "two.json").write_text(json.dumps({"data": few}))
    row = measure(server, taus.MODEL, 10, 2, input_data=tmp_path / "two.json")
    assert row["throughput_infer_per_s"] > 0, "a file with fewer taus than a batch"
