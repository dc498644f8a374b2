"""The network that is measured, as ONNX and as TorchScript with the same weights, and the model repository that holds both.

A network on sets of particles: the same dense layers on every particle, the mean over the particles, then dense layers on
the set. Its widths are chosen for about 1 ms per set on one thread of a CPU of 2020 or later.
"""

from __future__ import annotations

import subprocess
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

N_PARTICLES, N_FEATURES, N_CLASSES = 192, 16, 10
# Widths of the layers on each particle, and of those on the whole set.
PARTICLE_WIDTHS, SET_WIDTHS = (256, 256, 256), (128, N_CLASSES)
SEED = 2026
# What every ONNX Runtime of the last years reads.
_OPSET, _IR = 17, 9

_CONFIG = """platform: "{platform}"
max_batch_size: 64
input {{ name: "particles__0" data_type: TYPE_FP32 dims: [ {particles}, {features} ] }}
output {{ name: "scores__0" data_type: TYPE_FP32 dims: [ {classes} ] }}
instance_group {{ kind: KIND_CPU count: 1 }}
{batching}
parameters {{ key: "intra_op_thread_count" value {{ string_value: "1" }} }}
parameters {{ key: "inter_op_thread_count" value {{ string_value: "1" }} }}
parameters {{ key: "INTRA_OP_THREAD_COUNT" value {{ string_value: "1" }} }}
parameters {{ key: "INTER_OP_THREAD_COUNT" value {{ string_value: "1" }} }}
"""

PLATFORMS = {"onnx": ("onnxruntime_onnx", "model.onnx"), "torchscript": ("pytorch_libtorch", "model.pt")}
BATCHING = {"": "", "_dynamic": "dynamic_batching { }"}


def weights() -> list[np.ndarray]:
    """The weights of all layers, each of shape (inputs, outputs); the same on every machine."""
    generator = np.random.default_rng(SEED)
    widths = [N_FEATURES, *PARTICLE_WIDTHS, *SET_WIDTHS]
    return [generator.normal(0, np.sqrt(2 / width), (width, after)).astype(np.float32) for width, after in pairwise(widths)]


def write_onnx(path: Path) -> None:
    """Write the network as ONNX: ``particles__0`` (batch, particles, features) to ``scores__0`` (batch, classes)."""
    nodes, initializers, current = [], [], "particles__0"
    for layer, matrix in enumerate(weights()):
        if layer == len(PARTICLE_WIDTHS):
            nodes.append(helper.make_node("ReduceMean", [current], ["pooled"], axes=[1], keepdims=0))
            current = "pooled"
        initializers.append(onnx.numpy_helper.from_array(matrix, f"w{layer}"))
        nodes.append(helper.make_node("MatMul", [current, f"w{layer}"], [f"m{layer}"]))
        nodes.append(helper.make_node("Relu", [f"m{layer}"], [f"r{layer}"]))
        current = f"r{layer}"
    nodes[-1] = helper.make_node("Softmax", [nodes[-1].input[0]], ["scores__0"], axis=-1)
    graph = helper.make_graph(
        nodes,
        "bench",
        [helper.make_tensor_value_info("particles__0", TensorProto.FLOAT, ("batch", N_PARTICLES, N_FEATURES))],
        [helper.make_tensor_value_info("scores__0", TensorProto.FLOAT, ("batch", N_CLASSES))],
        initializers,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR), path)


def write_repository(folder: Path, server_python: Path) -> list[str]:
    """Write the models ``onnx``, ``onnx_dynamic``, ``torchscript`` and ``torchscript_dynamic``.

    Args:
        folder: the repository to make.
        server_python: the Python that has PyTorch.

    Returns:
        The models' names.
    """
    matrices = folder.parent / "weights.npz"
    np.savez(matrices, *weights())
    names = []
    for kind, (platform, file) in PLATFORMS.items():
        for suffix, batching in BATCHING.items():
            model = folder / f"{kind}{suffix}"
            (model / "1").mkdir(parents=True)
            config = _CONFIG.format(platform=platform, particles=N_PARTICLES, features=N_FEATURES, classes=N_CLASSES, batching=batching)
            (model / "config.pbtxt").write_text(config)
            names.append(model.name)
            if kind == "onnx":
                write_onnx(model / "1" / file)
    script = Path(__file__).with_name("torchscript.py")
    targets = [str(folder / name / "1" / "model.pt") for name in names if name.startswith("torchscript")]
    subprocess.run([server_python, script, matrices, str(len(PARTICLE_WIDTHS)), *targets], check=True)
    return names
