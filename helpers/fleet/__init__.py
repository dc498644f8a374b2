"""Several servers behind one address: Envoy shares the requests out."""

from __future__ import annotations

import importlib
from typing import Any

# name -> module that defines it; modules of this package name each other in full
_EXPORTS = {"Fleet": "helpers.fleet.fleet", "launch_fleet": "helpers.fleet.fleet"}

__all__ = list(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'helpers.fleet' has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)
