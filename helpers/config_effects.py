"""Which parts of a served configuration do nothing on this server, and why: from the server's log, which says so when it loads a model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from helpers.config_compare import flatten

# What the course's backends write when they have read a wish that they cannot meet.
_SENTENCE = r"model '{model}': (?P<what>[^\"]+?) has no effect(?: here)?: (?P<reason>[^\"]+)"
_ACCELERATORS = "optimization.execution_accelerators."


def without_effect(model: str, fields: Mapping[str, str], log: str) -> dict[str, str]:
    """The fields of a configuration that have no effect.

    Args:
        model: its name.
        fields: as the server reports them, values as text by path (see :func:`helpers.config_compare.flatten`).
        log: of the server; empty when there is none to read.

    Returns:
        Reasons by path of the field.
    """
    found = _known_of_all_servers(fields)
    for match in re.finditer(_SENTENCE.format(model=re.escape(model)), log):
        for path in _paths(match["what"], fields):
            found[path] = match["reason"].strip().rstrip(".")
    return found


def _paths(what: str, fields: Mapping[str, str]) -> list[str]:
    """The fields that a sentence of the log is about; none when the configuration has changed since."""
    if named := re.fullmatch(r"execution accelerator '(.+)'", what):
        return [path for path, value in fields.items() if path.startswith(_ACCELERATORS) and path.endswith(".name") and value == named[1]]
    if named := re.fullmatch(r"parameter '(.+)'", what):
        what = f"parameters.{named[1]}.string_value"
    return [what] if what in fields else []


def _known_of_all_servers(fields: Mapping[str, str]) -> dict[str, str]:
    """What is true of NVIDIA's containers, too, so that it needs no log."""
    names = [path for path in fields if path.startswith(_ACCELERATORS) and path.endswith(".name")]
    kinds = {value for path, value in fields.items() if re.fullmatch(r"instance_group\[\d+\]\.kind", path)}
    found = {}
    for path in names:
        if "pytorch" in (fields.get("backend"), fields.get("platform", "").partition("_")[0]):
            found[path] = "accelerators act on ONNX models, and this is a TorchScript model"
        elif "gpu_execution_accelerator" in path and kinds == {"KIND_CPU"}:
            found[path] = "it needs a GPU, and the instances run on the CPU"
    return found


def of_server(server: Any, model: str) -> tuple[dict[str, Any], dict[str, str]]:
    """What a :class:`~helpers.server.Server` reports of a model, and which fields of that have no effect, by its log where that is here."""
    told = server.config(model)
    return told, without_effect(model, flatten(told), server.log(lines=0))
