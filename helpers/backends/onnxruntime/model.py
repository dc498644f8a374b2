"""Backend ``onnxruntime`` of the embedded server: serves ``model.onnx`` files by the rules of the native backend.

A Triton "Python-based backend": every model whose config says ``backend: "onnxruntime"`` or ``platform: "onnxruntime_onnx"``
is an instance of this class, in a process of its own. In a Triton container the native backend serves the same models.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# This file is reached through a link in the server's backend directory; what the backends share lies beside the real one.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "common"))

import numpy as np
import triton_python_backend_utils as pb_utils
from course_backend import (
    Accelerator,
    Arrays,
    ModelFault,
    ServedModel,
    Settings,
    TensorSpec,
    decoded,
    model_file,
    one_line,
    refuse_unsupported,
)

# The max_batch_size that Triton gives to an ONNX model that can batch and names none: its option default-max-batch-size.
DEFAULT_MAX_BATCH_SIZE = 4
ONNX_TO_TRITON = {"float16": "FP16", "float": "FP32", "double": "FP64"} | {
    name: name.upper()
    for name in ("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "string")
}  # fmt: skip
# optimization.graph.level in the config -> ONNX Runtime's level, as the native backend maps it; every other number means all.
GRAPH_LEVELS = {-1: "ORT_ENABLE_BASIC", 1: "ORT_ENABLE_EXTENDED", 2: "ORT_DISABLE_ALL"}
# Parameters of the config that this backend reads.
INTRA_OP, INTER_OP = "intra_op_thread_count", "inter_op_thread_count"

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
# Accelerators that the native backend knows, by the list of the config in which they may stand.
ACCELERATORS = {
    ("gpu", "tensorrt"): "TensorrtExecutionProvider",
    ("gpu", "cuda"): CUDA,
    ("cpu", "openvino"): "OpenVINOExecutionProvider",
}
# Parameters of the tensorrt accelerator in ONNX Runtime's words; others go to it as they are, and it refuses what it does not know.
TENSORRT = {"max_workspace_size_bytes": "trt_max_workspace_size"}
FIXED_BATCH = "Write max_batch_size: 0, or export it again with a first axis of any size: torch.onnx.export(…, dynamic_shapes=…)."
# Why ONNX Runtime cannot load a file -> what that means, and what to do.
FAULTS = (
    (
        r"Opset (\d+) is under development.* till opset (\d+)",
        "it was exported with opset {0}, and this ONNX Runtime knows them up to {1}. Export it again: "
        'torch.onnx.export(…, "model.onnx", opset_version={1})',
    ),
    (
        r"Unsupported model IR version: (\d+), max supported IR version: (\d+)",
        "its format has version {0}, and this ONNX Runtime knows them up to {1}. Write it again with: model = onnx.load(…); "
        "model.ir_version = {1}; onnx.save(model, …)",
    ),
    (
        r"'s (input|output) \d+ is marked single but has an empty string",
        "an {0} in it has no name, by which a client could ask for it. Export it again, with names: torch.onnx.export(…, "
        "input_names=[…], output_names=[…])",
    ),
    (
        r'External data path does not exist: "?([^"]+?)"?$',
        "it keeps its weights in another file, {0}, which is not there. Copy that file into the version folder, or export it again as one "
        "file: torch.onnx.export(…, external_data=False)",
    ),
    (
        r"(?:Fatal error: |No Op registered for )([\w.:]+)",
        "it uses the operation {0}, which this ONNX Runtime does not have in this opset. Export it with standard operations only, and "
        "with an opset that has them: torch.onnx.export(…, opset_version=…)",
    ),
)
# What stands at the beginning of files that people take for ONNX, what they are, and what to do.
EXPORT = 'Export the network: torch.onnx.export(network, (example,), "model.onnx", dynamo=True)'
BEGINNINGS = (
    (rb"PK", f"it is an archive, as torch.save() writes: weights, or a class that needs its Python code; or a .pt2. {EXPORT}"),
    (rb"version https://git-lfs", "it is the place holder of a file in Git LFS. Type: git lfs pull"),
    (rb"$", f"it is empty. {EXPORT}"),
    (rb"", f"it is no ONNX file, or was cut short on its way. Copy it again, or export the network: {EXPORT.partition(': ')[2]}"),
)
PRECISIONS: dict[str, dict[str, str]] = {"FP32": {}, "FP16": {"trt_fp16_enable": "1"}, "INT8": {"trt_int8_enable": "1"}}


@dataclass(frozen=True)
class ModelTensor:
    """An input or output as the ONNX file has it: its name, its type such as ``tensor(float)``, and its shape.

    The shape has the batch dimension; -1 is any size, and a scalar has none.
    """

    name: str
    onnx_type: str
    dims: tuple[int, ...]

    @property
    def dtype(self) -> str:
        """The type's name in config.pbtxt."""
        kind = ONNX_TO_TRITON.get(self.onnx_type.removeprefix("tensor(").removesuffix(")"))
        if kind is None:
            raise ModelFault(f"tensor '{self.name}' of the ONNX file is a {self.onnx_type}, which Triton's protocol cannot carry.")
        return f"TYPE_{kind}"


