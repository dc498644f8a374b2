"""What a model takes and gives, and tensors that are checked before they are sent.

No number changes without the physicist's knowledge: an array must have exactly the model's dtype, only byte order and memory layout may
differ. Lists and numbers take that dtype, floats rounded to its nearest value; what would become another number is refused.
"""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.utils import triton_to_np_dtype

from helpers.errors import InputError, quoted, suggestion

Array = NDArray[Any]

# The most bytes of the inputs, and the longest that an axis may be: what a gRPC message can hold. Triton 2.51 multiplies lengths without
# a look at what 64 bits hold, so an empty tensor with one length of 2^62 ends a model's process, and it has no limit of its own.
MAX_SIZE = 2**31 - 1
# Length of the axes of a made-up input that may have any.
_ANY_LENGTH = 20


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a model: its full shape has the batch axis, where there is one, and -1 for an axis of any length."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs of a model by name; ``max_batch_size`` is 0 without a batch axis, and where the server does not say."""

    model: str
    max_batch_size: int
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]

    @classmethod
    def from_server(cls, metadata: Mapping[str, Any], config: Mapping[str, Any] | None) -> Signature:
        """Read a signature from the server's metadata and, where the server gives one, its config."""
        config = config or {}
        optional = {entry["name"] for entry in config.get("input", ()) if entry.get("optional")}

        def specs(role: str) -> dict[str, TensorSpec]:
            found = {}
            for tensor in metadata.get(role, ()):
                name, shape = tensor["name"], tuple(map(int, tensor.get("shape", ())))
                found[name] = TensorSpec(name, tensor["datatype"], shape, name in optional)
            return found

        return cls(metadata["name"], int(config.get("max_batch_size", 0)), specs("inputs"), specs("outputs"))

    @property
    def batched(self) -> bool:
        """True if the first axis of every tensor is the batch."""
        return self.max_batch_size > 0

    def check(self, inputs: Any) -> dict[str, Array]:
        """Return values by input name as tensors; an InputError says which does not fit, or that the server might not survive the size."""
        if not isinstance(inputs, Mapping):
            raise InputError(f"The inputs were given as {type(inputs).__name__}.", "Expected a dictionary from input names to arrays.")
        self._check_names(inputs)
        arrays = {name: to_tensor(name, inputs[name], spec.datatype) for name, spec in self.inputs.items() if name in inputs}
        for name, array in arrays.items():
            self._check_shape(self.inputs[name], array)
        if max((sum(array.nbytes for array in arrays.values()), *(max(array.shape, default=0) for array in arrays.values()))) > MAX_SIZE:
            happened = f"The inputs of {self.model!r} are too large. Nothing was sent."
            expected = f"Expected at most {MAX_SIZE:,} bytes together, and as many entries along each axis; more could end the server."
            raise InputError(happened, expected, "Send them in several requests: client.infer_many(…)")
        return arrays

    def example(self, batch: int = 1, any_length: int = _ANY_LENGTH) -> dict[str, Array]:
        """Return made-up inputs that fit: normal numbers, small integers, ones for masks, the same each time."""
        random = np.random.default_rng(1)
        inputs: dict[str, Array] = {}
        for name, spec in self.inputs.items():
            shape = [any_length if length < 0 else length for length in spec.shape]
            if self.batched:
                shape[0] = batch
            dtype = np.dtype(triton_to_np_dtype(spec.datatype))
            if spec.datatype == "BYTES":
                inputs[name] = np.full(shape, b"text", dtype=object)
            elif spec.datatype == "BOOL" or "mask" in name.lower():
                inputs[name] = np.ones(shape, dtype)
            else:
                inputs[name] = (random.integers(0, 10, shape) if dtype.kind in "iu" else random.standard_normal(shape)).astype(dtype)
        return inputs

    def _describe(self, spec: TensorSpec) -> str:
        """Return a tensor in words: ``FP32 with shape (batch up to 160, 25, any)``."""
        sizes = ["any" if length < 0 else str(length) for length in spec.shape]
        if self.batched:
            sizes[0] = f"batch up to {self.max_batch_size}"
        return f"{spec.datatype} with shape ({', '.join(sizes)}{',' * (len(sizes) == 1)})"

    def _check_names(self, inputs: Mapping[str, Any]) -> None:
        unknown = [name for name in inputs if name not in self.inputs]
        missing = [name for name, spec in self.inputs.items() if name not in inputs and not spec.optional]
        if unknown or missing:
            faults = [f"has no input {quoted(unknown)}"] if unknown else []
            faults += [f"got nothing for {quoted(missing)}"] if missing else []
            known = (f"{name!r}: {self._describe(spec)}{' (optional)' * spec.optional}" for name, spec in self.inputs.items())
            hint = suggestion(unknown[0], missing or self.inputs) if unknown else ""
            raise InputError(f"The model {self.model!r} {' and '.join(faults)}.", f"Its inputs are {'; '.join(known)}.", hint)

    def _check_shape(self, spec: TensorSpec, array: Array) -> None:
        happened = f"The input {spec.name!r} of {self.model!r} has shape {array.shape}."
        # The batch axis may be longer than the model's limit: such a batch is split.
        free = 1 if self.batched else 0
        if array.ndim != len(spec.shape) or not _fits(array.shape[free:], spec.shape[free:]):
            hint = "Bring the array into that shape, and look at one entry to see that its numbers are where you want them."
            if self.batched and _fits(array.shape, spec.shape[1:]):
                hint = "The batch axis is missing. Type: x[np.newaxis], which makes a batch of one"
            elif not self.batched and array.shape[:1] == (1,) and _fits(array.shape[1:], spec.shape):
                hint = "This model has no batch axis. Type: x[0]"
            raise InputError(happened, f"The model expects {self._describe(spec)}.", hint)
        if self.batched and not array.shape[0]:
            raise InputError(happened, "The batch is empty: expected at least one entry.", "Leave such a request out.")


