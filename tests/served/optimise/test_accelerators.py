"""Execution accelerators and the level of graph optimisation: what the session got, and what the config view says of the rest."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from helpers import paths, repository
from helpers.client import Client
from helpers.server import Server, launch_server
from tests.served.optimise import MODEL
from tests.support.logs import logged
from tests.support.processes import wait_until

TENSORRT = """
optimization { execution_accelerators {
  gpu_execution_accelerator : [ {
    name : "tensorrt"
    parameters { key: "precision_mode" value: "FP32" }}]
}}
"""
TENSORRT_16 = """
optimization { execution_accelerators {
  gpu_execution_accelerator : [ {
    name : "tensorrt"
    parameters { key: "precision_mode" value: "FP16" }
    parameters { key: "max_workspace_size_bytes" value: "1073741824" }}]
}}
"""
OPENVINO = 'optimization { execution_accelerators { cpu_execution_accelerator : [ { name : "openvino" } ] } }'
GPU_FIELD = "optimization.execution_accelerators.gpu_execution_accelerator[0].name"


def view(model: Path, server: Server) -> repository.Comparison:
    """The config view, with what has no effect."""
    return repository.compare(model, model, server.config(model.name))


def remark(model: Path, server: Server, field: str) -> str:
    """What the config view says about a field."""
    return next(row.remark for row in view(model, server).rows if row.field == field)


def session(server: Server) -> str:
    """The log's line about the newest session of the tagger."""
    return logged(server, f"{MODEL}_0_0: ONNX Runtime")


@pytest.mark.parametrize(
    ("stanza", "parameters"),
    [
        (TENSORRT, {"precision_mode": "FP32"}),
        (TENSORRT_16, {"precision_mode": "FP16", "max_workspace_size_bytes": "1073741824"}),
    ],
    ids=["FP32", "FP16"],
)
def test_tensorrt_for_onnx_is_accepted_and_said_to_do_nothing_without_a_gpu(
    own: Server,
    model: Path,
    client: Client,
    requests: Callable[..., list[dict[str, np.ndarray]]],
    stanza: str,
    parameters: dict[str, str],
) -> None:
    jet = requests(50)[0]
    before = client.infer(MODEL, jet)["softmax"]
    repository.change_config(model, stanza)
    own.reload(MODEL)
    assert own.is_ready()
    (entry,) = own.config(MODEL)["optimization"]["execution_accelerators"]["gpu_execution_accelerator"]
    assert (entry["name"], entry["parameters"]) == ("tensorrt", parameters)
    assert "with CPUExecutionProvider;" in session(own)
    assert logged(own, f"model '{MODEL}': execution accelerator 'tensorrt' has no effect here: it needs a GPU")
    assert "no effect here: it needs a GPU" in remark(model, own, GPU_FIELD)
    assert "no effect here" in " ".join(str(view(model, own)).split())
    np.testing.assert_array_equal(client.infer(MODEL, jet)["softmax"], before)


@pytest.mark.slow
def test_openvino_is_said_to_do_nothing_where_onnx_runtime_has_no_such_provider(own: Server, model: Path) -> None:
    repository.change_config(model, OPENVINO)
    own.reload(MODEL)
    assert logged(own, f"model '{MODEL}': execution accelerator 'openvino' has no effect here", "a processor of Intel's")


@pytest.mark.parametrize(("level", "name"), [(-1, "BASIC"), (1, "EXTENDED"), (2, "DISABLE_ALL"), (0, "ENABLE_ALL")])
def test_the_level_of_graph_optimisation_reaches_the_session(own: Server, model: Path, level: int, name: str) -> None:
    repository.change_config(model, optimization={"graph": {"level": level}})
    own.reload(MODEL)
    wait_until(lambda: name in session(own).rpartition(",")[2])


@pytest.fixture
def torchscript(tmp_path: Path, free_base_port: Callable[[], int]) -> Iterator[Server]:
    """The tagger as TorchScript, with the TensorRT stanza."""
    name = f"{MODEL}_PT"
    shutil.copytree(paths.models_dir() / name, tmp_path / "models" / name)
    repository.change_config(tmp_path / "models" / name, TENSORRT)
    repository.change_config(tmp_path / "models" / name, model_warmup=None)
    with launch_server(tmp_path / "models", base_port=free_base_port(), name="torchscript") as server:
        yield server


@pytest.mark.slow
def test_tensorrt_for_torchscript_is_accepted_and_does_nothing_anywhere(torchscript: Server) -> None:
    name = f"{MODEL}_PT"
    assert torchscript.is_ready()
    assert logged(torchscript, f"model '{name}': execution accelerator 'tensorrt' has no effect here: accelerators act on ONNX models")
