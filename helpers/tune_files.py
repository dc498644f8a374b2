"""The files of a search: a line for each measurement, on the disk at once, and the winner's ``config.pbtxt``."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from helpers.files import make_folder, read_text, replace, writing
from helpers.repository.syntax import parse, render
from helpers.tune_candidate import Row


def read_rows(path: Path) -> list[Row]:
    """The rows that earlier calls have written; a last line that was not written to its end is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
        with suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return rows


def append_row(path: Path, row: Row) -> None:
    """Add a row to the file, on the disk when this returns.

    Raises:
        SetupError: it cannot be written.
    """
    with writing(path):
        make_folder(path.parent)
        with path.open("ab+") as file:
            # Half a line, left by a full disk, ends here.
            file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
            begin = b"" if file.read(1) in (b"\n", b"") else b"\n"
            file.write(begin + json.dumps(row).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def model_files(repository: Path | None, model: str) -> list[list[Any]]:
    """Names, sizes and times of the model's files, where they are known: another network is another measurement."""
    folder = repository / model if repository else None
    if folder is None or not folder.is_dir():
        return []
    files = sorted(path for path in folder.glob("[0-9]*/*") if path.is_file())
    return [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]


def winner_text(config: Mapping[str, Any], repository: Path | None, model: str, remark: str) -> str:
    """The configuration as text to copy: the model's own file where it is known, with the varied parts changed.

    Args:
        config: the whole configuration, as the server takes it.
        repository: where the model's file may be.
        model: name of the model.
        remark: lines for the beginning, without ``#``.
    """
    whole = json_format.ParseDict(dict(config), ModelConfig(), ignore_unknown_fields=True)
    whole.name = model
    path = repository / model / "config.pbtxt" if repository else None
    if path is not None and path.exists():
        own = parse(read_text(path), str(path))
        _vary(own, whole)
        whole = own
    return "".join(f"# {line}\n" for line in remark.splitlines()) + render(whole)


def _vary(config: ModelConfig, winner: ModelConfig) -> None:
    """Give a configuration the winner's instances, parameters, batches and accelerators; what the server only filled in stays out."""
    for name in ("instance_group", "parameters", "dynamic_batching"):
        config.ClearField(name)
    # A limit on batches that was given for the search.
    config.max_batch_size = min(config.max_batch_size, winner.max_batch_size)
    for group in winner.instance_group:
        config.instance_group.add(count=group.count, kind=group.kind, gpus=group.gpus)
    for key in winner.parameters:
        config.parameters[key].CopyFrom(winner.parameters[key])
    if winner.HasField("dynamic_batching"):
        config.dynamic_batching.CopyFrom(winner.dynamic_batching)
        if not config.dynamic_batching.priority_queue_policy:
            config.dynamic_batching.ClearField("priority_queue_policy")
    accelerators = winner.optimization.execution_accelerators
    if accelerators.ByteSize() or config.optimization.execution_accelerators.ByteSize():
        config.optimization.execution_accelerators.CopyFrom(accelerators)


def write_winner(path: Path, text: str) -> None:
    """Write the winner's configuration, whole or not at all.

    Raises:
        SetupError: it cannot be written.
    """
    with writing(path):
        make_folder(path.parent)
        replace(path, text)