class TritonPythonModel(ServedModel):
    """One instance of an ONNX model."""

    DEFAULT_FILES = ("model.onnx",)

    @staticmethod
    def auto_complete_config(auto_complete_model_config: Any) -> Any:
        """Fill in what the config leaves out, from the ONNX file, as the native backend does."""
        config = auto_complete_model_config.as_dict()
        if config["input"] and config["output"]:
            return auto_complete_model_config
        try:
            refuse_unsupported(config)
            session, _ = _session(model_file(Path(pb_utils.get_model_dir()), config, TritonPythonModel.DEFAULT_FILES), None)
            _complete(config, _tensors(session.get_inputs()), _tensors(session.get_outputs()))
        except ModelFault as fault:
            raise pb_utils.TritonModelException(f"model '{config['name']}': {fault}") from None
        return auto_complete_model_config

    def load(self, settings: Settings) -> None:
        """Make the ONNX Runtime session and compare its tensors with the config."""
        settings.warn_of_other_parameters(INTRA_OP, INTER_OP)
        self.session, summary = _session(settings.path, settings)
        pb_utils.Logger.log_info(f"{settings.instance}: {summary}")
        inputs, outputs = _tensors(self.session.get_inputs()), _tensors(self.session.get_outputs())
        # Weights with a default value that a request may replace are the optional inputs.
        _check(settings, inputs, _tensors(self.session.get_overridable_initializers()), outputs)
        self.strings = {spec.name for spec in settings.inputs if spec.dtype == "TYPE_STRING"}
        self.scalars = {tensor.name for tensor in inputs + outputs if not tensor.dims}
        self.output_dims = {spec.name: spec.dims for spec in settings.outputs}

    def run(self, inputs: Arrays, wanted: Sequence[str]) -> list[np.ndarray]:
        """Run the session once."""
        for name in self.strings & inputs.keys():
            # Triton brings strings as bytes, ONNX Runtime's Python interface takes text.
            inputs[name] = np.array(decoded(name, inputs[name]), dtype=object).reshape(inputs[name].shape)
        for name in self.scalars & inputs.keys():
            inputs[name] = inputs[name].reshape(())
        try:
            outputs = self.session.run(wanted, inputs)
        except Exception as error:
            raise RuntimeError(f"ONNX Runtime: {one_line(error)}") from None
        if self.scalars:
            return [
                np.asarray(output).reshape(self.output_dims[name]) if name in self.scalars else output
                for name, output in zip(wanted, outputs, strict=True)
            ]
        return outputs


