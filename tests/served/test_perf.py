"""Measurements with the real perf_analyzer on a real server."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import machine, paths, plots
from helpers.errors import InputError, ModelError, RequestError, SetupError
from helpers.measuring import input_files
from helpers.measuring import measure as measuring
from helpers.measuring.input_files import write_taus
from helpers.measuring.measure import Measurement, measure, measure_in_turn, sweep
from helpers.measuring.perf_analyzer import Result, Run, Window, execute, perf_analyzer, result_of
from helpers.measuring.statistics import verdict
from helpers.measuring.table import COLUMNS, PARTS, is_recorded, rows_of
from helpers.metrics import scrape
from helpers.physics.tracks import load_events
from helpers.server import Server, connect

# Of one run of three windows no more can be asked for.
QUICK = {"precision": 0.9}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One short run; a window that holds no request is tried again, twice as long."""
    monkeypatch.setenv("COURSE_QUICK", "1")
    monkeypatch.setattr(measuring, "WARM_UP_MS", 50)
    monkeypatch.setattr(measuring, "QUICK_WINDOW_S", (0.05, 2.0))


def run_of(server: Any, model: str, **options: Any) -> Run:
    return Measurement(server, model, **options).run


def option(command: list[str] | str, name: str) -> str:
    words = command.split() if isinstance(command, str) else command
    return words[words.index(name) + 1]


@contextmanager
def tunnel(port: int) -> Iterator[int]:
    """The port of a process of its own that hands every byte on to a port of this machine, as ssh -L does."""
    program = [sys.executable, "-m", "tests.support.tunnel", str(port)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True, cwd=paths.root()) as process:
        try:
            yield int(process.stdout.readline())  # type: ignore[union-attr]
        finally:
            process.kill()


# --- the command -----------------------------------------------------------------------------------------------------------


def test_a_run_is_the_command_of_the_course_text() -> None:
    shapes = {"pf_points__0": [2, 50], "pf_features__1": [25, 50], "pf_mask__2": [1, 50]}
    run = Run("particlenet_PT", "localhost:9001", batch=10, shapes=shapes, window_ms=9000)
    expected = (
        "perf_analyzer -m particlenet_PT -u localhost:9001 -i grpc -b 10 --percentile=95 --concurrency-range 1 --async -p 9000 "
        "--max-trials 3 --stability-percentage 1000000 "
        "--shape pf_points__0:2,50 --shape pf_features__1:25,50 --shape pf_mask__2:1,50"
    )
    assert str(run) == expected


def test_other_loads_and_inputs_in_the_command() -> None:
    run = Run("m", "h:1", "http", request_rate_per_s=12.5, input_data=Path("/a b/x.json"))
    words = run.arguments()
    assert option(words, "--request-rate-range") == "12.5" and option(words, "--input-data") == "/a b/x.json"
    assert "--concurrency-range" not in words
    assert str(run).endswith("--input-data '/a b/x.json'")


def test_shapes_from_the_metadata_and_the_lengths(models_server: Server) -> None:
    assert run_of(models_server, "double", lengths={"X": 7}).shapes == {"X": [7]}
    assert run_of(models_server, "double", lengths={"X": 3}, batch=4).batch == 4
    assert run_of(models_server, "add_sub").shapes == {}
    # Not the name: it can mean ::1, too, and the tool carries secrets.
    assert run_of(models_server.grpc_url, "add_sub").url == f"127.0.0.1:{models_server.grpc.port}"


