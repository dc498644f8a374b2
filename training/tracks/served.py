"""The stages that are plain Python, loaded from the model repository: training, tests and server run the same lines."""

from __future__ import annotations

import importlib.util
from types import ModuleType

from .settings import ROOT


def _load(model: str, name: str) -> ModuleType:
    path = ROOT / "models" / model / "1" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"{model}_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


graph = _load("ExaTrk_graph", "radius_graph")
tracks = _load("ExaTrk_tracks", "build_tracks")
