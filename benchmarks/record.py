"""``python -m benchmarks.record``: what students see who cannot measure themselves, into notebooks/data.

``recorded_sweep.jsonl`` has every load of notebooks 07 and 08, on a server of the course with its models as they are. A point that did
not settle is measured once more, for longer, and the better of the two is kept. ``--missing`` keeps the rows that are there, each with
its machine and date, and measures what they lack. ``--notebooks`` runs notebooks 07 and 09 instead, and keeps what they type and what
their experiments gave (:mod:`benchmarks.record_notebooks`). Run it on a quiet machine; interrupted and run again, it goes on where it
was.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks import record_notebooks
from helpers import paths
from helpers.measuring import recorded
from helpers.measuring.inputs import jets_path, write_jets
from helpers.measuring.measure import measure, sweep
from helpers.measuring.perf_analyzer import LENGTHS
from helpers.measuring.table import append_row, plain, read_rows, rows_of
from helpers.server import Server, launch_server


@dataclass(frozen=True)
class Load:
    """Points of the same models and inputs: names, batch sizes, concurrencies, lengths of the inputs, and whether those are real jets."""

    models: tuple[str, ...]
    batches: tuple[int, ...]
    concurrencies: tuple[int, ...] = (1,)
    lengths: Mapping[str, int] = field(default_factory=dict)
    jets: bool = False

    def inputs(self, model: str) -> str | dict[str, int]:
        """What :func:`helpers.measuring.recorded.inputs_of` says of such a row: the name of a file, or the lengths of random inputs."""
        lengths = LENGTHS | dict(self.lengths)
        return jets_path(model, lengths).name if self.jets else lengths


_ONNX, _TORCH = "particlenet_AK4", "particlenet_AK4_PT"
LOADS = (
    Load((_ONNX, _TORCH), (1, 4, 8, 16, 32, 64)),
    Load((_ONNX,), (10, 100)),
    Load((_ONNX,), (8,), (2, 4, 8)),
    Load((_ONNX,), (4,), (2,)),
    Load((_ONNX,), (10,), (8,)),
    Load((_ONNX,), (1, 4, 16), (4,), {"pf": 100, "sv": 10}),
    Load((_ONNX,), (10,), lengths={"pf": 50, "sv": 4}, jets=True),
    Load((_ONNX,), (10,), lengths={"pf": 20, "sv": 4}, jets=True),
    Load(("particlenet_PT",), (1, 10, 100)),
)
BASE_PORT = 12700
# Seconds after which a second attempt at a point begins no further windows.
LONGER_S = 20.0
SOURCE = "recorded: this course, on a machine of its own"


def main() -> None:
    """Measure everything, then replace the file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.record", description=__doc__)
    parser.add_argument("--output", type=Path, default=recorded.data_file("sweep"), help="where to write the table")
    parser.add_argument("--missing", action="store_true", help="keep the rows that are there, and measure what they lack")
    parser.add_argument("--notebooks", action="store_true", help="record what notebooks 07 and 09 ask for instead of the sweep")
    arguments = parser.parse_args()
    if arguments.notebooks:
        record_notebooks.record(SOURCE)
        return
    target = arguments.output
    folder = paths.work_dir() / "record"
    part = target.with_suffix(".part")
    part.unlink(missing_ok=True)
    kept = read_rows(target) if arguments.missing else []
    for row in kept:
        append_row(part, row)
    loads = list(missing(kept))
    if not loads:
        part.unlink(missing_ok=True)
        print(f"{target} lacks nothing")
        return
    models = sorted({model for load in loads for model in load.models})
    with launch_server("models", load=models, base_port=BASE_PORT, name="record") as server:
        for load in loads:
            for row in _rows(server, load, folder):
                append_row(part, row | {"source": SOURCE})
    target.unlink(missing_ok=True)
    part.rename(target)
    shutil.rmtree(folder)
    print(f"{target} is new")


def missing(rows: Iterable[Mapping[str, Any]]) -> Iterator[Load]:
    """The loads of which rows lack a point, each with the points that are lacking."""
    there = [(row["model"], row["batch"], row["concurrency"], recorded.inputs_of(row)) for row in rows]
    for load in LOADS:
        for model, batch, concurrency in itertools.product(load.models, load.batches, load.concurrencies):
            if (model, batch, concurrency, load.inputs(model)) not in there:
                yield replace(load, models=(model,), batches=(batch,), concurrencies=(concurrency,))


def _rows(server: Server, load: Load, folder: Path) -> Iterator[dict[str, Any]]:
    """The rows of a load; a point that did not settle a second time, and longer."""
    inputs: dict[str, Any] = {"lengths": load.lengths}
    if load.jets:
        inputs = {"input_data": write_jets(server, load.models[0], lengths=load.lengths)}
    result = sweep(server, load.models, load.batches, load.concurrencies, output=folder, **inputs)
    kept = Path(result.attrs["path"])
    points = [_point(row) for row in read_rows(kept)]
    for row in rows_of(result):
        better = row
        if not row["stable"] and points.count(_point(row)) == 1:
            again = plain(measure(server, row["model"], row["batch"], row["concurrency"], max_seconds=LONGER_S, **inputs))
            again["key"] = row["key"]
            print(f"again: {again['model']}, batch {again['batch']}, concurrency {again['concurrency']}: {again['note'] or 'settled'}")
            worse, better = sorted((row, again), key=lambda one: -one["throughput_spread_infer_per_s"] / one["throughput_infer_per_s"])
            # The last one of a point is what the sweep takes when this is run again.
            append_row(kept, worse)
            append_row(kept, better)
        # A file of inputs has a place on this machine only.
        yield better | {"command": better["command"].replace(f"{paths.work_dir()}/", "work/")}


def _point(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["model"], row["batch"], row["concurrency"], row["inputs"], row["shapes"]


if __name__ == "__main__":
    main()
