"""Answers to inference requests: decode them, and put the parts of a batch together again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from helpers.client.labels import parse_classes
from helpers.client.transport import Refused
from helpers.errors import RequestError
from helpers.wording import quoted


class Result(dict):
    """The outputs of one request by name: arrays, or lists of :class:`~helpers.client.labels.Class` where classes were asked for.

    Attributes:
        model: name of the model that answered.
        version: its version.
        requests: how many requests it took; more than one when the batch was split.
    """

    def __init__(self, outputs: Mapping[str, Any], model: str, version: str, requests: int) -> None:
        super().__init__(outputs)
        self.model = model
        self.version = version
        self.requests = requests


def output(answer: Any, name: str, classes: int) -> Any:
    """One output of tritonclient's result: an array that may be changed, or classes where they were asked for."""
    array = answer.as_numpy(name)
    if array is None:
        raise Refused(f"the answer holds no output {name!r}", "failed")
    if classes:
        return parse_classes(array)
    # Decoded arrays are views of the answer and read-only.
    return array if array.flags.writeable else array.copy()


def version(answer: Any) -> str:
    """The version of the model that answered."""
    response = answer.get_response()
    return response.get("model_version", "") if isinstance(response, dict) else response.model_version


def shape_and_datatype(answer: Any, name: str) -> tuple[tuple[int, ...], str]:
    """What an answer says of an output that lies in shared memory."""
    entry = answer.get_output(name)
    if isinstance(entry, dict):
        return tuple(entry["shape"]), entry["datatype"]
    return tuple(entry.shape), entry.datatype


def join(model: str, name: str, parts: list[Any]) -> Any:
    """Put an output of a batch that was sent in parts together again.

    Raises:
        RequestError: its parts have no common batch axis.
    """
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], list):
        return [entry for part in parts for entry in part]
    try:
        return np.concatenate(parts)
    except ValueError as error:
        raise RequestError(
            f"The output {name!r} of {model!r} has shapes {quoted(str(part.shape) for part in parts)} for the parts of the batch.",
            "Expected shapes that differ in the batch only, so that they can be joined.",
            "Send batches that the model takes at once.",
        ) from error
