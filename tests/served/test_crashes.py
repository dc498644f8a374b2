"""What keeps a server from crashing."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

import numpy as np
import pytest

from helpers import Client
from helpers.server import Server
from tests.support.processes import session, wait_until

pytestmark = pytest.mark.slow

_ONE = {"INPUT0": np.ones(16, np.float32), "INPUT1": np.ones(16, np.float32)}


@pytest.fixture
def own(workbench: Server) -> Server:
    return workbench


def _stubs(server: Server, instance: str) -> list[int]:
    """The processes whose instance is called so."""
    assert server.pid is not None
    found = []
    for pid in session(server.pid):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if instance.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                found.append(pid)
    return found


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
