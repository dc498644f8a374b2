"""What a model takes and gives, and tensors that are checked before they are sent.

No number changes without the physicist's knowledge: an array must have exactly the model's dtype, only byte order and memory layout may
differ. Lists and numbers take that dtype, floats rounded to its nearest value; what would become another number is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.utils import np_to_triton_dtype, triton_to_np_dtype

from helpers.errors import InputError, quoted, suggestion

Array = NDArray[Any]


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a model: its full shape has the batch axis, where there is one, and -1 for an axis of any length."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs of a model by name; ``max_batch_size`` is 0 without a batch axis."""

    model: str
    max_batch_size: int
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]

    @classmethod
    def from_server(cls, metadata: Mapping[str, Any], config: Mapping[str, Any]) -> Signature:
        """Read a signature from the server's metadata and the model's config."""

        def specs(role: str) -> dict[str, TensorSpec]:
            found = (TensorSpec(each["name"], each["datatype"], tuple(map(int, each["shape"]))) for each in metadata[role])
            return {spec.name: spec for spec in found}

        return cls(metadata["name"], int(config.get("max_batch_size", 0)), specs("inputs"), specs("outputs"))

    def check(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """Return values by input name as tensors; an InputError says which does not fit."""
        self._check_names(inputs)
        arrays = {name: to_tensor(name, inputs[name], spec.datatype) for name, spec in self.inputs.items()}
        for name, array in arrays.items():
            self._check_shape(self.inputs[name], array)
        return arrays

    def example(self, batch: int = 1, any_length: int = 20) -> dict[str, Array]:
        """Return made-up inputs that fit: normal numbers, small integers, ones for masks, the same each time."""
        random = np.random.default_rng(1)
        inputs: dict[str, Array] = {}
        for name, spec in self.inputs.items():
            shape = [any_length if length < 0 else length for length in spec.shape]
            if self.max_batch_size:
                shape[0] = batch
            dtype = np.dtype(triton_to_np_dtype(spec.datatype))
            numbers = random.integers(0, 10, shape) if dtype.kind in "iu" else random.standard_normal(shape)
            inputs[name] = np.ones(shape, dtype) if "mask" in name.lower() else numbers.astype(dtype)
        return inputs

    def _describe(self, spec: TensorSpec) -> str:
        """Return a tensor in words: ``FP32 with shape (batch up to 160, 25, any)``."""
        sizes = ["any" if length < 0 else str(length) for length in spec.shape]
        if self.max_batch_size:
            sizes[0] = f"batch up to {self.max_batch_size}"
        return f"{spec.datatype} with shape ({', '.join(sizes)}{',' * (len(sizes) == 1)})"

    def _check_names(self, inputs: Mapping[str, Any]) -> None:
        unknown = [name for name in inputs if name not in self.inputs]
        missing = [name for name in self.inputs if name not in inputs]
        if unknown or missing:
            faults = [f"has no input {quoted(unknown)}"] if unknown else []
            faults += [f"got nothing for {quoted(missing)}"] if missing else []
            known = (f"{name!r}: {self._describe(spec)}" for name, spec in self.inputs.items())
            hint = suggestion(unknown[0], missing or self.inputs) if unknown else ""
            raise InputError(f"The model {self.model!r} {' and '.join(faults)}.", f"Its inputs are {'; '.join(known)}.", hint)

    def _check_shape(self, spec: TensorSpec, array: Array) -> None:
        happened = f"The input {spec.name!r} of {self.model!r} has shape {array.shape}."
        if not _fits(array.shape, spec.shape):
            hint = "Bring the array into that shape, and look at one entry to see that its numbers are where you want them."
            if self.max_batch_size and _fits(array.shape, spec.shape[1:]):
                hint = "The batch axis is missing. Type: x[np.newaxis], which makes a batch of one"
            elif not self.max_batch_size and array.shape[:1] == (1,) and _fits(array.shape[1:], spec.shape):
                hint = "This model has no batch axis. Type: x[0]"
            raise InputError(happened, f"The model expects {self._describe(spec)}.", hint)
        if self.max_batch_size and not array.shape[0]:
            raise InputError(happened, "The batch is empty: expected at least one entry.", "Leave such a request out.")


def encode(library: Any, inputs: Mapping[str, Array], outputs: Sequence[str]) -> tuple[list[Any], list[Any]]:
    """Return tensors and the wanted outputs as objects of ``tritonclient.http`` or ``tritonclient.grpc``."""
    tensors = [library.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype)) for name, array in inputs.items()]
    for tensor, array in zip(tensors, inputs.values(), strict=True):
        tensor.set_data_from_numpy(array)
    return tensors, [library.InferRequestedOutput(name) for name in outputs]


