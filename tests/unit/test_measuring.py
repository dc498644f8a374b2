"""What notebooks import to measure, how rows show themselves, and what was recorded."""

from __future__ import annotations

import subprocess
import sys
from inspect import isfunction, ismodule

import pytest

import helpers
from helpers import paths
from helpers.course import exercise
from helpers.course.judge import Kind
from helpers.measuring.table import COLUMNS, PARTS, Rows, hardware, latency_words, recorded
from helpers.paths import read_lines
from helpers.setup.environments import EMBEDDED_TRITON
from tests.support.measured_rows import row as measured_row

MODELS = ["particlenet_AK4", "particlenet_AK4_PT"]


def test_what_was_recorded_is_complete() -> None:
    rows = read_lines(paths.root() / "notebooks" / "data" / "recorded_sweep.jsonl")
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
    rows = recorded("CPU", MODELS[0])
    onnx = Rows.of(rows.query("inputs == 'random' and concurrency == 1 and batch in (1, 4, 16, 32)").to_dict("records"))
    knee = onnx[onnx["throughput_infer_per_s"] >= 0.9 * onnx["throughput_infer_per_s"].max()].iloc[0]
    by_load = rows.query("batch == 8 and inputs == 'random'").sort_values("concurrency").reset_index(drop=True)
    law = by_load["throughput_infer_per_s"] / 8 * by_load["latency_avg_us"] / 1e6
    for number, given in {"8.1": (onnx, knee["batch"], knee["latency_p95_us"] / 1e3), "8.3": (by_load, law)}.items():
        outcome = exercise(number).judge(*given)
        assert outcome.kind is Kind.CORRECT, f"{number}: {outcome}"


def test_the_names_that_notebooks_import_are_functions_and_not_the_modules_of_that_name() -> None:
    for name in ("measure", "measure_in_turn", "sweep", "perf_analyzer", "verdict", "recorded", "tune"):
        assert isfunction(getattr(helpers, name)), name
    assert all(map(ismodule, (helpers.input_files, helpers.jets, helpers.taus, helpers.tracks)))


def test_they_do_not_wait_for_what_only_verdicts_and_figures_need() -> None:
    code = "import sys; from helpers import measure, sweep, verdict; sys.exit(bool({'scipy', 'matplotlib', 'awkward'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=paths.root(), check=False).returncode == 0


def test_an_interval_is_shown_as_far_as_each_end() -> None:
    for ends, words in (((16.9e3, 101e3), "18 (17–101)"), ((16.9e3, None), "18.0 (16.9–not known)"), ((None, None), "18")):
        row = {"latency_p50_us": 18e3, "latency_p95_us": 18e3, "latency_low_us": ends[0], "latency_high_us": ends[1]}
        assert latency_words(row) == words and latency_words(row, 50) == "18"
    shown = Rows.of([measured_row(latency_low_us=10e3, latency_high_us=17e3)])
    assert "10.7 (10.0–17.0)" in repr(shown) and "10.7 (10.0–17.0)" in shown._repr_html_()
