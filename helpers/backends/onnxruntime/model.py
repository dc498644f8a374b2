"""Backend ``onnxruntime`` of the embedded server: serves ``model.onnx`` files by the rules of the native backend.

A Triton "Python-based backend": every model whose config says ``backend: "onnxruntime"`` or ``platform: "onnxruntime_onnx"``
is an instance of this class, in a process of its own. In a Triton container the native backend serves the same models.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# This file is reached through a link in the server's backend directory; what the backends share lies beside the real one.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "common"))

import numpy as np
import triton_python_backend_utils as pb_utils
from course_backend import NUMPY_TYPES, Arrays, Fault, ServedModel, Settings, TensorSpec, model_file, one_line

# The max_batch_size that Triton gives to an ONNX model that can batch and names none: its option default-max-batch-size.
DEFAULT_MAX_BATCH_SIZE = 4
# ONNX names most types as NumPy does.
ONNX_TO_TRITON = {f"tensor({numpy_type.name})": name for name, numpy_type in NUMPY_TYPES.items()}
ONNX_TO_TRITON |= {"tensor(float)": "TYPE_FP32", "tensor(double)": "TYPE_FP64"}
# optimization.graph.level in the config -> ONNX Runtime's level, as the native backend maps it; every other number means all.
GRAPH_LEVELS = {-1: "ORT_ENABLE_BASIC", 1: "ORT_ENABLE_EXTENDED", 2: "ORT_DISABLE_ALL"}
# Parameters of the config that this backend reads.
INTRA_OP, INTER_OP = "intra_op_thread_count", "inter_op_thread_count"
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
NO_ACCELERATOR = "it needs a GPU, or a processor of Intel's, and the ONNX Runtime of NVIDIA's container"
FIXED_BATCH = "Write max_batch_size: 0, or export it again with a first axis of any size: torch.onnx.export(…, dynamic_shapes=…)."
# What ONNX Runtime says of a file that it cannot load -> what that means, and what to do.
HINTS = (
    (
        "INVALID_PROTOBUF|No graph was found",
        "It is no ONNX file: cut short, what torch.save() writes, or the place holder of a file in Git LFS (type: git lfs pull). "
        'Export the network: torch.onnx.export(network, (example,), "model.onnx", dynamo=True)',
    ),
    (
        "is under development|Unsupported model IR version",
        "It is newer than this ONNX Runtime. Export it again: torch.onnx.export(…, opset_version=18); or set model.ir_version = 10",
    ),
    (
        "External data",
        "Its weights are in another file. Copy that beside it, or export one file: torch.onnx.export(…, external_data=False)",
    ),
    ("has an empty string", "A client needs its name. Export it again: torch.onnx.export(…, input_names=[…], output_names=[…])"),
    ("No Op registered", "This ONNX Runtime lacks an operation. Export it with standard ones: torch.onnx.export(…, opset_version=18)"),
)


class TritonPythonModel(ServedModel):
    """One instance of an ONNX model."""

    DEFAULT_FILE = "model.onnx"

    @staticmethod
    def auto_complete_config(auto_complete_model_config: Any) -> Any:
        """Fill in what the config leaves out, from the ONNX file, as the native backend does."""
        config = auto_complete_model_config.as_dict()
        if config["input"] and config["output"]:
            return auto_complete_model_config
        try:
            session, _ = _session(model_file(Path(pb_utils.get_model_dir()), config, TritonPythonModel.DEFAULT_FILE), None)
            _complete(config, _tensors(session.get_inputs()), _tensors(session.get_outputs()))
        except Fault as fault:
            raise pb_utils.TritonModelException(f"model '{config['name']}': {fault}") from None
        return auto_complete_model_config

    def load(self, settings: Settings) -> None:
        """Make the ONNX Runtime session and compare its tensors with the config."""
        settings.warn_of_other_parameters(INTRA_OP, INTER_OP)
        self.session, summary = _session(settings.path, settings)
        pb_utils.Logger.log_info(f"{settings.instance}: {summary}")
        inputs = _tensors(self.session.get_inputs())
        # Weights with a default value that a request may replace are inputs, too.
        _check("input", settings.inputs, inputs + _tensors(self.session.get_overridable_initializers()), settings.max_batch_size)
        _check("output", settings.outputs, _tensors(self.session.get_outputs()), settings.max_batch_size)
        configured = {spec.name for spec in settings.inputs}
        if missing := ", ".join(f"'{tensor.name}'" for tensor in inputs if tensor.name not in configured):
            raise Fault(f"the config has no input {missing}, which the model needs. Add it to config.pbtxt.")

    def run(self, inputs: Arrays, wanted: Sequence[str]) -> list[np.ndarray]:
        """Run the session once."""
        try:
            outputs: list[np.ndarray] = self.session.run(wanted, inputs)
            return outputs
        except Exception as error:
            raise RuntimeError(f"ONNX Runtime: {one_line(error)}") from None


def _session(path: Path, settings: Settings | None) -> tuple[Any, str]:
    """Return a session and what to say of it; without settings one for names, types and shapes, which optimises nothing."""
    import onnxruntime as ort  # takes its time, and a complete config needs none of it

    options = ort.SessionOptions()
    # Only errors: ONNX Runtime's warnings are about its own optimiser, and many.
    options.log_severity_level = 3
    level = "ORT_DISABLE_ALL" if settings is None else GRAPH_LEVELS.get(settings.graph_level, "ORT_ENABLE_ALL")
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    options.intra_op_num_threads = 1
    providers: list[Any] = [CPU]
    if settings is not None:
        options.intra_op_num_threads = settings.threads(INTRA_OP)
        options.inter_op_num_threads = settings.threads(INTER_OP)
        # Every instance is a process here: threads that spin while they wait would take the cores from the other instances.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        for name in settings.accelerators:
            settings.warn_of_no_effect(f"execution accelerator '{name}'", NO_ACCELERATOR)
        if settings.on_gpu and CUDA in ort.get_available_providers():
            providers = [(CUDA, {"device_id": str(settings.device_id)}), CPU]
        elif settings.on_gpu:
            settings.warn_of_no_effect("KIND_GPU", "this ONNX Runtime has no CUDA, so the model runs on the CPU")
    try:
        session = ort.InferenceSession(str(path), options, providers=providers)
    except Exception as error:
        said = one_line(error)
        hint = next((hint for pattern, hint in HINTS if re.search(pattern, said)), "")
        raise Fault(f"ONNX Runtime cannot load {path} ({path.stat().st_size} bytes): {said} {hint}") from None
    by = ", ".join(session.get_providers())
    return session, f"ONNX Runtime {ort.__version__} with {by}; {options.intra_op_num_threads} thread(s), {level}"


def _tensors(nodes: Sequence[Any]) -> list[TensorSpec]:
    """Inputs or outputs as the ONNX file has them: shapes with the batch dimension, -1 for any size; other types by ONNX's own name."""
    shapes = [tuple(dim if isinstance(dim, int) else -1 for dim in node.shape or ()) for node in nodes]
    return [TensorSpec(node.name, ONNX_TO_TRITON.get(node.type, node.type), shape) for node, shape in zip(nodes, shapes, strict=True)]


