"""Another user of the machine listens where requests could go by mistake: he gets no key, no token and no request, and is not believed."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
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
from helpers.errors import CourseError, NotAServerError, ServerError
from helpers.server import Server, connect, launch_server, lease
from tests.support.listener import listener
from tests.support.other_users import needs_root, stranger
from tests.support.processes import alive, plan_of, wait_until


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
for host in sys.argv[1].split(","):
    for port in sys.argv[2:]:
        for reuse in (0, socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            for only in (0, 1) if ":" in host else (0,):
                other = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
                if reuse:
                    other.setsockopt(socket.SOL_SOCKET, reuse, 1)
                if ":" in host:
                    other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
                try:
                    other.bind((host, int(port)))
                    other.listen()
                    print("listens", host, port, reuse, only)
                except OSError as error:
                    print("refused", error.errno == errno.EADDRINUSE)
                other.close()
"""


def _stranger_binds(hosts: str, *ports: int) -> set[str]:
    """What another user hears who tries to listen on these ports in every way."""
    done = stranger(_BIND, hosts, *ports)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines())


@needs_root
def test_a_stranger_cannot_listen_on_a_running_servers_ports_of_ipv6(own: Server) -> None:
    ports = [address.port for address in (own.http, own.grpc, own.metrics)]
    assert _stranger_binds("::1,::", *ports) == {"refused True"}


@needs_root
def test_a_stranger_never_listens_where_secrets_go(tmp_path: Path, free_base_port: Callable[[], int]) -> None:
    """Neither before the server does, nor between a crash and its next start, nor after its last end while its owner is here."""
    base = free_base_port()
    code = (
        "import os, pathlib, socket, sys, time\n"
        f"go = pathlib.Path({str(tmp_path / 'go')!r})\n"
        "while not go.exists(): time.sleep(0.05)\n"
        f"listeners = [socket.create_server(('127.0.0.1', {base} + n), reuse_port=True) for n in (0, 1)]\n"
        "print('Started HTTPService at', flush=True); go.unlink(); time.sleep(600)"
    )
    plan = plan_of(tmp_path, code, [[base, base + 1, base + 2]], keep_alive=True)
    held = lease.start(plan)
    for _ in range(4):  # it is started again three times
        assert held.state()["status"] == "running"
        assert _stranger_binds("127.0.0.1,0.0.0.0,::1,::", base, base + 1) == {"refused True"}
        (tmp_path / "go").touch()
        wait_until(lambda: not (tmp_path / "go").exists())
        first = int(held.state()["pid"])
        os.kill(first, signal.SIGKILL)
        wait_until(lambda first=first: held.state()["pid"] != first or held.state()["status"] == "died")
    assert held.state()["status"] == "died"
    assert _stranger_binds("127.0.0.1,0.0.0.0,::1,::", base, base + 1) == {"refused True"}
    # The next launch has its ports.
    again = lease.start(plan_of(tmp_path, "import time; time.sleep(600)", [[base, base + 1, base + 2]]))
    assert again.state()["ports"] == [base, base + 1, base + 2]
    again.stop()


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


@pytest.mark.slow
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
            lambda: http.ask(place, "/v2/repository/index", {}, headers={ADMIN_HEADER: "key"}, access=secret, timeout_s=2),
            lambda: Http(place, 2, secret).metadata("add_sub"),
            lambda: Grpc(place, 2, secret).about(),
            lambda: connect(str(place), token="a-token-of-a-class"),
            lambda: scrape(str(place)),
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
@pytest.mark.parametrize("body", [None, {}])
def test_an_answer_that_sends_us_elsewhere_is_not_followed(status: int, body: dict[str, str] | None) -> None:
    with listener("127.0.0.1") as first, listener("127.0.0.1") as second:
        first.answer = (status, {"Location": f"http://127.0.0.1:{second.port}/v2"}, b"")
        access = access_for("a-token-of-a-class")
        with pytest.raises(NotAServerError, match=f"sends us on to http://127.0.0.1:{second.port}/v2"):
            http.ask(Address("127.0.0.1", first.port), "/v2", body, headers={ADMIN_HEADER: "key"}, access=access)
        with pytest.raises(NotAServerError, match="no Triton server"):
            connect(f"127.0.0.1:{first.port}", token="a-token-of-a-class")
        with pytest.raises(CourseError, match="sends us on to"), Client(f"http://127.0.0.1:{first.port}") as client:
            client.infer("add_sub", INPUT0=np.ones(16, np.float32))
        assert len(first.requests) >= 3 and second.requests == []


# --- the port of a server that has ended -----------------------------------------------------------------------------------


def test_who_takes_the_port_of_a_dead_server_gets_nothing(free_base_port: Callable[[], int]) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(
            launch_server(paths.models_dir(), base_port=free_base_port(), name="dead", load=["add_sub"], private=True)
        )
        # A dead server's ports stay its owner's; here the process that keeps them is killed, too.
        os.kill(supervisor := server._lease.state()["supervisor_pid"], signal.SIGKILL)
        wait_until(lambda: not alive(supervisor) and server.state() == "died" and not http.listens(server.http))
        taken = stack.enter_context(listener("127.0.0.1", server.http.port))
        for deed in (
            server.models,
            lambda: server.metadata("add_sub"),
            lambda: server.reload("add_sub"),
            lambda: server.statistics("add_sub"),
        ):
            with pytest.raises(ServerError, match="process that owned it"):
                deed()
        assert not server.is_alive() and not server.is_ready()
        assert taken.requests == []
