"""Figures that others measured, and this course's own for those that cannot measure: as rows, never without their source.

Typical use::

    sweep_figure(rows, reference=recorded("T4", "particlenet_AK4"))
    latency_split_figure(recorded("P100"))

All of it is in ``notebooks/data``. ``recorded.json`` has the figures by others as they published them; a figure that they did not publish
is missing. ``recorded_sweep.jsonl`` is a sweep of this course, made by ``python -m benchmarks.record``;
``recorded_commands.jsonl`` and ``recorded_experiments.jsonl`` are what notebooks 07 and 09 gave (``--notebooks``). ``make test-gpu`` on
a machine with a GPU adds a file to ``work/gpu``; a copy of it in ``notebooks/data`` is for everybody.
"""

from __future__ import annotations

import itertools
import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.errors import InputError, quoted
from helpers.measuring.perf_analyzer import LENGTHS
from helpers.measuring.table import COLUMNS, Rows, hardware, read_rows
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

    Each row says in ``source`` who measured it and in ``device`` on what; ``variant`` tells apart what the model's name does not, such as
    a file format or TensorRT.

    Args:
        device: a part of the device's name, such as ``"P100"``, ``"T4"``, ``"A100"`` or ``"CPU"``; all by default.
        model: the model's name; all by default.
        variant: the exact variant, such as ``"ONNX"``; all by default.

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


def own_rows() -> list[dict[str, Any]]:
    """Return all that this course recorded for those who cannot measure."""
    return [*read_rows(data_file("sweep")), *read_rows(data_file("experiments"))]


def recorded_sweep(
    models: str | Sequence[str] = (),
    batches: Iterable[int] | None = None,
    concurrencies: Iterable[int] | None = None,
    lengths: int | Mapping[str, int] | None = None,
    inputs: str = "random",
) -> Rows:
    """Return what the course measured on a machine of its own with the real perf_analyzer: two cores, no GPU.

    What was asked for and is not there is named in the caption, and printed.

    Args:
        models: one name or several; all by default.
        batches: batch sizes; all by default.
        concurrencies: requests under way at any time; all by default.
        lengths: of the axes that may have any, by the beginning of the input's name, or one for all; as in a measurement by default.
        inputs: ``random``, or the name of a file, which says the lengths itself.

    Raises:
        InputError: there is no such row; the message lists what there is.
    """
    names = [models] if isinstance(models, str) else list(models)
    wanted = dict.fromkeys(LENGTHS, lengths) if isinstance(lengths, int) else LENGTHS | dict(lengths or {})
    everything = read_rows(data_file("sweep"))
    of_inputs = [row for row in everything if row["inputs"] == inputs and (inputs != "random" or inputs_of(row) == wanted)]
    asked = [(names, "model"), (batches if batches is None else list(batches), "batch")]
    asked.append((concurrencies if concurrencies is None else list(concurrencies), "concurrency"))
    axes = [values or list(dict.fromkeys(row[name] for row in everything)) for values, name in asked]
    there = {tuple(row[name] for _, name in asked): row for row in of_inputs}
    rows = [there[point] for point in itertools.product(*axes) if point in there]
    if not rows:
        near = [row for row in everything if row["model"] in names] or everything
        listed = {f"{row['model']} with batch {row['batch']}, concurrency {row['concurrency']}, {_words(row)}" for row in near}
        raise InputError("There is no recorded row of this load.", f"There are: {'; '.join(sorted(listed))}.")
    given = [axis if values else [None] for axis, (values, _) in zip(axes, asked, strict=True)]
    missing = [
        ", ".join(f"{value}" if name == "model" else f"{name} {value}" for value, (_, name) in zip(point, asked, strict=True) if value)
        for point in itertools.product(*given)
        if not any(all(value in (None, row[name]) for value, (_, name) in zip(point, asked, strict=True)) for row in rows)
    ]
    said = f"Not recorded: {'; '.join(missing)}." if missing else ""
    if said:
        print(said)
    return Rows.of(rows, " ".join(filter(None, [_caption(rows), said])), path=str(data_file("sweep")), before=0, rougher=0)


def inputs_of(row: Mapping[str, Any]) -> str | dict[str, int]:
    """Return what a row was measured with: the name of a file, or the lengths of random inputs by the beginning of their name."""
    if row["inputs"] != "random":
        return str(row["inputs"])
    lasts = (shape.replace(":", ",").split(",") for shape in shapes_in(row["command"]))
    return {words[0].split("_")[0]: int(words[-1]) for words in lasts}


def shapes_in(command: str) -> frozenset[str]:
    """Return the shapes that a command names, such as ``pf_mask:1,50``."""
    return frozenset(value for word, value in itertools.pairwise(shlex.split(command)) if word == "--shape")


def _words(row: Mapping[str, Any]) -> str:
    """Its inputs: ``50 pf, 4 sv``, or the name of a file."""
    known = inputs_of(row)
    return known if isinstance(known, str) else ", ".join(f"{length} {kind}" for kind, length in sorted(known.items()))


class Status(int):
    """The exit status of a recorded run; ``batch`` is the number of entries in each of its requests."""

    batch: int


@dataclass(frozen=True)
class RecordedRun:
    """One run of the tool: its status, all that it wrote, and the processor of its machine."""

    status: Status
    said: str
    cpu: str


def without_place(words: Sequence[str]) -> list[str]:
    """Return a command's words without the server's address."""
    return [word for before, word in itertools.pairwise(["", *words]) if word not in _PLACES and before not in _PLACES]


def recorded_command(words: Sequence[str]) -> RecordedRun:
    """Return the recorded run of a command, given its words without the program's name; the error for none lists what there is."""
    lines, wanted = read_rows(data_file("commands")), without_place(words)
    for line in lines:
        if line["words"] == wanted:
            status = Status(line["status"])
            status.batch = int(dict(itertools.pairwise(wanted)).get("-b", 1))
            return RecordedRun(status, line["said"], line["cpu"])
    there = "; ".join(" ".join(line["words"]) for line in lines)
    raise InputError("There is no recorded run of this command.", f"There are, each with any -u: {there}.", "Go on with the next cell.")


def recorded_experiment(model: str, batch: int, concurrency: int, inputs: str, config: str) -> dict[str, Any]:
    """Return the row of an experiment of notebook 09 under this very configuration; an InputError where there is none."""
    wanted = {"model": model, "batch": batch, "concurrency": concurrency, "inputs": inputs, "config": config}
    for row in read_rows(data_file("experiments")):
        if all(row[name] == value for name, value in wanted.items()):
            return row
    raise InputError(
        f"There is no recorded row of {model!r} as it is configured now, with requests of {batch}, {concurrency} under way, and "
        f"inputs {inputs}.",
        "The settings of notebook 09 were recorded; a setting of your own can only be measured.",
        "Go on with the next cell.",
    )
