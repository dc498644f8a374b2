"""Tensors by system shared memory, and that nothing of it is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from helpers.client import Client, http
from helpers.client.shared_memory import Region
from helpers.client.tensors import Request
from helpers.errors import InputError, RequestError
from helpers.server import Server


def registered(server: Server) -> list[str]:
    regions = http.ask(server.http, "/v2/systemsharedmemory/status", headers=server.admin_headers("http"))
    return [region["name"] for region in regions if region["name"].startswith("course-tensors-")]


def in_dev_shm() -> list[str]:
    return [path.name for path in Path("/dev/shm").glob("course-tensors-*")]


@pytest.fixture(params=["grpc", "http"])
def client(request: pytest.FixtureRequest, models_server: Server) -> Iterator[Client]:
    with Client(models_server, request.param) as made:
        yield made
    assert registered(models_server) == []
    assert in_dev_shm() == []
    assert models_server.is_ready()


def test_the_same_answers_as_over_the_network(client: Client) -> None:
    x, y = np.arange(16, dtype=np.float32), np.ones(16, np.float32)
    result = client.infer("add_sub", INPUT0=x, INPUT1=y, shared_memory=True)
    np.testing.assert_array_equal(result["OUTPUT0"], x + y)
    np.testing.assert_array_equal(result["OUTPUT1"], x - y)
    assert client.infer("strings", TEXT=["µ", "", b"a\0"], shared_memory=True)["ECHO"].tolist() == ["µ".encode(), b"", b"a\0"]
    made = client.example("types", batch=3)
    over_network, in_memory = client.infer("types", made), client.infer("types", made, shared_memory=True)
    for name, array in over_network.items():
        assert in_memory[name].dtype == array.dtype
        np.testing.assert_array_equal(in_memory[name], array)


def test_the_region_is_used_again_and_grows(client: Client, models_server: Server) -> None:
    x = np.ones(16, np.float32)
    for _ in range(3):
        client.infer("add_sub", INPUT0=x, INPUT1=x, shared_memory=True)
    small = registered(models_server)
    assert len(small) == 1
    values = np.random.default_rng(1).standard_normal((10, 50_000)).astype(np.float32)
    result = client.infer("double", X=values, shared_memory=True)
    np.testing.assert_array_equal(result["Y"], 2 * values)
    assert result.requests == 3
    assert len(registered(models_server)) == 1
    assert registered(models_server) != small


def test_answers_outlive_the_region(client: Client) -> None:
    first = client.infer("add_sub", INPUT0=np.ones(16, np.float32), INPUT1=np.ones(16, np.float32), shared_memory=True)["OUTPUT0"]
    client.infer("add_sub", INPUT0=np.zeros(16, np.float32), INPUT1=np.zeros(16, np.float32), shared_memory=True)
    assert (first == 2).all()
    client.close()
    assert (first == 2).all()
    first += 1


def test_an_error_gives_the_region_back(client: Client, models_server: Server) -> None:
    with pytest.raises(RequestError, match="negative"):
        client.infer("slow", SECONDS=[-1], shared_memory=True)
    assert registered(models_server) == []
    with pytest.raises(InputError, match="astype"):
        client.infer("slow", SECONDS=np.zeros(1), shared_memory=True)
    assert registered(models_server) == []
    assert client.infer("slow", SECONDS=[0], shared_memory=True)["SLEPT"].tolist() == [0]


def test_many_at_once(client: Client) -> None:
    many = [{"X": np.full((1, 4), number, np.float32)} for number in range(20)]
    results = client.infer_many("double", many, shared_memory=True, max_in_flight=4)
    assert [float(result["Y"][0, 0]) for result in results] == [2 * number for number in range(20)]


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_without_the_key_it_is_refused_and_said(models_server: Server, protocol: str) -> None:
    url = models_server.grpc_url if protocol == "grpc" else models_server.http_url
    with Client(url, protocol) as stranger:
        with pytest.raises(InputError, match=r"administration key.*Client\(server\)"):
            stranger.infer("slow", SECONDS=[0], shared_memory=True)
        assert stranger.infer("slow", SECONDS=[0])["SLEPT"].tolist() == [0]
    assert in_dev_shm() == []
    assert models_server.is_ready()


def test_no_room_in_shared_memory(models_server: Server) -> None:
    status = os.statvfs("/dev/shm")
    # A view of one number: nothing is allocated by us.
    large = np.broadcast_to(np.zeros(1, np.int8), 2 * status.f_frsize * status.f_blocks)
    with Client(models_server) as client, pytest.raises(InputError, match=r"cannot be used.*df -h /dev/shm"):
        request = Request("large", "", {"X": (large, "INT8")}, [])
        Region(models_server, client.transport).infer(request)
    assert in_dev_shm() == []
    assert registered(models_server) == []


def test_a_killed_client_leaves_no_file(models_server: Server) -> None:
    key = models_server.admin_headers("http")
    code = f"""
        import time
        from helpers.client import Client
        class Owner:
            http_url, metrics_url = {models_server.http_url!r}, {models_server.metrics_url!r}
            def admin_headers(self, protocol): return {key!r}
        client = Client(Owner(), "http")
        client.infer("slow", SECONDS=[0], shared_memory=True)
        print("ready", flush=True)
        time.sleep(60)
    """
    child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGKILL)
        child.wait()
    # A process that outlives the killed one removes the name.
    deadline = time.monotonic() + 20
    while in_dev_shm() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert in_dev_shm() == []
