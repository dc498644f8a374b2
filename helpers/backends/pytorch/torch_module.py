"""Networks of PyTorch as a model instance needs them: loaded, their tensors matched with the config. Imports PyTorch."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import warnings
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from course_backend import NUMPY_TYPES, Arrays, ModelFault, Settings, one_line

TRITON_TYPES = {numpy_type: name for name, numpy_type in NUMPY_TYPES.items()}
# Parameters of the config that this backend reads.
INTRA_OP, INTER_OP = "INTRA_OP_THREAD_COUNT", "INTER_OP_THREAD_COUNT"

_AGAIN = "Compile the network again on this machine, or serve it as ONNX, which runs on all."
# Where a package of AOTInductor has its machine code.
_COMPILED = "/data/aotinductor/"
# What AOTInductor calls an instruction set, and Linux calls otherwise.
_FLAGS = {"avx512": "avx512f"}
# An archive it is, too, but without TorchScript in it.
SAVED = (
    "it holds no TorchScript. torch.save() writes such files: weights, or a class that needs its Python code. Export the network: "
    'torch.onnx.export(network, (example,), "model.onnx", dynamo=True), or torch.jit.save(torch.jit.script(network), "model.pt").'
)


def network(settings: Settings) -> Network:
    """Return the network of a file, loaded."""
    return (Package if _is_package(settings.path) else Module)(settings)


class Network(ABC):
    """One loaded network, ready to run on arrays; a subclass loads one format and knows the order of its tensors."""

    def __init__(self, settings: Settings) -> None:
        for _, name in settings.accelerators:
            settings.warn_of_no_effect(f"execution accelerator '{name}'", "accelerators act on ONNX models, and this is a PyTorch model")
        if settings.graph_level:
            settings.warn_of_no_effect("optimization.graph.level", "it acts on ONNX models, and this is a PyTorch model")
        settings.warn_of_other_parameters(INTRA_OP, INTER_OP)
        self.device = torch.device("cpu")
        if settings.on_gpu and torch.cuda.is_available():
            self.device = torch.device("cuda", settings.device_id)
        elif settings.on_gpu:
            settings.warn_of_no_gpu("PyTorch")
        threads = settings.threads(INTRA_OP)
        torch.set_num_threads(threads)
        torch.set_num_interop_threads(settings.threads(INTER_OP) if INTER_OP in settings.parameters else threads)
        self.types = {spec.name: spec.dtype for spec in settings.outputs}
        # Place of each output among the results.
        self.outputs: dict[str, int] = {}
        with torch.inference_mode():
            self._load(settings)
        self.summary = f"PyTorch {torch.__version__} on {self.device}; {threads} thread(s)"

    @abstractmethod
    def _load(self, settings: Settings) -> None:
        """Load the file and match the config's names with its tensors."""

    @abstractmethod
    def _call(self, tensors: dict[str, Any]) -> Sequence[Any]:
        """Return the results of one run."""

    def run(self, inputs: Arrays, wanted: Sequence[str]) -> list[np.ndarray]:
        """Run the network once; on a CPU the inputs are read in place."""
        with torch.inference_mode():
            tensors = {name: torch.from_numpy(array).to(self.device, non_blocking=True) for name, array in inputs.items()}
            try:
                results = self._call(tensors)
            except Exception as error:
                # TorchScript errors begin with pages of source code; what went wrong stands at the end.
                lines = [line for line in str(error).splitlines() if line.strip()]
                raise RuntimeError(f"PyTorch: {one_line(Exception(' '.join(lines[-2:])))}") from None
            return [self._to_numpy(name, results) for name in wanted]

    def _to_numpy(self, name: str, results: Sequence[Any]) -> np.ndarray:
        place = self.outputs[name]
        if place >= len(results):
            raise RuntimeError(f"output '{name}' stands for output {place} of the network, which returns {len(results)}")
        array = results[place].detach().cpu().contiguous().numpy()
        got = TRITON_TYPES.get(array.dtype, f"numpy {array.dtype}")
        if got != self.types[name]:
            raise RuntimeError(f"output '{name}' is {self.types[name]} in the config and {got} in the model")
        return array


class Module(Network):
    """A TorchScript module."""

    def _load(self, settings: Settings) -> None:
        # Not the module itself: calling that goes through PyTorch's hooks, which a TorchScript file has none of.
        self.forward = _torchscript(settings, self.device).forward
        arguments = [argument for argument in self.forward.schema.arguments if argument.name != "self"]
        names = [spec.name for spec in settings.inputs]
        for argument in arguments:
            if not isinstance(argument.type, torch.TensorType):
                raise ModelFault(f"forward() takes '{argument.name}' of type {argument.type}; only tensors can be served.")
        places = _input_places(names, [argument.name for argument in arguments])
        # Names of the inputs in the order of the arguments.
        self.order = sorted(places, key=places.__getitem__)
        self.outputs = _indexed_or_in_order([spec.name for spec in settings.outputs])

    def _call(self, tensors: dict[str, Any]) -> Sequence[Any]:
        result = self.forward(*map(tensors.get, self.order))
        return result if isinstance(result, tuple) else (result,)


