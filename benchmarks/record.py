"""``python -m benchmarks.record``: the sweep that students see who cannot measure themselves, into notebooks/data/recorded_sweep.csv.

Every load of notebooks 07 and 08, on a server of the course with its models as they are. Run it on a quiet machine. Interrupted
and run again, it goes on where it was.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from helpers import recorded, settings
from helpers.launch import launch_server
from helpers.sweep import read_sweep, sweep
from helpers.sweep_files import append

# Models, batch sizes, concurrencies, lengths of the inputs.
LOADS = (
    (("particlenet_AK4", "particlenet_AK4_PT"), (1, 4, 8, 16, 32, 64), (1,), None),
    (("particlenet_AK4",), (8,), (2, 4, 8), None),
    (("particlenet_AK4",), (4,), (2,), None),
    (("particlenet_AK4",), (1, 4, 16), (4,), {"pf": 100, "sv": 10}),
    (("particlenet_PT",), (1, 10, 100), (1,), None),
)
BASE_PORT = 12700
SOURCE = "recorded: this course, on a machine of its own"


def main() -> None:
    """Measure everything, then replace the file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.record", description=__doc__)
    parser.add_argument("--output", type=Path, default=recorded.sweep_file(), help="where to write the table")
    target = parser.parse_args().output
    folder = settings.work_dir() / "record"
    models = sorted({model for models, *_ in LOADS for model in models})
    with launch_server("models", load=models, base_port=BASE_PORT, name="record") as server:
        for names, batches, concurrencies, lengths in LOADS:
            sweep(server, names, batches, concurrencies, lengths=lengths, output=folder)
    rows = read_sweep(folder).rows
    target.unlink(missing_ok=True)
    for row in rows:
        append(target, row | {"source": SOURCE})
    shutil.rmtree(folder)
    print(f"{len(rows)} rows in {target}")


if __name__ == "__main__":
    main()
