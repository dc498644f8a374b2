"""``config.pbtxt`` as text: parse it, point at a mistake, print it, and turn it into a dictionary."""

from __future__ import annotations

import re
from typing import Any

from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2
from tritonclient.grpc.model_config_pb2 import ModelConfig

from helpers.errors import ConfigError, suggestion


def parse(text: str, source: str = "config.pbtxt") -> ModelConfig:
    """Read a config from protobuf text, which a message calls ``source``.

    Raises:
        ConfigError: the text has a mistake; the message holds its line, its column and the line itself.
    """
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
    shown = lines[line - 1].expandtabs(1)
    excerpt = f"\n  {line} | {shown}\n  {' ' * len(str(line))} | {' ' * max(column - 1, 0)}^\n"
    # protobuf puts the whole line in front of its message or behind it; the excerpt shows it better.
    reason = reason.strip().rstrip(".").removeprefix(f"'{lines[line - 1]}': ").removeprefix("'': ")
    hint = "Look at this line and at the end of the one before it: a bracket, a comma or a quotation mark is often missing there."
    pool = model_config_pb2.DESCRIPTOR.pool
    if unknown := re.search(r'Message type "([\w.]+)" has no field named "(\w+)"', reason):
        message = pool.FindMessageTypeByName(unknown[1])
        known = [field.name for field in message.fields]
        reason = f"{message.name} has no field {unknown[2]!r}"
        hint = suggestion(unknown[2], known) or f"There are: {', '.join(known)}."
    elif unknown := re.search(r'Enum type "([\w.]+)" has no value named (\w+)', reason):
        known = [value.name for value in pool.FindEnumTypeByName(unknown[1]).values]
        hint = suggestion(unknown[2], known) or f"There are: {', '.join(known)}."
    return ConfigError(f"{source}, line {line}, column {column}: {reason}.{excerpt}", "", hint)
