"""What a check can say: correct, not yet, not attempted, cannot tell; each as one plain paragraph."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from enum import Enum

from helpers.errors import CourseError


class Kind(Enum):
    """The four outcomes, each with its words, a symbol and a colour (the colour is never needed to read it)."""

    CORRECT = ("Correct", "✔", "#2e9e44")
    NOT_YET = ("Not yet", "✘", "#c96f14")
    NOT_ATTEMPTED = ("Not attempted yet", "○", "#7a8699")
    CANNOT_TELL = ("Cannot tell", "?", "#3b7dd8")

    @property
    def words(self) -> str:
        """The outcome in words, such as ``Not yet``."""
        return self.value[0]

    @property
    def symbol(self) -> str:
        """One character that differs for each outcome."""
        return self.value[1]

    @property
    def colour(self) -> str:
        """A colour that reads on a light and on a dark page."""
        return self.value[2]


@dataclass(frozen=True)
class Outcome:
    """One answer of a check.

    Args:
        kind: which of the four.
        text: what was seen, in whole sentences; words in `backquotes` are shown as code.
        note: a remark in smaller letters, such as the number of the attempt.
    """

    kind: Kind
    text: str
    note: str = ""

    def __str__(self) -> str:
        note = f" ({self.note})" if self.note else ""
        return f"{self.kind.symbol} {self.kind.words}: {self.text}{note}"

    def _repr_html_(self) -> str:
        symbol = f'<span aria-hidden="true" style="color:{self.kind.colour}">{self.kind.symbol}</span>'
        note = f' <span style="opacity:0.7">{_with_code(self.note)}</span>' if self.note else ""
        # The words keep the page's own colour: on any theme they have its contrast.
        return box(f"<strong>{symbol} {self.kind.words}.</strong> {_with_code(self.text)}{note}", self.kind.colour)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/plain": str(self), "text/html": self._repr_html_()}


class CannotTell(Exception):
    """Raised by a checker that could not look, or whose measurement is too noisy: neither right nor wrong."""


class NotSolved(CourseError):
    """Raised only in strict mode (``COURSE_STRICT=1``), so that a wrong solution makes the tests fail."""


def correct(text: str) -> Outcome:
    """The answer is right; ``text`` names the numbers seen."""
    return Outcome(Kind.CORRECT, text)


def not_yet(text: str) -> Outcome:
    """Something is wrong; ``text`` says which fact, and the value seen."""
    return Outcome(Kind.NOT_YET, text)


def not_attempted(blanks: int = 1) -> Outcome:
    """Blanks are still there."""
    what = "Replace the blank `____`" if blanks < 2 else f"Replace the {blanks} blanks `____`"
    return Outcome(Kind.NOT_ATTEMPTED, f"{what} above, run that cell, then run this one again.")


def cannot_tell(text: str) -> Outcome:
    """Neither right nor wrong: ``text`` says why, and what to do."""
    return Outcome(Kind.CANNOT_TELL, text)


def box(inner_html: str, colour: str) -> str:
    """A paragraph with a coloured edge, readable on light and dark pages.

    Args:
        inner_html: the content, HTML already escaped.
        colour: any CSS colour, used for the edge and, faintly, for the ground.
    """
    style = (
        f"border-left:5px solid {colour};background:color-mix(in srgb, {colour} 9%, transparent);"
        "padding:0.6em 0.9em;margin:0.3em 0;border-radius:3px;max-width:60em;line-height:1.5"
    )
    return f'<div style="{style}" role="status">{inner_html}</div>'


def _with_code(text: str) -> str:
    """Escape text for HTML; what stands in backquotes becomes code."""
    escaped = html.escape(text, quote=False)
    return re.sub(r"`([^`]+)`", r'<code style="white-space:pre-wrap">\1</code>', escaped)
