"""What checkers share, as tables: numbers with their usual slips."""

from __future__ import annotations

import math
from typing import Any

import pytest

from helpers.course.judge import NotYet, must_be_right


@pytest.mark.parametrize("given", [0.25, "0.25", 0.2549, 0.246])
def test_a_number_that_people_round_is_right(given: Any) -> None:
    assert must_be_right("share", given, (2, 8)) == 0.25


@pytest.mark.parametrize(
    ("unit", "right", "given", "words"),
    [
        ("ms", 12.0, 12_000, "`t` is 12000. That is in microseconds; divide by 1000."),
        ("ms", 12.0, 0.012, "in seconds; we asked for milliseconds"),
        ("s", 0.7, 700, "in milliseconds; we asked for seconds"),
        ("fraction", 0.15, 15, "in percent; we asked for a fraction from 0 to 1"),
        ("", (2, 8), 4, "the inverse; turn it round"),
        ("", (2, 8), 2, "Divide it by the other number"),
        ("", 3, 5, "That is five."),
        ("", 3, 7, "That is another number."),
        ("", 3, math.nan, "should be one number"),
        ("", 3, None, "should be one number, and it is nothing (`None`)"),
        ("", 3, True, "should be one number, and it is `True`"),
        ("", 3, [3, 4], "type `list`"),
        ("", 3, "three", "and it is `'three'`"),
        ("", (0, 8), 1, "another number"),
    ],
)
def test_usual_slips_have_a_name(unit: str, right: Any, given: Any, words: str) -> None:
    with pytest.raises(NotYet) as wrong:
        must_be_right("t", given, right, {"That is five": 5, "That cannot be had": math.nan}, unit=unit)
    assert words in str(wrong.value)
