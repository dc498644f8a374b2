"""Figures that others measured, and this course's own for those that cannot measure: as rows, never without their source.

Typical use::

    sweep_figure(rows, reference=recorded("T4", "particlenet_AK4"))
    latency_split_figure(recorded("P100"))

``notebooks/data/recorded.json`` holds the figures by others as they published them. A figure that they did not publish is None.
``notebooks/data/recorded_sweep.csv`` is a sweep of this course, made by ``python -m benchmarks.record``. ``make test-gpu`` on a machine
with a GPU adds a file to ``work/gpu``; a copy of it in ``notebooks/data`` is for everybody.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from helpers import perf_results, settings, sweep_files
from helpers.errors import InputError
from helpers.perf_table import Rows
from helpers.plot_rows import hardware
from helpers.sweep_plan import shapes_in
from helpers.wording import quoted

# What a measured row has, and so every recorded one, and which variant of the model it was.
COLUMNS = (*perf_results.COLUMNS, "variant")
# How the names of tables begin that the check list of a machine with a GPU has written.
_GPU_FILES = "recorded_gpu_"


def recorded(device: str = "", model: str = "", variant: str = "") -> Rows:
    """Figures by others, and by this course on GPUs, as rows like measured ones.

    Each row says in ``source`` who measured it and in ``device`` on what; ``variant`` tells apart what the model's name does not, such as
    a file format or TensorRT.

    Args:
        device: a part of the device's name, such as ``"P100"``, ``"T4"``, ``"A100"`` or ``"CPU"``; all by default.
        model: the model's name; all by default.
        variant: the exact variant, such as ``"ONNX"``; all by default.

    Returns:
        The rows, new ones with each call; a list that shows itself as a table under its sources.

    Raises:
        InputError: there is no such figure; the message lists what there is.
    """
    everything = (*_published(), *_on_gpus())
    rows = [
        dict(row)
        for row in everything
        if device.casefold() in row["device"].casefold() and model in ("", row["model"]) and variant in ("", row["variant"])
    ]
    if rows:
        return Rows(rows, _caption(rows))
    near = [row for row in everything if device.casefold() in row["device"].casefold()]
    of_model = f" for {quoted(sorted({row['model'] for row in near}))}" if near else ""
    devices = quoted(sorted({row["device"] for row in (near or everything)}))
    asked = ", ".join(repr(word) for word in (device, model, variant) if word)
    raise InputError(f"There is no recorded figure for {asked}.", f"There are some on {devices}{of_model}.")


@functools.cache
def _published() -> tuple[dict[str, Any], ...]:
    groups = json.loads((settings.root() / "notebooks" / "data" / "recorded.json").read_text(encoding="utf-8"))
    empty = dict.fromkeys(COLUMNS)
    return tuple(empty | group["common"] | point for group in groups for point in group["points"])


def gpu_file(device: str) -> Path:
    """Where the check list on a machine with this GPU writes its table."""
    return settings.work_dir() / "gpu" / f"{_GPU_FILES}{re.sub(r'[^A-Za-z0-9]+', '_', device).strip('_')}.csv"


def _on_gpus() -> list[dict[str, Any]]:
    """The rows that check lists on GPUs have left, here or for everybody."""
    folders = (settings.root() / "notebooks" / "data", settings.work_dir() / "gpu")
    files = {path.name: path for folder in folders for path in sorted(folder.glob(f"{_GPU_FILES}*.csv"))}
    return [{**dict.fromkeys(COLUMNS), **row, "variant": ""} for path in files.values() for row in sweep_files.read_rows(path)]


def _caption(rows: list[dict[str, Any]]) -> str:
    """Who measured, and on what."""
    return " ".join(dict.fromkeys(f"{row['source'][0].upper()}{row['source'][1:]}; {hardware(row)}." for row in rows))


def sweep_file() -> Path:
    """The table of the course's own recorded sweep."""
    return settings.root() / "notebooks" / "data" / "recorded_sweep.csv"


def recorded_sweep(
    models: str | Sequence[str] = (),
    batches: Iterable[int] | None = None,
    concurrencies: Iterable[int] | None = None,
    lengths: int | Mapping[str, int] | None = None,
    inputs: str = "random",
) -> Rows:
    """What the course measured on a machine of its own with the real perf_analyzer: two cores, no GPU.

    Args:
        models: one name or several; all by default.
        batches: batch sizes; all by default.
        concurrencies: requests under way at any time; all by default.
        lengths: of the axes that may have any, by the beginning of the input's name, or one for all; as in a measurement by default.
        inputs: ``random``, or the name of a file of :mod:`helpers.load_inputs`, which says the lengths itself.

    Returns:
        The rows that there are, new ones with each call; ``cpu``, ``time`` and ``command`` say how each was made.

    Raises:
        InputError: there is no such row; the message lists what there is.
    """
    names = [models] if isinstance(models, str) else list(models)
    wanted = dict.fromkeys(settings.PERF_LENGTHS, lengths) if isinstance(lengths, int) else settings.PERF_LENGTHS | dict(lengths or {})
    sizes, loads = None if batches is None else set(batches), None if concurrencies is None else set(concurrencies)
    everything = sweep_files.read_rows(sweep_file())
    rows = [
        row
        for row in everything
        if (not names or row["model"] in names)
        and (sizes is None or row["batch"] in sizes)
        and (loads is None or row["concurrency"] in loads)
        and row["inputs"] == inputs
        and (inputs != "random" or _lengths(row) == wanted)
    ]
    if rows:
        return Rows(rows, _caption(rows))
    near = [row for row in everything if row["model"] in names] or everything
    there = {f"{row['model']} with batch {row['batch']}, concurrency {row['concurrency']}, {_words(row)}" for row in near}
    raise InputError("There is no recorded row of this load.", f"There are: {'; '.join(sorted(there))}.")


def inputs_of(row: Mapping[str, Any]) -> str | dict[str, int]:
    """What a row of the sweep was measured with: the name of a file, or the lengths of random inputs by the beginning of their name."""
    return _lengths(row) if row["inputs"] == "random" else str(row["inputs"])


def _words(row: Mapping[str, Any]) -> str:
    """Its inputs: ``50 pf, 4 sv``, or the name of a file."""
    return ", ".join(f"{length} {kind}" for kind, length in sorted(_lengths(row).items())) if row["inputs"] == "random" else row["inputs"]


def _lengths(row: Mapping[str, Any]) -> dict[str, int]:
    """Length of the last axis of each kind of input, from the command: ``{"pf": 50, "sv": 4}``."""
    lasts = (shape.replace(":", ",").split(",") for shape in shapes_in(row["command"]))
    return {words[0].split("_")[0]: int(words[-1]) for words in lasts}