@pytest.mark.parametrize(
    ("model", "options", "kind", "words"),
    [
        ("double", {}, InputError, "axis of any length.*lengths="),
        ("double", {"lengths": {"X": 3}, "batch": 5}, InputError, "from 1 to 4: its max_batch_size"),
        ("double", {"lengths": {"X": 3}, "batch": 0}, InputError, "batch=0"),
        ("add_sub", {"batch": 2}, InputError, "from 1 to 1: its max_batch_size is 0"),
        ("add_sub", {"input_data": "nowhere.json"}, InputError, "no file of inputs"),
        ("doubel", {}, ModelError, "not loaded"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_runs(
    models_server: Server, model: str, options: dict, kind: type[Exception], words: str
) -> None:
    before = scrape(models_server).value("nv_inference_request_success")
    with pytest.raises(kind, match=words):
        measure(models_server, model, **options)
    assert scrape(models_server).value("nv_inference_request_success") == before


def test_no_load_to_compare_is_named(models_server: Server) -> None:
    with pytest.raises(InputError, match=r"none was given.*measure_in_turn\(server, model, "):
        measure_in_turn(models_server, "add_sub", batch=1)


def test_jets_have_the_lengths_of_the_course_text_by_default(server: Server) -> None:
    shapes = run_of(server, "particlenet_PT").shapes
    expected = {"pf_points__0": [2, 50], "pf_features__1": [25, 50], "pf_mask__2": [1, 50]}
    assert shapes == expected | {"sv_points__3": [2, 4], "sv_features__4": [11, 4], "sv_mask__5": [1, 4]}
    assert run_of(server, "particlenet_PT", lengths={"pf": 100}).shapes["pf_mask__2"] == [1, 100]


def test_nobody_there() -> None:
    with pytest.raises(RequestError, match=r"localhost:9 cannot be reached.*refused"):
        measure("localhost:9", "add_sub")
    with pytest.raises(RequestError, match=r"perf_analyzer failed with 'add_sub'.*refused"):
        execute(Run("add_sub", "localhost:9"))


# --- measurements ----------------------------------------------------------------------------------------------------------


def test_where_the_tool_does_not_run_what_was_recorded_takes_its_place(
    server: Server, models_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("COURSE_SERVER_ENV", str(tmp_path / "server"))
    models = ["particlenet_AK4", "particlenet_AK4_PT"]
    rows = sweep(server, models, (1, 4, 16, 32), output=tmp_path / "out")
    said = capsys.readouterr().out
    assert "perf_analyzer" in said and "was recorded on another machine" in said and said.count("\n") == 1
    assert list(zip(rows["model"], rows["batch"], strict=True)) == [(model, batch) for model in models for batch in (1, 4, 16, 32)]
    one = measure(server, "particlenet_AK4", batch=4, concurrency=2)
    pair = measure_in_turn(server, "particlenet_AK4", {"batch": 8}, {"batch": 8, "concurrency": 2})
    assert (one["batch"], one["concurrency"]) == (4, 2) and [row["concurrency"] for row in pair] == [1, 2]
    long = sweep(server.grpc_url, "particlenet_AK4", (1, 4), (4,), lengths={"pf": 100, "sv": 10})
    taus = measure(server, "deeptau_nosplit", 16, 4, input_data=write_taus())
    assert all(is_recorded(row) for row in [*rows_of(rows), one, *pair, *rows_of(long), taus])
    assert all("pf_points:2,100" in shapes for shapes in long["shapes"]) and taus["inputs"] == "20_taus.json"
    words = " ".join(text.get_text() for text in plots.sweep_figure(rows).axes[0].texts)
    assert "Recorded" in words and "Measured" not in words
    # No load that was not recorded, no other inputs, and no model that may be another one.
    for asked, options in ((server, {"batch": 7}), (server, {"lengths": {"pf": 33}}), (server, {"request_rate_per_s": 5.0})):
        with pytest.raises(SetupError, match="No perf_analyzer runs on this machine"):
            measure(asked, "particlenet_AK4", **options)
    with pytest.raises(SetupError, match="No perf_analyzer"):
        sweep(models_server, "double", (1,), lengths={"X": 8})
    with pytest.raises(SetupError, match="No perf_analyzer"):
        sweep(server, "particlenet_AK4", (1, 2, 3, 4))  # 1 and 4 were recorded: all of them, or an error
    assert perf_analyzer("perf_analyzer -m particlenet_AK4") == 99 and "No perf_analyzer" in capsys.readouterr().out


def test_a_row_has_every_column_and_agrees_with_the_server(models_server: Server) -> None:
    before = scrape(models_server)
    row = measure(models_server, "add_sub", concurrency=2, **QUICK)
    after = scrape(models_server)
    assert list(row.index) == list(COLUMNS)
    assert (row["model"], row["batch"], row["concurrency"], row["inputs"], row["source"]) == ("add_sub", 1, 2, "random", "measured")
    assert (row["windows"], row["instances"], row["device"], row["server_version"]) == (3, 1, "CPU", "2.51.0")
    assert row["request_rate_per_s"] is None and row["cpu"] and row["time"].endswith("+00:00")
    assert row["latency_p50_us"] <= row["latency_p90_us"] <= row["latency_p95_us"] <= row["latency_p99_us"]
    assert sum(row[part] for part in PARTS) == pytest.approx(row["latency_avg_us"])
    # Two requests are under way at any time, or fewer where the tool waits for a core: Little's law.
    assert 0 < row["throughput_infer_per_s"] < 1.1 * 2e6 / row["latency_avg_us"]
    # What the tool counted, the server did, and the warm-up on top.
    assert 0 < row["requests"] < (after - before).value("nv_inference_request_success", model="add_sub")
    assert "add_sub" in repr(row) and "<td" in row._repr_html_() and len(row._repr_html_()) < 1500, "a row that is shown is narrow"


def test_the_command_is_the_one_that_ran(models_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of 20 ms hold no request of a model that takes longer; what gave the figures are longer ones."""
    monkeypatch.setattr(measuring, "QUICK_WINDOW_S", (0.02, 0.02))
    file = input_files.write(tmp_path / "seconds.json", [{"SECONDS": np.array([0.15], np.float32)}])
    row = measure(models_server, "slow", input_data=file, **QUICK)
    assert row["throughput_infer_per_s"] > 0
    used_ms = int(option(row["command"], "-p"))
    assert used_ms > 20 and math.log2(used_ms / 20) % 1 == 0


def test_the_end_of_a_tunnel_has_no_processor(models_server: Server) -> None:
    """A server behind an SSH tunnel has a loopback address, too: a process that is no tritonserver listens there."""
    with tunnel(models_server.grpc.port) as port:
        row = measure(f"localhost:{port}", "add_sub", **QUICK)
        assert (row["cpu"], row["device"]) == (None, "CPU")
        assert "on another machine" in repr(connect(f"grpc://localhost:{port}"))
    assert measure(models_server.grpc_url, "add_sub", **QUICK)["cpu"] == machine.cpu()
    assert "on another machine" not in repr(connect(models_server.grpc_url))


def test_a_row_that_is_not_good_enough_says_so_and_keeps_its_numbers(models_server: Server) -> None:
    row = measure(models_server, "add_sub", precision=1e-6)
    assert row["stable"] is False
    assert row["note"].startswith("throughput not within 0.0001%")
    assert row["throughput_infer_per_s"] > 0 and row["latency_p95_us"] > 0 and row["throughput_spread_infer_per_s"] > 0


def test_the_numbers_of_a_file_reach_the_model(models_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model sleeps as long as its input says: 60 ms, by turns with 20 ms."""
    monkeypatch.setattr(measuring, "WARM_UP_MS", 200)
    monkeypatch.setattr(measuring, "QUICK_REQUESTS", measuring.WINDOW_REQUESTS)
    entries = [{"SECONDS": np.array([seconds], np.float32)} for seconds in (0.06, 0.02)]
    file = input_files.write(tmp_path / "naps" / "naps.json", entries)
    row = measure(models_server, "slow", input_data=file, **QUICK)
    assert row["latency_avg_us"] > 38e3 and row["latency_p99_us"] > 59e3
    assert row["inputs"] == "naps.json" and option(row["command"], "--input-data") == str(file)
    # 15 requests of 40 ms do not fit into the shortest window.
    assert int(option(row["command"], "-p")) > 400


def test_batches_over_http(models_server: Server) -> None:
    before = scrape(models_server)
    row = measure(f"http://{models_server.http_url}", "double", lengths={"X": 8}, batch=2, **QUICK)
    assert (row["protocol"], row["url"]) == ("http", f"127.0.0.1:{models_server.http.port}")
    assert option(row["command"], "-i") == "http"
    risen = (scrape(models_server) - before).value("nv_inference_count", model="double")
    assert 0 < 2 * row["requests"] < risen


def test_a_request_rate(models_server: Server) -> None:
    row = measure(models_server, "add_sub", request_rate_per_s=50, **QUICK)
    assert row["concurrency"] is None and row["request_rate_per_s"] == 50
    assert 0 < row["throughput_infer_per_s"] < 1.25 * 50


@pytest.mark.nightly
def test_a_warm_up_takes_a_moment_or_as_long_as_some_requests_take(
    models_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows of the warm-up grow for a slow model alone."""
    runs: list[Run] = []

    def spy(run: Run, *others: Any) -> Any:
        runs.append(run)
        return execute(run, *others)

    monkeypatch.delenv("COURSE_QUICK")
    monkeypatch.setattr(measuring, "WARM_UP_MS", 200)
    monkeypatch.setattr(measuring, "WARM_UPS", 3)
    monkeypatch.setattr(measuring, "execute", spy)
    fast = measure(models_server, "add_sub", max_seconds=0.1)
    assert {run.window_ms for run in runs[:-2]} == {200} and [run.window_ms for run in runs[-2:]] == [400, 400]
    assert fast["throughput_infer_per_s"] > 0
    runs.clear()
    file = input_files.write(tmp_path / "naps.json", [{"SECONDS": np.array([0.15], np.float32)}])
    slow = measure(models_server, "slow", input_data=file, max_seconds=0.1)
    assert [run.window_ms for run in runs[:2]] == [200, 800], "four requests do not fit into the first try"
    # And the windows that count are as long as fifteen of its requests, as far as they may be.
    assert 0.9 * 15 * 150 < runs[-1].window_ms <= 1000 * measuring.WINDOW_S[1]
    assert 0 < slow["throughput_infer_per_s"] < 7


def test_a_model_that_fails_under_the_load(models_server: Server, tmp_path: Path) -> None:
    file = input_files.write(tmp_path / "wrong.json", [{"SECONDS": np.array([-1], np.float32)}])
    with pytest.raises(RequestError, match="perf_analyzer failed with 'slow'"):
        measure(models_server, "slow", input_data=file)
    with pytest.raises(RequestError, match=r"perf_analyzer failed with 'double'.*shape"):
        execute(Run("double", models_server.grpc_url, shapes={"X": [3, 3]}))


def test_what_the_tool_itself_refuses_is_quoted(models_server: Server) -> None:
    with pytest.raises(RequestError, match=r"perf_analyzer failed with 'add_sub' \(status \d+\): .*concurrency"):
        measure(models_server, "add_sub", concurrency=0)


def test_the_raw_tool_takes_a_whole_command(models_server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    command = f"perf_analyzer -m add_sub -u {models_server.grpc_url} \\\n  -i grpc -p 200 --max-trials 3 --stability-percentage 1000000"
    assert perf_analyzer(command) == 0
    assert "Throughput:" in capsys.readouterr().out
    assert perf_analyzer(f"-m nosuch -u {models_server.grpc_url} -i grpc") == 99
    assert "unknown model" in capsys.readouterr().out


def test_how_many_windows_is_decided_before_they_are_measured(models_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COURSE_QUICK")
    monkeypatch.setattr(measuring, "WINDOW_S", (0.1, 3.0))
    row = measure(models_server, "add_sub", max_seconds=0.1)
    assert row["windows"] == 6, "at least six, however short the time is"
    assert row["requests"] > 72, "and enough requests for both ends of a 95th percentile"
    assert row["latency_low_us"] <= row["latency_p95_us"] <= row["latency_high_us"]


@pytest.mark.parametrize(
    ("pilot", "seen", "windows"), [((500.0, 502.0, 498.0), (500.0, 20.0, 1900.0), 6), ((500.0, 900.0, 300.0), (500.0, 500.0, 500.0), 12)]
)
def test_what_windows_show_does_not_change_how_many_there_are(
    models_server: Server, monkeypatch: pytest.MonkeyPatch, pilot: tuple[float, ...], seen: tuple[float, ...], windows: int
) -> None:
    """A wild measurement does not go on, and a quiet one does not end sooner: else its interval would not hold."""

    def told(run: Run, server: Any) -> Result:
        rates, latency_us = pilot if run.percentile == 50 else seen, 2000.0
        figures = {"throughput_infer_per_s": float(np.mean(rates)), **{f"latency_p{each}_us": latency_us for each in (50, 90, 95, 99)}}
        return Result(figures, tuple(Window(rate, latency_us, 200) for rate in rates), 600)

    monkeypatch.delenv("COURSE_QUICK")
    monkeypatch.setattr(measuring, "execute", told)
    row = measure(models_server, "add_sub", max_seconds=5.0)
    assert row["windows"] == windows and row["stable"] == (windows == 12)


@pytest.mark.nightly
def test_loads_are_measured_in_turn_and_compared_pair_by_pair(
    models_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty milliseconds against forty: the ratio is two, by as many pairs as there were turns."""
    monkeypatch.delenv("COURSE_QUICK")
    files = [
        input_files.write(tmp_path / f"{name}.json", [{"SECONDS": np.array([seconds], np.float32)}])
        for name, seconds in (("long", 0.04), ("short", 0.02))
    ]
    before = scrape(models_server)
    slow, fast = measure_in_turn(models_server, "slow", *({"input_data": file} for file in files), turns=3)
    assert (slow["windows"], fast["windows"]) == (9, 9) and list(slow["turns"]) == list(fast["turns"])
    seen = verdict(slow, fast)
    assert seen.answer == "faster" and seen.pairs == 3 and seen.gain == pytest.approx(2, rel=0.25)
    assert slow["requests"] + fast["requests"] < (scrape(models_server) - before).value("nv_inference_request_success", model="slow")


# --- inputs ----------------------------------------------------------------------------------------------------------------


def test_jets_in_a_file_are_those_of_the_sample(server: Server, work: Path) -> None:
    import base64

    from helpers import jets
    from helpers.client import Client

    file = input_files.write_jets(server, "particlenet_AK4", lengths={"pf": 30})
    entries = json.loads(file.read_text())["data"]
    assert len(entries) == input_files.JETS
    with Client(server) as client:
        expected = jets.Tagger(client, "particlenet_AK4").inputs(jets.read("ak4")[: input_files.JETS], candidates=30, vertices=4)
    for name, tensor in expected.items():
        for entry, right in zip(entries, tensor, strict=True):
            assert entry[name]["shape"] == list(right.shape)
            given = np.frombuffer(base64.b64decode(entry[name]["content"]["b64"]), np.float32).reshape(right.shape)
            assert np.array_equal(given, right)
    with pytest.raises(InputError, match="no jet tagger"):
        input_files.write_jets(server, "add_sub")


def test_hits_keep_their_number_in_each_event(server: Server, work: Path) -> None:
    entries = json.loads(input_files.write_real(server, "ExaTrk").read_text())["data"]
    assert [entry["FEATURES"]["shape"] for entry in entries] == [[event.n_hits, 3] for event in load_events()]


# --- the course's own models -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_of_the_course_text_and_the_helper_agree(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """As printed there, but for the address and a tenth of the windows' time."""
    shapes = "--shape pf_points__0:2,50 --shape pf_features__1:25,50 --shape pf_mask__2:1,50 --shape sv_points__3:2,4"
    shapes += " --shape sv_features__4:11,4 --shape sv_mask__5:1,4"
    command = f"""perf_analyzer \\
        -m particlenet_PT --percentile=95 -i grpc --async -p 900 \\
        {shapes}\\
         -u {server.grpc_url} -i grpc --concurrency-range 1:1 -b 10"""
    # Three windows are enough to compare, whether they agree or not: here another test may keep a core busy.
    assert perf_analyzer(f"{command} -v --max-trials 3") in (0, 2)
    rates = [window.throughput_infer_per_s for window in result_of(capsys.readouterr().out).windows]
    assert len(rates) == 3
    row = measure(server, "particlenet_PT", batch=10, **QUICK)
    # Cores may come and go between the two. A wrong unit or batch is a factor of ten.
    assert 0.2 < np.mean(rates) / row["throughput_infer_per_s"] < 5, (rates, row)
    assert " ".join(f"--shape {name}" for name in row["command"].split("--shape ")[1:]).split() == shapes.split()


@pytest.mark.slow
def test_real_hits_are_measured_and_random_ones_are_refused(server: Server) -> None:
    with pytest.raises(RequestError, match=r"no finite number.*real inputs"):
        measure(server, "ExaTrk", lengths={"FEATURES": 300}, **QUICK)
    row = measure(server, "ExaTrk", input_data=input_files.write_real(server, "ExaTrk"), **QUICK)
    assert row["throughput_infer_per_s"] > 1 and row["instances"] is None
