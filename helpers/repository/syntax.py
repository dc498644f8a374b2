"""``config.pbtxt`` as text: parse it, point at a mistake, print it, and turn it into a dictionary."""

from __future__ import annotations

import re
from typing import Any

from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2
from tritonclient.grpc.model_config_pb2 import ModelConfig

from helpers.errors import ConfigError, suggestion

_TOKEN = re.compile(r"""\s+|\#[^\n]*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|(?P<open>[\[{<])|(?P<close>[\]}>])|[^\s#"'\[\]{}<>]+|.""")


def parse(text: str, source: str = "config.pbtxt") -> ModelConfig:
    """Read a config from protobuf text.

    Args:
        text: the content of a ``config.pbtxt``.
        source: what to call it in a message, such as its path.

    Raises:
        ConfigError: the text has a mistake; the message holds its line, its column and the line itself.
    """
    if text.startswith("\ufeff"):
        raise _mistake(source, text, 1, 1, "the file begins with a byte order mark; save it as UTF-8 without one")
    try:
        return text_format.Parse(text, ModelConfig())
    except text_format.ParseError as error:
        reason = re.sub(r"^\d+:\d+ : ", "", str(error))
        raise _mistake(source, text, error.GetLine() or 0, error.GetColumn() or 0, reason) from error


def render(config: ModelConfig) -> str:
    """Return a config as protobuf text, lists of numbers on one line."""
    return str(text_format.MessageToString(config, as_utf8=True, use_short_repeated_primitives=True))


def as_dict(config: ModelConfig) -> dict[str, Any]:
    """Return a config as a dictionary of the fields that are set, as Triton's load call takes it."""
    return dict(json_format.MessageToDict(config, preserving_proto_field_name=True))


def _mistake(source: str, text: str, line: int, column: int, reason: str) -> ConfigError:
    """Return the error for a mistake at a line and a column, both counted from 1, with that line quoted and the column marked."""
    lines = text.splitlines() or [""]
    if not 0 < line <= len(lines):
        # protobuf gives no place for a text that ends too early.
        line, column = len(lines), len(lines[-1]) + 1
    shown = lines[line - 1].expandtabs(1).lstrip("\ufeff")
    excerpt = f"\n  {line} | {shown}\n  {' ' * len(str(line))} | {' ' * max(column - 1, 0)}^\n"
    said, named = _plain(reason, lines[line - 1])
    if named:
        return ConfigError(f"{source}, line {line}, column {column}: {said}.{excerpt}{named}")
    return ConfigError(
        f"{source}, line {line}, column {column}: {said}.{excerpt}{_unclosed(text) or 'This is no protobuf text.'}",
        "Expected text as in the models of the course.",
        "Look at this line and at the end of the one before it: a bracket, a comma or a quotation mark is often missing there.",
    )


def _plain(reason: str, line: str) -> tuple[str, str]:
    """Return the parser's reason in plain words, and for a name that does not exist what may be meant."""
    pool = model_config_pb2.DESCRIPTOR.pool
    if unknown := re.search(r'Message type "([\w.]+)" has no field named "(\w+)"', reason):
        message = pool.FindMessageTypeByName(unknown[1])
        return f"{message.name} has no field {unknown[2]!r}", _names(unknown[2], [field.name for field in message.fields])
    if unknown := re.search(r'Enum type "([\w.]+)" has no value named (\w+)', reason):
        enumeration = pool.FindEnumTypeByName(unknown[1])
        return f"{unknown[2]} is no value of {enumeration.name}", _names(unknown[2], [value.name for value in enumeration.values])
    if twice := re.search(r'should not have multiple "(\w+)" fields', reason):
        return f"{twice[1]} is there more than once", "It may be there once."
    if both := re.search(r'field "(\w+)" is specified along with field "(\w+)", another member of oneof', reason, re.IGNORECASE):
        return f"{both[1]} and {both[2]} exclude each other", "Keep one of them."
    # protobuf puts the whole line in front of its message or behind it; the excerpt shows it better.
    reason = reason.strip().rstrip(".").removeprefix(f"'{line}': ").removeprefix("'': ")
    return reason[:1].lower() + reason[1:], ""


def _names(name: str, known: list[str]) -> str:
    return suggestion(name, known) or f"There are: {', '.join(known)}."


def _unclosed(text: str) -> str:
    """Return which bracket was opened and never closed, in words; empty when all are closed."""
    stack = []
    for token in _TOKEN.finditer(text):
        if token["open"]:
            stack.append(token)
        elif token["close"] and stack:
            if "[{<".index(stack[-1].group()) != "]}>".index(token.group()):
                break
            stack.pop()
    if not stack:
        return ""
    return f"The {stack[-1].group()} of line {text.count(chr(10), 0, stack[-1].start()) + 1} is not closed."
