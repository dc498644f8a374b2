"""What can go wrong in a backend, each with a text for the person who reads it."""

from __future__ import annotations


class ModelFault(Exception):
    """The model cannot be served as it is configured; the text becomes the reason beside UNAVAILABLE."""


class RequestFault(Exception):
    """One request does not fit the model; the text becomes that client's error."""


def one_line(error: BaseException, limit: int = 400) -> str:
    """The text of an error on one line: what frameworks print over a page becomes readable in a log and in a table.

    Args:
        error: any exception.
        limit: the longest text in characters; the rest is cut.

    Returns:
        The text, or the name of the exception where it has no text.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"