class Package(Network):
    """A network that torch.export and AOTInductor compiled ahead of time: machine code in a ``model.pt2``."""

    def _load(self, settings: Settings) -> None:
        kind = (_told(settings.path) or {}).get("AOTI_DEVICE_KEY", "cpu")
        if kind not in ("cpu", self.device.type):
            raise ModelFault(f"{settings.path.name} was compiled for '{kind}', and this instance runs on the CPU. {_AGAIN}")
        if kind != self.device.type:
            settings.warn_of_no_effect("the GPU", "this package was compiled for the CPU")
            self.device = torch.device("cpu")
        # Its code reads this before its first run; else a tensor of another type or shape than it was compiled for is read beyond its end.
        os.environ["AOTI_RUNTIME_CHECK_INPUTS"] = "1"
        # PyTorch unpacks the package below this folder and removes it at its end, which a process that is killed never reaches. On a CPU
        # nothing is read any more once it is loaded; a GPU's code is, at the first run.
        temporary = tempfile.gettempdir()
        os.environ["TMPDIR"] = folder = tempfile.mkdtemp()
        try:
            # What torch._inductor.aoti_load_package() calls; that imports the compiler first, which a server does not need.
            index = self.device.index if self.device.type == "cuda" else -1
            self.loader = torch._C._aoti.AOTIModelPackageLoader(str(settings.path), "model", False, 1, index)
        except Exception as error:
            raise ModelFault(f"PyTorch {torch.__version__} cannot load {settings.path}: {one_line(error)} {_AGAIN}") from None
        finally:
            os.environ["TMPDIR"] = temporary
            if self.device.type == "cpu":
                shutil.rmtree(folder)
        inputs, outputs = (json.loads(text)[1] for text in self.loader.get_call_spec())
        places = _places_in_package("INPUT", [spec.name for spec in settings.inputs], inputs)
        self.order = sorted(places, key=places.__getitem__)
        self.outputs = _places_in_package("OUTPUT", [spec.name for spec in settings.outputs], outputs)

    def _call(self, tensors: dict[str, Any]) -> Sequence[Any]:
        return self.loader.run([tensors[name].contiguous() for name in self.order])


def _places_in_package(role: str, names: Sequence[str], tree: dict[str, Any]) -> dict[str, int]:
    """Return the place of each tensor of the config in a package, which has them in this order, numbered as by the native backend."""
    known = {f"{role}__{place}": place for place in range(_leaves(tree))}
    if not set(names) <= known.keys() or (role == "INPUT" and len(names) != len(known)):
        raise ModelFault(f"the package's {role.lower()}s are called {', '.join(known)} in config.pbtxt, which has {', '.join(names)}.")
    return {name: known[name] for name in names}


def _leaves(tree: dict[str, Any]) -> int:
    return 1 if tree["type"] is None else sum(map(_leaves, tree["children_spec"]))


def _input_places(names: Sequence[str], arguments: Sequence[str]) -> dict[str, int]:
    """Return the place of each input among the arguments of ``forward()``, as natively: by name, else by ``NAME__INDEX``, else in order."""
    if len(names) != len(arguments):
        takes = f"forward() takes {len(arguments)} ({', '.join(arguments)})"
        raise ModelFault(f"the config has {len(names)} inputs ({', '.join(names)}), and {takes}.")
    if set(names) <= set(arguments):
        return {name: arguments.index(name) for name in names}
    places = _indexed_or_in_order(names)
    if sorted(places.values()) != list(range(len(arguments))):
        raise ModelFault(f"inputs {', '.join(names)}: the indices behind '__' must be 0 to {len(arguments) - 1}, each once.")
    return places


def _indexed_or_in_order(names: Sequence[str]) -> dict[str, int]:
    matches = {name: re.fullmatch(r".*?__(\d+)", name) for name in names}
    if all(matches.values()):
        return {name: int(match.group(1)) for name, match in matches.items() if match}
    return {name: place for place, name in enumerate(names)}


def _torchscript(settings: Settings, device: torch.device) -> torch.jit.ScriptModule:
    try:
        with warnings.catch_warnings():
            # PyTorch calls TorchScript deprecated; it is what Triton's backend of this release serves.
            warnings.simplefilter("ignore")
            # map_location: a file saved on a GPU loads on a CPU.
            return torch.jit.load(str(settings.path), map_location=device).eval()
    except Exception as error:
        said = SAVED if "constants.pkl" in str(error) else one_line(error)
        raise ModelFault(f"PyTorch cannot load {settings.path} ({settings.path.stat().st_size} bytes): {said}") from None


def _is_package(path: Path) -> bool:
    """True if a model's file is a compiled network; a ModelFault when this processor lacks an instruction, which would end the process."""
    found = _told(path)
    if found is None:
        if path.suffix == ".pt2":
            raise ModelFault(f"{path} is damaged, or holds no compiled network, as torch._inductor.aoti_compile_and_package() writes it.")
        return False
    flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    here = set(flags[1].split()) if flags else set()
    needed = {_FLAGS.get(name, name) for name in found.get("AOTI_CPU_ISA", "").lower().split()} - {"invalid_vec_isa"}
    if missing := sorted(needed - here):
        raise ModelFault(f"{path.name} was compiled for processors with {' and '.join(missing)}, which this one does not have. {_AGAIN}")
    return True


def _told(path: Path) -> dict[str, str] | None:
    """Return what the compiler wrote beside the machine code: for which processor and device it is; None where there is no such code."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if _COMPILED in name]
            facts = [json.loads(archive.read(name)) for name in names if name.endswith("_metadata.json")]
    except (zipfile.BadZipFile, OSError):
        return None
    return {key: value for fact in facts for key, value in fact.items()} if names else None
