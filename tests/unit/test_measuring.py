"""Where perf_analyzer does not run, notebooks 07 and 08 go on with recorded rows, and say so."""

from __future__ import annotations

import subprocess
import sys
from inspect import isfunction, ismodule
from pathlib import Path

import pytest

import helpers
from helpers import paths
from helpers.course import exercise
from helpers.course.judge import Kind
from helpers.errors import InputError, SetupError
from helpers.measuring import measure as measuring
from helpers.measuring.experiments import Experiments
from helpers.measuring.recorded import recorded, recorded_sweep, sweep_file
from helpers.measuring.statistics import verdict
from helpers.measuring.table import COLUMNS, PARTS, Rows, hardware, is_recorded, latency_words, rows_of
from helpers.paths import read_lines
from helpers.plots import sweep_figure
from helpers.setup.environments import EMBEDDED_TRITON
from tests.support.measured_rows import row as measured_row

MODELS = ["particlenet_AK4", "particlenet_AK4_PT"]
T4_LENGTHS = {"pf": 100, "sv": 10}


@pytest.fixture
def without_the_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine where nothing of the kind is installed or was fetched."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("COURSE_SERVER_ENV", str(tmp_path / "server"))


def test_it_says_so_and_goes_on(without_the_tool: None, capsys: pytest.CaptureFixture[str]) -> None:
    rows = measuring.sweep("nowhere:1", MODELS, batches=(1, 4, 16, 32), precision=0.1)
    said = capsys.readouterr().out
    assert "perf_analyzer" in said and "was recorded on another machine" in said and said.count("\n") == 1
    assert [(row["model"], row["batch"]) for row in rows_of(rows)] == [(model, batch) for model in MODELS for batch in (1, 4, 16, 32)]
    assert all(is_recorded(row) for row in rows_of(rows)) and rows.attrs["path"] == str(sweep_file())
    one = measuring.measure("nowhere:1", "particlenet_AK4", batch=4, concurrency=2, precision=0.1)
    assert (one["batch"], one["concurrency"], one["source"][:8]) == (4, 2, "recorded")
    words = " ".join(text.get_text() for text in sweep_figure(rows).axes[0].texts)
    assert "Recorded" in words and "Measured" not in words


def test_what_was_recorded_is_complete() -> None:
    rows = read_lines(sweep_file())
    assert len({(row["model"], row["batch"], row["concurrency"], row["inputs"], row["shapes"]) for row in rows}) == len(rows)
    for row in rows:
        assert set(COLUMNS) <= set(row) and row["source"].startswith("recorded: ")
        assert row["command"].startswith("perf_analyzer ") and row["time"] and row["server_version"] == EMBEDDED_TRITON
        assert hardware(row).startswith("CPU: ") and "core" in row["cpu"]
        assert 0 < row["throughput_spread_infer_per_s"] < row["throughput_infer_per_s"]
        assert row["latency_p50_us"] <= row["latency_p95_us"] <= row["latency_p99_us"]
        assert sum(row[part] for part in PARTS) == pytest.approx(row["latency_avg_us"])
        under_way = row["throughput_infer_per_s"] / row["batch"] * row["latency_avg_us"] / 1e6
        assert under_way == pytest.approx(row["concurrency"], rel=0.2), "Little's law"


def test_notebook_08_can_be_solved_with_it() -> None:
    by_batch = recorded_sweep(MODELS, (1, 4, 16, 32), (1,))
    onnx = by_batch.query(f"model == '{MODELS[0]}'")
    knee = onnx[onnx["throughput_infer_per_s"] >= 0.9 * onnx["throughput_infer_per_s"].max()].iloc[0]
    at = by_batch.set_index(["model", "batch"], drop=False)
    judged = verdict(at.loc[MODELS[0], 16], at.loc[MODELS[1], 16])
    by_load = recorded_sweep([MODELS[0]], (8,), (1, 2, 4, 8))
    law = by_load["throughput_infer_per_s"] / 8 * by_load["latency_avg_us"] / 1e6
    alike = recorded_sweep([MODELS[0]], (1, 4), (4,), T4_LENGTHS)
    machines = recorded("T4", MODELS[0], "ONNX").iloc[1]["throughput_infer_per_s"] / alike.iloc[1]["throughput_infer_per_s"]
    answers = {
        "8.1": (onnx, knee["batch"], knee["latency_p95_us"] / 1e3),
        "8.2": (by_batch, judged.gain, judged.answer),
        "8.3": (by_load, law),
        "8.5": (alike, machines),
    }
    for number, given in answers.items():
        outcome = exercise(number).judge(*given)
        assert outcome.kind is Kind.CORRECT, f"{number}: {outcome}"


