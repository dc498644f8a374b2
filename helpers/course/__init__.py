"""The course itself: exercises and their checks, hints and solutions, the student's progress, the class's scoreboard."""

from __future__ import annotations

from typing import Any

from helpers.course.exercises import ____, catch_up, exercise
from helpers.course.progress import course_map

__all__ = ["____", "catch_up", "course_map", "enter", "exercise"]


def __getattr__(name: str) -> Any:
    """Import ``enter`` when it is first used: matplotlib takes a second."""
    if name != "enter":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from helpers.course.scoreboard import enter

    return enter
