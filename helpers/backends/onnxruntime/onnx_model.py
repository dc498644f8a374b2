"""An ONNX model as a model instance needs it: its session, its tensors, and where they contradict the config. Imports ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime as ort
from course_backend import Accelerator, ModelFault, Settings, TensorSpec, one_line
from triton_python_backend_utils import Logger

# The max_batch_size that Triton gives to an ONNX model that can batch and names none: its option default-max-batch-size.
DEFAULT_MAX_BATCH_SIZE = 4
ONNX_TO_TRITON = {"float16": "FP16", "float": "FP32", "double": "FP64"} | {
    name: name.upper()
    for name in ("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "string")
}  # fmt: skip
# optimization.graph.level in the config -> ONNX Runtime's level, as the native backend maps it; every other number means all.
GRAPH_LEVELS = {
    -1: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    1: ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
# Parameters of the config that this backend reads.
INTRA_OP, INTER_OP = "intra_op_thread_count", "inter_op_thread_count"

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
# Accelerators that the native backend knows, by the list of the config in which they may stand.
ACCELERATORS = {
    ("gpu", "tensorrt"): "TensorrtExecutionProvider",
    ("gpu", "cuda"): CUDA,
    ("cpu", "openvino"): "OpenVINOExecutionProvider",
}
# Parameters of the tensorrt accelerator whose names differ from ONNX Runtime's; those that begin with "trt_" pass as they are.
TENSORRT_OPTIONS = {
    "max_workspace_size_bytes": "trt_max_workspace_size",
    "int8_calibration_table_name": "trt_int8_calibration_table_name",
    "int8_use_native_calibration_table": "trt_int8_use_native_calibration_table",
}
PRECISIONS: dict[str, dict[str, str]] = {"FP32": {}, "FP16": {"trt_fp16_enable": "1"}, "INT8": {"trt_int8_enable": "1"}}


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
        kind = ONNX_TO_TRITON.get(self.onnx_type.removeprefix("tensor(").removesuffix(")"))
        if kind is None:
            raise ModelFault(f"tensor '{self.name}' of the ONNX file is a {self.onnx_type}, which Triton's protocol cannot carry.")
        return f"TYPE_{kind}"


class Model:
    """A session with its tensors.

    Args:
        path: the ONNX file.
        settings: the model's config; without it the session serves only to read names, types and shapes, and optimises nothing.

    Raises:
        ModelFault: the file is no ONNX model that this ONNX Runtime can read, or an option is wrong.
    """

    def __init__(self, path: Path, settings: Settings | None = None) -> None:
        options = ort.SessionOptions()
        # Only errors: ONNX Runtime's warnings are about its own optimiser, and many.
        options.log_severity_level = 3
        providers: list[Any] = [CPU]
        if settings is None:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.intra_op_num_threads = 1
        else:
            settings.warn_of_other_parameters(INTRA_OP, INTER_OP)
            options.graph_optimization_level = GRAPH_LEVELS.get(settings.graph_level, ort.GraphOptimizationLevel.ORT_ENABLE_ALL)
            options.intra_op_num_threads = settings.threads(INTRA_OP)
            options.inter_op_num_threads = settings.threads(INTER_OP)
            # Every instance is a process here: threads that spin while they wait would take the cores from the other instances.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            options.add_session_config_entry("session.inter_op.allow_spinning", "0")
            providers = _providers(settings, ort.get_available_providers())
        try:
            self.session = ort.InferenceSession(str(path), options, providers=providers)
        except Exception as error:
            raise ModelFault(f"ONNX Runtime cannot load {path} ({path.stat().st_size} bytes): {one_line(error)}") from None
        self.summary = (
            f"ONNX Runtime {ort.__version__} with {', '.join(self.session.get_providers())}; "
            f"{options.intra_op_num_threads} thread(s), {options.graph_optimization_level.name}"
        )
        self.inputs = [_tensor(node) for node in self.session.get_inputs()]
        self.outputs = [_tensor(node) for node in self.session.get_outputs()]
        # Weights with a default value that a request may replace: the optional inputs.
        self.initializers = [_tensor(node) for node in self.session.get_overridable_initializers()]

    def complete(self, config: dict[str, Any]) -> None:
        """Fill in inputs, outputs, max_batch_size and dynamic batching, by the native backend's rules. Changes ``config``.

        A model can batch when the first dimension of every input and output is variable.

        Raises:
            ModelFault: the config asks for batches and the model has no batch dimension.
        """
        fixed = [tensor for tensor in [*self.inputs, *self.outputs] if tensor.dims[:1] != (-1,)]
        if not fixed:
            if config["max_batch_size"] == 0:
                config["max_batch_size"] = DEFAULT_MAX_BATCH_SIZE
                Logger.log_warn(f"model '{config['name']}' names no max_batch_size and can batch: set to {DEFAULT_MAX_BATCH_SIZE}")
            if config["max_batch_size"] > 1 and not config.keys() & {"dynamic_batching", "sequence_batching"}:
                config["dynamic_batching"] = {}
        elif config["max_batch_size"]:
            raise ModelFault(
                f"max_batch_size is {config['max_batch_size']}, but the model has no batch dimension: tensor '{fixed[0].name}' has shape "
                f"{list(fixed[0].dims)} in the ONNX file, and its first dimension would have to be variable."
            )
        for field, tensors in (("input", self.inputs), ("output", self.outputs)):
            config[field] = config[field] or [_entry(tensor, config["max_batch_size"]) for tensor in tensors]

    def check(self, settings: Settings) -> None:
        """Compare the config with the model: number of inputs, names, types and shapes.

        Raises:
            ModelFault: names the tensor and both sides.
        """
        if settings.max_batch_size and any(spec.optional for spec in settings.inputs):
            raise ModelFault("optional inputs need max_batch_size: 0, as in the native backend.")
        for spec in settings.inputs:
            _check_tensor("input", spec, [*self.inputs, *self.initializers], settings.max_batch_size)
        for spec in settings.outputs:
            _check_tensor("output", spec, self.outputs, settings.max_batch_size)
        configured = {spec.name for spec in settings.inputs} | set(settings.controls)
        missing = ", ".join(f"'{tensor.name}'" for tensor in self.inputs if tensor.name not in configured)
        if missing:
            raise ModelFault(f"the config has no input {missing}, which the model needs.")


def _tensor(node: Any) -> ModelTensor:
    return ModelTensor(node.name, node.type, tuple(dim if isinstance(dim, int) else -1 for dim in node.shape or ()))


def _entry(tensor: ModelTensor, max_batch_size: int) -> dict[str, Any]:
    dims = list(tensor.dims[1:] if max_batch_size else tensor.dims)
    entry: dict[str, Any] = {"name": tensor.name, "data_type": tensor.dtype, "dims": dims or [1]}
    if not dims and max_batch_size:
        # One number per element of the batch: the protocol has no empty shape, so the config shows [1] and the model gets [].
        entry["reshape"] = {"shape": []}
    return entry


def _check_tensor(role: str, spec: TensorSpec, tensors: Sequence[ModelTensor], max_batch_size: int) -> None:
    found = {tensor.name: tensor for tensor in tensors}.get(spec.name)
    if found is None:
        names = ", ".join(tensor.name for tensor in tensors)
        raise ModelFault(f"the config names {role} '{spec.name}', which the model does not have; its {role}s are: {names}.")
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


def _providers(settings: Settings, available: Sequence[str]) -> list[Any]:
    """Return the execution providers of one instance, the preferred first; the CPU is always the last.

    Raises:
        ModelFault: the config names an accelerator or a parameter that does not exist.
    """
    chosen: list[Any] = []
    cuda_options = {"device_id": str(settings.device_id)}
    for accelerator in settings.accelerators:
        provider = ACCELERATORS.get((accelerator.device, accelerator.name))
        if provider is None:
            known = ", ".join(name for device, name in ACCELERATORS if device == accelerator.device)
            raise ModelFault(
                f"'{accelerator.name}' is no {accelerator.device}_execution_accelerator of ONNX Runtime models; there is: {known}."
            )
        options = _provider_options(accelerator, settings)
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
        Logger.log_warn(f"model '{settings.name}': the server has a GPU, but this ONNX Runtime has no CUDA; the model runs on the CPU")
    return [*chosen, CPU]


def _provider_options(accelerator: Accelerator, settings: Settings) -> dict[str, str]:
    """Return the options of an accelerator in ONNX Runtime's own words."""
    if accelerator.name == "openvino":
        # OpenVINO has threads of its own, which know nothing of the session's: by itself each instance would take all cores.
        return {"device_type": "CPU", "num_of_threads": str(settings.threads(INTRA_OP))}
    if accelerator.name == "cuda":
        return dict(accelerator.parameters)
    options = {"device_id": str(settings.device_id)}
    for key, value in accelerator.parameters.items():
        if key == "precision_mode":
            if value not in PRECISIONS:
                raise ModelFault(f"precision_mode of accelerator 'tensorrt' is '{value}'; there is: {', '.join(PRECISIONS)}.")
            options |= PRECISIONS[value]
        elif key in TENSORRT_OPTIONS or key.startswith("trt_"):
            options[TENSORRT_OPTIONS.get(key, key)] = value
        else:
            raise ModelFault(f"accelerator 'tensorrt' has no parameter '{key}'.")
    return options
