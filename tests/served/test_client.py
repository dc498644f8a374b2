"""Requests to the real server, over both protocols; after each test the server is READY."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from helpers.client import Client
from helpers.errors import InputError, ModelError, NotAServerError, RequestError
from helpers.metrics import scrape
from helpers.server import Server, connect
from tests.support.processes import wait_until

X, Y = np.arange(16, dtype=np.float32), np.linspace(-1, 1, 16, dtype=np.float32)


@pytest.fixture(params=["grpc", "http"])
def client(request: pytest.FixtureRequest, models_server: Server) -> Iterator[Client]:
    with Client(models_server, request.param) as made:
        yield made
    assert models_server.is_ready()


def counted(server: Server, metric: str, model: str) -> float:
    return scrape(server).value(metric, model=model)


def test_sum_and_difference(client: Client) -> None:
    result = client.infer("add_sub", INPUT0=X, INPUT1=Y)
    np.testing.assert_array_equal(result["OUTPUT0"], X + Y)
    np.testing.assert_array_equal(result["OUTPUT1"], X - Y)
    assert result.requests == 1
    result["OUTPUT0"] += 1  # answers may be changed


def test_inputs_as_a_dictionary_and_one_output(client: Client) -> None:
    result = client.infer("add_sub", {"INPUT0": X, "INPUT1": list(range(16))}, outputs=["OUTPUT1"], version=1)
    assert list(result) == ["OUTPUT1"]
    np.testing.assert_array_equal(result["OUTPUT1"], X - np.arange(16, dtype=np.float32))


def test_a_batch_above_the_limit_is_sent_in_parts_and_comes_back_whole(client: Client, models_server: Server) -> None:
    values = np.random.default_rng(0).standard_normal((10, 3)).astype(np.float32)
    before = scrape(models_server)
    result = client.infer("double", X=values)
    np.testing.assert_array_equal(result["Y"], 2 * values)
    assert result.requests == 3
    change = scrape(models_server) - before
    assert change.value("nv_inference_request_success", model="double") == 3
    assert change.value("nv_inference_count", model="double") == 10


def test_axes_of_any_length_nan_and_infinity(client: Client) -> None:
    for length in (1, 5, 0):
        assert client.infer("double", X=np.ones((2, length), np.float32))["Y"].shape == (2, length)
    values = np.array([[np.nan, np.inf, -np.inf, -0.0]], np.float32)
    answer = client.infer("double", X=values)["Y"]
    np.testing.assert_array_equal(answer, values)
    assert np.signbit(answer[0, 3])


def test_strings(client: Client) -> None:
    text = ["muon", "µτ", b"a\0b\xff", ""]
    result = client.infer("strings", TEXT=text)
    assert result["ECHO"].tolist() == [b"muon", "µτ".encode(), b"a\0b\xff", b""]
    assert result["LENGTH"].tolist() == [4, 4, 4, 0]


def test_every_dtype(client: Client) -> None:
    given: dict[str, Any] = {
        "HALF": np.array([[1.5, -2]], np.float16),
        "DOUBLE": np.array([[0.1, 1e300]]),
        "FLAG": np.array([[True, False]]),
        "LONG": np.array([[-(2**63), 2**63 - 1]]),
        "BYTE": np.array([[0, 255]], np.uint8),
        "EXTRA": np.array([[-7, 7]], np.int16),
    }
    result = client.infer("types", given)
    for name, array in given.items():
        assert result[f"{name}_OUT"].dtype == array.dtype
        np.testing.assert_array_equal(result[f"{name}_OUT"], array)


def test_metadata_and_config_read_the_same_over_both_protocols(models_server: Server) -> None:
    with Client(models_server, "grpc") as left, Client(models_server, "http") as right:
        for model in ("double", "types", "classes", "strings"):
            assert left.metadata(model) == right.metadata(model)
            assert left.config(model) == right.config(model)
        config = left.config("double")
    assert config["max_batch_size"] == 4
    assert [(entry["name"], entry["data_type"], entry["dims"]) for entry in config["input"]] == [("X", "TYPE_FP32", [-1])]


# Which inputs do not fit, and what is said of each: tests/unit/test_client_signature.py and test_client_tensors.py.
@pytest.mark.parametrize(
    ("model", "inputs", "words"),
    [
        ("add_sub", {"INPUT0": X.astype(float), "INPUT1": Y}, "'INPUT0'.*float64.*FP32.*x.astype\\(np.float32\\)"),
        ("add_sub", {"INPUT0": X[:15], "INPUT1": Y}, "\\(15,\\).*\\(16,\\)"),
        ("double", {"X": np.ones((0, 3), np.float32)}, "empty"),
    ],
)
def test_what_does_not_fit_is_never_sent(client: Client, models_server: Server, model: str, inputs: Any, words: str) -> None:
    before = scrape(models_server)
    with pytest.raises(InputError, match=words):
        client.infer(model, inputs)
    change = scrape(models_server) - before
    assert change.value("nv_inference_request_success", model=model) == 0
    assert change.value("nv_inference_request_failure", model=model) == 0


def test_a_model_that_is_not_loaded(client: Client, models_server: Server) -> None:
    with pytest.raises(ModelError, match=r"'ad_sub' is not loaded.*'add_sub', 'classes'.*Did you mean 'add_sub'"):
        client.infer("ad_sub", INPUT0=X, INPUT1=Y)
    url = models_server.grpc_url if client.protocol == "grpc" else models_server.http_url
    with Client(url, client.protocol) as stranger, pytest.raises(ModelError, match=r"'other' is not loaded.*'add_sub', 'classes'"):
        stranger.infer("other", INPUT0=X)
    with pytest.raises(ModelError, match="not in the version"):
        client.infer("add_sub", INPUT0=X, INPUT1=Y, version=7)


def test_an_error_of_the_model_is_of_that_request_alone(client: Client) -> None:
    with pytest.raises(RequestError, match=r"'slow' failed on this request: a negative time cannot be slept"):
        client.infer("slow", SECONDS=[-1])
    assert client.infer("slow", SECONDS=[0])["SLEPT"].tolist() == [0]


def test_too_slow_an_answer_is_given_up_and_not_sent_again(client: Client, models_server: Server) -> None:
    before = scrape(models_server)
    with Client(models_server, client.protocol, timeout_s=1) as hasty, pytest.raises(RequestError, match=r"no answer.*timeout_s"):
        hasty.infer("slow", SECONDS=[2])
    assert client.infer("add_sub", INPUT0=X, INPUT1=Y)["OUTPUT0"][0] == X[0] + Y[0]

    def asked() -> float:
        change = scrape(models_server) - before
        return sum(change.value(f"nv_inference_request_{end}", model="slow") for end in ("success", "failure"))

    wait_until(lambda: asked() >= 1)
    time.sleep(1.5)  # a second one would have come a moment later
    assert asked() == 1


def test_many_come_back_in_order(client: Client) -> None:
    seconds = [0.2, 0.0, 0.1, 0.0]
    results = client.infer_many("slow", ({"SECONDS": [value]} for value in seconds), max_in_flight=3)
    assert [float(result["SLEPT"][0]) for result in results] == pytest.approx(seconds)


def test_the_first_error_among_many_ends_them(client: Client, models_server: Server) -> None:
    taken: list[float] = []

    def many(*seconds: float) -> Iterator[dict[str, list[float]]]:
        for value in seconds:
            taken.append(value)
            yield {"SECONDS": [value] if value < 9 else [value, value]}

    with pytest.raises(RequestError, match="negative time") as caught:
        client.infer_many("slow", many(0, -1, 0.1, 0.2), max_in_flight=1)
    assert taken == [0, -1] and not re.search("  |\n", str(caught.value)), "nothing is sent behind the first error"
    with pytest.raises(InputError, match=r"has shape \(2,\)"):
        client.infer_many("slow", many(0, 0, 9))


def test_never_more_under_way_than_was_asked_for(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, now, most, done = threading.Lock(), 0, 0, 0
    send = client.transport.infer

    def watched(*request: Any) -> Any:
        nonlocal now, most, done
        with lock:
            now += 1
            most = max(most, now)
        answer = send(*request)
        with lock:
            now -= 1
            done += 1
        return answer

    def items() -> Iterator[dict[str, Any]]:
        for item in range(40):
            assert item - done <= 4, "the generator is not read ahead"
            yield {"X": [[item]]}

    monkeypatch.setattr(client.transport, "infer", watched)
    answers = client.infer_many("double", items(), max_in_flight=4)
    assert [answer["Y"].tolist() for answer in answers] == [[[2 * item]] for item in range(40)]
    assert most <= 4


def test_several_threads_share_a_client(client: Client) -> None:
    wrong: list[Any] = []

    def work(number: int) -> None:
        for step in range(15):
            value = np.full((1, number + 1), 100 * number + step, np.float32)
            answer = client.infer("double", X=value)["Y"]
            if not np.array_equal(answer, 2 * value):
                wrong.append((number, step, answer))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("form", ["localhost:{}", "http://localhost:{}", "http://localhost:{}/", "127.0.0.1:{}"])
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_an_address_in_every_form(models_server: Server, form: str, protocol: str) -> None:
    port = (models_server.http if protocol == "http" else models_server.grpc).port
    with Client(form.format(port), protocol) as client:
        assert client.infer("double", X=[[1]])["Y"].tolist() == [[2]]


def test_the_protocol_follows_from_the_address(models_server: Server) -> None:
    for url, protocol in (
        (models_server.http.http(), "http"),
        (models_server.grpc_url, "grpc"),
        (f"grpc://{models_server.grpc_url}", "grpc"),
    ):
        with Client(url) as client:
            assert client.protocol == protocol
            assert client.infer("double", X=[[1]])["Y"].tolist() == [[2]]
    with Client(models_server) as client:
        assert client.protocol == "grpc"


@pytest.mark.parametrize("arguments", [("localhost", None), ("", None), (7, None), ("localhost:1", "udp"), ("ftp://a:1", None)])
def test_no_address_no_client(arguments: tuple[Any, Any]) -> None:
    with pytest.raises(InputError):
        Client(*arguments)


@pytest.mark.parametrize(("protocol", "port"), [("http", "grpc"), ("http", "metrics"), ("grpc", "http"), ("grpc", "metrics")])
def test_the_wrong_port_is_recognised(models_server: Server, protocol: str, port: str) -> None:
    words = rf"((does not answer in|that speaks) {protocol.upper()}|is no Triton server).*9000.*9001"
    address = f"localhost:{getattr(models_server, port).port}"
    with Client(address, protocol) as client, pytest.raises((RequestError, NotAServerError), match=words):
        client.infer("double", X=[[1]])
    assert models_server.is_ready()


def test_options_that_make_no_sense(client: Client) -> None:
    with pytest.raises(InputError, match="no input 'Y'"):
        client.infer("double", {"X": [[1]]}, Y=[[1]])
    with pytest.raises(RequestError, match=r"refused the request to 'double': .*'Z'"):
        client.infer("double", X=[[1]], outputs=["Z"])


def test_a_closed_client_opens_another_connection(client: Client) -> None:
    for _ in range(2):
        client.close()
        client.close()
        assert client.infer("double", X=[[1]])["Y"].tolist() == [[2]]


def test_a_server_of_somebody_else(models_server: Server) -> None:
    for protocol in ("http", "grpc"):
        with Client(connect(models_server.http_url), protocol) as client:
            assert client.infer("double", X=[[1]])["Y"].tolist() == [[2]]
            with pytest.raises(ModelError, match=r"'other' is not loaded.*'double'"):
                client.infer("other", X=[[1]])
    assert models_server.is_ready()
