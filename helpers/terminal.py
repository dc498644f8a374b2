"""Writing to terminals, pipes and batch logs of any encoding. Standard library only."""

from __future__ import annotations

import codecs
import io
import sys

# What a terminal that is not UTF-8 shows instead; whatever else it lacks becomes a question mark.
_PLAIN = {"●": "*", "■": "#", "✔": "+", "✖": "x", "…": "...", "–": "-", "—": "-", "→": "->", "←": "<-", "≤": "<=", "≥": ">=", "≈": "~"}
_PLAIN |= {"·": "-", "×": "x", "±": "+-", "µ": "u", "“": '"', "”": '"', "’": "'", "‘": "'", "−": "-", "│": "|", "─": "-", "█": "#"}


def _in_plain_signs(error: UnicodeError) -> tuple[str, int]:
    """An error handler of :mod:`codecs` for writing: no text of ours may end a command."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    plain = "".join(_PLAIN.get(sign, "?") for sign in signs)
    return plain, error.end


def write_whatever_the_terminal() -> None:
    """Standard output and errors take every text, in a terminal, a pipe or a batch log of any encoding."""
    codecs.register_error("course", _in_plain_signs)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # none under pythonw, another kind in notebooks and tests
            stream.reconfigure(errors="course")
