"""How fast the course is, beside the same work without a server: ``make bench``, ``python -m benchmarks.record``, ``make test-gpu``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NoReturn

from helpers.errors import CourseError

# For everything that a benchmark starts: ONNX Runtime reports its use to Microsoft by default.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def run(main: Callable[[], int | None]) -> NoReturn:
    """Run a program to its exit; of an error that a person can cause, its paragraph is shown alone."""
    try:
        sys.exit(main())
    except CourseError as error:
        sys.exit(str(error))
