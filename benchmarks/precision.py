"""``python -m benchmarks.precision``: the AK4 tagger in all precisions: throughput on this machine, and what each costs in AUC.

All serve side by side with one instance and one thread, get the same real jets, and are measured in turn, round after round.
``--write`` puts the table into benchmarks/PRECISION.md.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import report
from helpers import precision, repository
from helpers.measuring.inputs import write_jets
from helpers.measuring.measure import measure
from helpers.server import Server, launch_server

# Away from the ports of a course that runs on the same machine.
BASE_PORT = 12800
ONNX, TORCHSCRIPT = "particlenet_AK4", "particlenet_AK4_PT"
BATCHES = (1, 10)
_ALONE = "instance_group [ { count: 1 kind: KIND_CPU } ]"
_THREADS = {ONNX: "intra_op_thread_count", TORCHSCRIPT: "INTRA_OP_THREAD_COUNT"}


def prepare() -> list[str]:
    """All variants in ``work/models``, with one instance and one thread each; returns their names."""
    for model, key in _THREADS.items():
        repository.checkout(model)
        repository.change_config(model, _ALONE, dynamic_batching=None, parameters={key: {"string_value": "1"}})
        precision.make(model)
    return [name for model in _THREADS for name in precision.family(model)]


def throughputs(server: Server, names: Sequence[str], rounds: int, folder: Path) -> dict[tuple[str, int], list[float]]:
    """Inferences per second of each model at each batch size, one number for each round."""
    inputs = {name: write_jets(server, name, path=folder / f"{name}.json") for name in names}
    found: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        for batch in BATCHES:
            for name in names:
                row = measure(server, name, batch=batch, concurrency=2, input_data=inputs[name], max_seconds=2)
                found.setdefault((name, batch), []).append(row["throughput_infer_per_s"])
    return found


def document(found: dict[tuple[str, int], list[float]], costs: Sequence[dict], names: Sequence[str], rounds: int, load: float) -> str:
    """The table and the machine."""
    light = {row["model"]: row for row in costs if row["discriminant"] == "b_vs_light"}
    charm = {row["model"]: row for row in costs if row["discriminant"] == "b_vs_c"}
    heads = "".join(f" jets/s, batch {batch} | × |" for batch in BATCHES)
    lines = [f"| model |{heads} AUC b vs light | its change | change of b vs c |", "|---|" + "--:|" * (2 * len(BATCHES) + 3)]
    for name in names:
        reference = TORCHSCRIPT if name.startswith(TORCHSCRIPT) else ONNX
        cells = [name]
        for batch in BATCHES:
            gains = [own / other for own, other in zip(found[name, batch], found[reference, batch], strict=True)]
            cells += [f"{statistics.median(found[name, batch]):.0f}", f"{statistics.median(gains):.2f}"]
        changes = [f"{row['auc_change']:+.4f} ± {row['auc_change_half_width']:.4f}" for row in (light[name], charm[name])]
        cells += [f"{light[name]['auc']:.4f}", *changes]
        lines.append("| " + " | ".join(cells) + " |")
    table = "\n".join(lines)
    return f"""# The tagger of narrow jets in fewer bits

Made by `python -m benchmarks.precision`: one instance with one thread each, two requests under way, real jets padded to 50 candidates and
4 vertices; medians of {rounds} rounds. × is over the same format in 32 bits, round by round. The AUC is that of {light[ONNX]["n_jets"]}
jets on which nothing was calibrated, its change from `{ONNX}` on the same jets with a 95 % interval.

{table}

{report.machine(load)}
"""


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured (default 3)")
    parser.add_argument("--write", action="store_true", help="write the report to benchmarks/PRECISION.md")
    arguments = parser.parse_args()
    load_average = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["COURSE_WORK"] = folder
        names = prepare()
        with launch_server("work/models", load=names, base_port=BASE_PORT, name="bench-precision") as server:
            found = throughputs(server, names, arguments.rounds, Path(folder))
            costs = precision.cost(server, names, reference=ONNX)
    text = document(found, costs, names, arguments.rounds, load_average)
    print(text)
    if arguments.write:
        Path(__file__).with_name("PRECISION.md").write_text(text)


if __name__ == "__main__":
    main()
