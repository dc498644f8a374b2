"""The ONNX models through PyTriton's own ``@batch`` route. Runs in the environment of the peers.

Usage: ``peers_pytriton.py PORT NAME=FILE …``; the gRPC port is PORT + 1. Ends with the process.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import onnxruntime as ort
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig


def session_of(path: str) -> ort.InferenceSession:
    """A session with one thread, as in all servers here."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def tensor_of(node: ort.NodeArg) -> Tensor:
    """A tensor without its batch dimension; every length may vary but those that the file fixes."""
    return Tensor(name=node.name, dtype=np.float32, shape=tuple(dim if isinstance(dim, int) else -1 for dim in node.shape[1:]))


def function_of(session: ort.InferenceSession) -> Callable[..., dict[str, np.ndarray]]:
    """The function that PyTriton calls with the requests of a batch put together."""
    names = [node.name for node in session.get_outputs()]

    @batch
    def infer(**inputs: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, inputs), strict=True))

    return infer


if __name__ == "__main__":
    port = int(sys.argv[1])
    config = TritonConfig(http_port=port, grpc_port=port + 1, metrics_port=port + 2, http_address="127.0.0.1", grpc_address="127.0.0.1")
    with Triton(config=config) as triton:
        for name, path in (argument.split("=", 1) for argument in sys.argv[2:]):
            session = session_of(path)
            triton.bind(
                model_name=name,
                infer_func=function_of(session),
                inputs=[tensor_of(node) for node in session.get_inputs()],
                outputs=[tensor_of(node) for node in session.get_outputs()],
                config=ModelConfig(max_batch_size=64),
            )
        triton.serve()
