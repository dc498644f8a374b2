"""Inputs by system shared memory, in the steps of notebook 03."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.utils.shared_memory as shm
from tritonclient.utils import InferenceServerException

from helpers.server import Server
from tests.support.processes import wait_until


@contextmanager
def shared(server: Server, model: str, inputs: Mapping[str, np.ndarray]) -> Iterator[Any]:
    """The answer to one request over gRPC whose inputs lie in a region that is registered until the end."""
    name, key = f"course-tests-{os.getpid()}-{uuid.uuid4().hex[:8]}", server.admin_headers("grpc")
    size = sum(array.nbytes for array in inputs.values())
    region, begin, tensors = shm.create_shared_memory_region(name, name, size), 0, []
    with triton_grpc.InferenceServerClient(server.grpc_url, channel_args=[("grpc.enable_http_proxy", 0)]) as client:
        try:
            shm.set_shared_memory_region(region, list(inputs.values()))
            client.register_system_shared_memory(name, f"/{name}", size, headers=key)
            for label, array in inputs.items():
                tensor = triton_grpc.InferInput(label, array.shape, "FP32")
                tensors.append(tensor.set_shared_memory(name, array.nbytes, begin))
                begin += array.nbytes
            yield client.infer(model, tensors, headers=server.headers)
            wait_until(lambda: _unregistered(client, name, key))
        finally:
            shm.destroy_shared_memory_region(region)


def _unregistered(client: triton_grpc.InferenceServerClient, name: str, key: dict[str, str]) -> bool:
    """Give a region back; False while a request that was answered a moment ago still has it."""
    try:
        client.unregister_system_shared_memory(name, headers=key)
    except InferenceServerException as error:
        assert "currently in use" in str(error), error
        return False
    return True
