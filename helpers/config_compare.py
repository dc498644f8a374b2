"""Configs side by side: old, new, and what the server reports, field by field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from helpers.config_text import as_dict
from helpers.tables import as_html, as_text

CHANGED = "changed"
FILLED_IN = "filled in by the server"
DIFFERS = "the server has another value"
MISSING = "not at the server"
NO_EFFECT = "no effect here: {}"


@dataclass(frozen=True)
class Row:
    """One field: its path, its values as text (empty where it is not set), and a remark."""

    field: str
    old: str
    new: str
    reported: str
    remark: str


class Comparison:
    """Configs side by side; a notebook shows a table, ``print`` text.

    Attributes:
        rows: one :class:`Row` for each field that is set anywhere.
        with_server: whether the server's view is among them.
    """

    def __init__(self, rows: list[Row], with_server: bool) -> None:
        self.rows = rows
        self.with_server = with_server

    @property
    def changed(self) -> list[str]:
        """The fields that differ between old and new."""
        return [row.field for row in self.rows if row.old != row.new]

    @property
    def differences(self) -> Comparison:
        """Only the fields that differ, or that the server filled in."""
        return Comparison([row for row in self.rows if row.remark], self.with_server)

    def __str__(self) -> str:
        return as_text(self._table()) if self.rows else "no difference"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return as_html(self._table(), bold=lambda row: bool(row[""])) if self.rows else "<p>no difference</p>"

    def _table(self) -> list[dict[str, str]]:
        return [
            {"field": row.field, "old": row.old, "new": row.new}
            | ({"server reports": row.reported} if self.with_server else {})
            | {"": row.remark}
            for row in self.rows
        ]


def compare(
    old: ModelConfig | Mapping[str, Any],
    new: ModelConfig | Mapping[str, Any],
    reported: Any = None,
    no_effect: Mapping[str, str] | None = None,
) -> Comparison:
    """Put configs side by side.

    Args:
        old: a config, or a dictionary of one.
        new: the same.
        reported: what the server says it runs, or None.
        no_effect: reasons, by path of the field, why it does nothing at that server.
    """
    left, right = flatten(old), flatten(new)
    server = flatten(reported) if reported is not None else {}
    rows = []
    for field in sorted({**left, **right, **server}, key=_top_level):
        before, after, told = left.get(field, ""), right.get(field, ""), server.get(field, "")
        remark = _remark(before, after, told, reported is not None)
        if field in (no_effect or {}):
            remark = ", ".join(filter(None, [remark, NO_EFFECT.format(no_effect[field])]))
        rows.append(Row(field, before, after, told, remark))
    return Comparison(rows, reported is not None)


def flatten(config: ModelConfig | Mapping[str, Any]) -> dict[str, str]:
    """Each field that is set, by its path, as text: ``input[INPUT0].dims`` → ``[16]``."""
    if not isinstance(config, ModelConfig):
        config = json_format.ParseDict(dict(config), ModelConfig(), ignore_unknown_fields=True)
    return dict(_walk("", as_dict(config)))


def _walk(path: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        if not value:
            yield path, "{ }"
        for key, item in value.items():
            yield from _walk(f"{path}.{key}" if path else key, item)
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        for index, item in enumerate(value):
            named = path in ("input", "output") and item.get("name")
            yield from _walk(f"{path}[{item['name'] if named else index}]", item)
    elif isinstance(value, list):
        yield path, f"[{', '.join(str(item) for item in value)}]"
    else:
        yield path, str(value)


def _top_level(field: str) -> int:
    # Fields within one top-level field keep the order that they have in the config.
    names = [entry.name for entry in ModelConfig.DESCRIPTOR.fields]
    return names.index(field.split(".")[0].split("[")[0])


def _remark(old: str, new: str, reported: str, with_server: bool) -> str:
    remarks = [CHANGED] if old != new else []
    if with_server and new != reported:
        remarks.append(FILLED_IN if not new else MISSING if not reported else DIFFERS)
    return ", ".join(remarks)
