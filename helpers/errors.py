"""The errors of the course. Every error that a student can cause is a :class:`CourseError`: one paragraph, shown without a traceback."""

from __future__ import annotations

from collections.abc import Iterable


class CourseError(Exception):
    """Base of all errors of the helpers: what happened, what was expected instead, and what to type next, one sentence each."""

    def __init__(self, happened: str, expected: str = "", todo: str = "") -> None:
        self.happened, self.expected, self.todo = happened, expected, todo
        super().__init__(" ".join(part for part in (happened, expected, todo) if part))

    def _render_traceback_(self) -> list[str]:
        # IPython calls this instead of printing a traceback: a student needs the paragraph, not our frames.
        return [f"{type(self).__name__}: {self}"]


class SetupError(CourseError):
    """This machine, or one of the two environments, is not ready for what was asked."""


class ServerError(CourseError):
    """The server did not start, died, or does not answer."""


class NotAServerError(ServerError):
    """Something answers that is no Triton server."""


class ModelError(CourseError):
    """A model is not there, is not READY, or refused its new configuration."""


class ConfigError(CourseError):
    """A ``config.pbtxt`` has a fault; the message names the file and the line."""


class InputError(CourseError):
    """An argument or a tensor does not fit; nothing was sent to the server."""


class RequestError(CourseError):
    """The server refused a request, or did not answer it in time."""


class AccessError(RequestError):
    """The server does not let us in: token, certificate or encryption do not fit."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return ``Did you mean …?`` for a misspelt name; empty when nothing is close."""
    import difflib  # a quarter of the time of `python -m helpers --help`

    folded = {candidate.casefold(): candidate for candidate in known}
    close = difflib.get_close_matches(name.casefold(), folded, n=1)
    return f"Did you mean {folded[close[0]]!r}?" if close else ""


def quoted(names: Iterable[str]) -> str:
    """Return names in a sentence: ``'a', 'b' and 'c'``; ``none`` for no name."""
    *others, last = [repr(str(name)) for name in names] or ["none"]
    return f"{', '.join(others)} and {last}" if others else last
