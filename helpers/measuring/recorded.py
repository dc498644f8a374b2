"""Figures that others measured, and this course's own for those that cannot measure: as rows, never without their source.

All of it is in ``notebooks/data``. ``recorded.json`` has the figures by others as they published them; a figure that they did not publish
is missing. ``recorded_sweep.jsonl`` is a sweep of this course, made by ``python -m benchmarks.record``;
``recorded_commands.jsonl`` and ``recorded_experiments.jsonl`` are what notebooks 07 and 09 gave (``--notebooks``). ``make test-gpu`` on
a machine with a GPU adds a file to ``work/gpu``; a copy of it in ``notebooks/data`` is for everybody.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from helpers.errors import InputError, quoted
from helpers.measuring.perf_analyzer import LENGTHS, InputData, data_for
from helpers.measuring.table import COLUMNS, Rows, hardware, read_rows, shapes_of
from helpers.paths import root, work_dir

# How the names of tables begin that the check list of a machine with a GPU has written.
_GPU_FILES = "recorded_gpu_"
# Options of the tool whose value does not tell what was measured: where the server is.
_PLACES = ("-u", "--url")


def data_file(name: str) -> Path:
    """Return a file of recorded figures: ``sweep``, ``commands`` or ``experiments``."""
    return root() / "notebooks" / "data" / f"recorded_{name}.jsonl"


def gpu_file(device: str) -> Path:
    """Return where the check list on a machine with this GPU writes its table."""
    return work_dir() / "gpu" / f"{_GPU_FILES}{re.sub(r'[^A-Za-z0-9]+', '_', device).strip('_')}.jsonl"


def recorded(device: str = "", model: str = "", variant: str = "") -> Rows:
    """Return figures by others, and by this course on GPUs, as rows like measured ones.

    Args:
        device: a part of the device's name, such as ``"P100"``, ``"T4"``, ``"A100"`` or ``"CPU"``; all by default.
        model: the model's name; all by default.
        variant: the exact variant, such as ``"ONNX"``, which tells apart what the model's name does not; all by default.

    Returns:
        Rows that say in ``source`` who measured them and in ``device`` on what.

    Raises:
        InputError: there is no such figure; the message lists what there is.
    """
    groups = json.loads((root() / "notebooks" / "data" / "recorded.json").read_text(encoding="utf-8"))
    empty = dict.fromkeys((*COLUMNS, "variant"))
    folders = (root() / "notebooks" / "data", work_dir() / "gpu")
    files = {path.name: path for folder in folders for path in sorted(folder.glob(f"{_GPU_FILES}*.jsonl"))}
    everything = [empty | group["common"] | point for group in groups for point in group["points"]]
    everything += [empty | row | {"variant": ""} for path in files.values() for row in read_rows(path)]
    near = [row for row in everything if device.casefold() in row["device"].casefold()]
    rows = [row for row in near if model in ("", row["model"]) and variant in ("", row["variant"])]
    if rows:
        return Rows.of(rows, _caption(rows))
    of_model = f" for {quoted(sorted({row['model'] for row in near}))}" if near else ""
    devices = quoted(sorted({row["device"] for row in (near or everything)}))
    asked = ", ".join(repr(word) for word in (device, model, variant) if word)
    raise InputError(f"There is no recorded figure for {asked}.", f"There are some on {devices}{of_model}.")


def _caption(rows: Iterable[Mapping[str, Any]]) -> str:
    """Who measured, and on what."""
    return " ".join(dict.fromkeys(f"{row['source'][0].upper()}{row['source'][1:]}; {hardware(row)}." for row in rows))


def recorded_sweep(
    models: Sequence[str],
    batches: Iterable[int] | None = None,
    concurrencies: Iterable[int] | None = None,
    lengths: Mapping[str, int] | None = None,
    input_data: InputData = "random",
) -> Rows:
    """Return what the course measured on a machine of its own with the real perf_analyzer: two cores, no GPU.

    Arguments are as for ``sweep``. What was asked for and is not there is named in the caption, and printed; an InputError lists what there
    is where there is no such row at all.
    """
    random = LENGTHS | dict(lengths or {})
    given = {name: list(values) for name, values in (("model", models), ("batch", batches), ("concurrency", concurrencies)) if values}
    everything = read_rows(data_file("sweep"))
    there: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in everything:
        asked = Path(data_for(row["model"], input_data)).name
        if inputs_of(row) == (random if asked == "random" else asked):
            there.setdefault(tuple(row[name] for name in given), []).append(row)
    wanted = list(itertools.product(*given.values()))
    rows = [row for point in wanted for row in there.get(point, [])]
    if not rows:
        near = [row for row in everything if row["model"] in models] or everything
        listed = {f"{row['model']} with batch {row['batch']}, concurrency {row['concurrency']}, inputs {inputs_of(row)}" for row in near}
        raise InputError("There is no recorded row of this load.", f"There are: {'; '.join(sorted(listed))}.")
    missing = [dict(zip(given, point, strict=True)) for point in wanted if point not in there]
    words = "; ".join(", ".join(f"{name} {value}".removeprefix("model ") for name, value in point.items()) for point in missing)
    said = f"Not recorded: {words}." if missing else ""
    if said:
        print(said)
    return Rows.of(rows, " ".join(filter(None, [_caption(rows), said])), path=str(data_file("sweep")), before=0)


def inputs_of(row: Mapping[str, Any]) -> str | dict[str, int]:
    """Return what a row was measured with: the name of a file, or the lengths of random inputs by the beginning of their name."""
    if row["inputs"] != "random":
        return str(row["inputs"])
    return {name.split("_")[0]: shape[-1] for name, shape in shapes_of(row).items()}


class Status(int):
    """The exit status of a recorded run; ``batch`` is the number of entries in each of its requests."""

    batch: int


def without_place(words: Sequence[str]) -> list[str]:
    """Return a command's words without the server's address."""
    return [word for before, word in itertools.pairwise(["", *words]) if word not in _PLACES and before not in _PLACES]


def recorded_command(words: Sequence[str]) -> tuple[Status, str]:
    """Return the status of a recorded command and all that it wrote, given its words; an InputError where there is none."""
    lines, wanted = read_rows(data_file("commands")), without_place(words)
    for line in lines:
        if line["words"] == wanted:
            status = Status(line["status"])
            status.batch = int(dict(itertools.pairwise(wanted)).get("-b", 1))
            return status, line["said"]
    there = "; ".join(" ".join(line["words"]) for line in lines)
    raise InputError("There is no recorded run of this command.", f"There are, each with any -u: {there}.", "Go on with the next cell.")


def recorded_experiment(model: str, batch: int, concurrency: int, inputs: str, config: str) -> dict[str, Any]:
    """Return the row of an experiment of notebook 09 under this very configuration; an InputError where there is none."""
    wanted = {"model": model, "batch": batch, "concurrency": concurrency, "inputs": inputs, "config": config}
    for row in read_rows(data_file("experiments")):
        if wanted.items() <= row.items():
            return row
    raise InputError(
        f"There is no recorded row of {model!r} as it is configured now, with requests of {batch}, {concurrency} under way.",
        "The settings of notebook 09 were recorded; a setting of your own can only be measured.",
        "Go on with the next cell.",
    )