@dataclass
class Request:
    """One inference request: arrays with Triton's datatype; ``places`` has region, bytes and offset of those in shared memory."""

    model: str
    version: str
    inputs: Mapping[str, tuple[Array, str]]
    outputs: Sequence[str]
    places: Mapping[str, tuple[str, int, int]] = field(default_factory=dict)

    def encode(self, protocol: Any) -> tuple[list[Any], list[Any]]:
        """Return the inputs and wanted outputs as objects of ``tritonclient.http`` or ``tritonclient.grpc``."""
        inputs = []
        for name, (array, datatype) in self.inputs.items():
            inputs.append(protocol.InferInput(name, list(array.shape), datatype))
            if name in self.places:
                inputs[-1].set_shared_memory(*self.places[name])
            else:
                inputs[-1].set_data_from_numpy(array)
        return inputs, [protocol.InferRequestedOutput(name) for name in self.outputs]


def split(arrays: Mapping[str, Array], max_batch_size: int) -> list[dict[str, Array]]:
    """Cut a batch into parts of at most ``max_batch_size`` entries; 0 means that there is no batch axis to cut."""
    size = next((array.shape[0] for array in arrays.values()), 0) if max_batch_size else 0
    if size <= max_batch_size:
        return [dict(arrays)]
    return [{name: array[start : start + max_batch_size] for name, array in arrays.items()} for start in range(0, size, max_batch_size)]


def to_tensor(name: str, value: Any, datatype: str) -> Array:
    """Return a value as the contiguous array that goes on the wire: of the wanted dtype, or with ``bytes`` inside for ``BYTES``."""
    array = _as_array(name, value, datatype)
    if datatype == "BYTES":
        return _to_bytes(name, array)
    wanted: np.dtype[Any] = np.dtype(triton_to_np_dtype(datatype))
    if array.dtype == object or not _is_array(value):
        return _from_python(name, array, datatype, wanted)
    if array.dtype.newbyteorder("=") != wanted:
        todo = f"Type: x.astype({_typed(datatype)})" if array.dtype.kind in "biuf" else ""
        expected = f"The model expects {wanted} ({datatype})."
        raise InputError(f"The input {name!r} is an array of {array.dtype}.", expected, todo)
    return np.ascontiguousarray(array, dtype=wanted).reshape(array.shape)


