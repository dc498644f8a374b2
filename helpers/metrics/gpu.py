"""What the GPUs of a server's machine do, by nvidia-smi; and where a model runs, by the server's log."""

from __future__ import annotations

import re

from helpers import machine
from helpers.errors import SetupError
from helpers.server.server import Server
from helpers.tables import Table

# Column → field of nvidia-smi, and what turns its number into the column's unit.
_FIGURES = {
    "utilization": ("utilization.gpu", 0.01),
    "memory_used_gb": ("memory.used", 1.048576e-3),
    "memory_total_gb": ("memory.total", 1.048576e-3),
    "power_w": ("power.draw", 1.0),
}
# How the course's backends word it: "particlenet_PT_0_0: PyTorch 2.13.0 on cuda:0; …" and "…: ONNX Runtime 1.31.1 with
# CPUExecutionProvider; …".
_PLACED = re.compile(r"\b(?P<model>[\w.-]+?)(?:_\d+){1,2}: (?:PyTorch \S+ on (?P<torch>\w+)|ONNX Runtime \S+ with (?P<onnx>[\w, ]+))")
# What NVIDIA's own backends say of an instance; the course's say the same, and then the line above, which counts.
_NATIVE = re.compile(r"TRITONBACKEND_ModelInstanceInitialize: (?P<model>[\w.-]+?)(?:_\d+){1,2} \((?P<kind>GPU|CPU) device")


def gpu_figures(server: Server) -> Table:
    """Return one row for each GPU of this machine, where the server is on it: what nvidia-smi says now.

    Columns: gpu (its UUID), name, utilization (0 to 1), memory_used_gb, memory_total_gb, power_w; None for what it does not know.
    """
    if not server.is_here:
        return Table([], "nvidia-smi cannot be asked on another machine; the server's metrics have nv_gpu_… lines if there is a GPU.")
    try:
        found = machine.nvidia_smi("uuid", "name", *(field for field, _ in _FIGURES.values()))
    except SetupError as error:
        return Table([], str(error))
    rows = []
    for smi in found:
        numbers = {column: machine.number(smi[field]) for column, (field, _) in _FIGURES.items()}
        figures = {column: None if number is None else number * _FIGURES[column][1] for column, number in numbers.items()}
        rows.append({"gpu": smi["uuid"], "name": smi["name"], **figures})
    none = "No GPU: nvidia-smi sees none on this machine. Its models run on the processor, and all of the course works there."
    return Table(rows, f"{len(rows)} GPU{'s' * (len(rows) > 1)}." if rows else none)


def placed_on(log: str, model: str) -> str | None:
    """Return where the instances of a model run, by what its backend has written: ``GPU``, ``CPU``, or None where it did not.

    A configuration can ask for a GPU that PyTorch or ONNX Runtime cannot use; then the model runs on the CPU, and the log says it.
    """
    if places := [found for found in _PLACED.finditer(log) if found["model"] == model]:
        place = places[-1]
        return "GPU" if re.search("cuda|Tensorrt", f"{place['torch']} {place['onnx']}", re.I) else "CPU"
    kinds = [found["kind"] for found in _NATIVE.finditer(log) if found["model"] == model]
    return kinds[-1] if kinds else None
