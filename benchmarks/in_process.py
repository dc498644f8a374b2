"""The yardstick: the network in this process, one thread, no server. Runs with the server's Python.

Usage: ``in_process.py FILE SHAPES``, SHAPES a JSON dictionary of each input's shape for one jet, in the order in which the network
takes them. Reads lines ``BATCH SECONDS`` and answers each with the jets done per second.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable

import numpy as np

Arrays = dict[str, np.ndarray]


def onnx_runner(path: str) -> Callable[[Arrays], object]:
    """A function that runs the ONNX file; threads and options as in the server."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda arrays: session.run(None, arrays)


def torch_runner(path: str) -> Callable[[Arrays], object]:
    """A function that runs the TorchScript file; threads and options as in the server."""
    import torch

    warnings.filterwarnings("ignore", category=DeprecationWarning)
    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    module = torch.jit.load(path, map_location="cpu").eval()

    def run(arrays: Arrays) -> object:
        with torch.inference_mode():
            return module(*map(torch.from_numpy, arrays.values())).numpy()

    return run


def measure(run: Callable[[Arrays], object], arrays: Arrays, batch: int, seconds: float) -> float:
    """Jets per second over at least ``seconds``."""
    for _ in range(3):
        run(arrays)
    begin = time.perf_counter()
    done, now = 0, begin
    while now - begin < seconds:
        run(arrays)
        done += batch
        now = time.perf_counter()
    return done / (now - begin)


if __name__ == "__main__":
    file, shapes = sys.argv[1:]
    runner = onnx_runner(file) if file.endswith(".onnx") else torch_runner(file)
    generator = np.random.default_rng(1)
    for line in sys.stdin:
        size, duration = line.split()
        jets = {name: generator.random((int(size), *shape), dtype=np.float32) for name, shape in json.loads(shapes).items()}
        print(measure(runner, jets, int(size), float(duration)), flush=True)
