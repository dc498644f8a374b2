"""One inference request on its way: what is sent, and the three ways in which it can fail."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_INT64 = (
    FieldDescriptor.TYPE_INT64,
    FieldDescriptor.TYPE_UINT64,
    FieldDescriptor.TYPE_SINT64,
    FieldDescriptor.TYPE_FIXED64,
    FieldDescriptor.TYPE_SFIXED64,
)
# How Envoy, before several servers, words that it lost the one it had chosen, or has none that is healthy.
LOST_BEHIND = re.compile(r"upstream connect error|disconnect/reset before headers|no healthy upstream", re.IGNORECASE)


class TransportError(Exception):
    """A request came to no answer. The client turns it into an error that says what to do."""


class Unreachable(TransportError):
    """The connection was refused, or dropped before the answer came. Sending again is harmless and may help."""


class TimedOut(TransportError):
    """No answer in time. The server may still be working on it, so it is not sent again."""


class NotPassedOn(Unreachable):
    """A proxy of the site did not pass the request on.

    Attributes:
        proxy: its host and port, where they are known.
    """

    def __init__(self, message: str, proxy: str = "") -> None:
        super().__init__(message)
        self.proxy = proxy


class Refused(TransportError):
    """The server answered with an error.

    Attributes:
        reason: ``inputs`` (they do not fit), ``unknown`` (no such model), ``restricted`` (needs the key), ``protocol`` (another of its
            ports answers), ``page`` (what answers is no Triton server), ``elsewhere`` (it names another address) or ``failed``.
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


def elsewhere(status: int, place: str | None) -> str:
    """Return the words for an answer that names another address (a redirect), to which nothing is sent."""
    return f"it sends us on to {place or 'nowhere'} (status {status})"


def is_not_ready(message: str) -> bool:
    """True if a server says that it has a model in the version that was asked for, and that this version does not serve."""
    return "is not at ready state" in message


def without_id(message: str) -> str:
    """The server's message without the placeholder that it puts in front for requests without an id."""
    return re.sub(r"^\[request id: [^\]]*\] ", "", message)


def as_dict(message: Message, zeros: bool = False) -> dict[str, Any]:
    """Return a protobuf message as a dictionary of the fields that are set, integers as numbers, enumerations by name.

    Args:
        message: the message.
        zeros: include the fields that nobody set.
    """
    fields = json_format.MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=zeros)
    return _numbers(fields, message.DESCRIPTOR)


def _numbers(value: Any, descriptor: Any) -> Any:
    # JSON for protobuf writes 64-bit integers as strings, because JavaScript's numbers are too short for them.
    out = {}
    for key, item in value.items():
        field = descriptor.fields_by_name[key]
        message = field.message_type
        if message is not None and message.GetOptions().map_entry:
            inner = message.fields_by_name["value"]
            out[key] = {name: _convert(entry, inner) for name, entry in item.items()}
        else:
            out[key] = [_convert(entry, field) for entry in item] if isinstance(item, list) else _convert(item, field)
    return out


def _convert(item: Any, field: Any) -> Any:
    if field.message_type is not None:
        return _numbers(item, field.message_type) if isinstance(item, dict) else item
    return int(item) if field.type in _INT64 else item
