"""A server that crashes and is kept alive, and what keeps a server from crashing."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from helpers import Client, launch_server, paths
from helpers.errors import RequestError
from helpers.server import Server
from tests.support.processes import alive, session, wait_until

pytestmark = pytest.mark.slow

_ONE = {"INPUT0": np.ones(16, np.float32), "INPUT1": np.ones(16, np.float32)}


@pytest.fixture(scope="module")
def own(free_base_port: Callable[[], int]) -> Iterator[Server]:
    with launch_server(paths.models_dir(), base_port=free_base_port(), name="crashes", load=["add_sub"]) as running:
        yield running


def _stubs(server: Server, instance: str) -> list[int]:
    """The processes whose instance is called so."""
    assert server.pid is not None
    found = []
    for pid in session(server.pid):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if instance.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                found.append(pid)
    return found


def _state(server: Server, model: str) -> tuple[str, str]:
    return next((state.state, state.reason) for state in server.models() if state.name == model)


def _answers(server: Server) -> bool:
    with Client(server) as client, contextlib.suppress(RequestError):
        return client.infer("add_sub", _ONE)["OUTPUT0"].tolist() == [2.0] * 16
    return False


def test_the_large_stack_is_for_the_server_alone(own: Server) -> None:
    def stack(pid: int | None) -> int:
        lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
        return int(next(line.split()[3] for line in lines if line.startswith("Max stack size")))

    wait_until(lambda: _stubs(own, "add_sub_0_0") != [])
    (stub,) = _stubs(own, "add_sub_0_0")
    assert stack(own.pid) > stack(stub) == 8 << 20


def test_a_request_in_many_pieces_does_not_end_the_server(own: Server) -> None:
    """16 bytes of stack for each chunk: under the usual limit of 8 MB half a million are too many."""
    assert own.http is not None
    pid = own.pid
    path = "/v2/models/add_sub/infer"
    headers = "".join(f"{name}: {value}\r\n" for name, value in own.headers.items())
    with socket.create_connection(("127.0.0.1", own.http.port), timeout=120) as connection:
        connection.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Transfer-Encoding: chunked\r\n\r\n".encode())
        for _ in range(65):
            connection.sendall(b"1\r\nA\r\n" * 10_000)
        connection.sendall(b"0\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 500")
    assert (own.state(), own.pid) == ("running", pid)
    with Client(own) as client:
        np.testing.assert_array_equal(client.infer("add_sub", _ONE)["OUTPUT0"], np.full(16, 2.0))


def test_a_server_kept_alive_comes_back_with_the_same_key_and_ports(free_base_port: Callable[[], int]) -> None:
    options = {"base_port": free_base_port(), "name": "kept", "load": ["add_sub"], "keep_alive": True}
    with launch_server(paths.models_dir(), **options) as server:
        ports, pid = server.http_url, server.pid
        assert pid is not None
        wait_until(lambda: len(_stubs(server, "add_sub_0_0")) == 1)
        os.kill(pid, signal.SIGSEGV)
        wait_until(lambda: server.pid not in (None, pid) and server.is_alive())
        assert server.http_url == ports
        wait_until(lambda: _answers(server))
        server.reload("add_sub")  # by the same key
        assert "SIGSEGV" in server.noticed
        assert server.noticed in repr(server)
        last = server.pid
    assert not alive(last)


@pytest.mark.nightly
def test_one_that_ends_all_the_time_stays_down(free_base_port: Callable[[], int]) -> None:
    options = {"base_port": free_base_port(), "name": "hopeless", "load": ["add_sub"], "keep_alive": True}
    with launch_server(paths.models_dir(), **options) as server:
        deadline = time.monotonic() + 60
        while server.state() != "died" and time.monotonic() < deadline:
            pid = server.pid
            if pid is not None and alive(pid):
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.2)
        assert server.state() == "died"
        assert "signal 9" in repr(server)
