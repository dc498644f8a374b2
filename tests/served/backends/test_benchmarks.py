"""The benchmark measures the course's own network, and its report says what was measured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import network, report
from benchmarks.measuring import Pair, Row
from benchmarks.perf_analyzer import Load
from helpers import paths, repository
from tests.support.processes import PATIENCE_S


def test_the_measured_models_are_the_courses_own_with_one_thread(tmp_path: Path) -> None:
    names = network.write_repository(tmp_path / "models")
    assert names == ["onnx", "onnx_dynamic", "torchscript", "torchscript_dynamic"]
    for name in names:
        kind = name.removesuffix("_dynamic")
        config = repository.read_config(tmp_path / "models" / name)
        assert {tensor.name: list(tensor.dims) for tensor in config.input} == network.inputs(kind)
        (group,) = config.instance_group
        assert (group.count, group.kind) == (1, group.KIND_CPU)
        threads = [parameter.string_value for key, parameter in config.parameters.items() if key.lower().endswith("thread_count")]
        assert threads and set(threads) == {"1"}
        assert config.HasField("dynamic_batching") == name.endswith("_dynamic")
        source, file = network.MODELS[kind]
        assert (tmp_path / "models" / name / "1" / file).read_bytes() == (paths.models_dir() / source / "1" / file).read_bytes()


def test_the_table_has_medians_and_ratios() -> None:
    plain = [Pair(100, Load(80, 1000, 2000)), Pair(90, Load(99, 1100, 2000)), Pair(500, Load(450, 5000, 6000))]
    row = Row("onnx", 8, {"": plain, "_dynamic": [Pair(100, Load(110, 900, 1000))]})
    last = report.throughput_table([row]).splitlines()[-1]
    assert last == "| onnx | 8 | 100 | 99 | 0.90 | 1.10 | 110 | 1.10 | 0.90 | 0.97 |"


@pytest.mark.slow
def test_the_benchmark_runs(work: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "--rounds", "1", "--batches", "1", "--kinds", "onnx"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=paths.root(), timeout=PATIENCE_S)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("| onnx | 1 |")]
    assert all(float(cell) > 0 for cell in line.split("|")[3:-1])
    assert "| tritonserver |" in done.stdout
    assert "| instance onnx_0_0 |" in done.stdout
