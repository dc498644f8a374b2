"""The two sides of the comparison with peers that do not serve: the client that asks, and the limit without a server."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import tritonclient.grpc as grpcclient

from helpers import paths

CONCURRENCY = 4
# Seconds of each slice.
SLICE_S = 1.5


class Load:
    """The client: so many threads, each with one request under way."""

    def __init__(self, address: str, model: str, arrays: dict[str, np.ndarray]) -> None:
        self.address, self.model = address, model
        self.batch = len(next(iter(arrays.values())))
        self.inputs = []
        for name, array in arrays.items():
            tensor = grpcclient.InferInput(name, list(array.shape), "FP32")
            tensor.set_data_from_numpy(array)
            self.inputs.append(tensor)

    def rate(self, seconds: float, threads: int = CONCURRENCY) -> float:
        """Inferences per second."""
        done, end = [0] * threads, time.perf_counter() + seconds
        begin = time.perf_counter()

        def work(number: int) -> None:
            with grpcclient.InferenceServerClient(self.address) as client:
                while time.perf_counter() < end:
                    client.infer(self.model, self.inputs)
                    done[number] += 1

        workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return sum(done) * self.batch / (time.perf_counter() - begin)

    def compute_s(self) -> float:
        """Seconds that the model has computed, as Triton's statistics have it."""
        with grpcclient.InferenceServerClient(self.address) as client:
            told = client.get_inference_statistics(self.model)
        return sum(each.inference_stats.compute_infer.ns for each in told.model_stats) / 1e9

    def answer(self) -> np.ndarray:
        """The first output of one request."""
        with grpcclient.InferenceServerClient(self.address) as client:
            result = client.infer(self.model, self.inputs)
            return result.as_numpy(result.get_response().outputs[0].name)


class InProcess:
    """The limit: the session in a process of its own, no server."""

    def __init__(self, path: Path, shapes: dict[str, list[int]]) -> None:
        python = paths.server_env() / "bin" / "python"
        command = [python, Path(__file__).with_name("in_process.py"), path, json.dumps(shapes)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def rate(self, batch: int) -> float:
        """Inferences per second over one slice."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(f"{batch} {SLICE_S}", file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())