def _session(path: Path, settings: Settings | None) -> tuple[Any, str]:
    """Return a session and what to say of it; without settings one for names, types and shapes, which optimises nothing."""
    import onnxruntime as ort  # takes its time, and a complete config needs none of it

    options = ort.SessionOptions()
    # Only errors: ONNX Runtime's warnings are about its own optimiser, and many.
    options.log_severity_level = 3
    level = "ORT_DISABLE_ALL" if settings is None else GRAPH_LEVELS.get(settings.graph_level, "ORT_ENABLE_ALL")
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    options.intra_op_num_threads = 1
    if settings is not None:
        options.intra_op_num_threads = settings.threads(INTRA_OP)
        options.inter_op_num_threads = settings.threads(INTER_OP)
        # Every instance is a process here: threads that spin while they wait would take the cores from the other instances.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    providers = [CPU] if settings is None else _providers(settings, ort.get_available_providers())
    try:
        session = ort.InferenceSession(str(path), options, providers=providers)
    except Exception as error:
        raise ModelFault(f"ONNX Runtime cannot load {path} ({path.stat().st_size} bytes): {_fault(path, error)}.") from None
    by = ", ".join(session.get_providers())
    return session, f"ONNX Runtime {ort.__version__} with {by}; {options.intra_op_num_threads} thread(s), {level}"


def _fault(path: Path, error: Exception) -> str:
    """Return why a file cannot be loaded and what to do, in plain words; in ONNX Runtime's where none are known."""
    said = one_line(error)
    if "INVALID_PROTOBUF" in said or "No graph was found" in said:
        with path.open("rb") as file:
            begin = file.read(64)
        return next(words for pattern, words in BEGINNINGS if re.match(pattern, begin))
    for pattern, words in FAULTS:
        if found := re.search(pattern, said):
            return words.format(*found.groups())
    return said


def _tensors(nodes: Sequence[Any]) -> list[ModelTensor]:
    return [ModelTensor(node.name, node.type, tuple(dim if isinstance(dim, int) else -1 for dim in node.shape or ())) for node in nodes]


def _complete(config: dict[str, Any], inputs: Sequence[ModelTensor], outputs: Sequence[ModelTensor]) -> None:
    """Fill in inputs, outputs, max_batch_size and dynamic batching, by the native backend's rules. Changes ``config``.

    A model can batch when the first dimension of every input and output is variable.
    """
    fixed = [tensor for tensor in [*inputs, *outputs] if tensor.dims[:1] != (-1,)]
    if not fixed:
        if config["max_batch_size"] == 0:
            config["max_batch_size"] = DEFAULT_MAX_BATCH_SIZE
            pb_utils.Logger.log_warn(f"model '{config['name']}' names no max_batch_size and can batch: set to {DEFAULT_MAX_BATCH_SIZE}")
        if config["max_batch_size"] > 1 and not config.keys() & {"dynamic_batching", "sequence_batching"}:
            config["dynamic_batching"] = {}
    elif config["max_batch_size"]:
        raise ModelFault(
            f"max_batch_size is {config['max_batch_size']}, but the model has no batch dimension: tensor '{fixed[0].name}' has shape "
            f"{list(fixed[0].dims)} in the ONNX file, and its first dimension would have to be variable. {FIXED_BATCH}"
        )
    for field, tensors in (("input", inputs), ("output", outputs)):
        config[field] = config[field] or [_entry(tensor, config["max_batch_size"]) for tensor in tensors]


def _entry(tensor: ModelTensor, max_batch_size: int) -> dict[str, Any]:
    dims = list(tensor.dims[1:] if max_batch_size else tensor.dims)
    entry: dict[str, Any] = {"name": tensor.name, "data_type": tensor.dtype, "dims": dims or [1]}
    if not dims and max_batch_size:
        # One number per element of the batch: the protocol has no empty shape, so the config shows [1] and the model gets [].
        entry["reshape"] = {"shape": []}
    return entry


def _check(settings: Settings, inputs: list[ModelTensor], defaults: list[ModelTensor], outputs: list[ModelTensor]) -> None:
    """Compare the config with the model: number of inputs, names, types and shapes."""
    if settings.max_batch_size and any(spec.optional for spec in settings.inputs):
        raise ModelFault("optional inputs need max_batch_size: 0, as in the native backend.")
    for role, specs, tensors in (("input", settings.inputs, inputs + defaults), ("output", settings.outputs, outputs)):
        for spec in specs:
            _check_tensor(role, spec, tensors, settings.max_batch_size)
    configured = {spec.name for spec in settings.inputs} | set(settings.controls)
    missing = ", ".join(f"'{tensor.name}'" for tensor in inputs if tensor.name not in configured)
    if missing:
        raise ModelFault(f"the config has no input {missing}, which the model needs. Add it to config.pbtxt.")


