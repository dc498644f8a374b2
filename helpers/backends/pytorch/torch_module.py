"""A TorchScript module as a model instance needs it: loaded, its arguments matched with the config. Imports PyTorch."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from course_backend import NUMPY_TYPES, Arrays, ModelFault, Settings, decoded, one_line
from triton_python_backend_utils import Logger

TRITON_TYPES = {numpy_type: name for name, numpy_type in NUMPY_TYPES.items()}
# Parameters of the config that this backend reads.
INTRA_OP, INTER_OP = "INTRA_OP_THREAD_COUNT", "INTER_OP_THREAD_COUNT"

# An archive it is, too, but without TorchScript in it.
SAVED = (
    "it holds no TorchScript. torch.save() writes such files: weights, or a class that needs its Python code. Export the network: "
    'torch.onnx.export(network, (example,), "model.onnx", dynamo=True), or torch.jit.save(torch.jit.script(network), "model.pt").'
)


class Module:
    """One loaded module, ready to run on arrays."""

    def __init__(self, settings: Settings) -> None:
        for accelerator in settings.accelerators:
            why = "accelerators act on ONNX models, and this is a TorchScript model; in a Triton container it has none either"
            settings.warn_of_no_effect(f"execution accelerator '{accelerator.name}'", why)
        if settings.graph_level:
            settings.warn_of_no_effect("optimization.graph.level", "it acts on ONNX models, and this is a TorchScript model")
        settings.warn_of_other_parameters(INTRA_OP, INTER_OP)
        self.device = torch.device("cpu")
        if settings.on_gpu and torch.cuda.is_available():
            self.device = torch.device("cuda", settings.device_id)
        elif settings.on_gpu:
            settings.warn_of_no_gpu("PyTorch")
        threads = settings.threads(INTRA_OP)
        torch.set_num_threads(threads)
        torch.set_num_interop_threads(settings.threads(INTER_OP) if INTER_OP in settings.parameters else threads)
        self.summary = f"PyTorch {torch.__version__} on {self.device}; {threads} thread(s)"
        with torch.inference_mode():
            # Not the module itself: calling that goes through PyTorch's hooks, which a TorchScript file has none of.
            self.forward = _load(settings, self.device).forward
        self._match_names(settings)

    def run(self, inputs: Arrays, wanted: Sequence[str]) -> list[np.ndarray]:
        """Run the module once; on a CPU the inputs are read in place."""
        with torch.inference_mode():
            tensors = {name: self._to_torch(name, array) for name, array in inputs.items()}
            try:
                result = self.forward(tensors) if self.order is None else self.forward(*map(tensors.get, self.order))
            except Exception as error:
                # TorchScript errors begin with pages of source code; what went wrong stands at the end.
                lines = [line for line in str(error).splitlines() if line.strip()]
                raise RuntimeError(f"PyTorch: {one_line(Exception(' '.join(lines[-2:])))}") from None
            results = result if isinstance(result, tuple) else (result,)
            return [self._to_numpy(name, results) for name in wanted]

    def _match_names(self, settings: Settings) -> None:
        arguments = [argument for argument in self.forward.schema.arguments if argument.name != "self"]
        names = [*(spec.name for spec in settings.inputs), *settings.controls]
        # Names of the inputs in the order of the arguments; None for a module that takes a dictionary.
        self.order: list[str] | None = None
        if not (len(arguments) == 1 and isinstance(arguments[0].type, torch.DictType)):
            for argument in arguments:
                if not isinstance(argument.type, torch.TensorType | torch.ListType):
                    raise ModelFault(f"forward() takes '{argument.name}' of type {argument.type}; only tensors can be served.")
            places = _input_places(names, [argument.name for argument in arguments])
            self.order = sorted(places, key=places.__getitem__)
        self.outputs = _indexed_or_in_order("output", [spec.name for spec in settings.outputs])
        self.types = {spec.name: spec.dtype for spec in settings.outputs}

    def _to_torch(self, name: str, array: np.ndarray) -> Any:
        if array.dtype == object:
            return decoded(name, array)
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
        got = TRITON_TYPES.get(array.dtype, f"numpy {array.dtype}")
        if got != self.types[name]:
            raise RuntimeError(f"output '{name}' is {self.types[name]} in the config and {got} in the model")
        if array.ndim == 0:
            raise RuntimeError(f"output '{name}' is a scalar, which Triton's PyTorch backend does not serve; give it a dimension")
        return array


def _input_places(names: Sequence[str], arguments: Sequence[str]) -> dict[str, int]:
    """Return the place of each input among the arguments of ``forward()``, by the native backend's naming rules.

    All names are arguments of ``forward()``: by name. Else all have the form ``NAME__INDEX``: by index. Else: by the order in the config.
    """
    if len(names) != len(arguments):
        raise ModelFault(
            f"the config has {len(names)} inputs ({', '.join(names)}), and forward() takes {len(arguments)} ({', '.join(arguments)})."
        )
    if set(names) <= set(arguments):
        return {name: arguments.index(name) for name in names}
    places = _indexed_or_in_order("input", names)
    if sorted(places.values()) != list(range(len(arguments))):
        raise ModelFault(
            f"inputs {', '.join(names)}: the indices behind '__' must be 0 to {len(arguments) - 1}, each once, "
            "for the arguments of forward()."
        )
    return places


def _indexed_or_in_order(role: str, names: Sequence[str]) -> dict[str, int]:
    matches = {name: re.fullmatch(r".*?__(\d+)", name) for name in names}
    if all(matches.values()):
        return {name: int(match.group(1)) for name, match in matches.items() if match}
    if any("__" in name for name in names):
        Logger.log_warn(f"{role}s {', '.join(names)} are not all named NAME__INDEX: their order in the config decides")
    return {name: place for place, name in enumerate(names)}


def _load(settings: Settings, device: torch.device) -> torch.jit.ScriptModule:
    try:
        with warnings.catch_warnings():
            # PyTorch calls TorchScript deprecated; it is what Triton's backend of this release serves.
            warnings.simplefilter("ignore")
            # map_location: a file saved on a GPU loads on a CPU.
            return torch.jit.load(str(settings.path), map_location=device).eval()
    except Exception as error:
        size = settings.path.stat().st_size
        said = SAVED if "constants.pkl" in str(error) else one_line(error)
        raise ModelFault(f"PyTorch cannot load {settings.path} ({size} bytes) as TorchScript: {said}") from None
