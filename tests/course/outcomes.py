"""What must be true of an exercise notebook that ran from top to bottom with its blanks."""

from __future__ import annotations

import re

from tests.course.notebooks.running import Run, text_of

# Seconds that all cells of one notebook may take together on a busy two-core machine; on a quiet one it is a quarter.
NOTEBOOK_LIMIT_S = 120
# Notebooks that measure stay longer at each point when the machine is busy, because the spread is larger then.
MEASURING_LIMIT_S = 300
MEASURING = ("07", "08", "09", "10")

# The errors that notebooks show on purpose, in order, each by words that the text beside it relies on.
ERRORS = {
    "03": ("unknown model", "Expected [16], got [1,16]", "expected FP32", "missing required input", "failed to connect", "restricted"),
    "05": ("millimetres",),
}


def limit_s(number: str) -> float:
    """Seconds that a notebook may take, by its number."""
    return MEASURING_LIMIT_S if number in MEASURING else NOTEBOOK_LIMIT_S


def state_of_server(number: str) -> str:
    """What has become of the server: in notebook 01 the student kills it, and the blank is the call that brings it back."""
    return "died" if number == "01" else "stopped"


def assert_healthy(done: Run, number: str) -> None:
    """No error but those on purpose, nothing on stderr, not too slow."""
    assert done.stray_errors() == []
    assert done.stray_stderr() == []
    assert sum(done.seconds.values()) < limit_s(number), done.seconds


def assert_untouched(done: Run, number: str) -> None:
    """Healthy; errors on purpose say what the text says; every check says that nothing was attempted."""
    assert_healthy(done, number)
    expected, failing = ERRORS.get(number, ()), done.tagged("raises-exception")
    assert len(failing) == len(expected)
    for cell, words in zip(failing, expected, strict=True):
        error = next(output for output in cell.outputs if output.output_type == "error")
        assert words in error.evalue
        assert len(re.sub(r"\x1b\[[\d;]*m", "", "\n".join(error.traceback)).splitlines()) <= 3, "short tracebacks"
    checks = done.tagged("check")
    assert checks
    for cell in checks:
        assert text_of(cell).startswith("○ Not attempted yet"), text_of(cell)