def _check_tensor(role: str, spec: TensorSpec, tensors: Sequence[ModelTensor], max_batch_size: int) -> None:
    found = {tensor.name: tensor for tensor in tensors}.get(spec.name)
    if found is None:
        names = ", ".join(tensor.name for tensor in tensors)
        raise ModelFault(f"the config names {role} '{spec.name}', which the model does not have; its {role}s are: {names}.")
    if found.dtype != spec.dtype:
        raise ModelFault(
            f"{role} '{spec.name}' is {spec.dtype} in the config and {found.dtype} in the model. Write data_type: {found.dtype}."
        )
    if not found.dims:
        if any(dim != 1 for dim in spec.dims) or max_batch_size:
            raise ModelFault(f"{role} '{spec.name}' is a scalar in the model: it needs dims: [ 1 ] and max_batch_size: 0.")
        return
    if max_batch_size and found.dims[0] != -1:
        raise ModelFault(
            f"max_batch_size is {max_batch_size}, but {role} '{spec.name}' has shape {list(found.dims)} in the model: "
            f"its first dimension is fixed and cannot be the batch. {FIXED_BATCH}"
        )
    wanted = (-1, *spec.dims) if max_batch_size else spec.dims
    # An input that the model leaves open may be narrowed in the config; an output must say exactly what the model says.
    fits = len(wanted) == len(found.dims) and all(
        ours == theirs or (role == "input" and theirs == -1) for ours, theirs in zip(wanted, found.dims, strict=True)
    )
    if not fits:
        batch = ", the batch dimension included" if max_batch_size else ""
        right = list(found.dims[1:] if max_batch_size else found.dims)
        raise ModelFault(
            f"{role} '{spec.name}' has shape {list(wanted)} in the config{batch}, and {list(found.dims)} in the model. Write dims: {right}."
        )


def _providers(settings: Settings, available: Sequence[str]) -> list[Any]:
    """Return the execution providers of one instance, the preferred first; the CPU is always the last."""
    chosen: list[Any] = []
    cuda_options = {"device_id": str(settings.device_id)}
    for accelerator in settings.accelerators:
        provider = ACCELERATORS.get((accelerator.device, accelerator.name))
        if provider is None:
            known = ", ".join(name for device, name in ACCELERATORS if device == accelerator.device)
            raise ModelFault(
                f"'{accelerator.name}' is no {accelerator.device}_execution_accelerator of ONNX Runtime models; there is: {known}."
            )
        options = _options(accelerator, settings)
        what = f"execution accelerator '{accelerator.name}'"
        if accelerator.device == "gpu" and not settings.on_gpu:
            settings.warn_of_no_effect(what, "it needs a GPU, and this instance runs on the CPU")
        elif provider not in available:
            settings.warn_of_no_effect(what, f"this ONNX Runtime was built without {provider} (it has {', '.join(available)})")
        elif provider == CUDA:
            cuda_options |= options
        else:
            chosen.append((provider, options))
    if settings.on_gpu and CUDA in available:
        chosen.append((CUDA, cuda_options))
    elif settings.on_gpu:
        settings.warn_of_no_gpu("ONNX Runtime")
    return [*chosen, CPU]


def _options(accelerator: Accelerator, settings: Settings) -> dict[str, str]:
    """Return the options of an accelerator in ONNX Runtime's own words."""
    if accelerator.name == "openvino":
        # OpenVINO has threads of its own, which know nothing of the session's: by itself each instance would take all cores.
        return {"device_type": "CPU", "num_of_threads": str(settings.threads(INTRA_OP))}
    if accelerator.name == "cuda":
        return dict(accelerator.parameters)
    precision = accelerator.parameters.get("precision_mode", "FP32")
    if precision not in PRECISIONS:
        raise ModelFault(f"precision_mode of accelerator 'tensorrt' is '{precision}'; there is: {', '.join(PRECISIONS)}.")
    named = {TENSORRT.get(key, key): value for key, value in accelerator.parameters.items() if key != "precision_mode"}
    return {"device_id": str(settings.device_id), **PRECISIONS[precision], **named}
