"""Requests with Triton's own client, so that these tests depend on nothing but the server."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from helpers.server import Server
from tests.support.processes import PATIENCE_S


class Asker:
    """A gRPC connection to one server.

    Args:
        server: the server to ask.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self._client = grpcclient.InferenceServerClient(server.grpc_url)

    def ask(
        self,
        model: str,
        outputs: Sequence[str] | None = None,
        version: str = "",
        classes: int = 0,
        **arrays: Any,
    ) -> dict[str, np.ndarray]:
        """Send one request; returns the outputs that came back by name."""
        inputs = []
        for name, array in arrays.items():
            tensor = grpcclient.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
            tensor.set_data_from_numpy(array)
            inputs.append(tensor)
        wanted = [grpcclient.InferRequestedOutput(name, class_count=classes) for name in outputs] if outputs else None
        result = self._client.infer(model, inputs, outputs=wanted, model_version=version, client_timeout=PATIENCE_S)
        return {output.name: result.as_numpy(output.name) for output in result.get_response().outputs}

    def ask_together(
        self, model: str, requests: Sequence[dict[str, np.ndarray]], outputs: Sequence[str] | None = None
    ) -> list[dict[str, np.ndarray] | str]:
        """Send requests at the same moment; each gives its outputs, or the text of its error."""

        def one(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray] | str:
            try:
                return self.ask(model, outputs, **arrays)
            except InferenceServerException as error:
                return str(error)

        with ThreadPoolExecutor(len(requests)) as pool:
            return list(pool.map(one, requests))

    def counts(self, model: str) -> tuple[int, int]:
        """Inferences done and executions that they took."""
        statistics = self.server.statistics(model)
        return int(statistics["inference_count"]), int(statistics["execution_count"])

    def executions_since(self, before: tuple[int, int], model: str, inferences: int) -> int:
        """Executions that so many inferences took; the server counts them a moment after it has answered."""
        deadline = time.monotonic() + PATIENCE_S
        while (after := self.counts(model))[0] - before[0] < inferences and time.monotonic() < deadline:
            time.sleep(0.02)
        assert after[0] - before[0] == inferences
        return after[1] - before[1]
