"""What the GPUs of a server's machine do, by Triton's own metrics and, where those are missing, by nvidia-smi; where a model runs."""

from __future__ import annotations

import re
from typing import Any

from helpers import machine
from helpers.errors import SetupError
from helpers.metrics.metrics import Snapshot, scrape
from helpers.server.server import Server
from helpers.tables import Table

# Column → metric of Triton, column of nvidia-smi, and what turns their numbers into the column's unit.
_FIGURES = {
    "utilization": ("nv_gpu_utilization", 1.0, "utilization.gpu", 0.01),
    "memory_used_gb": ("nv_gpu_memory_used_bytes", 1e-9, "memory.used", 1.048576e-3),
    "memory_total_gb": ("nv_gpu_memory_total_bytes", 1e-9, "memory.total", 1.048576e-3),
    "power_w": ("nv_gpu_power_usage", 1.0, "power.draw", 1.0),
}
TRITON, SMI = "Triton (nv_gpu_…)", "nvidia-smi"
# How the course's backends word it: "particlenet_PT_0_0: PyTorch 2.13.0 on cuda:0; …" and "…: ONNX Runtime 1.31.1 with
# CPUExecutionProvider; …".
_PLACED = re.compile(r"\b(?P<model>[\w.-]+?)(?:_\d+){1,2}: (?:PyTorch \S+ on (?P<torch>\w+)|ONNX Runtime \S+ with (?P<onnx>[\w, ]+))")
# What NVIDIA's own backends say of an instance; the course's say the same, and then the line above, which counts.
_NATIVE = re.compile(r"TRITONBACKEND_ModelInstanceInitialize: (?P<model>[\w.-]+?)(?:_\d+){1,2} \((?P<kind>GPU|CPU) device")


def gpu_figures(server: Server, snapshot: Snapshot | None = None) -> Table:
    """Return one row for each GPU, by a reading of the server's metrics or by a new one.

    Columns: gpu (its UUID), name, utilization (0 to 1), memory_used_gb, memory_total_gb, power_w, source. A figure that Triton does not
    give comes from nvidia-smi where the server is on this machine, and ``source`` says so; one that neither gives is None.
    """
    by_smi, by_triton = read_smi(server), dict[str, dict[str, float]]()
    for sample in (snapshot or scrape(server)).samples:
        if "gpu_uuid" in sample.labels:
            by_triton.setdefault(sample.labels["gpu_uuid"], {})[sample.metric] = sample.value
    rows = []
    for uuid in dict.fromkeys([*by_triton, *by_smi]):
        triton, smi = by_triton.get(uuid, {}), by_smi.get(uuid, {})
        ours = {column: triton[metric] * unit for column, (metric, unit, _, _) in _FIGURES.items() if metric in triton}
        added = {
            column: smi[name] * unit for column, (_, _, name, unit) in _FIGURES.items() if column not in ours and smi.get(name) is not None
        }
        source = SMI if not triton else TRITON + (f"; {', '.join(added)}: {SMI}" if added else "")
        rows.append({"gpu": uuid, "name": smi.get("name"), **dict.fromkeys(_FIGURES), **ours, **added, "source": source})
    asked = "sees none on this machine" if server.is_here else "cannot be asked on another machine"
    none = f"No GPU: the server's metrics have no nv_gpu_… lines, and nvidia-smi {asked}."
    none += " Its models run on the processor, and all of the course works there."
    return Table(rows, f"{len(rows)} GPU{'s' * (len(rows) > 1)}." if rows else none)


def read_smi(server: Server) -> dict[str, dict[str, Any]]:
    """Return what nvidia-smi says now, by UUID; nothing where there is none, no GPU, or where the server is on another machine."""
    names = [name for _, _, name, _ in _FIGURES.values()]
    try:
        rows = machine.nvidia_smi("uuid", "name", *names) if server.is_here else []
    except SetupError:
        return {}
    return {row["uuid"]: {"name": row["name"], **{name: machine.number(row[name]) for name in names}} for row in rows}


def placed_on(log: str, model: str) -> str | None:
    """Return where the instances of a model run, by what its backend has written: ``GPU``, ``CPU``, or None where it did not.

    A configuration can ask for a GPU that PyTorch or ONNX Runtime cannot use; then the model runs on the CPU, and the log says it.
    """
    if places := [found for found in _PLACED.finditer(log) if found["model"] == model]:
        place = places[-1]
        return "GPU" if re.search("cuda|Tensorrt", f"{place['torch']} {place['onnx']}", re.I) else "CPU"
    kinds = [found["kind"] for found in _NATIVE.finditer(log) if found["model"] == model]
    return kinds[-1] if kinds else None
