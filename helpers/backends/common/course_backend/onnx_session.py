"""ONNX Runtime sessions with the options that a Triton config asks for. Imports ONNX Runtime: import this only when needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime as ort

from course_backend.faults import ModelFault, one_line
from course_backend.onnx_config import ModelTensor
from course_backend.onnx_providers import choose_providers
from course_backend.settings import Settings, default_threads, intra_op_threads

# optimization.graph.level in the config -> ONNX Runtime's level, as the native backend maps it; every other number means all.
GRAPH_LEVELS = {
    -1: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    1: ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
# Only errors: ONNX Runtime's warnings are about its own optimiser, and many.
LOG_SEVERITY = 3


def open_to_inspect(path: Path) -> ort.InferenceSession:
    """A session that serves only to read names, types and shapes, so it optimises nothing.

    Raises:
        ModelFault: the file is no ONNX model, or one that this ONNX Runtime cannot read.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = LOG_SEVERITY
    return _open(path, options, ["CPUExecutionProvider"])


def open_to_serve(settings: Settings, info: Callable[[str], None], warn: Callable[[str], None]) -> ort.InferenceSession:
    """The session of one model instance.

    Args:
        settings: the model's config.
        info: writes a line into the server's log.
        warn: writes a warning into the server's log.

    Raises:
        ModelFault: the file or an option is wrong.
    """
    providers = choose_providers(settings, ort.get_available_providers(), warn)
    if settings.switch("share_session_between_instances", False):
        warn(f"model '{settings.name}': parameter 'share_session_between_instances' has no effect here: every instance is a process")
    options = session_options(settings)
    session = _open(settings.path, options, providers)
    info(
        f"{settings.instance}: ONNX Runtime {ort.__version__} with {', '.join(session.get_providers())}; "
        f"{options.intra_op_num_threads} thread(s), {options.graph_optimization_level.name}"
    )
    return session


def session_options(settings: Settings) -> ort.SessionOptions:
    """Options from the config, with the parameter names of the native backend.

    Raises:
        ModelFault: a value is out of its range.
    """
    options = ort.SessionOptions()
    options.log_severity_level = LOG_SEVERITY
    options.graph_optimization_level = GRAPH_LEVELS.get(settings.graph_level, ort.GraphOptimizationLevel.ORT_ENABLE_ALL)
    mode = settings.count("execution_mode")
    if mode not in (0, 1):
        raise ModelFault(f"parameter 'execution_mode' must be 0 (sequential) or 1 (parallel), and is {mode}.")
    options.execution_mode = ort.ExecutionMode.ORT_PARALLEL if mode else ort.ExecutionMode.ORT_SEQUENTIAL
    threads = default_threads(settings)
    options.intra_op_num_threads = intra_op_threads(settings)
    options.inter_op_num_threads = settings.count("inter_op_thread_count") or threads
    options.enable_cpu_mem_arena = settings.switch("enable_mem_arena", True)
    options.enable_mem_pattern = settings.switch("enable_mem_pattern", True)
    # Every instance is a process here: threads that spin while they wait would take the cores from the other instances.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    for key, value in settings.parameters.items():
        if key.startswith("session."):
            options.add_session_config_entry(key, value)
    return options


def run_options(settings: Settings) -> ort.RunOptions | None:
    """Options of each run; None, which costs nothing, when the config asks for none."""
    key = "memory.enable_memory_arena_shrinkage"
    if key not in settings.parameters:
        return None
    options = ort.RunOptions()
    options.add_run_config_entry(key, settings.parameters[key])
    return options


def inputs(session: ort.InferenceSession) -> list[ModelTensor]:
    """The model's inputs."""
    return [_tensor(node) for node in session.get_inputs()]


def outputs(session: ort.InferenceSession) -> list[ModelTensor]:
    """The model's outputs."""
    return [_tensor(node) for node in session.get_outputs()]


def initializers(session: ort.InferenceSession) -> list[ModelTensor]:
    """Weights with a default value that a request may overrule: the optional inputs."""
    return [_tensor(node) for node in session.get_overridable_initializers()]


def _tensor(node: Any) -> ModelTensor:
    return ModelTensor(node.name, node.type, tuple(dim if isinstance(dim, int) else -1 for dim in node.shape or ()))


def _open(path: Path, options: ort.SessionOptions, providers: list[Any]) -> ort.InferenceSession:
    try:
        return ort.InferenceSession(str(path), options, providers=providers)
    except Exception as error:
        raise ModelFault(f"ONNX Runtime cannot load {path} ({path.stat().st_size} bytes): {one_line(error)}") from None
