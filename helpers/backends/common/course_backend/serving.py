"""Requests in, responses out: what a Python-backend model does around one run of its network."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from course_backend.faults import ModelFault, RequestFault, one_line
from course_backend.settings import Settings, read_settings

Arrays = dict[str, np.ndarray]


class ServedModel:
    """Base of both backends: a subclass loads a network and runs it on arrays.

    Requests that Triton hands over together run as one batch when the shapes of their inputs allow, else in groups of equal
    shape. A fault in a batch is searched for by running its requests one by one, so that only the guilty one fails.
    """

    DEFAULT_FILE: str

    def load(self, settings: Settings) -> None:
        """Load the network and check that it fits the config.

        Raises:
            ModelFault: with the reason in plain words.
        """
        raise NotImplementedError

    def run(self, inputs: Arrays, wanted: Sequence[str]) -> list[np.ndarray]:
        """Run the network once.

        Args:
            inputs: by name, each with the batch dimension first where the model has one.
            wanted: the outputs to return.

        Returns:
            The outputs in the order of ``wanted``.
        """
        raise NotImplementedError

    def initialize(self, args: dict[str, str]) -> None:
        """Called by Triton once per instance, before READY."""
        try:
            self.settings = read_settings(args, self.DEFAULT_FILE)
            self.output_names = [spec.name for spec in self.settings.outputs]
            self.load(self.settings)
        except ModelFault as fault:
            raise pb_utils.TritonModelException(f"model '{json.loads(args['model_config'])['name']}': {fault}") from None

    def execute(self, requests: list[Any]) -> list[Any]:
        """Called by Triton with the requests that it scheduled together.

        Returns:
            One response per request, in the same order.
        """
        if len(requests) == 1:
            return [self._alone(requests[0])]
        responses: list[Any] = [None] * len(requests)
        for places in self._groups(requests):
            for place, response in zip(places, self._together([requests[place] for place in places]), strict=True):
                responses[place] = response
        return responses

    def _groups(self, requests: list[Any]) -> Iterable[list[int]]:
        """Places of the requests that can run as one batch: equal inputs, equal shapes behind the batch dimension."""
        groups: dict[Any, list[int]] = {}
        for place, request in enumerate(requests):
            if self.settings.max_batch_size == 0:
                groups[place] = [place]
                continue
            key = tuple(sorted((tensor.name(), tuple(tensor.shape()[1:])) for tensor in request.inputs()))
            groups.setdefault(key, []).append(place)
        return groups.values()

    def _alone(self, request: Any) -> Any:
        """The response to one request; whatever goes wrong becomes its error, and touches no other request."""
        try:
            inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            wanted = self._wanted(request.requested_output_names())
            outputs = self.run(inputs, wanted)
            if self.settings.max_batch_size:
                self._check_batch(wanted, outputs, len(next(iter(inputs.values()))))
            return pb_utils.InferenceResponse([pb_utils.Tensor(name, output) for name, output in zip(wanted, outputs, strict=True)])
        except RequestFault as fault:
            return self._refusal(str(fault), pb_utils.TritonError.INVALID_ARG)
        except Exception as error:
            return self._refusal(one_line(error), pb_utils.TritonError.INTERNAL)

    def _together(self, requests: list[Any]) -> list[Any]:
        """The responses to requests of equal shapes, run as one batch."""
        if len(requests) == 1:
            return [self._alone(requests[0])]
        try:
            parts = [{tensor.name(): tensor.as_numpy() for tensor in request.inputs()} for request in requests]
            ends = np.cumsum([len(next(iter(part.values()))) for part in parts])
            wanted = self._wanted({name for request in requests for name in request.requested_output_names()})
            outputs = self.run({name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, wanted)
            self._check_batch(wanted, outputs, int(ends[-1]))
            pieces = zip(*(np.split(output, ends[:-1]) for output in outputs), strict=True)
            return [pb_utils.InferenceResponse(list(map(pb_utils.Tensor, wanted, arrays))) for arrays in pieces]
        except Exception:  # the cause is reported by the request that fails alone
            return [self._alone(request) for request in requests]

    def _wanted(self, asked: Collection[str]) -> list[str]:
        """The outputs asked for, in the order of the config."""
        return self.output_names if len(asked) == len(self.output_names) else [name for name in self.output_names if name in asked]

    def _check_batch(self, names: Sequence[str], outputs: Sequence[np.ndarray], batch: int) -> None:
        for name, output in zip(names, outputs, strict=True):
            if output.ndim == 0 or len(output) != batch:
                raise ValueError(
                    f"output '{name}' has shape {list(output.shape)} for a batch of {batch}: with max_batch_size > 0 its first dimension"
                    " must be the batch"
                )

    def _refusal(self, text: str, code: int) -> Any:
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"model '{self.settings.name}': {text}", code))
