"""One inference request on its way: what is sent, and the three ways in which it can fail."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# How Envoy, before several servers, words that it lost the one it had chosen, or has none that is healthy.
LOST_BEHIND = re.compile(r"upstream connect error|disconnect/reset before headers|no healthy upstream", re.IGNORECASE)


class TransportError(Exception):
    """A request came to no answer. The client turns it into an error that says what to do."""


class Unreachable(TransportError):
    """The connection was refused, or dropped before the answer came. Sending again is harmless and may help."""


class TimedOut(TransportError):
    """No answer in time. The server may still be working on it, so it is not sent again."""


class Refused(TransportError):
    """The server answered with an error.

    Attributes:
        reason: ``inputs`` (they do not fit), ``unknown`` (no such model), ``restricted`` (needs the key) or ``failed``.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass
class Place:
    """A stretch of a registered shared-memory region that holds a tensor, or waits for one."""

    region: str
    byte_size: int
    offset: int


@dataclass
class Request:
    """One inference request, ready to be encoded.

    Attributes:
        model: name of the model.
        version: its version, empty for the server's choice.
        inputs: name → (array, Triton datatype).
        outputs: names of the wanted outputs.
        classes: how many best classes to return in place of each tensor; 0 for the tensor itself.
        places: where in shared memory a tensor lies, by name; the others travel with the request.
    """

    model: str
    version: str
    inputs: Mapping[str, tuple[Any, str]]
    outputs: list[str]
    classes: int = 0
    places: Mapping[str, Place] = field(default_factory=dict)

    def encode(self, protocol: Any) -> tuple[list[Any], list[Any]]:
        """The inputs and requested outputs as objects of ``tritonclient.http`` or ``tritonclient.grpc``."""
        inputs = []
        for name, (array, datatype) in self.inputs.items():
            tensor = protocol.InferInput(name, list(array.shape), datatype)
            place = self.places.get(name)
            if place is None:
                tensor.set_data_from_numpy(array)
            else:
                tensor.set_shared_memory(place.region, place.byte_size, place.offset)
            inputs.append(tensor)
        outputs = []
        for name in self.outputs:
            wish = protocol.InferRequestedOutput(name, class_count=self.classes)
            place = self.places.get(name)
            if place is not None:
                wish.set_shared_memory(place.region, place.byte_size, place.offset)
            outputs.append(wish)
        return inputs, outputs


def without_id(message: str) -> str:
    """The server's message without the placeholder that it puts in front for requests without an id."""
    return re.sub(r"^\[request id: [^\]]*\] ", "", message)
