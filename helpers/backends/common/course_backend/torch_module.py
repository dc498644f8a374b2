"""A TorchScript module as a model instance needs it. Imports PyTorch: import this only when needed."""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from course_backend.datatypes import NUMPY_TYPES, triton_type
from course_backend.faults import ModelFault, RequestFault, one_line
from course_backend.serving import Arrays
from course_backend.settings import Settings, default_threads
from course_backend.torch_names import input_places, output_places

# Types that the native backend serves. PyTorch itself also has 16-, 32- and 64-bit unsigned integers, but computes little with them.
SERVED_TYPES = set(NUMPY_TYPES) - {"TYPE_UINT16", "TYPE_UINT32", "TYPE_UINT64"}

# glibc's M_MMAP_THRESHOLD, M_TRIM_THRESHOLD and M_TOP_PAD in bytes: blocks up to the largest size that it allows come from the heap,
# the heap keeps half a gigabyte, and grows in large steps.
_ALLOCATOR = {-3: 32 << 20, -1: 512 << 20, -2: 64 << 20}


class Module:
    """One loaded module, ready to run on arrays.

    Args:
        settings: the model's config.
        info: writes a line into the server's log.
        warn: writes a warning into the server's log.

    Raises:
        ModelFault: the file, the config or a parameter is wrong.
    """

    def __init__(self, settings: Settings, info: Callable[[str], None], warn: Callable[[str], None]) -> None:
        self.settings = settings
        _check_types(settings)
        self.device = _device(settings, warn)
        _warn_of_no_effect(settings, warn)
        _keep_freed_memory()
        threads = _set_threads(settings)
        _set_jit(settings)
        self.inference_mode = settings.switch("INFERENCE_MODE", True)
        self.clean_cache = settings.switch("ENABLE_CACHE_CLEANING", False) and self.device.type == "cuda"
        with torch.inference_mode(self.inference_mode):
            self.module = _load(settings, self.device)
        # Not the module itself: calling that goes through PyTorch's hooks, which a TorchScript file has none of.
        self.forward = self.module.forward
        self._match_names(warn)
        info(f"{settings.instance}: PyTorch {torch.__version__} on {self.device}; {threads} thread(s)")

    def run(self, inputs: Arrays, wanted: Sequence[str]) -> list[np.ndarray]:
        """Run the module once.

        Args:
            inputs: by name; read in place, not copied, on a CPU.
            wanted: the outputs to return.

        Returns:
            The outputs in the order of ``wanted``.
        """
        with torch.inference_mode() if self.inference_mode else torch.no_grad():
            tensors = {name: self._to_torch(name, array) for name, array in inputs.items()}
            try:
                result = self.forward(tensors) if self.takes_dict else self.forward(*sorted_by_place(tensors, self.inputs))
            except Exception as error:
                raise RuntimeError(f"PyTorch: {_last_lines(error)}") from None
            results = result if isinstance(result, tuple) else (result,)
            outputs = [self._to_numpy(name, results) for name in wanted]
        if self.clean_cache:
            torch.cuda.empty_cache()
        return outputs

    def _match_names(self, warn: Callable[[str], None]) -> None:
        arguments = [argument for argument in self.forward.schema.arguments if argument.name != "self"]
        names = [*(spec.name for spec in self.settings.inputs), *self.settings.controls]
        self.takes_dict = len(arguments) == 1 and isinstance(arguments[0].type, torch.DictType)
        if not self.takes_dict:
            for argument in arguments:
                if not isinstance(argument.type, torch.TensorType | torch.ListType):
                    raise ModelFault(f"forward() takes '{argument.name}' of type {argument.type}; only tensors can be served.")
            self.inputs = input_places(names, [argument.name for argument in arguments], warn)
        self.outputs = output_places([spec.name for spec in self.settings.outputs], warn)
        self.types = {spec.name: spec.dtype for spec in [*self.settings.inputs, *self.settings.outputs]}

    def _to_torch(self, name: str, array: np.ndarray) -> Any:
        if array.dtype == object:
            return _to_text(name, array)
        return torch.from_numpy(array).to(self.device, non_blocking=True)

    def _to_numpy(self, name: str, results: Sequence[Any]) -> np.ndarray:
        place = self.outputs[name]
        if place >= len(results):
            raise RuntimeError(f"output '{name}' stands for output {place} of forward(), which returns {len(results)}")
        result = results[place]
        if isinstance(result, list) and all(isinstance(item, str) for item in result):
            array = np.array(result, dtype=object)
        elif isinstance(result, torch.Tensor):
            array = result.detach().cpu().contiguous().numpy()
        else:
            raise RuntimeError(f"output '{name}' is a {type(result).__name__}; only tensors and lists of strings can be served")
        if triton_type(array) != self.types[name]:
            raise RuntimeError(f"output '{name}' is {self.types[name]} in the config and {triton_type(array)} in the model")
        if array.ndim == 0:
            raise RuntimeError(f"output '{name}' is a scalar, which Triton's PyTorch backend does not serve; give it a dimension")
        return array


