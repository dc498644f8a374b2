"""Which ONNX Runtime execution providers an instance gets, and what the log says where a wish cannot be met."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from course_backend.faults import ModelFault
from course_backend.settings import Accelerator, Settings, intra_op_threads

Provider = str | tuple[str, dict[str, str]]

CPU, CUDA, TENSORRT, OPENVINO = (f"{name}ExecutionProvider" for name in ("CPU", "CUDA", "Tensorrt", "OpenVINO"))
# Accelerators that the native backend knows, by the list of the config in which they may stand.
KNOWN = {("gpu", "tensorrt"): TENSORRT, ("gpu", "cuda"): CUDA, ("cpu", "openvino"): OPENVINO}

# Parameters of the tensorrt accelerator whose names differ from ONNX Runtime's; those that begin with "trt_" pass as they are.
TENSORRT_OPTIONS = {
    "max_workspace_size_bytes": "trt_max_workspace_size",
    "int8_calibration_table_name": "trt_int8_calibration_table_name",
    "int8_use_native_calibration_table": "trt_int8_use_native_calibration_table",
}
PRECISIONS: dict[str, dict[str, str]] = {"FP32": {}, "FP16": {"trt_fp16_enable": "1"}, "INT8": {"trt_int8_enable": "1"}}


def choose_providers(settings: Settings, available: Sequence[str], warn: Callable[[str], None]) -> list[Provider]:
    """The providers of one instance, the preferred first; the CPU is always the last.

    Args:
        settings: the model's config.
        available: the providers that this ONNX Runtime was built with.
        warn: writes a warning into the server's log.

    Raises:
        ModelFault: the config names an accelerator or a parameter that does not exist.
    """
    chosen: list[Provider] = []
    cuda_options = {"device_id": str(settings.device_id)}
    for accelerator in settings.accelerators:
        provider = KNOWN.get((accelerator.device, accelerator.name))
        if provider is None:
            known = ", ".join(name for device, name in KNOWN if device == accelerator.device)
            raise ModelFault(
                f"'{accelerator.name}' is no {accelerator.device}_execution_accelerator of ONNX Runtime models; there is: {known}."
            )
        options = provider_options(accelerator, settings)
        obstacle = _obstacle(accelerator, provider, settings, available)
        if obstacle:
            warn(f"model '{settings.name}': execution accelerator '{accelerator.name}' has no effect here: {obstacle}")
        elif provider == CUDA:
            cuda_options |= options
        else:
            chosen.append((provider, options))
    if settings.on_gpu and CUDA in available:
        chosen.append((CUDA, cuda_options))
    elif settings.on_gpu:
        warn(f"model '{settings.name}': the server has a GPU, but this ONNX Runtime was built without CUDA; the model runs on the CPU")
    return [*chosen, CPU]


def provider_options(accelerator: Accelerator, settings: Settings) -> dict[str, str]:
    """The options of an accelerator in ONNX Runtime's own words.

    Raises:
        ModelFault: a parameter or its value is not known.
    """
    if accelerator.name == "openvino":
        # OpenVINO has threads of its own, which know nothing of the session's: by itself each instance would take all cores.
        return {"device_type": "CPU", "num_of_threads": str(intra_op_threads(settings))}
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


def _obstacle(accelerator: Accelerator, provider: str, settings: Settings, available: Sequence[str]) -> str:
    """Why an accelerator does nothing on this machine; empty when it works."""
    if accelerator.device == "gpu" and not settings.on_gpu:
        return "it needs a GPU, and this instance runs on the CPU"
    if provider not in available:
        return f"this ONNX Runtime was built without {provider} (it has {', '.join(available)})"
    return ""
