"""What the comparison with peers measures: the course's AK4 ParticleNet, and a network that takes about a tenth of a millisecond."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks import network
from helpers import paths, repository

PARTICLENET, SMALL = "particlenet_AK4", "small"
# Width of the small network: three layers of this are a tenth of a millisecond for one entry on a CPU of 2020 or later.
_WIDTH, _LAYERS, _FEATURES = 512, 3, 64
_OPSET, _IR = 18, 10
_CONFIG = """
name: "small"
platform: "onnxruntime_onnx"
max_batch_size: 64
input [ { name: "x" data_type: TYPE_FP32 dims: [ 64 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 8 ] } ]
"""
_ALONE = """
instance_group [ { count: 1 kind: KIND_CPU } ]
parameters { key: "intra_op_thread_count" value { string_value: "1" } }
parameters { key: "inter_op_thread_count" value { string_value: "1" } }
"""


def write_repository(folder: Path) -> dict[str, Path]:
    """Write both models, one instance with one thread each and no dynamic batching; returns their ONNX files."""
    shutil.copytree(paths.models_dir() / PARTICLENET, folder / PARTICLENET)
    (folder / SMALL / "1").mkdir(parents=True)
    (folder / SMALL / "config.pbtxt").write_text(_CONFIG)
    onnx.save(_small(), folder / SMALL / "1" / "model.onnx")
    for name in (PARTICLENET, SMALL):
        repository.change_config(folder / name, _ALONE, dynamic_batching=None, model_warmup=None)
    return {name: folder / name / "1" / "model.onnx" for name in (PARTICLENET, SMALL)}


def shapes(model: str) -> dict[str, list[int]]:
    """Input -> its shape for one entry."""
    return network.inputs("onnx") if model == PARTICLENET else {"x": [_FEATURES]}


def arrays(shapes_of: dict[str, list[int]], batch: int) -> dict[str, np.ndarray]:
    """Inputs of one batch; masks are one, so that each jet is full."""
    generator = np.random.default_rng(1)
    made = {name: generator.random((batch, *shape), dtype=np.float32) for name, shape in shapes_of.items()}
    return {name: np.ones_like(array) if name.endswith("mask") else array for name, array in made.items()}


def _small() -> onnx.ModelProto:
    generator = np.random.default_rng(1)
    widths = [_FEATURES, *[_WIDTH] * _LAYERS, 8]
    nodes, weights, before = [], [], "x"
    for number, (n_in, n_out) in enumerate(itertools.pairwise(widths)):
        values = (generator.standard_normal((n_in, n_out)) / np.sqrt(n_in)).astype(np.float32)
        weights.append(numpy_helper.from_array(values, f"w{number}"))
        last = number == len(widths) - 2
        after = "y" if last else f"h{number}"
        nodes.append(helper.make_node("MatMul", [before, f"w{number}"], [after]))
        if not last:
            nodes.append(helper.make_node("Relu", [after], [f"r{number}"]))
        before = f"r{number}"
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", _FEATURES])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 8])]
    graph = helper.make_graph(nodes, "small", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
