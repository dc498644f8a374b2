"""A proxy of the site between us and a server, and web pages where a server was expected."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator

import numpy as np
import pytest

from helpers import machine, scrape
from helpers.client import Client
from helpers.client.endpoint import Address
from helpers.errors import AccessError, ModelError, NotAServerError
from helpers.server import Server, connect
from helpers.setup import lab
from tests.support.listener import Heard, listener

ONES = np.ones(16, np.float32)
# No resolver knows it, so that only a proxy leads there.
ELSEWHERE = "gpu-node.invalid:9000"
_VARIABLES = [name for stem in ("http", "https", "all", "no", "grpc", "no_grpc") for name in (f"{stem}_proxy", f"{stem}_proxy".upper())]


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Heard]:
    """A site whose proxy everything must take."""
    for name in _VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with listener() as proxy:
        monkeypatch.setenv("http_proxy", f"http://ann:se%40cret@127.0.0.1:{proxy.port}")
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
        yield proxy


def test_a_proxy_leads_to_the_server_for_every_way_over_http(site: Heard, models_server: Server) -> None:
    site.passes_on_to = models_server.http.port
    there = connect(ELSEWHERE)
    assert there.http_url == ELSEWHERE and there.metadata()["name"] == models_server.metadata()["name"]
    for place in (there, f"http://{ELSEWHERE}"):
        with Client(place, protocol="http") as client:
            assert client.infer("add_sub", INPUT0=ONES, INPUT1=ONES)["OUTPUT0"].tolist() == [2] * 16
    assert all(target.startswith(f"http://{ELSEWHERE}/v2") for target, _ in site.requests)
    who = f"Basic {base64.b64encode(b'ann:se@cret').decode()}"
    assert {headers.get("Proxy-Authorization", headers.get("Proxy-authorization")) for _, headers in site.requests} == {who}
    with pytest.raises(ModelError, match="nosuch"), Client(there) as client:
        client.infer("nosuch", X=ONES)


@pytest.mark.parametrize("status", [403, 407, 502, 503, 504])
@pytest.mark.parametrize("words", [b"<html><title>ERR</title><style>b {}</style><b>Access denied.</b></html>", b"", b"no"])
def test_a_proxys_refusal_is_named_as_one(site: Heard, status: int, words: bytes) -> None:
    site.answer = (status, {}, words)
    for deed in (
        lambda: connect(ELSEWHERE),
        lambda: connect(ELSEWHERE, token="a-token-of-a-class"),
        lambda: Client(f"http://{ELSEWHERE}").infer("add_sub", INPUT0=ONES, INPUT1=ONES),
        lambda: scrape("gpu-node.invalid:9002"),
    ):
        with pytest.raises(AccessError) as refused:
            deed()
        said = str(refused.value)
        assert f"went to the proxy 127.0.0.1:{site.port} of your site" in said and str(status) in said
        assert "export no_proxy=gpu-node.invalid" in said and "token" not in said and "se@cret" not in said and "<" not in said


@pytest.mark.parametrize("url", [f"https://{ELSEWHERE}", f"grpc://{ELSEWHERE}", f"grpcs://{ELSEWHERE}"])
def test_a_tunnel_that_a_proxy_refuses_is_named(site: Heard, url: str) -> None:
    site.answer = (403, {}, b"denied")
    with pytest.raises(AccessError, match=r"to the proxy.* of your site, which did not pass it on .*403"):
        connect(url)
    with pytest.raises(AccessError, match=r"to the proxy.* of your site"), Client(url) as client:
        client.metadata("add_sub")


def test_a_servers_own_refusal_that_came_by_a_proxy_stays_its_own(site: Heard) -> None:
    site.answer = (403, {"Content-Type": "application/json"}, b'{"error":"This API is restricted, expecting header \'authorization\'"}')
    with pytest.raises(AccessError, match="wants a token"):
        connect(ELSEWHERE)


def test_no_proxy_is_asked_for_what_it_leaves_out_nor_for_this_machine(
    site: Heard, models_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "gpu-node.invalid")
    for deed in (lambda: connect(ELSEWHERE), lambda: Client(f"http://{ELSEWHERE}").metadata("add_sub")):
        with pytest.raises(Exception, match="gpu-node"):
            deed()
    here = f"127.0.0.1:{models_server.http.port}"
    assert connect(here).is_ready() and connect(f"localhost:{models_server.http.port}").is_ready()
    with Client(f"http://{here}") as client:
        assert client.metadata("add_sub")
    assert site.requests == []


@pytest.mark.parametrize("before", [{}, {"no_proxy": "inside.site"}, {"NO_PROXY": "inside.site, 10.0.0.1"}, {"no_proxy": "localhost"}])
def test_kernels_of_make_lab_ask_no_proxy_for_this_machine(site: Heard, before: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    after = lab.environment()
    for name in ("no_proxy", "NO_PROXY"):
        parts = after[name].split(",")
        assert {"localhost", "127.0.0.1", *(re.split(r",\s*", next(iter(before.values()))) if before else [])} <= set(parts)
    with monkeypatch.context() as kernel:
        for name, value in after.items():
            kernel.setenv(name, value)
        import requests

        with listener() as server:
            assert requests.get(f"http://localhost:{server.port}/v2/health/ready", timeout=10).status_code == 200
    assert site.requests == [] and machine.without_proxy(os.environ)["no_proxy"]


# --- pages -----------------------------------------------------------------------------------------------------------------

PAGES = {
    "html": b"<!doctype html><html><body>Welcome</body></html>",
    "empty": b"",
    "empty object": b"{}",
    "list": b"[]",
    "number": b"1",
    "text": b"OK",
    "status": b'{"status": "ok"}',
    "broken": b'{"name": ',
    "deep": b"[" * 100_000,
    "binary": bytes(range(256)),
}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_that_answers_to_everything_is_no_server(page: str) -> None:
    with listener() as web:
        web.answer = (200, {"Content-Type": "text/html"}, PAGES[page])
        for url in (f"127.0.0.1:{web.port}", f"http://127.0.0.1:{web.port}"):
            with pytest.raises(NotAServerError, match=f"127.0.0.1:{web.port} is no Triton server.*http_url"):
                connect(url)
        with Client(f"http://127.0.0.1:{web.port}") as client:
            for deed in (lambda: client.metadata("add_sub"), lambda: client.infer("add_sub", INPUT0=ONES, INPUT1=ONES)):
                with pytest.raises(NotAServerError, match="is no Triton server"):
                    deed()
        there = Server(Address("127.0.0.1", web.port), None, None)
        for question in (there.metadata, lambda: there.metadata("add_sub"), lambda: there.config("add_sub"), lambda: there.statistics("x")):
            with pytest.raises(NotAServerError):
                question()
