"""The course itself: exercises and their checks, hints and solutions, the student's progress, the class's scoreboard."""

from __future__ import annotations

import importlib
from typing import Any

# name -> module that defines it; each is imported when it is first used: matplotlib takes a second
_EXPORTS = {
    "____": "helpers.course.exercises",
    "catch_up": "helpers.course.exercises",
    "course_map": "helpers.course.progress",
    "enter": "helpers.course.scoreboard",
    "exercise": "helpers.course.exercises",
    "write_card": "helpers.course.model_card",
}

__all__ = list(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'helpers.course' has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)
