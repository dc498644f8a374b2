"""Makes one model file of lower precision. A program of its own: it runs in the server's environment, which has the tools for it.

Imports nothing of the course. Called by :mod:`helpers.precision.variants`:

    python convert.py METHOD SOURCE TARGET [CALIBRATION.npz]
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# Before ONNX Runtime is imported: it reports its use to Microsoft by default.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def simplified(source: Path) -> Any:
    """The model with constants folded by ONNX Runtime's basic optimiser, which stays inside standard ONNX."""
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        quant_pre_process(source, path, skip_symbolic_shape=True, skip_onnx_shape=True)
        model = onnx.load(path)
    # Shapes of what is inside: the tools transpose weights, and would take the old shapes for a contradiction.
    del model.graph.value_info[:]
    return model


def choosing(model: Any) -> list[str]:
    """Names of the nodes that choose neighbours, and of all that only they need: back to matrix products, weights and shapes.

    They must stay in 32 bits: distances of padding are 1e9 there, and 16 bits end at 65504; and a choice among nearly equal distances has
    no small error.
    """
    made_by = {name: node for node in model.graph.node for name in node.output}
    heads = [node for node in model.graph.node if node.op_type == "TopK"]
    found = {node.name for node in heads}
    todo = [name for node in heads for name in node.input]
    while todo:
        node = made_by.get(todo.pop())
        # Rows of features come out of these; what is before them is the network itself.
        if node is not None and node.name not in found and node.op_type not in ("Gemm", "Relu", "BatchNormalization"):
            found.add(node.name)
            todo += node.input
    return sorted(found)


def to_fp16(source: Path, target: Path) -> None:
    """Weights and arithmetic in 16 bits; inputs, outputs and the choice of neighbours stay in 32."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = simplified(source)
    converted = convert_float_to_float16(model, keep_io_types=True, node_block_list=choosing(model))
    # The tool casts a tensor twice, under one name, where a kept node takes it twice; ONNX Runtime refuses that.
    once = {node.output[0]: node for node in converted.graph.node}
    nodes = list(once.values())
    del converted.graph.node[:]
    converted.graph.node.extend(nodes)
    onnx.save(converted, target)


def to_int8_static(source: Path, target: Path, calibration: Path) -> None:
    """Weights and activations in 8 bits; ranges come from real inputs: a ``.npz`` with an array for each, batches along axis 0."""
    import numpy as np
    import onnx
    from onnxruntime.quantization import QuantType, quantize_static

    arrays = dict(np.load(calibration))
    batches = iter([dict(zip(arrays, batch)) for batch in zip(*arrays.values())])
    reader = SimpleNamespace(get_next=partial(next, batches, None))
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.onnx"
        onnx.save(simplified(source), plain)
        # Each channel of the weights has a range of its own; what is multiplied with no weights stays in 32 bits.
        how = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, "extra_options": {"MatMulConstBOnly": True}}
        quantize_static(plain, target, reader, op_types_to_quantize=["MatMul", "Gemm"], per_channel=True, **how)


if __name__ == "__main__":
    # The tools advise to prepare the model, which is done here already, in another way.
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    methods: dict[str, Callable[..., None]] = {"fp16": to_fp16, "int8_static": to_int8_static}
    methods[sys.argv[1]](*map(Path, sys.argv[2:]))
