"""Small ONNX models, each made for one question about the backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

# What every ONNX Runtime of the last years reads.
_OPSET, _IR = 17, 9
Shape = Sequence[int | str]

FLOAT = TensorProto.FLOAT


def tensor(name: str, shape: Shape, dtype: int = FLOAT) -> onnx.ValueInfoProto:
    """An input or output; a text in the shape is a variable dimension."""
    return helper.make_tensor_value_info(name, dtype, shape)


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: dict[str, np.ndarray] | None = None,
) -> None:
    """Write a model file, its folders included."""
    initializers = [onnx.numpy_helper.from_array(value, name) for name, value in (weights or {}).items()]
    graph = helper.make_graph(nodes, "test", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


def identities(path: Path, types: dict[str, int]) -> None:
    """``NAME_back = NAME`` for each type, shape (batch, 2)."""
    nodes = [helper.make_node("Identity", [name], [f"{name}_back"]) for name in types]
    inputs = [tensor(name, ("batch", 2), number) for name, number in types.items()]
    save(path, nodes, inputs, [tensor(f"{name}_back", ("batch", 2), number) for name, number in types.items()])


def affine(path: Path, shape: Shape = ("batch", 3), out_shape: Shape | None = None) -> None:
    """``y = 2 x + 1`` and ``z = -x``."""
    nodes = [
        helper.make_node("Mul", ["x", "two"], ["doubled"]),
        helper.make_node("Add", ["doubled", "one"], ["y"]),
        helper.make_node("Neg", ["x"], ["z"]),
    ]
    weights = {"two": np.float32(2).reshape(()), "one": np.float32(1).reshape(())}
    outputs = [tensor("y", out_shape or shape), tensor("z", out_shape or shape)]
    save(path, nodes, [tensor("x", shape)], outputs, weights)


def mistaken(path: Path, change: Callable[[onnx.ModelProto], object]) -> None:
    """As `affine`, with a mistake."""
    affine(path)
    change(model := onnx.load(path))
    onnx.save(model, path)


def _nameless(model: onnx.ModelProto) -> None:
    """Its input has no name."""
    model.graph.input[0].name = model.graph.node[0].input[0] = model.graph.node[2].input[0] = ""


def _elsewhere(model: onnx.ModelProto) -> None:
    """Its weights are in a file that nobody copied."""
    (two, _) = model.graph.initializer
    two.ClearField("raw_data")
    two.data_location = TensorProto.EXTERNAL
    two.external_data.add(key="location", value="weights.bin")


MISTAKES: dict[str, Callable[[onnx.ModelProto], object]] = {
    "opset": lambda model: setattr(model.opset_import[0], "version", 99),
    "version": lambda model: setattr(model, "ir_version", 99),
    "nameless": _nameless,
    "elsewhere": _elsewhere,
    "operation": lambda model: setattr(model.graph.node[2], "op_type", "MyOwn"),
}


def table(path: Path, rows: int = 10) -> None:
    """``y = rows[i]`` of ten rows: an index of 10 or more is an error while it runs, for the whole batch."""
    nodes = [helper.make_node("Gather", ["rows", "i"], ["gathered"]), helper.make_node("Squeeze", ["gathered", "axis"], ["y"])]
    weights = {"rows": np.arange(2 * rows, dtype=np.float32).reshape(rows, 2), "axis": np.array([1], dtype=np.int64)}
    save(path, nodes, [tensor("i", ("batch", 1), TensorProto.INT64)], [tensor("y", ("batch", 2))], weights)


def row_sum(path: Path) -> None:
    """``y`` = sum over the variable second dimension of ``x``."""
    weights = {"axis": np.array([1], dtype=np.int64)}
    node = helper.make_node("ReduceSum", ["x", "axis"], ["y"], keepdims=1)
    save(path, [node], [tensor("x", ("batch", "n"))], [tensor("y", ("batch", 1))], weights)


def scale_optional(path: Path, optional: bool = True) -> None:
    """``y = x * factor``; the factor may have a default of 3 that a request may overrule."""
    shape = (3,)
    inputs = [tensor("x", shape), tensor("factor", (1,))]
    weights = {"factor": np.array([3], dtype=np.float32)} if optional else {}
    save(path, [helper.make_node("Mul", ["x", "factor"], ["y"])], inputs, [tensor("y", shape)], weights)


def scalar(path: Path) -> None:
    """``y = x + 1`` for scalars, shape ``[]``."""
    nodes = [helper.make_node("Add", ["x", "one"], ["y"])]
    save(path, nodes, [tensor("x", ())], [tensor("y", ())], {"one": np.float32(1).reshape(())})


def per_event(path: Path) -> None:
    """One number in and one out per element of the batch, without a further dimension."""
    nodes = [helper.make_node("Add", ["x", "one"], ["y"])]
    save(path, nodes, [tensor("x", ("batch",))], [tensor("y", ("batch",))], {"one": np.float32(1).reshape(())})


def keep_positive(path: Path) -> None:
    """``y`` = the rows of ``x`` with a positive number in them: the first dimension of the output need not be the batch."""
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["largest"], axes=[1], keepdims=0),
        helper.make_node("Greater", ["largest", "zero"], ["keep"]),
        helper.make_node("Compress", ["x", "keep"], ["y"], axis=0),
    ]
    save(path, nodes, [tensor("x", ("batch", 3))], [tensor("y", ("kept", 3))], {"zero": np.float32(0).reshape(())})


def pairs(path: Path) -> None:
    """``y`` = the eight numbers of ``x`` as two rows; the node's name is as long as exporters make them."""
    node = helper.make_node("Reshape", ["x", "shape"], ["y"], name="/model/encoder/layers.11/attention" * 12)
    save(path, [node], [tensor("x", ("n",))], [tensor("y", (2, 4))], {"shape": np.array([2, 4], dtype=np.int64)})
