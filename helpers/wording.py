"""Words that several messages share: names in a sentence, and what a misspelt name was probably meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def suggestion(name: str, known: Iterable[str]) -> str:
    """``Did you mean …?`` for a misspelt name, or an empty string when nothing is close."""
    names = list(known)
    folded = {candidate.casefold(): candidate for candidate in names}
    close = difflib.get_close_matches(str(name).casefold(), folded, n=1, cutoff=0.6)
    return f"Did you mean {folded[close[0]]!r}?" if close else ""


def quoted(names: Iterable[str]) -> str:
    """Names in a sentence: ``'a', 'b' and 'c'``; ``none`` for no name."""
    parts = [repr(str(name)) for name in names]
    if len(parts) < 2:
        return parts[0] if parts else "none"
    return f"{', '.join(parts[:-1])} and {parts[-1]}"