def split(arrays: Mapping[str, Array], max_batch_size: int) -> list[dict[str, Array]]:
    """Cut a batch into parts of at most ``max_batch_size`` entries; 0 means that there is no batch axis to cut."""
    size = next((array.shape[0] for array in arrays.values()), 0) if max_batch_size else 0
    if size <= max_batch_size:
        return [dict(arrays)]
    return [{name: array[start : start + max_batch_size] for name, array in arrays.items()} for start in range(0, size, max_batch_size)]


def to_tensor(name: str, value: Any, datatype: str) -> Array:
    """Return a value as the contiguous array that goes on the wire: of the wanted dtype, or with strings inside for ``BYTES``."""
    if np.ma.is_masked(value):
        happened = f"The input {name!r} is a masked array with masked values."
        raise InputError(happened, "A tensor has no place for a mask.", "Type: x.filled(0), or the value that the model was trained with")
    try:
        # Strings stay Python's: NumPy's own string dtypes cut off trailing zero bytes.
        array = np.asarray(value, dtype=object if datatype == "BYTES" else None)
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise InputError(
            f"The input {name!r} cannot be made into an array: {str(error).splitlines()[0]}.",
            f"The model expects a tensor of {datatype}, with rows of equal length.",
            "Pad the rows to one length; bring a tensor from a GPU to the CPU first, with x.cpu().",
        ) from error
    if datatype == "BYTES":
        return array
    wanted: np.dtype[Any] = np.dtype(triton_to_np_dtype(datatype))
    # Numbers without a dtype of their own: a model of whole numbers gets no floats.
    is_array = hasattr(value, "dtype") or hasattr(value, "__array__")
    if not is_array and (not array.size or array.dtype.kind in "biu" or array.dtype.kind == wanted.kind == "f"):
        return _from_numbers(name, array, wanted, datatype)
    if array.dtype.newbyteorder("=") != wanted:
        todo = f"Type: x.astype(np.{wanted.name})" if array.dtype.kind in "biuf" else ""
        expected = f"The model expects {wanted} ({datatype})."
        raise InputError(f"The input {name!r} is an array of {array.dtype}.", expected, todo)
    return np.ascontiguousarray(array, dtype=wanted).reshape(array.shape)


def _fits(given: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return len(given) == len(wanted) and all(want < 0 or want == got for want, got in zip(wanted, given, strict=True))


def _from_numbers(name: str, array: Array, wanted: np.dtype[Any], datatype: str) -> Array:
    """Return numbers in the model's dtype, where they stay the same."""
    with np.errstate(over="ignore"):
        tensor = array.astype(wanted)
    # A float takes the nearest value of the dtype, which is what everybody means by 0.1, but not infinity.
    same = np.isinf(tensor) == np.isinf(array) if array.dtype.kind == "f" else tensor == array
    if not np.all(same):
        todo = f"Type: np.array(…, dtype=np.{wanted.name}) after you have made sure what should become of it"
        happened = f"The input {name!r} holds {array[~same].flat[0]}, which would become another number."
        raise InputError(happened, f"The model expects {datatype}.", todo)
    return tensor
