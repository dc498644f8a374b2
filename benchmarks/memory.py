"""Memory of the server and of each model instance, which is a process of its own in the embedded server."""

from __future__ import annotations

from helpers.tuning.usage import Usage, usage

__all__ = ["Usage", "usage"]
