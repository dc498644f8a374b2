"""Models and clients that break on a running server: each breaks for real, and the others go on being answered."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from helpers import paths
from helpers.client import Client
from helpers.client.client import RETRIES
from helpers.errors import RequestError
from helpers.metrics import scrape
from helpers.server import Server, launch_server
from tests.support import FAULTY_MODELS, MODELS_FOR_TESTS
from tests.support.processes import PATIENCE_S, alive, session, wait_until
from tests.support.relay import Relay

pytestmark = pytest.mark.slow

# More than the threads that Triton has for HTTP, which are eight.
_MANY = 20
# Numbers in an answer: 16 MB, which no buffer on the way holds.
_COUNT = 4_000_000


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, free_base_port: Callable[[], int]) -> Iterator[Server]:
    """A server whose models, and whose clients, these tests break. Each test mends what it broke."""
    repository = tmp_path_factory.mktemp("faults") / "models"
    shutil.copytree(FAULTY_MODELS, repository, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("double", "slow"):
        shutil.copytree(MODELS_FOR_TESTS / name, repository / name, ignore=shutil.ignore_patterns("__pycache__"))
    with launch_server(repository, base_port=free_base_port(), name="faults") as running:
        yield running


@pytest.fixture(params=["grpc", "http"])
def client(request: pytest.FixtureRequest, own: Server) -> Iterator[Client]:
    with Client(own, request.param) as one:
        yield one


def _others_are_answered(server: Server, requests: int = 20) -> None:
    """Over both protocols, on connections of their own, by a model that has no part in the fault."""
    assert server.is_ready()
    for protocol in ("grpc", "http"):
        with Client(server, protocol) as other:
            for number in range(requests):
                assert other.infer("double", X=[[number]])["Y"].tolist() == [[2 * number]]


def _stubs(server: Server, model: str) -> list[int]:
    """The processes that run the instances of a Python model."""
    found = []
    for pid in session(server.pid):
        with contextlib.suppress(OSError):
            if f"/{model}/1/model.py".encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def _kill(pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(alive(pid) for pid in pids))


def test_the_process_of_a_model_is_killed(own: Server) -> None:
    told = r"process that ran the model 'slow' has ended.*other models are not affected.*server\.reload\(\"slow\"\)"
    with Client(own, "grpc") as grpc, Client(own, "http") as http:
        clients = (grpc, http)
        for client in clients:
            client.infer("slow", SECONDS=[0])
        # What Triton was told last it does not do again by itself, which is what the reload at the end is about.
        own.reload("slow")
        wait_until(lambda: len(_stubs(own, "slow")) == 2)
        pids = _stubs(own, "slow")
        under_way = [ThreadPoolExecutor().submit(client.infer, "slow", SECONDS=[2 * PATIENCE_S]) for client in clients]
        time.sleep(0.3)
        _kill(pids)
        for future in under_way:
            with pytest.raises(RequestError, match=told):
                future.result(timeout=PATIENCE_S)
        for client in clients:
            with pytest.raises(RequestError, match=told):
                client.infer("slow", SECONDS=[0])
        _others_are_answered(own)
        assert own.state() == "running"
        own.reload("slow")
        for client in clients:
            assert client.infer("slow", SECONDS=[0])["SLEPT"].tolist() == [0]


def test_a_model_raises(own: Server, client: Client) -> None:
    for _ in range(20):
        with pytest.raises(RequestError, match=r"'raises' failed on this request: .*ZeroDivisionError: no root of -1.*model\.py\(15\)"):
            client.infer("raises", X=[-1])
        assert client.infer("raises", X=[4])["Y"].tolist() == [4]
    _others_are_answered(own)


def test_a_model_never_answers_and_is_mended_without_a_restart(own: Server) -> None:
    code = own.repository / "stuck" / "1" / "model.py"
    before = code.read_text()
    pid = own.pid
    for protocol in ("grpc", "http"):
        with Client(own, protocol, timeout_s=1) as hasty:
            with pytest.raises(RequestError, match=r"no answer.*'stuck'.*timeout_s=300.*server\.reload\(\"stuck\"\)"):
                hasty.infer("stuck", X=[1])
            _others_are_answered(own)
    # Both requests are still in its hands; what is loaded in its place answers.
    try:
        code.write_text((own.repository / "raises" / "1" / "model.py").read_text())
        own.reload("stuck")
        with Client(own) as patient:
            assert patient.infer("stuck", X=[3])["Y"].tolist() == [3]
    finally:
        code.write_text(before)
    assert own.pid == pid
    _others_are_answered(own)


def test_a_file_that_is_older_than_the_one_it_replaces_is_taken_up(own: Server) -> None:
    """As after a clock that went back, or with a file from an archive: Triton alone looks for newer ones."""
    code = own.repository / "raises" / "1" / "model.py"
    before, times = code.read_text(), code.stat()
    try:
        code.write_text(before.replace("if x[0] < 0", "x = x + 1000\n            if x[0] < 0"))
        os.utime(code, (times.st_atime - 5 * 3600, times.st_mtime - 5 * 3600))
        own.reload("raises")
        with Client(own) as client:
            assert client.infer("raises", X=[1])["Y"].tolist() == [1001]
    finally:
        code.write_text(before)
        own.reload("raises")
    with Client(own) as client:
        assert client.infer("raises", X=[1])["Y"].tolist() == [1]


def _request(server: Server, model: str, name: str, datatype: str, value: float) -> bytes:
    """A whole inference request as HTTP carries it, for clients that do not behave."""
    wish = {"inputs": [{"name": name, "datatype": datatype, "shape": [1], "data": [value]}], "parameters": {"binary_data_output": True}}
    body = json.dumps(wish).encode()
    head = f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: {server.http_url}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _call(server: Server) -> socket.socket:
    assert server.http is not None
    return socket.create_connection(("127.0.0.1", server.http.port), timeout=PATIENCE_S)


def _until(connection: socket.socket, end: bytes) -> bytes:
    """What comes on a connection, up to these bytes."""
    answer = b""
    while not answer.endswith(end):
        piece = connection.recv(1 << 20)
        assert piece, answer[-200:]
        answer += piece
    return answer


def test_slow_readers_hold_up_nobody(own: Server) -> None:
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(_call(own)) for _ in range(_MANY)]
        for one in slow:
            one.sendall(_request(own, "large", "COUNT", "INT32", _COUNT // 10))
        for _ in range(20):  # byte by byte
            assert all(len(one.recv(1)) == 1 for one in slow)
        _others_are_answered(own)
        # The whole answer comes in the end, too.
        numbers = np.arange(_COUNT // 10, dtype=np.float32).tobytes()
        for one in slow:
            assert _until(one, numbers[-64:]).endswith(numbers)


def test_slow_senders_hold_up_nobody(own: Server) -> None:
    words = _request(own, "raises", "X", "FP32", 5)
    body = words.index(b"\r\n\r\n") + 4
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(_call(own)) for _ in range(2 * _MANY)]
        for one in slow[:_MANY]:
            # Triton 2.51 answers 404 to a request whose first lines come in pieces; what follows may.
            one.sendall(words[:body])
        for one in slow[_MANY:]:
            one.sendall(words[: body // 2])  # and never any more
        for place in range(body, len(words)):
            for one in slow[:_MANY]:
                one.sendall(words[place : place + 1])
            if place % 20 == 0:
                _others_are_answered(own, 1)
        for one in slow[:_MANY]:
            assert _until(one, np.float32(5).tobytes()).startswith(b"HTTP/1.1 200")


def test_clients_go_away_in_the_middle_of_the_answer(own: Server) -> None:
    def asked() -> float:
        return scrape(own).value("nv_inference_request_success", model="large")

    before = asked()
    for _ in range(_MANY):
        with _call(own) as gone:
            gone.sendall(_request(own, "large", "COUNT", "INT32", _COUNT // 10))
            assert gone.recv(1000)
            # Without waiting for the rest, and with a reset rather than a farewell.
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    asking = f"while True:\n    client.infer('large', COUNT=[{_COUNT}])\n    print('one', flush=True)"
    ask = f"from helpers import Client\nclient = Client('{own.grpc_url}')\n{asking}"
    with subprocess.Popen([sys.executable, "-c", ask], stdout=subprocess.PIPE, text=True, cwd=paths.root()) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "one\n"
        time.sleep(0.02)  # the next request is under way by now
        killed.kill()
    _others_are_answered(own)
    assert asked() > before
    with Client(own) as client:
        assert len(client.infer("large", COUNT=[_COUNT])["NUMBERS"]) == _COUNT


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_the_way_is_cut_in_the_middle_of_the_answer(own: Server, protocol: str) -> None:
    port = {"grpc": own.grpc, "http": own.http}[protocol].port
    with Relay(port, cut_after=_COUNT, cuts=1) as way, Client(f"localhost:{way.port}", protocol) as client:
        # Asked again, since an inference changes nothing on the server.
        np.testing.assert_array_equal(client.infer("large", COUNT=[_COUNT])["NUMBERS"], np.arange(_COUNT, dtype=np.float32))
        assert way.cut == 1
    with Relay(port, cut_after=_COUNT, cuts=100) as way, Client(f"localhost:{way.port}", protocol) as client:
        with pytest.raises(RequestError, match=r"closed the connection before it answered.*requests that were under way.*are lost") as told:
            client.infer("large", COUNT=[_COUNT])
        assert way.cut == RETRIES + 1
        assert "\n" not in str(told.value)
        assert "IncompleteRead" not in str(told.value)
        assert client.infer("double", X=[[1]])["Y"].tolist() == [[2]]
    _others_are_answered(own)
