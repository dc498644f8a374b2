"""The client's side: where a server is, the ways to it, and requests that are checked before they are sent."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["Client", "Result"]


def __getattr__(name: str) -> Any:
    # Imported when first used: gRPC costs half a second, which a launch or a question over HTTP need not wait for.
    if name not in __all__:
        raise AttributeError(f"module 'helpers.client' has no attribute {name!r}")
    return getattr(importlib.import_module("helpers.client.client"), name)
