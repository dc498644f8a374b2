"""Several servers behind one real Envoy: one address, shares, growing under load, what the front lets through."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from helpers import Client, launch_fleet, measure, paths, scrape
from helpers.__main__ import main
from helpers.client import http
from helpers.errors import InputError, RequestError
from helpers.fleet import Fleet, envoy
from helpers.measuring.measure import Measurement
from helpers.measuring.perf_analyzer import execute
from tests.support import MODELS_FOR_TESTS
from tests.support.fleet_load import Load as Requests
from tests.support.processes import PATIENCE_S, alive, listening, session, wait_until


def test_the_card_says_where_it_is_and_what_each_server_did(fleet: Fleet) -> None:
    page, text = fleet._repr_html_(), repr(fleet)
    for words in (fleet.http_url, fleet.grpc_url, "running", *(server.http_url for server in fleet.servers)):
        assert words in text
        assert words in page
    assert fleet.is_alive()
    assert fleet.is_ready()
    assert fleet.in_rotation() == [True, True]
    states = {model.name: model.state for model in fleet.models()}
    assert states == {"double": "READY", "slow": "READY", "broken": "UNAVAILABLE"}


def test_only_loopback_is_listened_to_and_the_admin_page_is_private(fleet: Fleet) -> None:
    assert listening(session(fleet.pid)) == {("127.0.0.1", fleet.http.port), ("127.0.0.1", fleet.grpc.port)}
    folder = fleet._lease.run_dir
    place = folder / "admin"
    assert stat.S_ISSOCK(place.stat().st_mode)
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
    assert "version" in envoy.admin(folder, "/server_info")
    assert f"port_value: {fleet.http.port}" in (folder / envoy.FILE).read_text()


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_requests_are_split_and_every_one_is_counted_once(fleet: Fleet, protocol: str) -> None:
    before = fleet.snapshot()
    with Client(fleet, protocol) as client:
        inputs = [{"X": np.full((2, 3), number, np.float32)} for number in range(60)]
        for given, answer in zip(inputs, client.infer_many("double", inputs), strict=True):
            np.testing.assert_array_equal(answer["Y"], 2 * given["X"])
    # A server counts a request a moment after it has answered.
    wait_until(lambda: sum(row["requests"] for row in fleet.shares(before)) >= 60)
    rows = fleet.shares(before)
    assert [row["server"] for row in rows] == [server.http_url for server in fleet.servers]
    assert sum(row["requests"] for row in rows) == 60
    assert sum(row["inferences"] for row in rows) == 120
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    assert all(row["share"] > 0.2 and row["queue_us"] > 0 for row in rows)
    assert fleet.shares(before, model="slow")[0]["requests"] == 0
    with pytest.raises(InputError, match=r"scrape\(fleet\.servers\[0\]\)"):
        scrape(fleet)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_request_larger_than_what_the_front_keeps_passes(fleet: Fleet, protocol: str) -> None:
    """A hundred taus have 42 MB, and the front keeps 32 of a request: it then sends the rest as it comes."""
    given = np.arange(11_000_000, dtype=np.float32).reshape(1, -1)
    with Client(fleet, protocol) as client:
        np.testing.assert_array_equal(client.infer("double", X=given)["Y"], 2 * given)


def test_administration_stops_at_the_front_even_with_the_key(fleet: Fleet) -> None:
    key = fleet.servers[0].admin_headers("http")
    assert http.ask(fleet.servers[0].http, "/v2/logging", headers=key)  # with it the server itself says yes
    calls = [
        *("/v2/repository/index", "/v2/repository/models/double/load", "/v2/repository/models/double/unload", "/v2/logging"),
        *("/v2/systemsharedmemory/status", "/v2/systemsharedmemory/region/x/register", "/v2/cudasharedmemory/unregister"),
        *("/v2/trace/setting", "/v2/models/double/trace/setting", "/v2//repository/index", "/v2/models/../repository/index"),
    ]
    for call in calls:
        with pytest.raises(RequestError, match="lets no administration through"):
            http.ask(fleet.http, call, {}, headers=key)
    with pytest.raises(RequestError, match="400"):
        http.ask(fleet.http, "/v2/models/double%2Ftrace%2Fsetting", headers=key)
    headers = fleet.servers[0].admin_headers("grpc")
    with triton_grpc.InferenceServerClient(fleet.grpc_url) as client:
        asks: list[Callable[[], object]] = [
            lambda: client.get_model_repository_index(headers=headers),
            lambda: client.load_model("double", headers=headers),
            lambda: client.unload_model("double", headers=headers),
            lambda: client.get_system_shared_memory_status(headers=headers),
            lambda: client.register_system_shared_memory("x", "/x", 8, headers=headers),
            lambda: client.unregister_cuda_shared_memory(headers=headers),
            lambda: client.get_trace_settings(headers=headers),
            lambda: client.get_log_settings(headers=headers),
        ]
        for ask in asks:
            with pytest.raises(InferenceServerException, match="lets no administration through") as refused:
                ask()
            assert refused.value.status() == "StatusCode.PERMISSION_DENIED"
        assert client.is_server_ready()
        assert client.get_inference_statistics("double").model_stats


def test_errors_keep_their_sense_behind_the_front(fleet: Fleet) -> None:
    with Client(fleet) as client:
        with pytest.raises(Exception, match=r"'doubel' is not loaded.*Did you mean 'double'"):
            client.infer("doubel", X=np.ones((1, 3), np.float32))
        with pytest.raises(RequestError, match="a negative time cannot be slept"):
            client.infer("slow", SECONDS=np.float32([-1]))
    with pytest.raises(RequestError, match="does not answer in GRPC"):
        Client(fleet.http_url, protocol="grpc").metadata("double")


def test_perf_analyzer_measures_through_the_front(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COURSE_QUICK", "1")
    before = fleet.snapshot()
    row = measure(fleet, "double", batch=2, concurrency=2, lengths={"X": 3})
    assert row["url"] == f"127.0.0.1:{fleet.grpc.port}"
    assert row["throughput_infer_per_s"] > 0
    # Times of one server, or a difference between two of them, are no times of the fleet.
    assert row["compute_infer_us"] is None and row["queue_us"] is None and row["latency_avg_us"] is None
    rows = fleet.shares(before)
    assert all(row["share"] > 0.2 for row in rows)
    assert sum(one["requests"] for one in rows) >= row["requests"]


@pytest.mark.nightly
def test_a_window_in_which_the_server_with_the_counters_had_nothing_to_do(fleet: Fleet, tmp_path: Path) -> None:
    """The tool then says that it cannot find the version of the model, which is there on both servers."""
    inputs = tmp_path / "two_a_window.json"
    inputs.write_text(json.dumps({"data": [{"SECONDS": {"content": [0.1], "shape": [1]}}]}))
    run = replace(Measurement(fleet, "slow", input_data=inputs).run, window_ms=250)
    for _ in range(8):
        execute(run, server=fleet)  # was an error in every other run
    assert measure(fleet, "slow", input_data=inputs, max_seconds=1)["throughput_infer_per_s"] > 0


@pytest.mark.slow
def test_a_server_that_is_busy_is_avoided(fleet: Fleet) -> None:
    busy, _ = fleet.servers
    with Client(busy) as beside, Client(fleet) as client, ThreadPoolExecutor(4) as bed:
        # Four sleeps for its two instances: whoever comes after them waits for two of them. A crowded machine needs longer ones.
        for seconds in (1.0, 4.0, 16.0):
            before = fleet.snapshot()
            sleeping = [bed.submit(beside.infer, "slow", SECONDS=np.float32([seconds])) for _ in range(4)]
            wait_until(lambda: scrape(busy).value("nv_inference_pending_request_count", model="slow") == 2)
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(lambda _: client.infer("slow", SECONDS=np.float32([0.02])), range(40)))
            woken = all(answer.done() for answer in sleeping)
            for answer in sleeping:
                answer.result()
            if not woken:
                break
        wait_until(lambda: sum(row["requests"] for row in fleet.shares(before)) >= 44)
        asked = {row["server"]: row["requests"] for row in fleet.shares(before)}
    # The four beside end meanwhile. Of the forty both got two at first; from then on the busy one never had fewer under way.
    assert sum(asked.values()) == 44
    assert asked[busy.http_url] <= 4 + 6


def test_launching_again_returns_the_same_fleet(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    pids = [server.pid for server in fleet.servers]
    again = launch_fleet(fleet.repository, base_port=fleet.http.port, servers=2, grace_s=7.0)
    assert again is fleet
    assert "same fleet as before. For other options, type: fleet = fleet.restart" in capsys.readouterr().out
    assert [server.pid for server in again.servers] == pids


@pytest.mark.slow
def test_growing_loses_no_request(fleet: Fleet) -> None:
    with Requests(fleet, threads=4) as load:
        third = fleet.grow()
        assert len(fleet.servers) == 3
        assert fleet.in_rotation() == [True, True, True]
        before = fleet.snapshot()
        wait_until(lambda: (fleet.shares(before)[2]["requests"] or 0) >= 20)
        assert third is fleet.servers[2] and third.grpc.port in envoy.healthy(fleet._lease.run_dir)
        load.more(50)
    assert load.wrong == []
    assert load.answers == load.requests
    assert load.retried == 0
    third.stop()
    fleet._adopt(fleet.servers[:2])  # as the next test has it


def test_numbers_of_servers_that_make_no_sense() -> None:
    for number in (0, -1):
        with pytest.raises(InputError, match="Expected 1 or more"):
            launch_fleet(servers=number)


@pytest.mark.slow
def test_serve_gives_one_address_and_ctrl_c_ends_all(free_base_port: Callable[[], int], tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "double").symlink_to(MODELS_FOR_TESTS / "double")
    words = ["serve", "--servers", "2", "--models", str(tmp_path / "models"), "--base-port", str(free_base_port())]
    command = [sys.executable, "-m", "helpers", *words]
    serving = subprocess.Popen(command, cwd=paths.root(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    assert serving.stdout is not None
    lines: list[str] = []
    while not lines or not lines[-1].startswith("Stop the servers here"):
        lines.append(serving.stdout.readline())
        assert lines[-1], serving.communicate()
    (infer,) = [line.split() for line in lines if "helpers infer" in line]
    assert main(infer[3:]) == 0
    ports = {int(line.split()[1].rsplit(":", 1)[1]) for line in lines if line.startswith(("  HTTP", "  gRPC"))}
    assert len(ports) == 2
    assert sum("running  yes" in line for line in lines) == 2
    pid = int(next(line.split()[2] for line in lines if line.startswith("  front's pid")))
    serving.send_signal(signal.SIGINT)
    out, errors = serving.communicate(timeout=PATIENCE_S)
    assert (serving.returncode, errors) == (0, "")
    assert out.endswith("Stopped.\n")
    assert not alive(pid)
    for port in [*ports, *(int(line.split()[0].rsplit(":", 1)[1]) for line in lines if "running  yes" in line)]:
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", port))


@pytest.mark.parametrize("options", [{"listen": "all"}, {"listen": "all", "token": "t" * 12}, {"dry_run": True}])
def test_a_fleet_serves_its_own_machine_alone(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"given (listen='all'|dry_run=True).*serves its own machine alone.*launch_server"):
        launch_fleet("models", servers=1, **options)
