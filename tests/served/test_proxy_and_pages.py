"""A proxy of the site, which no request to a server goes through, and web pages where a server was expected."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import numpy as np
import pytest

from helpers import machine
from helpers.client import Client
from helpers.client.endpoint import Address
from helpers.errors import NotAServerError, ServerError
from helpers.server import Server, connect
from helpers.setup import lab
from tests.support.listener import Heard, listener

ONES = np.ones(16, np.float32)
# No resolver knows it, so that only a proxy would lead there.
ELSEWHERE = "gpu-node.invalid:9000"
_VARIABLES = [name for stem in ("http", "https", "all", "no", "grpc", "no_grpc") for name in (f"{stem}_proxy", f"{stem}_proxy".upper())]


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Heard]:
    """A site whose proxy everything must take."""
    for name in _VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with listener() as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
        yield proxy


def test_no_proxy_of_the_site_is_asked_for_a_server(site: Heard, models_server: Server) -> None:
    for scheme in ("", "http://", "grpc://", "https://", "grpcs://"):
        with pytest.raises(ServerError, match="gpu-node"):
            connect(f"{scheme}{ELSEWHERE}")
    here = f"127.0.0.1:{models_server.http.port}"
    assert connect(here).is_ready() and connect(f"localhost:{models_server.http.port}").is_ready()
    for place, protocol in ((here, "http"), (models_server, "grpc")):
        with Client(place, protocol) as client:
            assert client.infer("add_sub", INPUT0=ONES, INPUT1=ONES)["OUTPUT0"].tolist() == [2] * 16
    assert site.requests == []


@pytest.mark.parametrize("before", [{}, {"no_proxy": "inside.site"}, {"NO_PROXY": "inside.site, 10.0.0.1"}, {"no_proxy": "localhost"}])
def test_kernels_of_make_lab_ask_no_proxy_for_this_machine(site: Heard, before: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    after = lab.environment()
    for name in ("no_proxy", "NO_PROXY"):
        parts = [part.strip() for part in after[name].split(",")]
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
