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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Before ONNX Runtime is imported: it reports its use to Microsoft by default.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# What must stay in 32 bits when the rest of an ONNX model goes to 16: who is whose neighbour. Distances of padding are 1e9 there, and
# 16 bits end at 65504; and a choice among nearly equal distances has no small error.
_CHOICE = "TopK"


def simplified(source: Path) -> Any:
    """The model with constants folded by ONNX Runtime's basic optimiser, which stays inside standard ONNX."""
    import onnx
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "model.onnx")
        ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
        model = onnx.load(options.optimized_model_filepath)
    # Shapes of what is inside: the tools transpose weights, and would take the old shapes for a contradiction.
    del model.graph.value_info[:]
    return model


def nodes_before(model: Any, kind: str) -> list[str]:
    """Names of the nodes of one kind, and of all that only they need: their inputs back to matrix products, weights and shapes."""
    made_by = {name: node for node in model.graph.node for name in node.output}
    heads = [node for node in model.graph.node if node.op_type == kind]
    found = {node.name for node in heads}
    todo = [name for node in heads for name in node.input]
    while todo:
        node = made_by.get(todo.pop())
        # Rows of features come out of these; what is before them is the network itself.
        if node is None or node.name in found or node.op_type in ("Gemm", "Relu", "BatchNormalization"):
            continue
        found.add(node.name)
        todo += node.input
    return sorted(found)


def to_fp16(source: Path, target: Path) -> None:
    """Weights and arithmetic in 16 bits; inputs, outputs and the choice of neighbours stay in 32."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = simplified(source)
    converted = convert_float_to_float16(model, keep_io_types=True, node_block_list=nodes_before(model, _CHOICE))
    # The tool casts a tensor twice, under one name, where a kept node takes it twice; ONNX Runtime refuses that.
    seen: set[str] = set()
    repeated = []
    for place, node in enumerate(converted.graph.node):
        if node.op_type == "Cast" and node.output[0] in seen:
            repeated.append(place)
        seen.update(node.output)
    for place in reversed(repeated):
        del converted.graph.node[place]
    onnx.save(converted, target)


def to_int8_static(source: Path, target: Path, calibration: Path) -> None:
    """Weights and activations in 8 bits; ranges come from real inputs: a ``.npz`` with an array for each, batches along axis 0."""
    import numpy as np
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

    class Batches(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            arrays = dict(np.load(calibration))
            self._batches: Iterator[dict[str, Any]] = iter([dict(zip(arrays, batch)) for batch in zip(*arrays.values())])

        def get_next(self) -> dict[str, Any] | None:
            return next(self._batches, None)

    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.onnx"
        onnx.save(simplified(source), plain)
        quantize_static(
            plain,
            target,
            Batches(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul", "Gemm"],
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"MatMulConstBOnly": True},
        )


METHODS: dict[str, Callable[..., None]] = {"fp16": to_fp16, "int8_static": to_int8_static}

if __name__ == "__main__":
    # The tools advise to prepare the model, which is done here already, in another way.
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    METHODS[sys.argv[1]](*map(Path, sys.argv[2:]))
