"""The backend ``onnxruntime``: options of the config, and models that cannot be loaded."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from helpers import paths
from helpers.server import Server, launch_server
from tests.served.backends.asking import Asker
from tests.support.logs import log_lines, logged

# Their servers, with thirty models each, take half a minute to start.
pytestmark = pytest.mark.slow


def reason(server: Server, model: str) -> str:
    """Why a model is not READY."""
    (state,) = [state for state in server.models() if state.name == model]
    assert state.state == "UNAVAILABLE"
    return state.reason


@pytest.mark.parametrize(
    ("model", "parts"),
    [
        ("bad_file", ["bad_file/1/model.onnx (19 bytes)", "It is no ONNX file: cut short, what torch.save() writes, or", "git lfs pull"]),
        ("bad_opset", ["99", "is newer than this ONNX Runtime", "opset_version=18"]),
        ("bad_version", ["99", "is newer than this ONNX Runtime", "model.ir_version = 10"]),
        ("bad_nameless", ["has an empty string", "input_names=[…]"]),
        ("bad_elsewhere", ["bad_elsewhere/1/weights.bin", "Its weights are in another file", "external_data=False"]),
        ("bad_operation", ["MyOwn", "Export it with standard ones"]),
        ("bad_fixed", ["input 'x' has shape [2, 3] in the model", "cannot be the batch", "Write max_batch_size: 0, or", "dynamic_shapes"]),
        ("bad_empty", ["bad_empty/1/model.onnx is missing", "holds: nothing"]),
        ("bad_shape", ["input 'x' is TYPE_FP32 with shape [-1, 4] in the config", "[-1, 3] in the model", "dims: [3]"]),
        ("bad_type", ["input 'x' is TYPE_FP64 with", "in the config", "TYPE_FP32 with", "in the model", "Write data_type: TYPE_FP32"]),
        ("bad_name", ["output 'w'", "its outputs are: y, z"]),
        ("bad_missing_input", ["no input 'factor'", "Add it to config.pbtxt"]),
        ("bad_batch", ["max_batch_size is 4", "cannot be the batch", "[1, 3]"]),
        ("bad_parameter", ["parameter 'intra_op_thread_count' must be a whole number", "'two'"]),
        ("bad_scalar", ["input 'x' is TYPE_FP32 with shape [1] in the config", "[] in the model"]),
    ],
)
def test_the_reason_names_the_fault(onnx_server: Server, model: str, parts: list[str]) -> None:
    text = reason(onnx_server, model)
    assert f"model '{model}'" in text
    for part in parts:
        assert part in text


def test_all_good_models_are_ready_beside_the_bad_ones(onnx_server: Server) -> None:
    unready = {state.name for state in onnx_server.models() if state.state != "READY"}
    assert {name for name in unready if not name.startswith("bad_")} == set()


def test_threads_and_graph_level_of_the_config_are_used(onnx_server: Server) -> None:
    assert Asker(onnx_server).ask("tuned", ["y"], x=np.ones((2, 3), np.float32))["y"].tolist() == [[3] * 3] * 2
    assert "3 thread(s), ORT_DISABLE_ALL" in logged(onnx_server, "tuned_0_0: ONNX Runtime")


def test_default_threads_share_the_cores_among_the_instances(onnx_server: Server) -> None:
    cores = len(os.sched_getaffinity(0))
    for instance in ("auto_0", "auto_1"):
        assert f"{max(1, cores // 2)} thread(s), ORT_ENABLE_ALL" in logged(onnx_server, f"{instance}: ONNX Runtime")


@pytest.mark.parametrize(("accelerator", "why"), [("tensorrt", "needs a GPU"), ("openvino", "a processor of Intel's")])
def test_an_accelerator_that_does_nothing_here_is_a_warning(onnx_server: Server, accelerator: str, why: str) -> None:
    line = logged(onnx_server, f"model 'tuned': execution accelerator '{accelerator}' has no effect here")
    assert line.startswith("W")
    assert why in line


def test_parameters_that_are_not_read_are_a_warning(onnx_server: Server) -> None:
    for key in ("execution_mode", "share_session_between_instances"):
        assert logged(onnx_server, f"model 'tuned': parameter '{key}' has no effect here", "reads intra_op_thread_count and inter_op")
    assert not log_lines(onnx_server, "model 'tuned': parameter 'intra_op_thread_count'")


def test_a_max_batch_size_that_was_filled_in_is_a_warning(onnx_server: Server) -> None:
    assert logged(onnx_server, "model 'auto' names no max_batch_size and can batch: set to 4")


def test_warm_up_requests_run(onnx_server: Server) -> None:
    (state,) = [state for state in onnx_server.models() if state.name == "row_sum"]
    assert state.state == "READY"
    assert not log_lines(onnx_server, "row_sum", "failed to run warmup")


def test_nothing_is_reported_to_anybody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_base_port: Callable[[], int]) -> None:
    """ONNX Runtime keeps an identifier and a database of its use in the home folder, and sends it to Microsoft, unless told not to."""
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with launch_server(paths.models_dir(), load=["particlenet_AK4"], base_port=free_base_port()) as server:
        assert server.is_ready()
        assert not [path for path in tmp_path.rglob("*") if "onnxruntime" in str(path)]
