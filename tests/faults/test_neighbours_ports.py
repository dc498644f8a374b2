"""Another user of the machine listens where requests could go by mistake: he gets no key, no token and no request, and is not believed."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import requests
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http

from helpers import paths, scrape
from helpers.client import Client, http
from helpers.client.endpoint import ADMIN_HEADER, Address, access_for, parse_address
from helpers.client.grpc import Grpc
from helpers.client.http import Http
from helpers.errors import AccessError, CourseError, ServerError
from helpers.server import Server, connect, launch_server
from tests.support.listener import listener
from tests.support.other_users import needs_root, stranger
from tests.support.processes import wait_until


@pytest.fixture(scope="module")
def own(free_base_port: Callable[[], int]) -> Iterator[Server]:
    with launch_server(paths.models_dir(), base_port=free_base_port(), name="neighbours", load=["add_sub"]) as server:
        yield server


@pytest.fixture
def ipv6_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """``localhost`` means ::1 first, as on most machines."""
    real = socket.getaddrinfo

    def looked_up(host: Any, *arguments: Any, **options: Any) -> Any:
        found = real(host, *arguments, **options)
        return [*real("::1", *arguments, **options), *found] if host == "localhost" else found

    monkeypatch.setattr(socket, "getaddrinfo", looked_up)


# --- ::1 -----------------------------------------------------------------------------------------------------------------

_BIND = """
import errno, socket, sys
for host in ("::1", "::"):
    for port in sys.argv[1:]:
        for reuse in (0, 1):
            for only in (0, 1):
                other = socket.socket(socket.AF_INET6)
                other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
                other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, reuse)
                other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
                try:
                    other.bind((host, int(port)))
                    other.listen()
                    print("listens", host, port, reuse, only)
                except OSError as error:
                    print("refused", error.errno == errno.EADDRINUSE)
                other.close()
"""


@needs_root
def test_a_stranger_cannot_listen_on_a_running_servers_ports_of_ipv6(own: Server) -> None:
    ports = [address.port for address in (own.http, own.grpc, own.metrics)]
    done = stranger(_BIND, *ports)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["refused True"] * 24


@pytest.mark.usefixtures("ipv6_first")
def test_localhost_as_people_type_it_leads_to_the_server(own: Server) -> None:
    """As in the course text: the name, with everybody's clients."""
    assert own.http_url == f"localhost:{own.http.port}" and own.grpc_url == f"localhost:{own.grpc.port}"
    assert requests.get(f"http://{own.http_url}/v2/health/ready", timeout=30).status_code == 200
    assert "nv_inference" in requests.get(own.metrics_url, timeout=30).text
    with triton_http.InferenceServerClient(own.http_url) as over_http, triton_grpc.InferenceServerClient(own.grpc_url) as over_grpc:
        assert over_http.is_model_ready("add_sub") and over_grpc.is_model_ready("add_sub")
    ones = np.ones(16, np.float32)
    for url in (own.grpc_url, f"http://{own.http_url}"):
        with Client(url) as client:
            assert client.metadata("add_sub") and client.infer("add_sub", INPUT0=ones, INPUT1=ones)["OUTPUT0"].tolist() == [2] * 16


@pytest.mark.usefixtures("ipv6_first")
def test_nothing_of_ours_goes_to_the_ipv6_port(own: Server) -> None:
    """The server is another machine's here, so that the port of ::1 is free for a neighbour."""
    with socket.create_server(("127.0.0.1", 0)) as front, listener("::1", front.getsockname()[1]) as neighbour:
        place = parse_address(f"localhost:{neighbour.port}")
        secret = access_for("a-token-of-a-class")
        front.settimeout(0.2)
        heard = threading.Thread(target=_hang_up, args=(front,))
        heard.start()
        for question in (
            lambda: http.ask(place, "/v2/repository/index", headers={ADMIN_HEADER: "key"}, post=True, access=secret, timeout_s=2),
            lambda: Http(place, 2, secret).metadata("add_sub"),
            lambda: Grpc(place, 2, secret).is_live(),
            lambda: connect(str(place), token="a-token-of-a-class"),
            lambda: scrape(str(place), settle_s=0),
            lambda: Client(f"http://{place}").metadata("add_sub"),
        ):
            with pytest.raises(Exception, match=r".+"):
                question()
        heard.join()
        assert neighbour.requests == []


def _hang_up(front: socket.socket) -> None:
    """Close each connection, until none has come for a while."""
    quiet = 0
    while quiet < 50:
        try:
            front.accept()[0].close()
        except TimeoutError:
            quiet += 1


# --- redirects -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("post", [False, True])
def test_an_answer_that_sends_us_elsewhere_is_not_followed(status: int, post: bool) -> None:
    with listener("127.0.0.1") as first, listener("127.0.0.1") as second:
        first.answer = (status, {"Location": f"http://127.0.0.1:{second.port}/v2"}, b"")
        access = access_for("a-token-of-a-class", {"X-Api-Key": "secret"})
        with pytest.raises(AccessError, match=f"sends us on to http://127.0.0.1:{second.port}/v2"):
            http.ask(Address("127.0.0.1", first.port), "/v2", headers={ADMIN_HEADER: "key"}, post=post, access=access)
        with pytest.raises(AccessError, match="no Triton server"):
            connect(f"127.0.0.1:{first.port}", token="a-token-of-a-class")
        with pytest.raises(CourseError, match="sends us on to"), Client(f"http://127.0.0.1:{first.port}") as client:
            client.infer("add_sub", INPUT0=np.ones(16, np.float32))
        assert len(first.requests) >= 3 and second.requests == []


# --- the port of a server that has ended -----------------------------------------------------------------------------------


def test_who_takes_the_port_of_a_dead_server_gets_nothing(free_base_port: Callable[[], int]) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(
            launch_server(paths.models_dir(), base_port=free_base_port(), name="dead", load=["add_sub"], token="the-token-of-a-class")
        )
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: server.state() == "died")
        taken = stack.enter_context(listener("127.0.0.1", server.http.port))
        for deed in (
            server.models,
            lambda: server.metadata("add_sub"),
            lambda: server.reload("add_sub"),
            lambda: server.statistics("add_sub"),
        ):
            with pytest.raises(ServerError, match="killed it"):
                deed()
        assert not server.is_alive() and not server.is_ready()
        assert taken.requests == []
