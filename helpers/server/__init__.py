"""A Triton server of one's own, or somebody else's: launch it, look at it, stop it.

Standard library only, because the supervisor and the first process of a container are started without the course's packages.
"""

from __future__ import annotations

import importlib
from typing import Any

# name -> module that defines it
_EXPORTS = {
    "ModelState": "helpers.server.server",
    "ModelWarning": "helpers.server.server",
    "Server": "helpers.server.server",
    "connect": "helpers.server.connection",
    "launch_server": "helpers.server.server",
}

__all__ = list(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'helpers.server' has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)
