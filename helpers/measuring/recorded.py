"""Figures that others measured, and this course's own for those that cannot measure: as rows, never without their source.

They are in ``notebooks/data``, which says where from; ``make test-gpu`` on a machine with a GPU adds a file to ``work/gpu``.
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
from helpers.measuring.table import COLUMNS, Rows, hardware, shapes_of
from helpers.paths import read_lines, root, work_dir


def sweep_file() -> Path:
    """Return the file of the course's own sweep."""
    return root() / "notebooks" / "data" / "recorded_sweep.jsonl"


def gpu_file(device: str) -> Path:
    """Return where the check list on a machine with this GPU writes its table."""
    return work_dir() / "gpu" / f"recorded_gpu_{re.sub(r'[^A-Za-z0-9]+', '_', device).strip('_')}.jsonl"


def recorded(device: str = "", model: str = "", variant: str = "") -> Rows:
    """Return figures by others, and by this course on GPUs, as rows that say in ``source`` who measured them and in ``device`` on what.

    ``device`` is a part of its name, such as ``"P100"``, ``"T4"``, ``"A100"`` or ``"CPU"``. The ``variant``, such as ``"ONNX"``, tells
    apart what the model's name does not. All by default.
    """
    data = root() / "notebooks" / "data"
    empty = dict.fromkeys((*COLUMNS, "variant"))
    groups = json.loads((data / "recorded.json").read_text(encoding="utf-8"))
    everything = [empty | group["common"] | point for group in groups for point in group["points"]]
    files = {path.name: path for folder in (data, work_dir() / "gpu") for path in sorted(folder.glob("recorded_gpu_*.jsonl"))}
    everything += [empty | row | {"variant": ""} for path in files.values() for row in read_lines(path)]
    of_device = [row for row in everything if device.casefold() in row["device"].casefold()]
    rows = [row for row in of_device if model in ("", row["model"]) and variant in ("", row["variant"])]
    if not rows:
        there = quoted(sorted({f"{row['model']} on {row['device']}" for row in everything}))
        raise InputError(f"There is no recorded figure for {quoted(filter(None, (device, model, variant)))}.", f"There are: {there}.")
    return Rows.of(rows, _caption(rows))


def _caption(rows: Iterable[Mapping[str, Any]]) -> str:
    """Who measured, and on what."""
    return " ".join(dict.fromkeys(f"{row['source'][0].upper()}{row['source'][1:]}; {hardware(row)}." for row in rows))


def recorded_sweep(
    models: Sequence[str],
    batches: Iterable[int] = (1,),
    concurrencies: Iterable[int] = (1,),
    lengths: Mapping[str, int] | None = None,
    input_data: InputData = "random",
) -> Rows:
    """Return what the course measured on a machine of its own with the real perf_analyzer: two cores, no GPU.

    Arguments are as for ``sweep``. What was asked for and is not there is printed; an InputError where there is no such row at all.
    """
    there = {}
    for row in read_lines(sweep_file()):
        asked = Path(data_for(row["model"], input_data)).name
        if inputs_of(row) == (LENGTHS | dict(lengths or {}) if asked == "random" else asked):
            there[row["model"], row["concurrency"], row["batch"]] = row
    wanted = list(itertools.product(models, concurrencies, batches))
    rows = [there[point] for point in wanted if point in there]
    missing = ["{}, concurrency {}, batch {}".format(*point) for point in wanted if point not in there]
    said = f"Not recorded: {'; '.join(missing)}." if missing else ""
    if not rows:
        raise InputError("There is no recorded row of this load.", said, f"To see all that there are, open {sweep_file()}")
    if said:
        print(said)
    return Rows.of(rows, _caption(rows), path=str(sweep_file()), before=0)


def inputs_of(row: Mapping[str, Any]) -> str | dict[str, int]:
    """Return what a row was measured with: the name of a file, or the lengths of random inputs by the beginning of their name."""
    if row["inputs"] != "random":
        return str(row["inputs"])
    return {name.split("_")[0]: shape[-1] for name, shape in shapes_of(row).items()}
