"""Both backends on a GPU, where this machine and the server's packages have one."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from helpers import paths
from helpers.server import Server, launch_server
from tests.served.backends import onnx_models
from tests.served.backends.asking import Asker
from tests.served.backends.repositories import configure, tensors
from tests.support.logs import log_lines, logged
from tests.support.processes import wait_until

ON_GPU = "instance_group { kind: KIND_GPU count: 1 }"
_PROBE = """
import onnxruntime, torch
print(torch.cuda.is_available(), "CUDAExecutionProvider" in onnxruntime.get_available_providers())
"""

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def seen_by() -> dict[str, bool]:
    """Whether PyTorch and ONNX Runtime of the server's environment can use a GPU."""
    if not shutil.which("nvidia-smi"):
        pytest.skip("no NVIDIA GPU on this machine")
    python = paths.server_env() / "bin" / "python"
    answer = subprocess.run([python, "-c", _PROBE], capture_output=True, text=True, check=True).stdout.split()
    return {"torch": answer[0] == "True", "onnx": answer[1] == "True"}


@pytest.fixture(scope="module")
def gpu_server(
    seen_by: dict[str, bool], torchscript_folder: Path, tmp_path_factory: pytest.TempPathFactory, free_base_port: Callable[[], int]
) -> Iterator[Server]:
    """Serves one model of each kind, both asking for a GPU."""
    root = tmp_path_factory.mktemp("gpu") / "models"
    onnx_models.affine(root / "onnx/1/model.onnx")
    onnx_io = tensors("input", x="FP32 [3]"), tensors("output", y="FP32 [3]")
    configure(root / "onnx", 'platform: "onnxruntime_onnx"', "max_batch_size: 8", *onnx_io, ON_GPU)
    shutil.copytree(torchscript_folder / "from_gpu", root / "torch")
    torch_io = tensors("input", x__0="FP32 [3]"), tensors("output", y__0="FP32 [2]")
    configure(root / "torch", 'platform: "pytorch_libtorch"', "max_batch_size: 8", *torch_io, ON_GPU)
    with launch_server(root, base_port=free_base_port()) as server:
        yield server


def test_torchscript_runs_where_pytorch_sees_a_gpu_and_else_says_that_it_does_not(gpu_server: Server, seen_by: dict[str, bool]) -> None:
    assert Asker(gpu_server).ask("torch", x__0=np.ones((2, 3), np.float32))["y__0"].tolist() == [[4, 11]] * 2
    assert logged(gpu_server, '"torch_0_0: PyTorch', "on cuda:0" if seen_by["torch"] else "on cpu")
    wait_until(lambda: bool(log_lines(gpu_server, "this PyTorch has no CUDA")) != seen_by["torch"])


def test_onnx_runs_where_onnx_runtime_sees_a_gpu_and_else_says_that_it_does_not(gpu_server: Server, seen_by: dict[str, bool]) -> None:
    assert Asker(gpu_server).ask("onnx", x=np.ones((2, 3), np.float32))["y"].tolist() == [[3, 3, 3]] * 2
    assert ("CUDAExecutionProvider" in logged(gpu_server, '"onnx_0_0: ONNX Runtime')) == seen_by["onnx"]
    wait_until(lambda: bool(log_lines(gpu_server, "this ONNX Runtime has no CUDA")) != seen_by["onnx"])
