"""``python -m benchmarks.record``: what students see who cannot measure themselves, into notebooks/data.

``recorded_sweep.jsonl`` has every load of notebooks 07 and 08, on a server of the course with its models as they are. Run it on a quiet
machine; interrupted and run again, it goes on where it was.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helpers import launch_server, paths, sweep
from helpers.measuring import recorded
from helpers.measuring.inputs import write_real
from helpers.measuring.table import append_row, rows_of
from helpers.server import Server


@dataclass(frozen=True)
class Load:
    """Points of the same models and inputs: names, batch sizes, concurrencies, lengths of the inputs, and whether those are real ones."""

    models: tuple[str, ...]
    batches: tuple[int, ...]
    concurrencies: tuple[int, ...] = (1,)
    lengths: Mapping[str, int] = field(default_factory=dict)
    real: bool = False


_ONNX, _TORCH, _TAUS = "particlenet_AK4", "particlenet_AK4_PT", "deeptau_nosplit"
LOADS = (
    Load((_ONNX, _TORCH), (1, 4, 8, 16, 32, 64)),
    Load((_ONNX,), (10, 100)),
    Load((_ONNX,), (8,), (2, 4, 8)),
    Load((_ONNX,), (4,), (2,)),
    Load((_ONNX,), (10,), (8,)),
    Load((_ONNX,), (1, 4, 16), (4,), {"pf": 100, "sv": 10}),
    Load((_ONNX,), (10,), lengths={"pf": 50, "sv": 4}, real=True),
    Load((_ONNX,), (10,), lengths={"pf": 20, "sv": 4}, real=True),
    Load(("particlenet_PT",), (1, 10, 100)),
    Load((_TAUS,), (1, 4, 16), (4,), real=True),
)
BASE_PORT = 12700
# Seconds that the windows of a point may take.
POINT_S = 20.0
SOURCE = "recorded: this course, on a machine of its own"


def main() -> None:
    """Measure everything, then replace the file."""
    folder = paths.work_dir() / "record"
    with launch_server("models", load=sorted({model for load in LOADS for model in load.models}), base_port=BASE_PORT) as server:
        rows = [_public(row, paths.work_dir()) for load in LOADS for row in measured(server, load, folder)]
    path = recorded.sweep_file()
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    for row in rows:
        append_row(part, row)
    part.replace(path)
    print(f"{path} is new")
    shutil.rmtree(folder)


def measured(server: Server, load: Load, folder: Path) -> list[dict[str, Any]]:
    """The rows of a load."""
    inputs: dict[str, Any] = {"lengths": load.lengths}
    if load.real:
        inputs = {"input_data": write_real(server, load.models[0], load.lengths)}
    return rows_of(sweep(server, load.models, load.batches, load.concurrencies, output=folder, max_seconds=POINT_S, **inputs))


def _public(row: Mapping[str, Any], work: Path) -> dict[str, Any]:
    # A file of inputs has a place on this machine only.
    return {**row, "source": SOURCE, "command": row["command"].replace(f"{work}/", "work/")}


if __name__ == "__main__":
    main()
