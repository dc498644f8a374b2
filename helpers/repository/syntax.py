"""``config.pbtxt`` as text: parse it, point at a mistake, print it, and turn it into a dictionary."""

from __future__ import annotations

import re
from typing import Any

from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2
from tritonclient.grpc.model_config_pb2 import ModelConfig

from helpers.errors import ConfigError, suggestion


def parse(text: str, source: str = "config.pbtxt") -> ModelConfig:
    """Read a config from protobuf text, which a message calls ``source``; a ConfigError points at the mistake."""
    try:
        return text_format.Parse(text, ModelConfig())
    except text_format.ParseError as error:
        raise _mistake(source, text, error) from error


def render(config: ModelConfig) -> str:
    """Return a config as protobuf text, lists of numbers on one line."""
    return str(text_format.MessageToString(config, as_utf8=True, use_short_repeated_primitives=True))


def as_dict(config: ModelConfig) -> dict[str, Any]:
    """Return a config as a dictionary of the fields that are set, as Triton's load call takes it."""
    return dict(json_format.MessageToDict(config, preserving_proto_field_name=True))


def _mistake(source: str, text: str, error: text_format.ParseError) -> ConfigError:
    """Return the error for a mistake, with its line quoted and the column marked."""
    lines = text.splitlines() or [""]
    line, column = error.GetLine() or 0, error.GetColumn() or 0
    if not 0 < line <= len(lines):
        # protobuf gives no place for a text that ends too early.
        line, column = len(lines), len(lines[-1]) + 1
    excerpt = f"\n  {line} | {lines[line - 1].expandtabs(1)}\n  {' ' * len(str(line))} | {' ' * max(column - 1, 0)}^\n"
    # protobuf puts the whole line in front of its message; the excerpt shows it better.
    reason = re.sub(r"^\d+:\d+ : ", "", str(error)).strip().rstrip(".").removeprefix(f"'{lines[line - 1]}': ").removeprefix("'': ")
    hint = "Look at this line and at the end of the one before it: a bracket, a comma or a quotation mark is often missing there."
    pool = model_config_pb2.DESCRIPTOR.pool
    if unknown := re.search(r'type "([\w.]+)" has no (?:field|value) named "?(\w+)', reason):
        known = pool.FindMessageTypeByName(unknown[1]).fields if "Message" in reason else pool.FindEnumTypeByName(unknown[1]).values
        names = [one.name for one in known]
        hint = suggestion(unknown[2], names) or f"There are: {', '.join(names)}."
    return ConfigError(f"{source}, line {line}, column {column}: {reason}.{excerpt}", "", hint)
