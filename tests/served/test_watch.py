"""A server that crashes or hangs, and models whose processes end: what is said, and that nobody's counters move for it."""

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
import requests

from helpers import Client, launch_server, paths
from helpers.errors import RequestError
from helpers.server import Server
from tests.support.processes import alive, session, wait_until

pytestmark = pytest.mark.slow

_ONE = {"INPUT0": np.ones(16, np.float32), "INPUT1": np.ones(16, np.float32)}


@pytest.fixture(scope="module")
def own(free_base_port: Callable[[], int]) -> Iterator[Server]:
    """A Python model, and one of a Python-based backend with two instances."""
    with launch_server(paths.models_dir(), base_port=free_base_port(), name="watched", load=["add_sub", "particlenet"]) as running:
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


def _counters(server: Server) -> dict[str, str]:
    page = requests.get(server.metrics_url, timeout=10).text
    return dict(line.rsplit(" ", 1) for line in page.splitlines() if line.startswith(("nv_inference", "nv_model")))


def _answers(server: Server) -> bool:
    with Client(server) as client, contextlib.suppress(RequestError):
        return client.infer("add_sub", _ONE)["OUTPUT0"].tolist() == [2.0] * 16
    return False


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_the_watch_moves_no_counter_shows_no_model_and_costs_little(own: Server) -> None:
    with Client(own) as client:
        client.infer("add_sub", _ONE)
    time.sleep(1)
    supervisor = next(int(line.split()[1]) for line in Path(f"/proc/{own.pid}/status").read_text().splitlines() if line.startswith("PPid"))
    before, models = _counters(own), {state.name for state in own.models()}
    used, begin = _cpu_s(supervisor), time.monotonic()
    time.sleep(10)
    share = (_cpu_s(supervisor) - used) / (time.monotonic() - begin)
    assert before
    assert _counters(own) == before
    assert models == {path.name for path in paths.models_dir().iterdir() if (path / "config.pbtxt").exists()}
    assert "course-watch" not in own.log(lines=0)
    assert share < 0.02  # 0.2 % on a quiet machine


@pytest.mark.parametrize(("model", "instance"), [("add_sub", "add_sub_0_0"), ("particlenet", "particlenet_1")])
@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGSEGV, marks=pytest.mark.nightly)])
def test_a_model_whose_process_has_ended_is_no_longer_called_ready(own: Server, model: str, instance: str, number: signal.Signals) -> None:
    wait_until(lambda: _stubs(own, instance) != [])
    time.sleep(2.5)  # the watch has seen it
    assert _state(own, model) == ("READY", "")
    (pid,) = _stubs(own, instance)
    os.kill(pid, number)
    wait_until(lambda: _state(own, model)[0] == "UNAVAILABLE")
    assert f"signal {int(number)} ({number.name})" in _state(own, model)[1]
    assert f"server.reload('{model}')" in repr(own)
    assert own.state() == "running"
    own.reload(model)
    assert _state(own, model) == ("READY", "")
    time.sleep(2)
    assert _state(own, model) == ("READY", "")


def test_the_large_stack_is_for_the_server_alone(own: Server) -> None:
    def stack(pid: int | None) -> int:
        lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
        return int(next(line.split()[3] for line in lines if line.startswith("Max stack size")))

    wait_until(lambda: _stubs(own, "add_sub_0_0") != [])
    (stub,) = _stubs(own, "add_sub_0_0")
    assert stack(own.pid) > stack(stub) == 8 << 20


def test_an_unload_and_a_refused_load_are_no_ends(own: Server) -> None:
    wait_until(lambda: _state(own, "add_sub")[0] == "READY")
    time.sleep(2.5)
    before = len(own.remarks)
    own.unload("add_sub")
    time.sleep(2.5)
    own.load("add_sub")
    time.sleep(2.5)
    assert own.remarks[before:] == []
    assert _state(own, "add_sub") == ("READY", "")


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


@pytest.mark.nightly
def test_a_server_that_hangs_is_said_and_so_is_its_return(own: Server) -> None:
    """Stopped, not killed: the port is open, and nothing answers."""
    assert own.pid is not None
    os.kill(own.pid, signal.SIGSTOP)
    try:
        wait_until(lambda: own.state() == "hung")
        assert "hung" in repr(own)
        assert "server.restart()" in repr(own)
        with Client(own, timeout_s=2) as client, pytest.raises(RequestError, match=r"hangs.*server\.restart\(\)"):
            client.infer("add_sub", _ONE)
    finally:
        os.kill(own.pid, signal.SIGCONT)
    wait_until(lambda: own.state() == "running")
    assert "answers again" in own.remarks[-1]


def test_a_server_kept_alive_comes_back_with_the_same_key_and_ports(free_base_port: Callable[[], int]) -> None:
    options = {"base_port": free_base_port(), "name": "kept", "load": ["add_sub"], "keep_alive": True}
    with launch_server(paths.models_dir(), **options) as server:
        ports, pid = server.http_url, server.pid
        assert pid is not None
        wait_until(lambda: len(_stubs(server, "add_sub_0_0")) == 1)
        time.sleep(2.5)
        os.kill(pid, signal.SIGSEGV)
        wait_until(lambda: server.pid not in (None, pid) and server.is_alive())
        assert server.http_url == ports
        wait_until(lambda: _answers(server))
        server.reload("add_sub")  # by the same key
        assert "SIGSEGV" in server.remarks[-1]
        assert server.remarks[-1] in " ".join(repr(server).split())
        # One of its models: the server would go on refusing that one's requests.
        second = server.pid
        wait_until(lambda: len(_stubs(server, "add_sub_0_0")) == 1)
        (stub,) = _stubs(server, "add_sub_0_0")
        time.sleep(2.5)
        os.kill(stub, signal.SIGKILL)
        wait_until(lambda: server.pid not in (None, second) and server.is_alive())
        assert any("'add_sub_0_0' has ended by signal 9" in remark for remark in server.remarks)
        wait_until(lambda: _answers(server))
        assert _state(server, "add_sub") == ("READY", "")
        last = server.pid
    assert not alive(last)


@pytest.mark.nightly
def test_one_that_ends_all_the_time_stays_down(free_base_port: Callable[[], int]) -> None:
    options = {"base_port": free_base_port(), "name": "hopeless", "load": ["add_sub"], "keep_alive": True}
    with launch_server(paths.models_dir(), **options) as server:
        time.sleep(2.5)
        deadline = time.monotonic() + 60
        while server.state() != "died" and time.monotonic() < deadline:
            pid = server.pid
            if pid is not None and alive(pid):
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.2)
        assert server.state() == "died"
        assert "signal 9" in repr(server)
