"""The benchmark: its two networks are one and the same, and its report says what was measured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import network, report
from benchmarks.measuring import Pair, Row
from benchmarks.perf_analyzer import Load
from helpers import settings

_COMPARE = """
import sys, numpy, onnxruntime, torch
x = numpy.random.default_rng(3).random((4, *map(int, sys.argv[3:])), dtype=numpy.float32)
onnx = onnxruntime.InferenceSession(sys.argv[1]).run(None, {"particles__0": x})[0]
torchscript = torch.jit.load(sys.argv[2])(torch.from_numpy(x)).numpy()
numpy.save(sys.stdout.buffer, numpy.stack([onnx, torchscript]))
"""


@pytest.mark.slow
def test_both_networks_compute_the_same(tmp_path: Path) -> None:
    python = settings.server_env() / "bin" / "python"
    network.write_repository(tmp_path / "models", python)
    files = [tmp_path / "models" / kind / "1" / file for kind, (_, file) in network.PLATFORMS.items()]
    dims = [str(network.N_PARTICLES), str(network.N_FEATURES)]
    output = tmp_path / "scores.npy"
    with output.open("wb") as file:
        subprocess.run([python, "-W", "ignore", "-c", _COMPARE, *files, *dims], stdout=file, check=True)
    onnx, torchscript = np.load(output)
    assert onnx.shape == (4, network.N_CLASSES)
    np.testing.assert_allclose(onnx.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(onnx, torchscript, atol=1e-5)


def test_the_table_has_medians_and_ratios() -> None:
    plain = [Pair(100, Load(80, 1000, 2000)), Pair(90, Load(99, 1100, 2000)), Pair(500, Load(450, 5000, 6000))]
    row = Row("onnx", 8, {"": plain, "_dynamic": [Pair(100, Load(110, 900, 1000))]})
    last = report.throughput_table([row]).splitlines()[-1]
    assert last == "| onnx | 8 | 100 | 99 | 0.90 | 1.10 | 110 | 1.10 | 0.90 | 0.97 |"


@pytest.mark.slow
def test_the_benchmark_runs(work: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "--rounds", "1", "--batches", "1", "--kinds", "onnx"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=settings.root(), timeout=300)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("| onnx | 1 |")]
    assert all(float(cell) > 0 for cell in line.split("|")[3:-1])
    assert "| tritonserver |" in done.stdout
    assert "| instance onnx_0_0 |" in done.stdout
