"""The configuration of one model instance, read once from what Triton hands to the backend."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from course_backend.faults import ModelFault


@dataclass(frozen=True)
class TensorSpec:
    """One input or output as config.pbtxt declares it.

    Attributes:
        name: the tensor's name.
        dtype: such as ``TYPE_FP32``.
        dims: the shape that the model sees, without the batch dimension: ``reshape`` where the config has one, else ``dims``;
            -1 is any size.
        optional: whether a request may leave it out.
    """

    name: str
    dtype: str
    dims: tuple[int, ...]
    optional: bool


@dataclass(frozen=True)
class Accelerator:
    """One execution accelerator that the config asks for.

    Attributes:
        device: ``gpu`` or ``cpu``, the list in which it stands.
        name: such as ``tensorrt``.
        parameters: its parameters, all text as in the config.
    """

    device: str
    name: str
    parameters: dict[str, str]


@dataclass(frozen=True)
class Settings:
    """What a backend needs to know about the model that it serves.

    Attributes:
        name: the model's name.
        instance: the name of this instance.
        path: the model file.
        max_batch_size: 0 when the model has no batch dimension.
        inputs: in the order of the config.
        outputs: in the order of the config.
        controls: names of the inputs that Triton itself adds for sequences.
        parameters: the ``parameters`` of the config, text.
        graph_level: ``optimization.graph.level``, 0 when absent.
        accelerators: the execution accelerators asked for.
        on_gpu: whether Triton placed this instance on a GPU.
        device_id: which GPU.
        instances: how many instances of the model there are in all.
    """

    name: str
    instance: str
    path: Path
    max_batch_size: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    controls: tuple[str, ...]
    parameters: dict[str, str]
    graph_level: int
    accelerators: tuple[Accelerator, ...]
    on_gpu: bool
    device_id: int
    instances: int

    def switch(self, key: str, default: bool) -> bool:
        """A parameter that is true or false, by the native backends' spelling.

        Raises:
            ModelFault: it is neither.
        """
        text = self.parameters.get(key, str(default)).strip().lower()
        if text not in ("true", "false", "1", "0"):
            raise ModelFault(f"parameter '{key}' must be true or false (or 1 or 0), and is '{self.parameters[key]}'.")
        return text in ("true", "1")

    def count(self, key: str) -> int:
        """A parameter that is a number of something, 0 when absent.

        Raises:
            ModelFault: it is no whole number, or negative.
        """
        text = self.parameters.get(key, "0").strip()
        if not text.isdigit():
            raise ModelFault(f"parameter '{key}' must be a whole number that is not negative, and is '{text}'.")
        return int(text)


def read_settings(args: dict[str, str], default_file: str) -> Settings:
    """Read the arguments of a Python-backend model's ``initialize()``.

    Args:
        args: what Triton passes: the config as JSON, the model's folder, its version, the instance's name, kind and device.
        default_file: the file name to use when the config names none, such as ``model.onnx``.

    Raises:
        ModelFault: the config asks for something that this backend cannot do, or the model file is missing.
    """
    config = json.loads(args["model_config"])
    refuse_unsupported(config)
    folder = Path(args["model_repository"]) / args["model_version"]
    return Settings(
        name=args["model_name"],
        instance=args["model_instance_name"],
        path=model_file(folder, config, default_file),
        max_batch_size=int(config["max_batch_size"]),
        inputs=tuple(map(_tensor, config["input"])),
        outputs=tuple(map(_tensor, config["output"])),
        controls=tuple(control["name"] for control in config.get("sequence_batching", {}).get("control_input", [])),
        parameters={key: value["string_value"] for key, value in config.get("parameters", {}).items()},
        graph_level=int(config.get("optimization", {}).get("graph", {}).get("level", 0)),
        accelerators=_accelerators(config),
        on_gpu=args["model_instance_kind"] == "GPU",
        device_id=int(args["model_instance_device_id"]),
        instances=max(1, sum(int(group["count"]) * max(1, len(group.get("gpus", []))) for group in config.get("instance_group", []))),
    )


def model_file(folder: Path, config: dict[str, Any], default_file: str) -> Path:
    """The file that holds the model; a folder of that name holds a file of the default name, as ONNX with external weights may have it.

    Raises:
        ModelFault: there is no such file.
    """
    path = folder / (config.get("default_model_filename") or default_file)
    if path.is_dir():
        path = path / default_file
    if not path.is_file():
        found = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
        raise ModelFault(f"model file {path} is missing; the version folder holds: {', '.join(found) or 'nothing'}.")
    return path


def refuse_unsupported(config: dict[str, Any]) -> None:
    """Refuse what the native backends can do and this one cannot, so that nothing is silently left out.

    Raises:
        ModelFault: with the name of the field.
    """
    fields = [name for name in ("batch_input", "batch_output") if config.get(name)]
    fields += ["sequence_batching.state"] if config.get("sequence_batching", {}).get("state") else []
    fields += ["model_transaction_policy.decoupled"] if config.get("model_transaction_policy", {}).get("decoupled") else []
    fields += [f"input '{entry['name']}' allow_ragged_batch" for entry in config.get("input", []) if entry.get("allow_ragged_batch")]
    if fields:
        raise ModelFault(f"the embedded server's backend does not support {', '.join(fields)}; a Triton container does.")


def usable_cores() -> int:
    """CPU cores that this process may use: its affinity, and the CPU quota of its container where there is one."""
    cores = len(os.sched_getaffinity(0))
    quota_file = Path("/sys/fs/cgroup/cpu.max")
    if quota_file.is_file():
        quota, period = quota_file.read_text().split()
        if quota != "max":
            cores = min(cores, max(1, int(quota) // int(period)))
    return cores


def default_threads(settings: Settings) -> int:
    """Threads per instance where the config names no number: the cores, shared out among the model's instances.

    The native backends give every instance all cores, and two instances then get in each other's way.
    """
    return max(1, usable_cores() // settings.instances)


def intra_op_threads(settings: Settings) -> int:
    """Threads that one operation of an ONNX model may use: what the config says, else its share of the cores."""
    return settings.count("intra_op_thread_count") or default_threads(settings)


def _tensor(entry: dict[str, Any]) -> TensorSpec:
    dims = entry["reshape"].get("shape", []) if "reshape" in entry else entry["dims"]
    return TensorSpec(entry["name"], entry["data_type"], tuple(map(int, dims)), bool(entry.get("optional", False)))


def _accelerators(config: dict[str, Any]) -> tuple[Accelerator, ...]:
    lists = config.get("optimization", {}).get("execution_accelerators", {})
    return tuple(
        Accelerator(device, entry["name"], dict(entry.get("parameters", {})))
        for device in ("gpu", "cpu")
        for entry in lists.get(f"{device}_execution_accelerator", [])
    )
