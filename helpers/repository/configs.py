"""Models' configs: read, change and compare them, and find the parts that have no effect on a server."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from helpers import paths
from helpers.errors import ConfigError, quoted
from helpers.paths import read_text, replace, shown, writing
from helpers.repository.folders import CONFIG, check, locate, raise_first
from helpers.repository.syntax import as_dict, parse, render
from helpers.tables import as_html, as_text

# What the course's backends write into the log when the config asks for something that they cannot do.
_NO_EFFECT_LINE = r"model '{model}': (?P<what>[^\"]+?) has no effect here: (?P<reason>[^\"]+)"


@dataclass(frozen=True)
class Row:
    """One field: its path, its values as text (empty where it is not set), and a remark."""

    field: str
    old: str
    new: str
    reported: str
    remark: str


@dataclass(frozen=True)
class Comparison:
    """Configs side by side, a row for each field that is set anywhere; a notebook shows a table, ``print`` text."""

    rows: list[Row]
    with_server: bool

    @property
    def differences(self) -> Comparison:
        """Only the fields with a remark: they differ, were filled in by the server, or have no effect."""
        return Comparison([row for row in self.rows if row.remark], self.with_server)

    def __repr__(self) -> str:
        return as_text(self._table()) if self.rows else "no difference"

    def _repr_html_(self) -> str:
        # A long path may go on in another line behind each of its dots, so that there is room for the remark.
        table = [row | {"field": row["field"].replace(".", ".\u200b")} for row in self._table()]
        return as_html(table, bold=lambda row: bool(row[""])) if table else "<p>no difference</p>"

    def _table(self) -> list[dict[str, str]]:
        # Nothing was changed: one column says what the file has.
        same, table = all(row.old == row.new for row in self.rows), []
        for row in self.rows:
            values = {"file": row.new} if same else {"old": row.old, "new": row.new}
            values |= {"server reports": row.reported} if self.with_server else {}
            table.append({"field": row.field, **values, "": row.remark})
        return table


def read_config(model: str | Path) -> ModelConfig:
    """Read the ``config.pbtxt`` of a model, by its name or folder."""
    path = locate(model) / CONFIG
    try:
        return parse(read_text(path), shown(path))
    except OSError as error:
        happened = f"There is no {shown(path)} that can be read ({error.strerror or error})."
        raise ConfigError(happened, f"Expected a file {CONFIG} in the model's folder.", "Look with: repository.tree()") from error


def change_config(model: str | Path, edit: str = "", **fields: Any) -> Comparison:
    """Change a model's config, check it, write it, and return old and new side by side.

    The file is written as protobuf prints it: comments and layout of the old one are not kept. ``edit`` is protobuf text such as
    ``dynamic_batching { }``; its fields, and those given by name, replace those of the same name, and None removes one. A ConfigError says
    that the change has a mistake, or does not fit the model's folder; nothing was written then.
    """
    folder = locate(model).resolve()
    if paths.models_dir().resolve() in folder.parents:
        raise ConfigError(
            f"The model in {shown(folder)} belongs to the course and is not edited.",
            "Expected a working copy in work/models.",
            f'Type: checkout("{folder.name}"), and serve work/models',
        )
    old, stanza = read_config(folder), parse(edit, "the text to put in")
    try:
        stanza.MergeFrom(json_format.ParseDict(fields, ModelConfig()))
    except json_format.ParseError as error:
        known = quoted(field.name for field in ModelConfig.DESCRIPTOR.fields)
        raise ConfigError(f"These fields make no config: {str(error).splitlines()[0].rstrip('.')}.", f"A config takes {known}.") from error
    new = ModelConfig()
    new.CopyFrom(old)
    for name in {*fields, *(field.name for field, _ in stanza.ListFields())}:
        new.ClearField(name)
    new.MergeFrom(stanza)
    raise_first(check(folder, new), folder)
    with writing(folder / CONFIG):
        replace(folder / CONFIG, render(new))
    return compare(old, new)


def compare(
    old: ModelConfig | Mapping[str, Any] | str | Path,
    new: ModelConfig | Mapping[str, Any] | str | Path,
    reported: Mapping[str, Any] | None = None,
    *,
    log: str = "",
) -> Comparison:
    """Put configs side by side: old, new, and what the server reports, such as ``server.config(model)``.

    Old and new are models, configs or dictionaries of such. Fields that only the server knows are marked as filled in by it, and with its
    log, ``server.log(lines=0)``, those that have no effect there with the reason that the course's backends write.
    """
    left, right = (_flatten(read_config(side) if isinstance(side, (str, Path)) else side) for side in (old, new))
    server = {} if reported is None else _flatten(reported)
    no_effect = _without_effect(server, log)
    names = [field.name for field in ModelConfig.DESCRIPTOR.fields]
    rows = []
    # By top-level field; within one, in the order of the config.
    for field in sorted({**left, **right, **server}, key=lambda path: names.index(re.split(r"[.\[]", path)[0])):
        before, after, told = left.get(field, ""), right.get(field, ""), server.get(field, "")
        remarks = ["changed"] if before != after else []
        if reported is not None and after != told:
            remarks.append("filled in by the server" if not after else "not at the server" if not told else "the server has another value")
        if field in no_effect:
            remarks.append(f"no effect here: {no_effect[field]}")
        rows.append(Row(field, before, after, told, ", ".join(remarks)))
    return Comparison(rows, reported is not None)


def instances_of(config: Mapping[str, Any]) -> int:
    """Return how many instances a reported config makes, on all devices together."""
    return sum(int(group.get("count", 1)) * max(1, len(group.get("gpus", []))) for group in config.get("instance_group", [])) or 1


def _flatten(config: ModelConfig | Mapping[str, Any]) -> dict[str, str]:
    """Return each field that is set, by its path, as text: ``input[INPUT0].dims`` → ``[16]``."""
    if not isinstance(config, ModelConfig):
        config = json_format.ParseDict(dict(config), ModelConfig(), ignore_unknown_fields=True)
    return dict(_walk("", as_dict(config)))


def _walk(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _walk(f"{path}.{key}" if path else key, item)
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        for index, item in enumerate(value):
            named = path in ("input", "output") and item.get("name")
            yield from _walk(f"{path}[{item['name'] if named else index}]", item)
    elif path:
        yield path, "{ }" if value == {} else f"[{', '.join(map(str, value))}]" if isinstance(value, list) else str(value)


def _without_effect(fields: Mapping[str, str], log: str) -> dict[str, str]:
    """Return the reported fields that have no effect, with the reason: from the log, and what is true of every server."""
    accelerators = [path for path in fields if path.startswith("optimization.execution_accelerators.") and path.endswith(".name")]
    found = {}
    if {value for path, value in fields.items() if re.fullmatch(r"instance_group\[\d+\]\.kind", path)} == {"KIND_CPU"}:
        on_gpu = (path for path in accelerators if "gpu_execution_accelerator" in path)
        found = dict.fromkeys(on_gpu, "it needs a GPU, and the instances run on the CPU")
    for line in re.finditer(_NO_EFFECT_LINE.format(model=re.escape(fields.get("name", ""))), log):
        kind, _, name = line["what"].partition(" '")
        name = name.rstrip("'")
        if kind == "execution accelerator":
            named = [path for path in accelerators if fields[path] == name]
        else:
            named = [f"parameters.{name}.string_value" if kind == "parameter" else line["what"]]
        # The config may have changed since the line was written.
        found.update({path: line["reason"].strip().rstrip(".") for path in named if path in fields})
    return found
