"""Inference that needs the server's own secret: who asks for it, how the course's tools find it, and that nothing is needed without."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient

from helpers import Client, connect, launch_fleet, launch_server, paths
from helpers.__main__ import main
from helpers.client.endpoint import NO_ACCESS, parse_address, with_own_secret
from helpers.errors import AccessError
from helpers.fleet import Fleet, envoy
from helpers.measuring.measure import measure, sweep
from helpers.measuring.perf_analyzer import perf_analyzer
from helpers.metrics.load import BackgroundLoad
from helpers.scaling.analysis import destination, local_workers, replicate, tag_files
from helpers.server import Server
from helpers.server.listening import PRIVATE_VARIABLE
from tests.support.memory import shared
from tests.support.processes import wait_until

X = np.arange(16, dtype=np.float32)
BODY = {"inputs": [{"name": name, "shape": [16], "datatype": "FP32", "data": X.tolist()} for name in ("INPUT0", "INPUT1")]}


@pytest.fixture(scope="module")
def private(free_base_port) -> Iterator[Server]:
    with launch_server("models", load=["add_sub"], base_port=free_base_port(), private=True, name="private") as server:
        yield server


@pytest.fixture(scope="module")
def private_fleet(free_base_port) -> Iterator[Fleet]:
    load = ["add_sub", "particlenet_AK4"]
    with launch_fleet("models", load=load, base_port=free_base_port(), private=True, name="private") as fleet:
        yield fleet


@pytest.fixture(params=["private", "private_fleet"])
def secret(request: pytest.FixtureRequest) -> Server | Fleet:
    return request.getfixturevalue(request.param)


def _raw(server: Server | Fleet, headers: dict[str, str] | None) -> None:
    """As the notebooks send requests by hand."""
    by_grpc, by_http = grpcclient.InferenceServerClient(server.grpc_url), httpclient.InferenceServerClient(server.http_url)
    for client, library in ((by_grpc, grpcclient), (by_http, httpclient)):
        with client:
            inputs = [library.InferInput(name, [16], "FP32").set_data_from_numpy(X) for name in ("INPUT0", "INPUT1")]
            # A copy: tritonclient's HTTP client writes headers of its own into what it is given.
            assert np.array_equal(client.infer("add_sub", inputs, headers=dict(headers or {})).as_numpy("OUTPUT0"), X + X)
    answer = requests.post(f"http://{server.http_url}/v2/models/add_sub/infer", json=BODY, headers=headers, timeout=30)
    assert answer.json()["outputs"][0]["data"] == (X + X).tolist()


def test_raw_requests_carry_the_headers(secret: Server | Fleet) -> None:
    assert set(secret.headers) == {"authorization", "triton-grpc-protocol-authorization"}
    _raw(secret, secret.headers)
    for wrong in (None, {"authorization": "Bearer guess"}):
        refused = requests.post(f"http://{secret.http_url}/v2/models/add_sub/infer", json=BODY, headers=wrong, timeout=30)
        assert refused.status_code == 403 and "restricted" in refused.text
    # What the course text types in a terminal goes on working.
    for path in ("/v2", "/v2/health/ready", "/v2/models/add_sub", "/v2/models/add_sub/config"):
        assert requests.get(f"http://{secret.http_url}{path}", timeout=30).status_code == 200


def test_without_it_nothing_is_needed(server: Server) -> None:
    if server.token:
        pytest.skip("this run has COURSE_PRIVATE=yes")
    assert server.headers == {} and server.headers_file is None
    _raw(server, None)
    _raw(server, server.headers)
    assert "open to this whole machine" in " ".join(repr(server).split())


def test_the_owners_programs_find_the_secret(secret: Server | Fleet) -> None:
    assert "needs server.headers" in repr(secret)
    ways: list[object] = [secret, connect(secret.http_url), secret.grpc_url, secret.http.http(), destination(secret)]
    if isinstance(secret, Server):
        ways.append(connect(f"grpc://{secret.grpc_url}"))
    for way in ways:
        with Client(way) as client:
            assert np.array_equal(client.infer("add_sub", INPUT0=X, INPUT1=X)["OUTPUT0"], X + X)
            assert len(client.infer_many("add_sub", [{"INPUT0": X, "INPUT1": X}] * 3)) == 3
            assert client.infer_many("add_sub", [{"INPUT0": X, "INPUT1": X}])
    assert connect(secret.http_url).headers == secret.headers
    given = connect(secret.http_url, token="a-token-of-somebody")
    assert given.headers["authorization"] == "Bearer a-token-of-somebody", "what was given counts"
    with Client(given) as client, pytest.raises(AccessError, match="does not accept the token"):
        client.infer("add_sub", INPUT0=X, INPUT1=X)


def test_only_the_own_server_gets_it(private: Server) -> None:
    assert with_own_secret(NO_ACCESS, parse_address(private.http_url)).token
    for url in (f"gpu-node:{private.http.port}", f"[::1]:{private.http.port}", f"localhost:{private.metrics.port + 1}"):
        assert with_own_secret(NO_ACCESS, parse_address(url)) is NO_ACCESS


@pytest.mark.slow
def test_measurements_and_loads_send_it(secret: Server | Fleet, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COURSE_QUICK", "1")
    assert main(["perf_analyzer", "-m", "add_sub", "-u", secret.grpc_url, "-i", "grpc", "-p", "300", "--max-trials", "3"]) in (0, 2)
    assert secret.token not in capfd.readouterr().out
    assert perf_analyzer(f"-m add_sub -u {secret.http_url} -p 300 --max-trials 3") in (0, 2)
    target = secret if isinstance(secret, Server) else secret.grpc_url
    assert measure(target, "add_sub")["throughput_infer_per_s"] > 0
    with BackgroundLoad(secret, "add_sub") as load:
        wait_until(lambda: load.sent > 5)
    assert load.failed == 0


@pytest.mark.slow
def test_a_sweep_sends_it(private: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COURSE_QUICK", "1")
    for target in (private, private.grpc_url):
        rows = sweep(target, "add_sub", (1,), (1, 2), output=tmp_path / str(target is private))
        assert (rows["throughput_infer_per_s"] > 0).tolist() == [True, True]


def test_an_analysis_on_dask_workers_sends_it(private_fleet: Fleet, tmp_path: Path) -> None:
    files = replicate("ak4", 200, jets_per_file=100, folder=tmp_path)
    with local_workers(1) as cluster:
        done = tag_files(files, cluster, private_fleet, "particlenet_AK4", output=tmp_path / "scores", jets_per_chunk=50)
    assert done.check() == {"jets": 200, "lost": 0, "doubled": 0}


def test_tensors_in_shared_memory(private: Server) -> None:
    with shared(private, "add_sub", {"INPUT0": X, "INPUT1": X}) as answer:
        assert np.array_equal(answer.as_numpy("OUTPUT0"), X + X)


def test_commands_find_it(secret: Server | Fleet, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["infer", "-m", "add_sub", "-u", secret.grpc_url]) == 0
    assert main(["infer", "-m", "add_sub", "-u", secret.http_url, "-p", "http"]) == 0
    assert secret.token not in capfd.readouterr().out


def test_curl_reads_the_file(secret: Server | Fleet, tmp_path: Path) -> None:
    """As `python -m helpers serve` tells it: what is typed stands in the list of processes, so the secret is in a file."""
    assert secret.headers_file is not None
    headers = dict(line.split(": ", 1) for line in secret.headers_file.read_text().splitlines())
    assert headers == secret.headers
    assert (secret.headers_file.parent.stat().st_mode & 0o077) == 0


@pytest.mark.slow
def test_a_single_server_gets_a_new_secret_and_a_fleets_server_keeps_it(free_base_port, private_fleet: Fleet) -> None:
    server = launch_server("models", load=["add_sub"], base_port=free_base_port(), private=True, name="again")
    first = server.token
    with server.restart() as again:
        assert again.token not in ("", first)
        _raw(again, again.headers)
        assert launch_server("models", load=["add_sub"], name="again").token == again.token
    one = private_fleet.servers[0].restart()
    assert one.token == private_fleet.token == private_fleet.grow().token


@pytest.mark.parametrize(("arguments", "words"), [(["--private"], "course"), (["--open"], ""), ([], "course")])
def test_serve_says_which(arguments: list[str], words: str, free_base_port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PRIVATE_VARIABLE, "yes")
    command = [sys.executable, "-m", "helpers", "serve", "--base-port", str(free_base_port()), "--dry-run", *arguments]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert ("-restricted-api=inference:authorization=Bearer $COURSE_TOKEN" in said) == bool(words)


@pytest.mark.parametrize("runtime", ["embedded", "apptainer", "docker"])
def test_the_command_of_each_runtime_restricts_inference_and_shows_no_secret(runtime: str, capsys: pytest.CaptureFixture[str]) -> None:
    launch_server("models", runtime=runtime, private=True, dry_run=True)
    said = capsys.readouterr().out
    for option in ("http-restricted-api", "grpc-restricted-protocol"):
        assert f"--{option}=inference:authorization=Bearer $COURSE_TOKEN" in said
    assert 'string_match: { exact: "Bearer $COURSE_TOKEN" }' in envoy.configuration(Path("/private"), "$COURSE_TOKEN")


@pytest.mark.slow
def test_serve_tells_where_the_secret_is_and_not_what_it_is(free_base_port, tmp_path: Path) -> None:
    shutil.copytree(paths.models_dir() / "add_sub", tmp_path / "models" / "add_sub")
    models, port = str(tmp_path / "models"), str(free_base_port())
    command = [sys.executable, "-m", "helpers", "serve", "--models", models, "--private", "--base-port", port]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said: list[str] = []
            while not said or "Ctrl-C" not in said[-1]:
                said.append(process.stdout.readline())
                assert said[-1], "it ended"
            typed = next(line.split() for line in said if "curl -H @" in line)
            headers = dict(line.split(": ", 1) for line in Path(typed[2][1:]).read_text().splitlines())
            url = typed[-1].replace(typed[-1].split("/models/")[1], "add_sub/infer")
            assert requests.post(url, json=BODY, timeout=30).status_code == 403
            assert requests.post(url, json=BODY, headers=headers, timeout=30).status_code == 200
            assert headers["authorization"].removeprefix("Bearer ") not in "".join(said)
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate()


@pytest.mark.parametrize("options", [{"listen": "all"}])
def test_what_others_reach_is_never_open(options: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    launch_server("models", private=False, dry_run=True, **options)
    assert "authorization=Bearer $COURSE_TOKEN" in capsys.readouterr().out


def test_an_instructors_word_that_is_no_no_means_yes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for said, private in (("perhaps", True), ("yes", True), ("no", False), ("0", False)):
        monkeypatch.setenv(PRIVATE_VARIABLE, said)
        launch_server("models", dry_run=True)
        assert ("COURSE_TOKEN" in capsys.readouterr().out) is private
