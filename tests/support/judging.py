"""What the tests of the checkers share."""

from __future__ import annotations

from typing import Any

from helpers.course import exercise
from helpers.course.judge import Kind


def is_judged(number: str, kind: Kind, words: str, *answers: Any) -> None:
    """The outcome of an exercise for these answers is of this kind and says these words, without a traceback.

    Raises:
        AssertionError: it is not so; the outcome is shown.
    """
    outcome = exercise(number).judge(*answers)
    assert outcome.kind is kind, outcome
    assert words in outcome.text, outcome
    assert "Traceback" not in outcome.text
