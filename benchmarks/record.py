"""``python -m benchmarks.record``: what a machine without a GPU does, into notebooks/data, for those who cannot measure themselves.

``recorded_sweep.jsonl`` has every load of notebooks 07 and 08, on a server of the course with its models as they are. Run it on a quiet
machine.
"""

from __future__ import annotations

import argparse
import json
import shutil
from functools import partial
from pathlib import Path

from benchmarks import run
from helpers import launch_server, machine, paths, sweep
from helpers.errors import SetupError
from helpers.measuring.input_files import write_jets, write_taus
from helpers.measuring.measure import sweep_file
from helpers.measuring.perf_analyzer import find_perf_analyzer
from helpers.measuring.table import rows_of

ONNX, TORCH, AK8, TAUS = "particlenet_AK4", "particlenet_AK4_PT", "particlenet_PT", "deeptau_nosplit"
BASE_PORT = 12700
# Seconds that the windows of a point may take.
POINT_S = 20.0
SOURCE = "recorded: this course, on a machine of its own"


def main(arguments: list[str] | None = None) -> None:
    """Measure everything, then replace the file in one step."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.record", description="Measure every load of notebooks 07 and 08.")
    parser.add_argument("--output", type=Path, default=sweep_file(), help=f"file to replace (default {paths.shown(sweep_file())})")
    path = parser.parse_args(arguments).output
    if gpus := machine.gpus():
        expected = "Expected a machine without one, because the course says so of what is recorded here."
        raise SetupError(f"This machine has a GPU ({', '.join(gpus)}).", expected, "For a table of its figures, type: make test-gpu")
    # Else what was recorded before would be recorded again.
    find_perf_analyzer()
    folder = paths.work_dir() / "record"
    with launch_server("models", load=[ONNX, TORCH, AK8, TAUS], base_port=BASE_PORT, name="record") as server:
        measured = partial(sweep, server, output=folder, max_seconds=POINT_S)
        files = [write_jets(server, ONNX, lengths={"pf": length, "sv": 4}) for length in (50, 20)]
        tables = [
            measured([ONNX, TORCH], (1, 4, 8, 16, 32, 64)),
            measured(ONNX, (10, 100)),
            measured(ONNX, (8,), (2, 4, 8)),
            measured(ONNX, (4,), (2,)),
            measured(ONNX, (10,), (8,)),
            measured(ONNX, (1, 4, 16), (4,), lengths={"pf": 100, "sv": 10}),
            *(measured(ONNX, (10,), input_data=file) for file in files),
            measured(AK8, (1, 10, 100)),
            measured(TAUS, (1, 4, 16), (4,), input_data=write_taus()),
        ]
    # A file of inputs has a place on this machine only.
    rows = [row | {"source": SOURCE, "command": row["command"].replace(f"{paths.work_dir()}/", "work/")} for row in rows_of(tables)]
    paths.replace(path, "".join(f"{json.dumps(row)}\n" for row in rows))
    print(f"{len(rows)} rows in {paths.shown(path)}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    run(main)
