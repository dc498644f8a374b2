"""What an error advises to people who typed a command: never a call in Python, which is for notebooks."""

from __future__ import annotations

import re

from helpers.errors import CourseError

_SERVE = "python -m helpers serve"
# What a notebook types, and what does the same in a terminal.
_IN_A_TERMINAL = (
    (r'(?:server = )?launch_server\("models"(?:, runtime="embedded")?\)(?:, or look at server\.log\(\)[^.]*)?', _SERVE),
    (r"launch_server\(base_port=(\d+)\)", rf"{_SERVE} --base-port \1"),
    (r'launch_server\((?:"models", )?listen="all"\)', f"{_SERVE} --listen all"),
    (r'launch_fleet\("models", servers=(\d+)\)', rf"{_SERVE} --servers \1"),
    (r"server\.log\(\)", "the newest file in work/logs"),
    (r'server\.load\("([^"]+)"\)', _SERVE),
    (r'connect\(…, token=text\.strip\(\)\)|connect\(…, token="[^"]*"\)', "export COURSE_TOKEN=…   and then the same command"),
    (r'connect\(…, ca="([^"]+)"\)', r"--ca \1 with the same command"),
    (r'connect\("((?:grpcs|https)://[^"]+)", …\)', r"-u \1 with the same command"),
)
# The rest of a sentence that says what to type, where that is a call or an index in Python.
_PYTHON = re.compile(r"\b([Tt]ype)\b[^:]{0,20}: .*\w[(\[].*")


def in_a_terminal(error: CourseError, command: str) -> str:
    """Return the text of an error, with what to type in a terminal.

    Args:
        error: what happened.
        command: the command that was typed, such as ``tune``.
    """
    return " ".join(filter(None, (_part(text, command) for text in (error.happened, error.expected, error.todo))))


def _part(text: str, command: str) -> str:
    for python, shell in _IN_A_TERMINAL:
        text = re.sub(python, shell, text)
    return _PYTHON.sub(rf"\1: python -m helpers {command} --help", text)
