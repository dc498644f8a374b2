"""What is measured: the course's AK4 ParticleNet as ONNX and as TorchScript, one thread each, in a repository of its own.

The network takes about 1 ms per jet on one thread of a CPU of 2020 or later.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

from helpers import paths, repository

# Kind -> the course's model, and its file.
MODELS = {"onnx": ("particlenet_AK4", "model.onnx"), "torchscript": ("particlenet_AK4_PT", "model.pt")}
# Suffix of the model's name in the benchmark -> its dynamic batching.
BATCHING = {"": None, "_dynamic": {}}
# Candidates and secondary vertices of every jet.
LENGTHS = {"pf": 50, "sv": 4}
_THREADS = ("intra_op_thread_count", "inter_op_thread_count", "INTRA_OP_THREAD_COUNT", "INTER_OP_THREAD_COUNT")


def write_repository(folder: Path) -> list[str]:
    """Write the models ``onnx``, ``onnx_dynamic``, ``torchscript`` and ``torchscript_dynamic``.

    Args:
        folder: the repository to make.

    Returns:
        The models' names.
    """
    names = []
    for kind, (source, _) in MODELS.items():
        for suffix, batching in BATCHING.items():
            names.append(kind + suffix)
            model = shutil.copytree(paths.models_dir() / source, folder / names[-1])
            fields = {"name": names[-1], "dynamic_batching": batching, "model_warmup": None}
            repository.change_config(model, _one_thread, **fields)
    return names


def inputs(kind: str) -> dict[str, list[int]]:
    """Input -> its shape for one jet, in the order in which the network takes them."""
    config = repository.read_config(paths.models_dir() / MODELS[kind][0])
    return {tensor.name: [*tensor.dims[:-1], LENGTHS[tensor.name[:2]]] for tensor in config.input}


def _one_thread(config: ModelConfig) -> None:
    """One instance with one thread, and jets of one length: perf_analyzer then needs no shapes."""
    for tensor in config.input:
        tensor.dims[-1] = LENGTHS[tensor.name[:2]]
    del config.instance_group[:]
    config.instance_group.add(count=1, kind=ModelInstanceGroup.KIND_CPU)
    for key in _THREADS:
        config.parameters[key].string_value = "1"
