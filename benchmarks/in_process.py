"""The yardstick: the network in this process, one thread, no server. Runs with the server's Python.

Usage: ``in_process.py FILE``. Reads lines ``BATCH SECONDS`` and answers each with the sets of particles done per second.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable

import numpy as np


def onnx_runner(path: str) -> tuple[Callable[[np.ndarray], object], tuple[int, ...]]:
    """A function that runs the ONNX file, and the shape of one set; threads and options as in the server."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    node = session.get_inputs()[0]
    return lambda array: session.run(None, {node.name: array}), tuple(node.shape[1:])


def torch_runner(path: str, shape: tuple[int, ...]) -> tuple[Callable[[np.ndarray], object], tuple[int, ...]]:
    """A function that runs the TorchScript file, and the shape of one set; threads and options as in the server."""
    import torch

    warnings.filterwarnings("ignore", category=DeprecationWarning)
    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    module = torch.jit.load(path, map_location="cpu").eval()

    def run(array: np.ndarray) -> object:
        with torch.inference_mode():
            return module(torch.from_numpy(array)).numpy()

    return run, shape


def measure(run: Callable[[np.ndarray], object], array: np.ndarray, seconds: float) -> float:
    """Sets per second over at least ``seconds``."""
    for _ in range(3):
        run(array)
    begin = time.perf_counter()
    done, now = 0, begin
    while now - begin < seconds:
        run(array)
        done += len(array)
        now = time.perf_counter()
    return done / (now - begin)


if __name__ == "__main__":
    file, *dims = sys.argv[1:]
    set_shape = tuple(map(int, dims))
    runner, set_shape = onnx_runner(file) if file.endswith(".onnx") else torch_runner(file, set_shape)
    generator = np.random.default_rng(1)
    for line in sys.stdin:
        batch, duration = line.split()
        array = generator.random((int(batch), *set_shape), dtype=np.float32)
        print(measure(runner, array, float(duration)), flush=True)
