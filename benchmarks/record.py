"""``python -m benchmarks.record``: the sweep that students see who cannot measure themselves, into notebooks/data/recorded_sweep.csv.

Every load of notebooks 07 and 08, on a server of the course with its models as they are. A point that did not settle is
measured once more, for longer, and the better of the two is kept. Run it on a quiet machine; interrupted and run again, it goes on
where it was.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from helpers import recorded, settings
from helpers.launch import launch_server
from helpers.perf import measure
from helpers.server import Server
from helpers.sweep import sweep
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
# Seconds after which a second attempt at a point begins no further windows.
LONGER_S = 20.0
SOURCE = "recorded: this course, on a machine of its own"


def main() -> None:
    """Measure everything, then replace the file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.record", description=__doc__)
    parser.add_argument("--output", type=Path, default=recorded.sweep_file(), help="where to write the table")
    target = parser.parse_args().output
    folder = settings.work_dir() / "record"
    part = target.with_suffix(".part")
    part.unlink(missing_ok=True)
    models = sorted({model for models, *_ in LOADS for model in models})
    with launch_server("models", load=models, base_port=BASE_PORT, name="record") as server:
        for names, batches, concurrencies, lengths in LOADS:
            result = sweep(server, names, batches, concurrencies, lengths=lengths, output=folder)
            for row in result:
                append(part, _better(server, row, lengths, result.path) | {"source": SOURCE})
    target.unlink(missing_ok=True)
    part.rename(target)
    shutil.rmtree(folder)
    print(f"{target} is new")


def _better(server: Server, row: dict[str, Any], lengths: dict[str, int] | None, table: Path) -> dict[str, Any]:
    """The row itself if it settled; else the better one of it and a longer measurement, which the sweep's table keeps as well."""
    if row["stable"]:
        return row
    again = measure(server, row["model"], row["batch"], row["concurrency"], lengths=lengths, max_seconds=LONGER_S)
    print(f"again: {again['model']}, batch {again['batch']}, concurrency {again['concurrency']}: {again['note'] or 'settled'}")
    better = min(row, again, key=lambda one: one["throughput_spread_infer_per_s"] / one["throughput_infer_per_s"])
    if better is again:
        append(table, again)
    return better


if __name__ == "__main__":
    main()
