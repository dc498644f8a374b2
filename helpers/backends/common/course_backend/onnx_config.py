"""An ONNX model and its Triton config: what the config may leave out, and when the two contradict each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from course_backend.faults import ModelFault
from course_backend.settings import Settings, TensorSpec

# The max_batch_size that Triton gives to an ONNX model that can batch and names none: its option default-max-batch-size.
DEFAULT_MAX_BATCH_SIZE = 4

ONNX_TO_TRITON = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
    "tensor(string)": "TYPE_STRING",
}


@dataclass(frozen=True)
class ModelTensor:
    """An input or output as the ONNX file has it.

    Attributes:
        name: its name.
        onnx_type: such as ``tensor(float)``.
        dims: its shape with the batch dimension; -1 is any size; empty for a scalar.
    """

    name: str
    onnx_type: str
    dims: tuple[int, ...]

    @property
    def dtype(self) -> str:
        """The type's name in config.pbtxt.

        Raises:
            ModelFault: Triton has no such type.
        """
        if self.onnx_type not in ONNX_TO_TRITON:
            raise ModelFault(f"tensor '{self.name}' of the ONNX file is a {self.onnx_type}, which Triton's protocol cannot carry.")
        return ONNX_TO_TRITON[self.onnx_type]


def complete(config: dict[str, Any], inputs: Sequence[ModelTensor], outputs: Sequence[ModelTensor], warn: Callable[[str], None]) -> None:
    """Fill in inputs, outputs, max_batch_size and dynamic batching, by the native backend's rules. Changes ``config``.

    A model can batch when the first dimension of every input and output is variable.

    Raises:
        ModelFault: the config asks for batches and the model has no batch dimension.
    """
    if all(tensor.dims and tensor.dims[0] == -1 for tensor in [*inputs, *outputs]):
        if config["max_batch_size"] == 0:
            config["max_batch_size"] = DEFAULT_MAX_BATCH_SIZE
            warn(f"model '{config['name']}' names no max_batch_size and can batch: set to {DEFAULT_MAX_BATCH_SIZE}")
        if config["max_batch_size"] > 1 and not config.keys() & {"dynamic_batching", "sequence_batching"}:
            config["dynamic_batching"] = {}
    elif config["max_batch_size"]:
        fixed = next(tensor for tensor in [*inputs, *outputs] if not tensor.dims or tensor.dims[0] != -1)
        raise ModelFault(
            f"max_batch_size is {config['max_batch_size']}, but the model has no batch dimension: "
            f"tensor '{fixed.name}' has shape {list(fixed.dims)} in the ONNX file, and its first dimension would have to be variable."
        )
    if not config["input"]:
        config["input"] = [_entry(tensor, config["max_batch_size"]) for tensor in inputs]
    if not config["output"]:
        config["output"] = [_entry(tensor, config["max_batch_size"]) for tensor in outputs]


def check(settings: Settings, inputs: Sequence[ModelTensor], initializers: Sequence[ModelTensor], outputs: Sequence[ModelTensor]) -> None:
    """Compare the config with the model: number of inputs, names, types and shapes.

    Raises:
        ModelFault: names the tensor and both sides.
    """
    if settings.max_batch_size and any(spec.optional for spec in settings.inputs):
        raise ModelFault("optional inputs need max_batch_size: 0, as in the native backend.")
    for spec in settings.inputs:
        _check_tensor("input", spec, [*inputs, *initializers], settings.max_batch_size)
    for spec in settings.outputs:
        _check_tensor("output", spec, outputs, settings.max_batch_size)
    configured = {spec.name for spec in settings.inputs} | set(settings.controls)
    missing = ", ".join(f"'{tensor.name}'" for tensor in inputs if tensor.name not in configured)
    if missing:
        raise ModelFault(f"the config has no input {missing}, which the model needs.")


def _check_tensor(role: str, spec: TensorSpec, tensors: Sequence[ModelTensor], max_batch_size: int) -> None:
    found = {tensor.name: tensor for tensor in tensors}.get(spec.name)
    if found is None:
        raise ModelFault(f"the config names {role} '{spec.name}', which the model does not have; its {role}s are: "
                         f"{', '.join(tensor.name for tensor in tensors)}.")  # fmt: skip
    if found.dtype != spec.dtype:
        raise ModelFault(f"{role} '{spec.name}' is {spec.dtype} in the config and {found.dtype} in the model.")
    if not found.dims:
        if any(dim != 1 for dim in spec.dims) or max_batch_size:
            raise ModelFault(f"{role} '{spec.name}' is a scalar in the model: it needs dims: [ 1 ] and max_batch_size: 0.")
        return
    if max_batch_size and found.dims[0] != -1:
        raise ModelFault(
            f"max_batch_size is {max_batch_size}, but {role} '{spec.name}' has shape {list(found.dims)} in the model: "
            "its first dimension is fixed and cannot be the batch."
        )
    wanted = (-1, *spec.dims) if max_batch_size else spec.dims
    # An input that the model leaves open may be narrowed in the config; an output must say exactly what the model says.
    fits = len(wanted) == len(found.dims) and all(
        ours == theirs or (role == "input" and theirs == -1) for ours, theirs in zip(wanted, found.dims, strict=True)
    )
    if not fits:
        batch = ", the batch dimension included" if max_batch_size else ""
        raise ModelFault(f"{role} '{spec.name}' has shape {list(wanted)} in the config{batch}, and {list(found.dims)} in the model.")


def _entry(tensor: ModelTensor, max_batch_size: int) -> dict[str, Any]:
    dims = list(tensor.dims[1:] if max_batch_size else tensor.dims)
    entry: dict[str, Any] = {"name": tensor.name, "data_type": tensor.dtype, "dims": dims or [1]}
    if not dims and max_batch_size:
        # One number per element of the batch: the protocol has no empty shape, so the config shows [1] and the model gets [].
        entry["reshape"] = {"shape": []}
    return entry
