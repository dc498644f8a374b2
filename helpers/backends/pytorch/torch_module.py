"""A TorchScript module as a model instance needs it: loaded, its tensors matched with the config. Imports PyTorch."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from course_backend import NUMPY_TYPES, Arrays, Fault, Settings, one_line

TRITON_TYPES = {numpy_type: name for name, numpy_type in NUMPY_TYPES.items()}
# Parameters of the config that this backend reads.
INTRA_OP, INTER_OP = "INTRA_OP_THREAD_COUNT", "INTER_OP_THREAD_COUNT"
# An archive it is, too, but without TorchScript in it.
SAVED = (
    "it holds no TorchScript. torch.save() writes such files: weights, or a class that needs its Python code. Export the network: "
    'torch.onnx.export(network, (example,), "model.onnx", dynamo=True), or torch.jit.save(torch.jit.script(network), "model.pt").'
)


class Network:
    """One loaded module, ready to run on arrays."""

    def __init__(self, settings: Settings) -> None:
        for name in settings.accelerators:
            settings.warn_of_no_effect(f"execution accelerator '{name}'", "accelerators act on ONNX models, and this is a PyTorch model")
        settings.warn_of_other_parameters(INTRA_OP, INTER_OP)
        self.device = torch.device("cpu")
        if settings.on_gpu and torch.cuda.is_available():
            self.device = torch.device("cuda", settings.device_id)
        elif settings.on_gpu:
            settings.warn_of_no_effect("KIND_GPU", "this PyTorch has no CUDA, so the model runs on the CPU")
        threads = settings.threads(INTRA_OP)
        torch.set_num_threads(threads)
        torch.set_num_interop_threads(settings.threads(INTER_OP) if INTER_OP in settings.parameters else threads)
        # Not the module itself: calling that goes through PyTorch's hooks, which a TorchScript file has none of.
        self.forward = _torchscript(settings, self.device).forward
        arguments = [argument for argument in self.forward.schema.arguments if argument.name != "self"]
        places = _input_places([spec.name for spec in settings.inputs], [argument.name for argument in arguments])
        # Names of the inputs in the order of the arguments, and the place of each output among the results.
        self.order = sorted(places, key=places.__getitem__)
        self.outputs = _indexed_or_in_order([spec.name for spec in settings.outputs])
        self.types = {spec.name: spec.dtype for spec in settings.outputs}
        self.summary = f"PyTorch {torch.__version__} on {self.device}; {threads} thread(s)"

    def run(self, inputs: Arrays, wanted: Sequence[str]) -> list[np.ndarray]:
        """Run the network once; on a CPU the inputs are read in place."""
        with torch.inference_mode():
            tensors = [torch.from_numpy(inputs[name]).to(self.device, non_blocking=True) for name in self.order]
            try:
                result = self.forward(*tensors)
            except Exception as error:
                # TorchScript errors begin with pages of source code; what went wrong stands at the end.
                lines = [line for line in str(error).splitlines() if line.strip()]
                raise RuntimeError(f"PyTorch: {one_line(Exception(' '.join(lines[-2:])))}") from None
            results = result if isinstance(result, tuple) else (result,)
            return [self._to_numpy(name, results) for name in wanted]

    def _to_numpy(self, name: str, results: Sequence[torch.Tensor]) -> np.ndarray:
        place = self.outputs[name]
        if place >= len(results):
            raise RuntimeError(f"output '{name}' stands for output {place} of the network, which returns {len(results)}")
        array: np.ndarray = results[place].detach().cpu().contiguous().numpy()
        got = TRITON_TYPES.get(array.dtype, f"numpy {array.dtype}")
        if got != self.types[name]:
            raise RuntimeError(f"output '{name}' is {self.types[name]} in the config and {got} in the model")
        return array


def _input_places(names: Sequence[str], arguments: Sequence[str]) -> dict[str, int]:
    """Return the place of each input among the arguments of ``forward()``, as natively: by name, else by ``NAME__INDEX``, else in order."""
    if len(names) != len(arguments):
        takes = f"forward() takes {len(arguments)} ({', '.join(arguments)})"
        raise Fault(f"the config has {len(names)} inputs ({', '.join(names)}), and {takes}.")
    if set(names) <= set(arguments):
        return {name: arguments.index(name) for name in names}
    places = _indexed_or_in_order(names)
    if sorted(places.values()) != list(range(len(arguments))):
        raise Fault(f"inputs {', '.join(names)}: the indices behind '__' must be 0 to {len(arguments) - 1}, each once.")
    return places


def _indexed_or_in_order(names: Sequence[str]) -> dict[str, int]:
    matches = {name: re.fullmatch(r".*?__(\d+)", name) for name in names}
    if all(matches.values()):
        return {name: int(match.group(1)) for name, match in matches.items() if match}
    return {name: place for place, name in enumerate(names)}


def _torchscript(settings: Settings, device: torch.device) -> torch.jit.ScriptModule:
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            # PyTorch calls TorchScript deprecated; it is what Triton's backend of this release serves.
            warnings.simplefilter("ignore")
            # map_location: a file saved on a GPU loads on a CPU.
            return torch.jit.load(str(settings.path), map_location=device).eval()
    except Exception as error:
        said = SAVED if "constants.pkl" in str(error) else one_line(error)
        raise Fault(f"PyTorch cannot load {settings.path} ({settings.path.stat().st_size} bytes): {said}") from None
