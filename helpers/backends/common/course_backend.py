"""What the embedded backends ``onnxruntime`` and ``pytorch`` share: the model's settings, and requests in, responses out.

Runs inside a Triton Python-backend process, in the server's environment. Imports nothing of ``helpers`` and nothing heavier than NumPy.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

Arrays = dict[str, np.ndarray]

# The types of config.pbtxt that are served: numbers that both the protocol and NumPy know.
NUMPY_TYPES = {
    "TYPE_BOOL": np.dtype(bool),
    **{f"TYPE_{sign}INT{bits}": np.dtype(f"{sign}int{bits}".lower()) for sign in ("", "U") for bits in (8, 16, 32, 64)},
    **{f"TYPE_FP{bits}": np.dtype(f"float{bits}") for bits in (16, 32, 64)},
}

# glibc's M_MMAP_THRESHOLD, M_TRIM_THRESHOLD and M_TOP_PAD in bytes: blocks up to the largest size that it allows come from the heap,
# the heap keeps half a gigabyte, and grows in large steps.
_ALLOCATOR = {-3: 32 << 20, -1: 512 << 20, -2: 64 << 20}

# Seconds that the process of a model which could not be loaded may take to end by itself; then the system ends it. Triton waits for that
# without a limit, and takes the shared memory away in which the process waits for Triton's last word.
_LAST_SECONDS = 10

# Parameter of a model: the longest that an axis of open length may be. The course's own; the native backends pass it over.
MAX_LENGTH = "max_length"


class Fault(Exception):
    """A model cannot be served as it is configured, and the text becomes the reason beside UNAVAILABLE; or one request does not fit it."""


def one_line(error: BaseException, limit: int = 700) -> str:
    """Return the text of an error on one line; of a long one, which begins with where it happened and ends with why, the middle is cut."""
    text = " ".join(str(error).split()) or type(error).__name__
    begin, end = limit // 3, limit - limit // 3 - 3
    return text if len(text) <= limit else f"{text[:begin]} … {text[-end:]}"


def _keep_freed_memory() -> None:
    """Make the allocator reuse large blocks: to ask for them page by page costs PyTorch, and large inputs, a tenth of the time."""
    for option, value in _ALLOCATOR.items():
        ctypes.CDLL(None).mallopt(option, value)


@dataclass(frozen=True)
class TensorSpec:
    """An input or output: ``TYPE_FP32``, and the shape that the model sees; in the config without the batch dimension."""

    name: str
    dtype: str
    dims: tuple[int, ...]


class Settings:
    """What a backend needs to know about the model instance that it serves, by the arguments that Triton gives to ``initialize``."""

    def __init__(self, args: dict[str, str], default_file: str) -> None:
        config = json.loads(args["model_config"])
        optimization = config.get("optimization", {})
        accelerators = optimization.get("execution_accelerators", {})
        self.name, self.instance = args["model_name"], args["model_instance_name"]
        self.path = model_file(Path(args["model_repository"]) / args["model_version"], config, default_file)
        self.max_batch_size = int(config["max_batch_size"])  # 0 when the model has no batch dimension
        self.inputs, self.outputs = ([_tensor(entry) for entry in config[role]] for role in ("input", "output"))
        self.parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
        self.graph_level = int(optimization.get("graph", {}).get("level", 0))
        self.accelerators = [entry["name"] for listed in accelerators.values() for entry in listed]
        # Whether Triton placed this instance on a GPU, and on which.
        self.on_gpu, self.device_id = args["model_instance_kind"] == "GPU", int(args["model_instance_device_id"])
        # How many the model has in all.
        self.instances = max(1, sum(int(group["count"]) * max(1, len(group.get("gpus", []))) for group in config["instance_group"]))

    def threads(self, key: str) -> int:
        """Return a parameter that is a number of threads; where it is absent, this instance's share of the cores, not all, as natively."""
        return self.count(key) or max(1, _usable_cores() // self.instances)

    def count(self, key: str) -> int:
        """Return a parameter that is a number of something; 0 where it is absent."""
        text = self.parameters.get(key, "0").strip()
        if not text.isdecimal():
            raise Fault(f"parameter '{key}' must be a whole number, and is '{text}'.")
        return int(text)

    def warn_of_other_parameters(self, *known: str) -> None:
        """Write a warning for each parameter that is none of these."""
        for key in self.parameters.keys() - {*known, MAX_LENGTH, "course_reload"}:  # the last is the mark of a reload
            self.warn_of_no_effect(f"parameter '{key}'", f"of all parameters this backend reads {' and '.join(known)}")

    def warn_of_no_effect(self, what: str, why: str) -> None:
        """Write a warning that something in the config has no effect; the course's pages look for these words."""
        pb_utils.Logger.log_warn(f"model '{self.name}': {what} has no effect here: {why}")


class ServedModel(ABC):
    """Base of both backends: a subclass loads a network and runs it on arrays. Requests that come together run as one batch."""

    DEFAULT_FILE: str  # name of the model's file, where the config names no other

    @abstractmethod
    def load(self, settings: Settings) -> None:
        """Load the network and check that it fits the config; a :class:`Fault` says in plain words why it does not."""

    @abstractmethod
    def run(self, inputs: Arrays, wanted: Sequence[str]) -> list[np.ndarray]:
        """Run the network once on inputs by name, the batch dimension first where there is one; return the outputs in wanted's order."""

    def initialize(self, args: dict[str, str]) -> None:
        """Called by Triton once per instance, before READY."""
        _keep_freed_memory()
        try:
            self.settings = Settings(args, self.DEFAULT_FILE)
            self.output_names = [spec.name for spec in self.settings.outputs]
            self.max_length = self.settings.count(MAX_LENGTH)
            batch = self.settings.max_batch_size > 0
            self.open_axes = {spec.name: [axis + batch for axis, n in enumerate(spec.dims) if n < 0] for spec in self.settings.inputs}
            self.load(self.settings)
        except BaseException as fault:
            signal.alarm(_LAST_SECONDS)
            if not isinstance(fault, Fault):
                raise
            raise pb_utils.TritonModelException(f"model '{args['model_name']}': {fault}") from None

    def execute(self, requests: list[Any]) -> list[Any]:
        """Called by Triton with the requests that it scheduled together; returns one response per request, in the same order."""
        if len(requests) == 1:
            return [self._alone(requests[0])]
        # Those with equal inputs and equal shapes behind the batch dimension run together.
        groups: dict[Any, list[int]] = {}
        for place, request in enumerate(requests):
            shapes = sorted((tensor.name(), tuple(tensor.shape()[1:])) for tensor in request.inputs())
            groups.setdefault(tuple(shapes) if self.settings.max_batch_size else place, []).append(place)
        responses: list[Any] = [None] * len(requests)
        for places in groups.values():
            for place, response in zip(places, self._together([requests[place] for place in places]), strict=True):
                responses[place] = response
        return responses

    def _alone(self, request: Any) -> Any:
        """Return the response to one request; an error becomes its response, and touches no other request."""
        try:
            inputs = self._inputs(request)
            wanted = self._wanted(request.requested_output_names())
            outputs = self.run(inputs, wanted)
            if self.settings.max_batch_size:
                self._check_batch(wanted, outputs, len(next(iter(inputs.values()))))
            return pb_utils.InferenceResponse([pb_utils.Tensor(name, output) for name, output in zip(wanted, outputs, strict=True)])
        except Fault as fault:
            return self._refusal(str(fault), pb_utils.TritonError.INVALID_ARG)
        except Exception as error:
            return self._refusal(one_line(error), pb_utils.TritonError.INTERNAL)

    def _together(self, requests: list[Any]) -> list[Any]:
        """Return the responses to requests of equal shapes, run as one batch."""
        if len(requests) == 1:
            return [self._alone(requests[0])]
        try:
            parts = [self._inputs(request) for request in requests]
            ends = np.cumsum([len(next(iter(part.values()))) for part in parts])
            wanted = self._wanted({name for request in requests for name in request.requested_output_names()})
            outputs = self.run({name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, wanted)
            self._check_batch(wanted, outputs, int(ends[-1]))
            pieces = zip(*(np.split(output, ends[:-1]) for output in outputs), strict=True)
            return [pb_utils.InferenceResponse(list(map(pb_utils.Tensor, wanted, arrays))) for arrays in pieces]
        except Exception:  # the cause is reported by the request that fails alone
            return [self._alone(request) for request in requests]

    def _inputs(self, request: Any) -> Arrays:
        """Return the inputs by name, unless an axis is longer than allowed: what a network needs can grow with the square of it."""
        for tensor in request.inputs():
            longest = max((tensor.shape()[axis] for axis in self.open_axes.get(tensor.name(), ())), default=0)
            if 0 < self.max_length < longest:
                raise Fault(
                    f"input '{tensor.name()}' is {longest} long, and this server takes at most {self.max_length} (parameter {MAX_LENGTH})."
                )
        return {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}

    def _wanted(self, asked: Collection[str]) -> list[str]:
        """Return the outputs asked for, in the order of the config."""
        return self.output_names if len(asked) == len(self.output_names) else [name for name in self.output_names if name in asked]

    def _check_batch(self, names: Sequence[str], outputs: Sequence[np.ndarray], batch: int) -> None:
        for name, output in zip(names, outputs, strict=True):
            if output.ndim == 0 or len(output) != batch:
                shape = list(output.shape)
                raise ValueError(f"output '{name}' has shape {shape} for a batch of {batch}: its first dimension must be the batch")

    def _refusal(self, text: str, code: int) -> Any:
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"model '{self.settings.name}': {text}", code))


def model_file(folder: Path, config: dict[str, Any], default_file: str) -> Path:
    """Return the file that holds the model."""
    path = folder / (config.get("default_model_filename") or default_file)
    if not path.is_file():
        found = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
        raise Fault(f"model file {path} is missing; the version folder holds: {', '.join(found) or 'nothing'}.")
    return path


def _tensor(entry: dict[str, Any]) -> TensorSpec:
    dims = entry["reshape"].get("shape", []) if "reshape" in entry else entry["dims"]
    return TensorSpec(entry["name"], entry["data_type"], tuple(map(int, dims)))


def _usable_cores() -> int:
    """Return how many CPU cores this process may use: its affinity, and the CPU quota of its container where there is one."""
    cores = len(os.sched_getaffinity(0))
    quota_file = Path("/sys/fs/cgroup/cpu.max")
    if quota_file.is_file():
        quota, period = quota_file.read_text().split()
        if quota != "max":
            cores = min(cores, max(1, int(quota) // int(period)))
    return cores
