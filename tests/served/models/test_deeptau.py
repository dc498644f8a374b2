"""DeepTau on a real server: CMS's contract, physics on taus never trained on, and a file of CMS's in place of ours."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from helpers import paths
from helpers.client import Client
from helpers.physics import taus
from helpers.server import Server, launch_server
from tests.served.backends import onnx_models

pytestmark = pytest.mark.slow

OUTPUT = "main_output/Softmax"
SHAPES = {"input_tau": [47]} | {
    f"input_{grid}_{kind}": [side, side, features]
    for grid, side in (("inner", 11), ("outer", 21))
    for kind, features in (("egamma", 86), ("muon", 64), ("hadrons", 38))
}
LARGEST = 6e6
# Taus asked for, and how many in one request: 50 are 21 MB.
TAUS, BATCH = 1200, 50
# Areas that the shipped weights must reach: what was measured, less about three standard deviations of so many taus.
LEAST_AUC = {"jet": 0.98, "muon": 0.99, "electron": 0.97}


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Client]:
    with Client(server) as one:
        yield one


def test_contract_of_cms(server: Server) -> None:
    metadata, config = server.metadata(taus.MODEL), server.config(taus.MODEL)
    assert [(entry["name"], entry["datatype"], entry["shape"]) for entry in metadata["inputs"]] == [
        (name, "FP32", [-1, *shape]) for name, shape in SHAPES.items()
    ]
    assert [(entry["name"], entry["datatype"], entry["shape"]) for entry in metadata["outputs"]] == [(OUTPUT, "FP32", [-1, 4])]
    assert config["max_batch_size"] == 1000
    assert config["dynamic_batching"]["preferred_batch_size"] == [16, 32]
    assert config["platform"] == "onnxruntime_onnx"
    assert (paths.models_dir() / taus.MODEL / "1" / "model.onnx").stat().st_size <= LARGEST


def test_the_answer_does_not_depend_on_the_batch(client: Client) -> None:
    inputs = taus.tensors(taus.read().take(range(12)))
    together = client.infer(taus.MODEL, **inputs)[OUTPUT]
    alone = [client.infer(taus.MODEL, **{name: values[i : i + 1] for name, values in inputs.items()})[OUTPUT] for i in range(12)]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-5)
    np.testing.assert_allclose(together.sum(axis=1), 1, atol=1e-5)


@pytest.mark.nightly
def test_taus_are_told_from_what_looks_like_them(client: Client) -> None:
    sample = taus.read()
    sample = sample.take(range(min(TAUS, len(sample))))
    parts = [sample.take(part) for part in np.array_split(np.arange(len(sample)), math.ceil(len(sample) / BATCH))]
    scores = np.concatenate([client.infer(taus.MODEL, **taus.tensors(part))[OUTPUT] for part in parts])
    area = {}
    for name in LEAST_AUC:
        other = taus.LABELS.index(name)
        value = scores[:, 2] / (scores[:, 2] + scores[:, other] + 1e-12)
        signal, background = value[sample.label == 2], value[sample.label == other]
        area[name] = (signal[:, None] > background).mean() + (signal[:, None] == background).mean() / 2
    assert not {name: value for name, value in area.items() if value < LEAST_AUC[name]}, area


def _cms_file(path: Path) -> None:
    """A network with the inputs and the output of CMS's, as a converter from TensorFlow writes it: other order, a batch without a name."""
    nodes, parts = [], []
    for name in reversed(SHAPES):
        nodes.append(helper.make_node("Flatten", [name], [f"{name}_flat"], axis=1))
        nodes.append(helper.make_node("ReduceMean", [f"{name}_flat"], [f"{name}_mean"], axes=[1], keepdims=1))
        parts.append(f"{name}_mean")
    nodes += [
        helper.make_node("Concat", parts, ["means"], axis=1),
        helper.make_node("MatMul", ["means", "weights"], ["scores"]),
        helper.make_node("Softmax", ["scores"], [OUTPUT], axis=1),
    ]
    inputs = [onnx_models.tensor(name, ("unk__616", *SHAPES[name])) for name in reversed(SHAPES)]
    weights = np.arange(28, dtype=np.float32).reshape(7, 4) / 10
    onnx_models.save(path, nodes, inputs, [onnx_models.tensor(OUTPUT, ("unk__617", 4))], {"weights": weights})


def test_a_file_of_cms_takes_the_place_of_ours(tmp_path: Path, free_base_port: Callable[[], int]) -> None:
    folder = tmp_path / "models" / taus.MODEL
    shutil.copytree(paths.models_dir() / taus.MODEL, folder)
    _cms_file(folder / "1" / "model.onnx")
    inputs = taus.tensors(taus.read().take(range(3)))
    means = np.stack([inputs[name].reshape(3, -1).mean(axis=1) for name in reversed(SHAPES)], axis=1)
    scores = np.exp(means @ (np.arange(28).reshape(7, 4) / 10))
    with (
        launch_server(tmp_path / "models", base_port=free_base_port(), name="deeptau of cms") as server,
        Client(server) as client,
    ):
        answer = client.infer(taus.MODEL, **inputs)[OUTPUT]
    np.testing.assert_allclose(answer, scores / scores.sum(axis=1, keepdims=True), rtol=1e-4)
