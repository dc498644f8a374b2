"""Servers that go away, come back, or change under the client's feet: all for real."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from helpers.client import Client
from helpers.client.client import RETRIES, RETRY_WAIT_S
from helpers.errors import InputError, ModelError, RequestError
from helpers.server import Server, launch_server
from tests.support import MODELS_FOR_TESTS
from tests.support.processes import PATIENCE_S, wait_until


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory, free_base_port: Callable[[], int]) -> Iterator[Server]:
    """A server that these tests may kill and whose models they may change."""
    repository = tmp_path_factory.mktemp("own") / "models"
    for name in ("double", "slow"):
        shutil.copytree(MODELS_FOR_TESTS / name, repository / name, ignore=shutil.ignore_patterns("__pycache__"))
    with launch_server(repository, base_port=free_base_port(), name="client-failures") as running:
        yield running


@pytest.mark.slow
def test_a_reloaded_model_is_noticed(own_server: Server) -> None:
    assert own_server.repository is not None
    original = (own_server.repository / "double" / "config.pbtxt").read_text()
    four = np.ones((4, 3), np.float32)
    with Client(own_server, "grpc") as grpc, Client(own_server, "http") as http:
        clients = (grpc, http)
        assert [client.infer("double", X=four).requests for client in clients] == [1, 1]
        # The server has a smaller limit than the clients remember: it refuses, they look again and the next time send in parts.
        own_server.load("double", original.replace("max_batch_size: 4", "max_batch_size: 2"))
        for client in clients:
            with pytest.raises(RequestError, match="batch-size must be <= 2"):
                client.infer("double", X=four)
        assert [client.infer("double", X=four).requests for client in clients] == [2, 2]
        # What the clients remember would refuse these inputs now: they look again before they say so.
        own_server.load("double", original.replace("max_batch_size: 4", "max_batch_size: 0").replace("TYPE_FP32", "TYPE_FP64"))
        for client in clients:
            assert client.infer("double", X=np.ones(3))["Y"].tolist() == [2, 2, 2]
            with pytest.raises(InputError, match="astype"):
                client.infer("double", X=np.ones(3, np.float32))
        own_server.unload("double")
        for client in clients:
            with pytest.raises(ModelError, match=r"'double' is not loaded.*'slow'"):
                client.infer("double", X=np.ones(3))
    own_server.load("double")
    assert own_server.is_ready()


@pytest.mark.slow
def test_killed_in_the_middle_of_a_request_and_launched_again(own_server: Server) -> None:
    with Client(own_server, "grpc") as grpc, Client(own_server, "http") as http:
        for client in (grpc, http):
            client.infer("double", X=[[1]])
        under_way = [ThreadPoolExecutor().submit(client.infer, "slow", SECONDS=[2 * PATIENCE_S]) for client in (grpc, http)]
        time.sleep(0.5)
        assert own_server.pid is not None
        os.kill(own_server.pid, signal.SIGKILL)
        for future in under_way:
            with pytest.raises(RequestError, match=r"server\.restart\(\)|closed the connection"):
                future.result(timeout=PATIENCE_S)
        wait_until(lambda: own_server.state() != "running")
        for client in (grpc, http):
            with pytest.raises(RequestError, match=r"(?s)no longer running.*signal 9.*The end of its log:\n.*server\.restart\(\)"):
                client.infer("double", X=[[1]])
        again = own_server.restart()
        try:
            assert again.http_url == own_server.http_url
            for client in (grpc, http):
                assert client.infer("double", X=[[1]])["Y"].tolist() == [[2]]
            assert again.is_ready()
        finally:
            again.stop()


class Listener:
    """A TCP server that answers every connection with the same bytes, and counts them."""

    def __init__(self, answer: bytes) -> None:
        self.answer, self.connections = answer, 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                # A TLS greeting, by which the client finds out why it got no answer, is no request.
                self.connections += not connection.recv(65536).startswith(b"\x16")
                connection.sendall(self.answer)

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


def test_a_dropped_connection_is_tried_again_as_often_as_settings_say() -> None:
    with Listener(b"") as listener, Client(f"localhost:{listener.port}", "http") as client:
        with pytest.raises(RequestError, match="closed the connection before it answered"):
            client.metadata("double")
        assert listener.connections == RETRIES + 1


def test_a_refusal_is_not_tried_again() -> None:
    refusal = b'HTTP/1.1 400 Bad Request\r\nContent-Length: 15\r\nConnection: close\r\n\r\n{"error":"no!"}'
    with Listener(refusal) as listener, Client(f"localhost:{listener.port}", "http") as client:
        with pytest.raises(RequestError, match="refused the request to 'double': no!"):
            client.metadata("double")
        assert listener.connections == 1


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_nobody_there(protocol: str, free_base_port: Callable[[], int]) -> None:
    with Client(f"localhost:{free_base_port()}", protocol) as client:
        start = time.monotonic()
        with pytest.raises(RequestError, match=r"cannot be reached.*launch_server"):
            client.infer("add_sub", INPUT0=[1], INPUT1=[1])
        assert time.monotonic() - start >= RETRY_WAIT_S
