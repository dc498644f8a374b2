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
from helpers.errors import ConfigError
from helpers.paths import read_text, replace, shown, writing
from helpers.repository.folders import CONFIG, check, locate, raise_first
from helpers.repository.syntax import as_dict, parse, render
from helpers.tables import as_html, as_text


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
        return as_html(self._table(), bold=lambda row: bool(row[""])) if self.rows else "<p>no difference</p>"

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
        raise ConfigError(f"These fields make no config: {str(error).splitlines()[0]}") from error
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
) -> Comparison:
    """Put configs side by side: old, new, and what the server reports, such as ``server.config(model)``.

    Old and new are models, configs or dictionaries of such. Fields that only the server knows are marked as filled in by it, accelerators
    for GPUs as without effect where all instances run on the CPU.
    """
    left, right = (_flatten(read_config(side) if isinstance(side, (str, Path)) else side) for side in (old, new))
    server = {} if reported is None else _flatten(reported)
    on_cpu = {value for path, value in server.items() if re.fullmatch(r"instance_group\[\d+\]\.kind", path)} == {"KIND_CPU"}
    names = [field.name for field in ModelConfig.DESCRIPTOR.fields]
    rows = []
    # By top-level field; within one, in the order of the config.
    for field in sorted({**left, **right, **server}, key=lambda path: names.index(re.split(r"[.\[]", path)[0])):
        before, after, told = left.get(field, ""), right.get(field, ""), server.get(field, "")
        remarks = ["changed"] if before != after else []
        if reported is not None and after != told:
            remarks.append("filled in by the server" if not after else "not at the server" if not told else "the server has another value")
        if told and on_cpu and "gpu_execution_accelerator" in field and field.endswith(".name"):
            remarks.append("no effect here: it needs a GPU, and the instances run on the CPU")
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
