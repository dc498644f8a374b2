"""The check list of a machine with a GPU: without one it says so; its steps are rehearsed on a processor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import gpu as checklist
from helpers.errors import SetupError
from helpers.measuring.table import recorded
from helpers.metrics.gpu import placed_on
from helpers.paths import append_line, read_lines


def test_where_a_model_runs_is_what_its_backend_wrote_last() -> None:
    log = """
    I1 particlenet_PT_0_0: PyTorch 2.13.0 on cuda:0; 1 thread(s)
    I1 particlenet_0_1: ONNX Runtime 1.31.1 with CPUExecutionProvider; 1 thread(s)
    I1 particlenet_AK4_0_0: ONNX Runtime 1.31.1 with CUDAExecutionProvider, CPUExecutionProvider; 1 thread(s)
    """
    assert [placed_on(log, name) for name in ("particlenet_PT", "particlenet", "particlenet_AK4")] == ["GPU", "CPU", "GPU"]
    assert placed_on(log + "I2 particlenet_PT_0_0: PyTorch 2.13.0 on cpu; 1 thread(s)", "particlenet_PT") == "CPU"


def test_where_a_model_of_an_image_runs_is_what_nvidias_backend_wrote() -> None:
    log = """
    I1 onnxruntime.cc:2784] TRITONBACKEND_ModelInstanceInitialize: densenet_onnx_0_0 (GPU device 0)
    I1 libtorch.cc:2535] TRITONBACKEND_ModelInstanceInitialize: particlenet_PT_0_0 (GPU device 0)
    I2 libtorch.cc:2535] TRITONBACKEND_ModelInstanceInitialize: particlenet_PT_0_0 (CPU device 0)
    I2 python_be.cc:2108] TRITONBACKEND_ModelInstanceInitialize: particlenet_0_0 (GPU device 0)
    I2 particlenet_0_0: ONNX Runtime 1.31.1 with CPUExecutionProvider; 1 thread(s)
    """
    assert [placed_on(log, name) for name in ("densenet_onnx", "particlenet_PT", "particlenet", "add_sub")] == ["GPU", "CPU", "CPU", None]


@pytest.mark.slow
def test_without_a_gpu_nothing_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    if checklist.seen_by("embedded")["gpu"]:
        pytest.skip("this machine has a GPU: make test-gpu is the test")
    assert checklist.main([]) == 0
    said = capsys.readouterr().out
    assert "so nothing was measured. To rehearse the steps on a processor, type: make test-gpu" in said and said.count("\n") == 1


def test_without_a_servers_environment_it_says_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COURSE_SERVER_ENV", str(tmp_path / "none"))
    with pytest.raises(SetupError, match=r"not there: .*none\. .*apptainer.*make setup"):
        checklist.main([])


def test_a_gpu_that_the_servers_pytorch_cannot_use_is_a_fault(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine with a GPU and the PyTorch of one without."""
    monkeypatch.setattr(checklist, "seen_by", lambda _: {"torch": "2.13.0+cpu", "gpu": None, "onnx": []})
    monkeypatch.setattr(checklist.machine, "device", lambda: "NVIDIA T4")
    assert checklist.main([]) == 1
    assert "PyTorch 2.13.0+cpu of the server cannot use this machine's GPU. Type: " in capsys.readouterr().out


def test_a_rehearsal_is_no_record() -> None:
    with pytest.raises(SystemExit):
        checklist.main(["--device", "cpu"])


@pytest.mark.nightly
def test_every_step_is_rehearsed_on_a_processor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], free_base_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "dry.jsonl"
    assert checklist.main(["--device", "cpu", "--quick", "--output", str(table), "--base-port", str(free_base_port())]) == 0
    said = capsys.readouterr().out
    assert "✖" not in said
    assert "✔ the server is the one that is meant: tritonserver 2.51.0\n" in said
    assert "✔ a Python model answers: add_sub adds" in said
    assert "particlenet_PT equals itself on the CPU: 4 jets, largest difference of a probability 0.0e+00" in said
    rows = read_lines(table)
    assert [row["batch"] for row in rows[:2]] == [1, 2]
    assert {row["source"] for row in rows} == {checklist.DRY_SOURCE}
    assert {row["device"] for row in rows} == {"CPU"}
    # A table of a GPU, where the check list leaves it, is found by the plots.
    monkeypatch.setenv("COURSE_WORK", str(tmp_path / "work"))
    written = checklist.written_to("NVIDIA H100 80GB")
    for row in rows:
        append_line(written, {**row, "device": "NVIDIA H100 80GB", "source": checklist.GPU_SOURCE})
    assert recorded("H100", "particlenet_PT")["batch"].tolist() == [row["batch"] for row in rows]
