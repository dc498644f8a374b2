"""The yardstick: jets from ROOT file to scores in this one process, with one thread for the network and no server.

Usage: ``jets_in_process.py SERVER_PACKAGES MODEL.onnx preprocess.json SAMPLE N_JETS``. Runs with the client's Python, so that reading
and padding are the very code that the client of a server runs; ONNX Runtime comes from the server's packages. Reads batch sizes from
standard input and answers each with a line of JSON: seconds, and the sum of the squares of all scores.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from helpers import jets
from helpers.physics.jets import Table, flatten


def run(session: Callable[[dict[str, np.ndarray]], np.ndarray], table: Table, sample: str, n_jets: int, batch: int) -> np.ndarray:
    """Read, transform, pad and tag: probabilities of the first jets of a sample, ``(n_jets, n_labels)``."""
    flat = flatten(jets.read(sample)[:n_jets], table)
    probabilities = np.empty((len(flat), len(table.labels)), np.float32)
    for group in jets.by_length(flat, batch):
        probabilities[group] = session(flat.pad(group))
    return probabilities


def main() -> None:
    """Answer batch sizes with times."""
    packages, model, table_file, sample, n_jets = sys.argv[1:]
    sys.path.append(packages)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    table = Table.read(Path(table_file))
    for line in sys.stdin:
        begin = time.perf_counter()
        probabilities = run(lambda inputs: session.run(None, inputs)[0], table, sample, int(n_jets), int(line))
        seconds = time.perf_counter() - begin
        print(json.dumps({"seconds": seconds, "squares": float(np.square(probabilities, dtype=np.float64).sum())}), flush=True)


if __name__ == "__main__":
    main()