def _complete(config: dict[str, Any], inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
    """Fill in inputs, outputs, max_batch_size and dynamic batching, by the native backend's rules. Changes ``config``."""
    # A model can batch when the first dimension of every input and output is variable.
    if all(tensor.dims[:1] == (-1,) for tensor in [*inputs, *outputs]):
        if config["max_batch_size"] == 0:
            config["max_batch_size"] = DEFAULT_MAX_BATCH_SIZE
            pb_utils.Logger.log_warn(f"model '{config['name']}' names no max_batch_size and can batch: set to {DEFAULT_MAX_BATCH_SIZE}")
        if config["max_batch_size"] > 1 and "dynamic_batching" not in config:
            config["dynamic_batching"] = {}
    for field, tensors in (("input", inputs), ("output", outputs)):
        config[field] = config[field] or [_entry(tensor, config["max_batch_size"]) for tensor in tensors]


def _entry(tensor: TensorSpec, max_batch_size: int) -> dict[str, Any]:
    dims = list(tensor.dims[1:] if max_batch_size else tensor.dims)
    entry: dict[str, Any] = {"name": tensor.name, "data_type": tensor.dtype, "dims": dims or [1]}
    if not dims and max_batch_size:
        # One number per element of the batch: the protocol has no empty shape, so the config shows [1] and the model gets [].
        entry["reshape"] = {"shape": []}
    return entry


def _check(role: str, specs: Sequence[TensorSpec], tensors: Sequence[TensorSpec], max_batch_size: int) -> None:
    """Compare the config with the model: names, types and shapes."""
    known = {tensor.name: tensor for tensor in tensors}
    for spec in specs:
        if spec.name not in known:
            raise Fault(f"the config names {role} '{spec.name}', which the model does not have; its {role}s are: {', '.join(known)}.")
        found = known[spec.name]
        if max_batch_size and found.dims[:1] != (-1,):
            raise Fault(
                f"max_batch_size is {max_batch_size}, but {role} '{spec.name}' has shape {list(found.dims)} in the model: "
                f"its first dimension cannot be the batch. {FIXED_BATCH}"
            )
        batch = (-1,) if max_batch_size else ()
        wanted = (*batch, *spec.dims)
        # An input that the model leaves open may be narrowed in the config; an output must say exactly what the model says.
        fits = [ours == theirs or (role == "input" and theirs == -1) for ours, theirs in zip(wanted, found.dims, strict=False)]
        if spec.dtype != found.dtype or len(wanted) != len(found.dims) or not all(fits):
            ours, theirs = (f"{tensor.dtype} with shape {list(dims)}" for tensor, dims in ((spec, wanted), (found, found.dims)))
            todo = f"Write data_type: {found.dtype} dims: {list(found.dims[len(batch) :])}."
            raise Fault(f"{role} '{spec.name}' is {ours} in the config{', batch included' * len(batch)}, and {theirs} in the model. {todo}")
