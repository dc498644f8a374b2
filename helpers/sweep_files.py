"""The files of a sweep: one tidy table to which each point is appended at once, and the tool's own CSV files for each model and batch."""

from __future__ import annotations

import csv
import io
import json
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from helpers import settings
from helpers.errors import InputError
from helpers.files import make_folder, replace, shown, writing
from helpers.perf_results import COLUMNS, TOOL_COLUMNS

TABLE = "sweep.csv"
_NUMBERS = frozenset(name for name in COLUMNS if name.endswith(("_us", "_per_s")))
_WHOLE = frozenset(("batch", "concurrency", "percentile", "requests", "windows", "instances"))


def folder_of(output: str | Path | None) -> Path:
    """The folder of a sweep; what begins with ``work/`` is in the working folder, and so is the default, ``work/sweeps``."""
    given = Path(output or "work/sweeps").expanduser()
    return settings.work_dir().joinpath(*given.parts[1:]) if given.parts[:1] == ("work",) else given.absolute()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a tidy table; empty cells are None. A last line that was not written to its end is left out.

    Raises:
        InputError: the file cannot be read, or is no such table.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The table {shown(path)} cannot be read: {error}.", "Expected the sweep.csv of an earlier sweep.") from error
    reader = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))
    if not {"model", "batch", "throughput_infer_per_s"} <= set(reader.fieldnames or ()):
        raise InputError(f"{shown(path)} is no table of a sweep.", "Expected columns such as model, batch and throughput_infer_per_s.")
    try:
        return [{name: _value(name, cell) for name, cell in row.items() if name} for row in reader]
    except ValueError as error:
        raise InputError(f"The table {shown(path)} holds something else than a sweep writes: {error}.") from error


def _value(name: str, cell: str | None) -> Any:
    if name == "note":
        return cell or ""
    if not cell:
        return None
    if name == "stable":
        return cell == "True"
    return int(cell) if name in _WHOLE else float(cell) if name in _NUMBERS else cell


def append(path: Path, row: Mapping[str, Any]) -> None:
    """Add a row to the tidy table, on the disk when this returns.

    Raises:
        SetupError: it cannot be written.
    """
    with writing(path):
        make_folder(path.parent)
        _repair(path)
        lines = [] if path.exists() else [_line(COLUMNS)]
        lines.append(_line("" if row.get(name) is None else row[name] for name in COLUMNS))
        # One call: whoever reads meanwhile, or is killed in between, sees whole lines.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            # A disk that is full takes a part, and says so only when it is asked for the rest.
            rest = "".join(lines).encode()
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _repair(path: Path) -> None:
    """Cut off half a line that a full disk left; put a table with other columns aside."""
    if not path.exists():
        return
    content = path.read_bytes()
    if content.partition(b"\n")[0].decode(errors="replace").strip() != _line(COLUMNS).strip():
        path.rename(path.with_name(f"{path.stem}-{time.strftime('%Y-%m-%d_%H-%M-%S')}{path.suffix}"))
    elif not content.endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)


def _line(cells: Iterable[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def write_tool_table(folder: Path, label: str, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write ``<model>/<model>_batch<b>.csv`` with perf_analyzer's own columns, a line for each concurrency.

    Args:
        folder: of the sweep.
        label: what stands behind the model's name, such as ``_instances2``; mostly nothing.
        rows: rows of one model and one batch size.

    Returns:
        The file.
    """
    # The latest of each load.
    latest = {(row["concurrency"], row["request_rate_per_s"]): row for row in rows}
    ordered = sorted(latest.values(), key=lambda row: (row["concurrency"] or 0, row["request_rate_per_s"] or 0))
    model, batch = ordered[0]["model"], ordered[0]["batch"]
    # The first column is the load, as the tool calls it.
    lines = [_line(("Concurrency", *TOOL_COLUMNS))]
    for row in ordered:
        numbers = (row[name] for name in TOOL_COLUMNS.values())
        lines.append(_line((row["concurrency"] or row["request_rate_per_s"], *("" if n is None else f"{n:g}" for n in numbers))))
    path = folder / model / f"{model}{label}_batch{batch}.csv"
    with writing(path):
        make_folder(path.parent)
        replace(path, "".join(lines))
    return path


def config_path(folder: Path, model: str, name: str) -> Path:
    """Where :func:`write_config` keeps a configuration."""
    return folder / model / f"config_{name}.json"


def write_config(folder: Path, model: str, name: str, config: Mapping[str, Any]) -> None:
    """Keep the configuration that the server reported beside the results, under the short name that the rows have."""
    path = config_path(folder, model, name)
    with writing(path):
        make_folder(path.parent)
        replace(path, json.dumps(config, indent=1, sort_keys=True) + "\n")
