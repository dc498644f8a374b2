"""The course itself: exercises and their checks, hints and solutions, the student's progress, the class's scoreboard."""

from __future__ import annotations

from helpers.course.exercises import ____, catch_up, exercise
from helpers.course.progress import course_map
from helpers.course.scoreboard import enter

__all__ = ["____", "catch_up", "course_map", "enter", "exercise"]