def _fits(given: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return len(given) == len(wanted) and all(want < 0 or want == got for want, got in zip(wanted, given, strict=True))


def _is_array(value: Any) -> bool:
    """True for an array of any library, and for a list of such: it is an array of another dtype in disguise."""
    while isinstance(value, (list, tuple)) and value:
        value = value[0]
    return hasattr(value, "dtype") or hasattr(value, "__array__")


def _as_array(name: str, value: Any, datatype: str) -> Array:
    if np.ma.is_masked(value):
        happened = f"The input {name!r} is a masked array with masked values."
        raise InputError(happened, "A tensor has no place for a mask.", "Type: x.filled(0), or the value that the model was trained with")
    try:
        # Strings keep their Python objects: NumPy's own string dtypes cut off trailing zero bytes.
        array = np.asarray(value, dtype=object) if datatype == "BYTES" and not hasattr(value, "dtype") else np.asarray(value)
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise InputError(
            f"The input {name!r} cannot be made into an array: {str(error).splitlines()[0]}.",
            f"The model expects a tensor of {datatype}, with rows of equal length.",
            "Pad the rows to one length; bring a tensor from a GPU to the CPU first, with x.cpu().",
        ) from error
    if array.dtype.names:
        fields = list(array.dtype.names)
        happened = f"The input {name!r} is an array of records with the fields {quoted(fields)}."
        todo = f"Type: np.stack([np.asarray(x[name]) for name in {fields}], axis=-1).astype({_typed(datatype)})"
        raise InputError(happened, f"The model expects {datatype}: numbers of one kind, the fields along an axis.", todo)
    return array


def _to_bytes(name: str, array: Array) -> Array:
    out = np.empty(array.size, dtype=object)
    for index, item in enumerate(array.reshape(-1).tolist()):
        if not isinstance(item, str | bytes):
            todo = 'Type for example: np.array(["jet", "muon"], dtype=object)'
            raise InputError(f"The input {name!r} holds {item!r:.40}.", "The model expects strings (BYTES).", todo)
        out[index] = item.encode() if isinstance(item, str) else item
    return out.reshape(array.shape)


def _from_python(name: str, array: Array, datatype: str, wanted: np.dtype[Any]) -> Array:
    """Return numbers that came without a dtype of their own, where they stay the same."""
    kind = array.dtype.kind
    if array.size == 0:
        return np.empty(array.shape, dtype=wanted)
    # A model of whole numbers gets no floats; an object is what is no number, or an integer that no dtype can hold.
    if kind in "biu" or (kind == "f" and wanted.kind == "f"):
        with np.errstate(over="ignore"):
            tensor = array.astype(wanted)
        # A float takes the nearest value of the dtype, which is what everybody means by 0.1, but not infinity.
        changed = np.isinf(tensor) & ~np.isinf(array) if kind == "f" else tensor != array
        if not np.any(changed):
            return tensor
        odd = f"{array[changed].flat[0]}, which would become another number"
    else:
        items = array.reshape(-1).tolist()
        strange = [item for item in items if not isinstance(item, numbers.Real)]
        odd = repr(strange[0] if strange else max(items, key=abs))[:40]
    expected = f"The model expects {datatype}, and rows of equal length."
    todo = f"Type: np.array(…, dtype={_typed(datatype)}) after you have made sure what should become of it"
    raise InputError(f"The input {name!r} holds {odd}.", expected, todo)


def _typed(datatype: str) -> str:
    """Return what to type for the dtype of a Triton datatype."""
    return {"BOOL": "bool", "BYTES": "object"}.get(datatype) or f"np.{np.dtype(triton_to_np_dtype(datatype)).name}"
