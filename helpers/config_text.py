"""``config.pbtxt`` as text: parse it, print it, point at a fault, change one part and leave the rest as it was written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf import json_format, text_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from tritonclient.grpc import model_config_pb2
from tritonclient.grpc.model_config_pb2 import ModelConfig

from helpers.errors import ConfigError
from helpers.wording import suggestion

_INT64 = (
    FieldDescriptor.TYPE_INT64,
    FieldDescriptor.TYPE_UINT64,
    FieldDescriptor.TYPE_SINT64,
    FieldDescriptor.TYPE_FIXED64,
    FieldDescriptor.TYPE_SFIXED64,
)


def parse(text: str, source: str = "config.pbtxt") -> ModelConfig:
    """Read a config from protobuf text.

    Args:
        text: the content of a ``config.pbtxt``.
        source: what to call it in a message, such as its path.

    Raises:
        ConfigError: the text has a fault; the message holds its line, its column and the line itself.
    """
    if text.startswith("\ufeff"):
        raise fault(source, text, 1, 1, "the file begins with a byte order mark; save it as UTF-8 without one")
    try:
        return text_format.Parse(text, ModelConfig())
    except text_format.ParseError as error:
        line, column = error.GetLine() or 0, error.GetColumn() or 0
        reason = re.sub(r"^\d+:\d+ : ", "", str(error))
        raise fault(source, text, line, column, reason) from error


def fault(source: str, text: str, line: int, column: int, reason: str) -> ConfigError:
    """The error for a fault at a line and a column, both counted from 1, with that line quoted and the column marked."""
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
        "Expected text as in the models that came with the course.",
        "Look at this line and at the end of the one before it: a bracket, a comma or a quotation mark is often missing there.",
    )


def _plain(reason: str, line: str) -> tuple[str, str]:
    """The parser's reason in plain words, and for a name that does not exist what may be meant."""
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
    """Which bracket was opened and never closed, in words, or an empty string."""
    stack = []
    for token in _TOKEN.finditer(text):
        if token.lastgroup == "open":
            stack.append(token)
        elif token.lastgroup == "close" and stack:
            if "[{<".index(stack[-1].group()) != "]}>".index(token.group()):
                break
            stack.pop()
    if not stack:
        return ""
    return f"The {stack[-1].group()} of line {text.count(chr(10), 0, stack[-1].start()) + 1} is not closed."


def as_dict(message: Message, zeros: bool = False) -> dict[str, Any]:
    """A protobuf message as a dictionary of the fields that are set, integers as numbers, enumerations by name.

    Args:
        message: the message.
        zeros: with the fields that nobody set, too.
    """
    fields = json_format.MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=zeros)
    return _numbers(fields, message.DESCRIPTOR)


def instances_of(config: Mapping[str, Any]) -> int:
    """How many instances a reported configuration makes, on all devices together."""
    return sum(int(group.get("count", 1)) * max(1, len(group.get("gpus", []))) for group in config.get("instance_group", [])) or 1


def _numbers(value: Any, descriptor: Any) -> Any:
    # JSON for protobuf writes 64-bit integers as strings, because JavaScript's numbers are too short for them.
    out = {}
    for key, item in value.items():
        field = descriptor.fields_by_name[key]
        message = field.message_type
        if message is not None and message.GetOptions().map_entry:
            inner = message.fields_by_name["value"]
            out[key] = {name: _convert(entry, inner) for name, entry in item.items()}
        elif isinstance(item, list):
            out[key] = [_convert(entry, field) for entry in item]
        else:
            out[key] = _convert(item, field)
    return out


def _convert(item: Any, field: Any) -> Any:
    if field.message_type is not None:
        return _numbers(item, field.message_type) if isinstance(item, dict) else item
    return int(item) if field.type in _INT64 else item


def render(config: ModelConfig, fields: Iterable[str] | None = None) -> str:
    """A config, or some of its top-level fields, as protobuf text."""
    if fields is None:
        return text_format.MessageToString(config)
    part = ModelConfig()
    for name in fields:
        _copy_field(config, part, name)
    return text_format.MessageToString(part)


def _copy_field(source: ModelConfig, target: ModelConfig, name: str) -> None:
    whole = ModelConfig()
    whole.CopyFrom(source)
    for field, _ in source.ListFields():
        if field.name != name:
            whole.ClearField(field.name)
    target.MergeFrom(whole)


def changed_fields(old: ModelConfig, new: ModelConfig) -> list[str]:
    """Names of the top-level fields that differ, in the order of the protobuf definition."""
    return [field.name for field in ModelConfig.DESCRIPTOR.fields if render(old, [field.name]) != render(new, [field.name])]


def rewrite(text: str, new: ModelConfig) -> str:
    """Change a config's text so that it means ``new``, and leave everything else as it was written.

    Comments and layout survive outside the changed top-level fields. A comment inside a changed field, for instance within
    ``instance_group [ … ]``, goes with the old text of that field.

    Raises:
        ConfigError: the old text has a fault.
    """
    names = changed_fields(parse(text), new)
    spans = top_level_fields(text)
    added = []
    for name in names:
        replacement = render(new, [name]).rstrip("\n")
        own = [span for span in spans if span[0] == name]
        if not own:
            added.append(replacement)
        for index, (_, start, end) in reversed(list(enumerate(own))):
            text = text[:start] + (replacement if index == 0 else "") + text[end:]
        spans = top_level_fields(text)
    if added:
        text = text.rstrip("\n") + "\n" + "\n".join(part for part in added if part) + "\n"
    if parse(text) != new:
        raise AssertionError("the rewritten text means something else; this is a fault of the helpers")
    return text


_TOKEN = re.compile(
    r"""(?P<skip>\s+|\#[^\n]*)"""
    r"""|(?P<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')"""
    r"""|(?P<open>[\[{<])|(?P<close>[\]}>])|(?P<word>[^\s#"'\[\]{}<>:,;]+)|(?P<mark>.)"""
)


def top_level_fields(text: str) -> list[tuple[str, int, int]]:
    """Where the top-level fields of a valid config's text are: name, start and end, in the order of the text."""
    fields: list[tuple[str, int, int]] = []
    depth = 0
    name, start, end, complete = "", 0, 0, False
    for token in _TOKEN.finditer(text):
        kind = token.lastgroup
        if kind == "skip":
            continue
        if depth == 0 and kind == "word" and (complete or not name):
            if name:
                fields.append((name, start, end))
            name, start, complete = token.group(), token.start(), False
        elif kind == "open":
            depth += 1
        elif kind == "close":
            depth -= 1
            complete = complete or depth == 0
        elif depth == 0 and kind in ("word", "string"):
            complete = True
        end = token.end()
    if name:
        fields.append((name, start, end))
    return fields