def _to_text(name: str, array: np.ndarray) -> list[str]:
    try:
        return [value.decode() for value in array]
    except UnicodeDecodeError as error:
        raise RequestFault(f"input '{name}' holds a string that is not UTF-8 ({error.reason} at byte {error.start}).") from None


def _check_types(settings: Settings) -> None:
    for spec in [*settings.inputs, *settings.outputs]:
        if spec.dtype not in SERVED_TYPES:
            raise ModelFault(f"tensor '{spec.name}' is {spec.dtype}, which Triton's PyTorch backend does not serve.")
        if spec.dtype == "TYPE_STRING" and len(spec.dims) + (settings.max_batch_size > 0) != 1:
            raise ModelFault(f"tensor '{spec.name}': TorchScript takes strings only as a list, so dims: [ -1 ] and max_batch_size: 0.")


def sorted_by_place(tensors: dict[str, Any], places: dict[str, int]) -> list[Any]:
    """The tensors in the order of the arguments of ``forward()``."""
    arguments: list[Any] = [None] * len(places)
    for name, tensor in tensors.items():
        arguments[places[name]] = tensor
    return arguments


def _device(settings: Settings, warn: Callable[[str], None]) -> torch.device:
    if not settings.on_gpu:
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda", settings.device_id)
    warn(f"model '{settings.name}': the server has a GPU, but this PyTorch was built without CUDA; the model runs on the CPU")
    return torch.device("cpu")


def _warn_of_no_effect(settings: Settings, warn: Callable[[str], None]) -> None:
    for accelerator in settings.accelerators:
        warn(
            f"model '{settings.name}': execution accelerator '{accelerator.name}' has no effect: accelerators act on ONNX models, "
            "and this is a TorchScript model; in a Triton container it has none either"
        )
    if settings.graph_level:
        warn(f"model '{settings.name}': optimization.graph.level has no effect: it acts on ONNX models, and this is a TorchScript model")
    for key, reason in {
        "ENABLE_WEIGHT_SHARING": "every instance is a process of its own in the embedded server",
        "ENABLE_NVFUSER": "PyTorch no longer has this fuser",
    }.items():
        if settings.switch(key, False):
            warn(f"model '{settings.name}': parameter '{key}' has no effect here: {reason}")


def _set_threads(settings: Settings) -> int:
    threads = settings.count("INTRA_OP_THREAD_COUNT") or default_threads(settings)
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(settings.count("INTER_OP_THREAD_COUNT") or threads)
    return threads


def _keep_freed_memory() -> None:
    """Make the allocator reuse large blocks instead of giving them back to the system and asking for them again, page by page.

    Otherwise PyTorch pays some thousand page faults in each run of a batch, a tenth of its time and more. Only glibc has these options.
    """
    change = getattr(ctypes.CDLL(None), "mallopt", None)
    for option, value in _ALLOCATOR.items() if change else ():
        change(option, value)


def _set_jit(settings: Settings) -> None:
    """Switches of the TorchScript executor; PyTorch offers them only under these private names."""
    torch._C._set_graph_executor_optimize(not settings.switch("DISABLE_OPTIMIZED_EXECUTION", False))
    for key, switch in {
        "ENABLE_JIT_EXECUTOR": torch._C._jit_set_profiling_executor,
        "ENABLE_JIT_PROFILING": torch._C._jit_set_profiling_mode,
        "ENABLE_TENSOR_FUSER": torch._C._jit_set_texpr_fuser_enabled,
    }.items():
        if key in settings.parameters:
            switch(settings.switch(key, True))


def _load(settings: Settings, device: torch.device) -> torch.jit.ScriptModule:
    try:
        with warnings.catch_warnings():
            # PyTorch calls TorchScript deprecated; it is what Triton's backend of this release serves.
            warnings.simplefilter("ignore")
            # map_location: a file saved on a GPU loads on a CPU.
            return torch.jit.load(str(settings.path), map_location=device).eval()
    except Exception as error:
        size = settings.path.stat().st_size
        hint = " Was it written by torch.save() instead of torch.jit.save()?" if "constants.pkl" in str(error) else ""
        raise ModelFault(f"PyTorch cannot load {settings.path} ({size} bytes) as TorchScript: {one_line(error)}{hint}") from None


def _last_lines(error: Exception) -> str:
    """TorchScript errors begin with pages of source code; what went wrong stands at the end."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return one_line(Exception(" ".join(lines[-2:])))
