"""A Triton server of one's own, or somebody else's: launch it, look at it, stop it.

Standard library only, because the supervisor and the first process of a container are started without the course's packages.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["ModelState", "ModelWarning", "Server", "connect", "launch_server"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'helpers.server' has no attribute {name!r}")
    module = importlib.import_module(f"helpers.server.{'connection' if name == 'connect' else 'server'}")
    return getattr(module, name)
