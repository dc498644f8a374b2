"""Execution accelerators and the level of graph optimisation: what the session got, and what the config view says of the rest."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from helpers import jets, openvino_environment, repository, settings
from helpers.client import Client
from helpers.errors import SetupError
from helpers.launch import launch_server
from helpers.server import Server
from helpers.tune_usage import of_model, usage
from tests.served.optimise import MODEL, log_lines

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
CPU_FIELD = "optimization.execution_accelerators.cpu_execution_accelerator[0].name"


def view(model: Path, server: Server) -> repository.Comparison:
    """The config view, with what has no effect."""
    return repository.compare(model, model, server.config(model.name), log=server.log(lines=0))


def remark(model: Path, server: Server, field: str) -> str:
    """What the config view says about a field."""
    return next(row.remark for row in view(model, server).rows if row.field == field)


def session(server: Server) -> str:
    """The log's line about the newest session of the tagger."""
    return log_lines(server, f"{MODEL}_0_0: ONNX Runtime")[-1]


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
    assert log_lines(own, f"model '{MODEL}': execution accelerator 'tensorrt' has no effect here: it needs a GPU")
    assert "no effect here: it needs a GPU" in remark(model, own, GPU_FIELD)
    assert "no effect" in str(view(model, own))
    np.testing.assert_array_equal(client.infer(MODEL, jet)["softmax"], before)


def test_openvino_is_said_to_do_nothing_where_onnx_runtime_has_no_such_provider(own: Server, model: Path) -> None:
    repository.change_config(model, OPENVINO)
    own.reload(MODEL)
    assert "built without OpenVINOExecutionProvider" in remark(model, own, CPU_FIELD)
    repository.change_config(model, optimization=None)
    own.reload(MODEL)
    # What an earlier configuration had is no remark on this one.
    assert "no effect" not in str(view(model, own))


@pytest.mark.parametrize(("level", "name"), [(-1, "BASIC"), (1, "EXTENDED"), (2, "DISABLE_ALL"), (0, "ENABLE_ALL")])
def test_the_level_of_graph_optimisation_reaches_the_session(own: Server, model: Path, level: int, name: str) -> None:
    repository.change_config(model, optimization={"graph": {"level": level}})
    own.reload(MODEL)
    assert name in session(own).rpartition(",")[2]


@pytest.fixture
def torchscript(tmp_path: Path, free_base_port: Callable[[], int]) -> Iterator[Server]:
    """The tagger as TorchScript, with the TensorRT stanza."""
    name = f"{MODEL}_PT"
    shutil.copytree(settings.models_dir() / name, tmp_path / "models" / name)
    repository.change_config(tmp_path / "models" / name, TENSORRT)
    repository.change_config(tmp_path / "models" / name, model_warmup=None)
    with launch_server(tmp_path / "models", base_port=free_base_port(), name="torchscript") as server:
        yield server


@pytest.mark.slow
def test_tensorrt_for_torchscript_is_accepted_and_does_nothing_anywhere(torchscript: Server) -> None:
    name = f"{MODEL}_PT"
    assert torchscript.is_ready()
    assert log_lines(torchscript, f"model '{name}': execution accelerator 'tensorrt' has no effect here: accelerators act on ONNX models")
    assert "this is a TorchScript model" in remark(torchscript.repository / name, torchscript, GPU_FIELD)


@pytest.fixture(scope="module")
def openvino_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment of its own with OpenVINO; ``COURSE_OPENVINO_ENV`` names one that is there."""
    if "COURSE_OPENVINO_ENV" in os.environ:
        return Path(os.environ["COURSE_OPENVINO_ENV"])
    try:
        return openvino_environment.make(sys.executable, tmp_path_factory.mktemp("openvino") / "environment")
    except SetupError as error:
        pytest.skip(f"the environment with OpenVINO cannot be made here: {error}")


@pytest.mark.nightly
@pytest.mark.slow
def test_openvino_runs_the_tagger_where_onnx_runtime_has_it(
    openvino_folder: Path, tmp_path: Path, free_base_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = shutil.copytree(settings.models_dir() / MODEL, tmp_path / "models" / MODEL)
    accelerated = shutil.copytree(plain, tmp_path / "models" / f"{MODEL}_openvino")
    for folder in (plain, accelerated):
        config = folder / "config.pbtxt"
        config.write_text(config.read_text().replace(f'name: "{MODEL}"', f'name: "{folder.name}"'))
        alone = {"instance_group": [{"count": 1, "kind": "KIND_CPU"}], "parameters": {"intra_op_thread_count": {"string_value": "1"}}}
        repository.change_config(folder, model_warmup=None, **alone)
    repository.change_config(accelerated, OPENVINO)
    monkeypatch.setenv("COURSE_SERVER_ENV", str(openvino_folder))
    with launch_server(tmp_path / "models", base_port=free_base_port(), name="openvino") as server, Client(server) as client:
        (with_it,) = log_lines(server, f"{accelerated.name}_0_0: ONNX Runtime")
        assert "with OpenVINOExecutionProvider, CPUExecutionProvider;" in with_it
        (without,) = log_lines(server, f'"{plain.name}_0_0: ONNX Runtime')
        assert "with CPUExecutionProvider;" in without
        assert "no effect" not in remark(accelerated, server, CPU_FIELD)
        sample = jets.read("ak4")[:20]
        scores = [jets.Tagger(client, folder.name).tag(sample).probabilities for folder in (plain, accelerated)]
        apart = np.abs(scores[0] - scores[1]).max(axis=1)
        # Once in a while two neighbours are equally far, and the order of sums decides which one is taken.
        assert np.sum(apart > 1e-5) <= 1, apart
        # OpenVINO has threads of its own; one that was asked for is one.
        instance = next(each for each in of_model(usage(server.pid), accelerated.name) if accelerated.name in each.name)
        inputs = [jets.Tagger(client, accelerated.name).inputs(sample, candidates=50, vertices=4)] * 40
        client.infer(accelerated.name, inputs[0])
        busy, begin = psutil.Process(instance.pid).cpu_times(), time.monotonic()
        client.infer_many(accelerated.name, inputs, max_in_flight=2)
        seconds, after = time.monotonic() - begin, psutil.Process(instance.pid).cpu_times()
        assert (after.user + after.system - busy.user - busy.system) / seconds < 1.3
        assert apart.max() < 0.01, apart
