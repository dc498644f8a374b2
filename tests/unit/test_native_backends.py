"""The models' configs and files use only what NVIDIA's own backends know, in the image of the release and in that of the embedded server's.

So a stock Triton container of either serves them as they stand. No image can be had here, so this is read as text and as files.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import onnx
import pytest

from helpers import paths, repository

MODELS = sorted(path.parent.name for path in paths.models_dir().glob("*/config.pbtxt"))
# How a config names its backend, and the file that this backend looks for in a version's folder: core, src/constants.h.
BACKENDS = {
    ("onnxruntime_onnx", ""): ("onnxruntime", "model.onnx"),
    ("", "onnxruntime"): ("onnxruntime", "model.onnx"),
    ("pytorch_libtorch", ""): ("pytorch", "model.pt"),
    ("", "pytorch"): ("pytorch", "model.pt"),
    ("", "python"): ("python", "model.py"),
    ("ensemble", ""): ("ensemble", ""),
}
# Parameters that the native backends read: of 24.10 by their documentation, of 26.x by pytorch_backend's src/pt/model_state.cc, which adds
# DISABLE_CUDNN, and onnxruntime_backend's README. What begins with "session." goes to ONNX Runtime.
PARAMETERS = {
    "onnxruntime": {
        "intra_op_thread_count", "inter_op_thread_count", "execution_mode", "enable_mem_arena", "enable_mem_pattern",
        "memory.enable_memory_arena_shrinkage", "session.use_device_allocator_for_initializers",
        "cudnn_conv_algo_search", "gpu_mem_limit", "arena_extend_strategy", "do_copy_in_default_stream",
    },
    "pytorch": {
        "DISABLE_OPTIMIZED_EXECUTION", "INFERENCE_MODE", "ENABLE_WEIGHT_SHARING", "ENABLE_CACHE_CLEANING",
        "INTRA_OP_THREAD_COUNT", "INTER_OP_THREAD_COUNT", "ENABLE_JIT_EXECUTOR", "ENABLE_JIT_PROFILING", "ENABLE_TENSOR_FUSER",
    },
    "ensemble": set(),
}  # fmt: skip
# What they pass over, and may: a limit for the sake of a machine that is shared, which changes no answer.
PASSED_OVER = {"max_length"}
TYPES = {
    "onnxruntime": {"BOOL", *(f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)), "FP16", "FP32", "FP64", "STRING"},
    "pytorch": {"BOOL", "UINT8", *(f"INT{bits}" for bits in (8, 16, 32, 64)), "FP32", "FP64", "STRING"},
}
ACCELERATORS = {"onnxruntime": {"tensorrt", "cuda", "openvino"}}
# The image of 24.10 has ONNX Runtime 1.19.2, that of 26.08 1.28.0 (server, docs/introduction/compatibility.md). Both, from PyPI, were seen
# to read our files, of intermediate representation 10 and opset 18, with answers equal to 1e-6.
ONNX_IR, ONNX_OPSET = 10, 18
# The newest file format of TorchScript that PyTorch 1.7 read, and every later one (pytorch, caffe2/serialize/versions.h).
TORCHSCRIPT_FORMAT = 5


def complaints(folder: Path, config: Any) -> list[str]:
    """What of a model NVIDIA's image would not take, or would pass over."""
    named = (config.platform, config.backend)
    if named not in BACKENDS:
        return [f"platform {named[0]!r} and backend {named[1]!r}: not in the image"]
    backend, file = BACKENDS[named]
    found = []
    if backend != "python":  # its parameters are the model's own
        found += [f"parameter {key}" for key in config.parameters if key not in PARAMETERS[backend] | PASSED_OVER]
    tensors = [*config.input, *config.output]
    types = [type(tensor).DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[tensor.data_type].name for tensor in tensors]
    found += [f"type {name}" for name in types if backend in TYPES and name.removeprefix("TYPE_") not in TYPES[backend]]
    accelerators = config.optimization.execution_accelerators
    asked = {one.name for one in [*accelerators.gpu_execution_accelerator, *accelerators.cpu_execution_accelerator]}
    found += [f"accelerator {name}" for name in sorted(asked - ACCELERATORS.get(backend, set()))]
    if file:
        versions = [path for path in folder.iterdir() if path.name.isdigit()]
        wanted = config.default_model_filename or file
        found += [f"no {wanted} in {path.name}/" for path in versions if not (path / wanted).is_file()]
    if backend == "pytorch":
        # Without names of arguments in the file, libtorch's backend takes the order from the end of the name.
        for tensors in (config.input, config.output):
            found += [f"tensor {one.name}" for index, one in enumerate(tensors) if not one.name.endswith(f"__{index}")]
    if backend == "ensemble":
        stages = {step.model_name for step in config.ensemble_scheduling.step}
        found += [f"stage {name}" for name in sorted(stages) if not (folder.parent / name / "config.pbtxt").is_file()]
    return found


@pytest.mark.parametrize("model", MODELS)
def test_a_stock_container_takes_the_config(model: str) -> None:
    folder = paths.models_dir() / model
    config = repository.read_config(folder)
    assert config.name == model
    assert complaints(folder, config) == []


@pytest.mark.parametrize(
    ("model", "changes", "said"),
    [
        ("particlenet", {"parameters": {"intra_op_threads": "1"}}, "parameter intra_op_threads"),
        ("particlenet_PT", {"parameters": {"intra_op_thread_count": "1"}}, "parameter intra_op_thread_count"),
        ("particlenet", {"platform": "", "backend": "course"}, "not in the image"),
        ("particlenet_PT", {"default_model_filename": "model.pth"}, "no model.pth in 1/"),
    ],
)
def test_what_a_stock_container_would_not_take_is_found(model: str, changes: dict[str, Any], said: str) -> None:
    folder = paths.models_dir() / model
    config = repository.read_config(folder)
    for name, value in changes.items():
        if name == "parameters":
            for key, text in value.items():
                config.parameters[key].string_value = text
        else:
            setattr(config, name, value)
    assert any(said in complaint for complaint in complaints(folder, config)), complaints(folder, config)


@pytest.mark.parametrize("path", sorted(paths.models_dir().glob("*/*/*.onnx")), ids=lambda path: path.parts[-3])
def test_the_oldest_onnx_runtime_of_an_image_reads_the_file(path: Path) -> None:
    file = onnx.load(path, load_external_data=False)
    assert file.ir_version <= ONNX_IR
    # No operators of a vendor's own.
    assert {opset.domain: opset.version <= ONNX_OPSET for opset in file.opset_import} == {"": True}


@pytest.mark.parametrize("path", sorted(paths.models_dir().glob("*/*/*.pt")), ids=lambda path: path.parts[-3])
def test_the_oldest_libtorch_of_an_image_reads_the_file(path: Path) -> None:
    with zipfile.ZipFile(path) as file:
        (version,) = (file.read(name) for name in file.namelist() if name.endswith("/version"))
    assert int(version) <= TORCHSCRIPT_FORMAT


def test_all_models_were_looked_at() -> None:
    assert len(MODELS) >= 12
