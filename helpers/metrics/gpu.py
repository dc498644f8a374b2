"""Where a model runs, by the server's log."""

from __future__ import annotations

import re

# How the course's backends word it: "particlenet_PT_0_0: PyTorch 2.13.0 on cuda:0; …" and "…: ONNX Runtime 1.31.1 with
# CPUExecutionProvider; …".
_PLACED = re.compile(r"\b(?P<model>[\w.-]+?)(?:_\d+){1,2}: (?:PyTorch \S+ on (?P<torch>\w+)|ONNX Runtime \S+ with (?P<onnx>[\w, ]+))")
# What NVIDIA's own backends say of an instance; the course's say the same, and then the line above, which counts.
_NATIVE = re.compile(r"TRITONBACKEND_ModelInstanceInitialize: (?P<model>[\w.-]+?)(?:_\d+){1,2} \((?P<kind>GPU|CPU) device")


def placed_on(log: str, model: str) -> str | None:
    """Return where the instances of a model run, by what its backend has written: ``GPU``, ``CPU``, or None where it did not.

    A configuration can ask for a GPU that PyTorch or ONNX Runtime cannot use; then the model runs on the CPU, and the log says it.
    """
    if places := [found for found in _PLACED.finditer(log) if found["model"] == model]:
        place = places[-1]
        return "GPU" if re.search("cuda|Tensorrt", f"{place['torch']} {place['onnx']}", re.I) else "CPU"
    kinds = [found["kind"] for found in _NATIVE.finditer(log) if found["model"] == model]
    return kinds[-1] if kinds else None
