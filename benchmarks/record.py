"""``python -m benchmarks.record``: what a machine without a GPU does, into notebooks/data, for those who cannot measure themselves.

``recorded_sweep.jsonl`` has every load of notebooks 07 and 08, on a server of the course with its models as they are. Run it on a quiet
machine.
"""

from __future__ import annotations

import shutil
from functools import partial

from helpers import launch_server, paths, sweep
from helpers.measuring.input_files import write_jets, write_taus
from helpers.measuring.table import rows_of

ONNX, TORCH, AK8, TAUS = "particlenet_AK4", "particlenet_AK4_PT", "particlenet_PT", "deeptau_nosplit"
BASE_PORT = 12700
# Seconds that the windows of a point may take.
POINT_S = 20.0
SOURCE = "recorded: this course, on a machine of its own"


def main() -> None:
    """Measure everything, then replace the file."""
    folder = paths.work_dir() / "record"
    with launch_server("models", load=[ONNX, TORCH, AK8, TAUS], base_port=BASE_PORT) as server:
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
    path = paths.root() / "notebooks" / "data" / "recorded_sweep.jsonl"
    path.unlink()
    for row in rows_of(tables):
        # A file of inputs has a place on this machine only.
        paths.append_line(path, row | {"source": SOURCE, "command": row["command"].replace(f"{paths.work_dir()}/", "work/")})
    print(f"{path} is new")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