def test_the_loads_of_notebook_07_are_there(without_the_tool: None) -> None:
    assert recorded_sweep(["particlenet_PT"], (1, 10, 100))["batch"].tolist() == [1, 10, 100]
    for batch in (1, 10, 100):
        row = measuring.measure("nowhere:1", MODELS[0], batch)
        assert (row["batch"], row["concurrency"], row["inputs"]) == (batch, 1, "random")
    with pytest.raises(InputError, match="no recorded row"):
        measuring.measure("nowhere:1", MODELS[0], 10, input_data="inputs/of_somebody.json")


def test_each_model_has_its_own_inputs(without_the_tool: None) -> None:
    models, files = [MODELS[0], "deeptau_nosplit"], {"deeptau_nosplit": "work/inputs/20_taus.json"}
    rows = measuring.sweep("nowhere:1", models, (1, 4), (4,), lengths=T4_LENGTHS, input_data=files)
    assert list(zip(rows["model"], rows["inputs"], strict=True)) == [
        *[(MODELS[0], "random")] * 2,
        *[("deeptau_nosplit", "20_taus.json")] * 2,
    ]
    assert measuring.measure("nowhere:1", "deeptau_nosplit", 16, 4, input_data=files)["batch"] == 16


def test_lengths_and_what_there_is_not() -> None:
    assert set(recorded_sweep([MODELS[0]], (4,), (4,), T4_LENGTHS)["concurrency"]) == {4}
    with pytest.raises(InputError, match=r"no recorded row.*Not recorded: particlenet_AK4, concurrency 1, batch 7.*recorded_sweep\.jsonl"):
        recorded_sweep([MODELS[0]], (7,))
    with pytest.raises(InputError, match="no recorded row"):
        recorded_sweep(["add_sub"])
    with pytest.raises(InputError, match="no recorded row"):
        recorded_sweep([MODELS[0]], lengths={"pf": 33})


def test_what_was_asked_for_and_is_not_there_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    rows = recorded_sweep([MODELS[0]], (1, 2, 3, 4), (1,))
    said = f"Not recorded: {MODELS[0]}, concurrency 1, batch 2; {MODELS[0]}, concurrency 1, batch 3.\n"
    assert rows["batch"].tolist() == [1, 4] and capsys.readouterr().out == said
    recorded_sweep([MODELS[0]], (1, 4), (1,))
    assert capsys.readouterr().out == ""


def test_the_names_that_notebooks_import_are_functions_and_not_the_modules_of_that_name() -> None:
    for name in ("measure", "measure_in_turn", "sweep", "perf_analyzer", "verdict", "recorded", "tune", "write_jets"):
        assert isfunction(getattr(helpers, name)), name
    assert ismodule(helpers.jets) and ismodule(helpers.tracks)


def test_they_do_not_wait_for_what_only_verdicts_and_figures_need() -> None:
    code = "import sys; from helpers import measure, sweep, verdict; sys.exit(bool({'scipy', 'matplotlib', 'awkward'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=paths.root(), check=False).returncode == 0


def test_an_interval_is_shown_as_far_as_each_end() -> None:
    for ends, words in (((16.9e3, 101e3), "18 (17–101)"), ((16.9e3, None), "18.0 (16.9–not known)"), ((None, None), "18")):
        row = {"percentile": 95, "latency_p95_us": 18e3, "latency_low_us": ends[0], "latency_high_us": ends[1]}
        assert latency_words(row, 95) == words and latency_words(row | {"percentile": 99}, 95) == "18"
    shown = Rows.of([measured_row(latency_low_us=10e3, latency_high_us=17e3)])
    assert "10.7 (10.0–17.0)" in repr(shown) and "10.7 (10.0–17.0)" in shown._repr_html_()


def test_a_working_copy_has_no_recorded_row(without_the_tool: None, tmp_path: Path) -> None:
    """People change it, and what was recorded is of the models as they came."""

    class Serving:
        repository = tmp_path

    with pytest.raises(SetupError, match="No perf_analyzer runs"):
        measuring.measure(Serving(), MODELS[0], 4)
    with pytest.raises(SetupError, match="No perf_analyzer runs"):
        Experiments(Serving(), MODELS[0]).measure("baseline")
