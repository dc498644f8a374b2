"""What a model takes and gives, and the tensors on the way: values become tensors, and are checked before anything is sent.

Rules, made so that no number changes without the physicist's knowledge:

* an array must have exactly the model's dtype; only its byte order and memory layout may differ (both are lossless, and
  arrays read from ROOT files are big-endian);
* Python lists and numbers take the model's dtype: integers only where they stay exact, floats rounded to the nearest value
  that the dtype has, never out of range;
* strings and bytes go to BYTES tensors, ``str`` as UTF-8;
* NaN and infinities pass.
"""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Iterator, KeysView, Mapping, Sequence, ValuesView
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.utils import np_to_triton_dtype, triton_to_np_dtype

from helpers.errors import InputError, quoted, suggestion

Array = NDArray[Any]

# The longest that an axis may be, and the most bytes that one request may hold: what a gRPC message can. Triton 2.51 multiplies lengths
# without a look at what 64 bits hold, so an empty tensor with one length of 2^62 ends a model's process, and it has no limit of its own.
MAX_LENGTH = MAX_REQUEST_BYTES = 2**31 - 1
# What to type to get an array of this Triton datatype.
_TYPED = {"BOOL": "bool", "BF16": "ml_dtypes.bfloat16"} | {
    name: f"np.{np.dtype(triton_to_np_dtype(name)).name}"
    for name in ("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "FP16", "FP32", "FP64")
}
_KINDS = {"f": "floats", "U": "strings", "S": "bytes", "c": "complex numbers", "b": "True and False"}
# What to type for a value that NumPy would make into an array of one Python object.
_NO_TENSORS = {
    type(None): "Leave the input out if it is optional, or look where the value was lost",
    dict: 'Take the array out of it, such as x["name"]',
    set: "A set has no order. Type: sorted(x)",
    frozenset: "A set has no order. Type: sorted(x)",
}


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a model.

    Attributes:
        name: its name in ``config.pbtxt``.
        datatype: Triton's name of its dtype, such as ``FP32``.
        shape: its full shape with the batch axis, where the model has one; -1 for an axis of any length.
        optional: True for an input that may be left out.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False


@dataclass(frozen=True)
class Signature:
    """Names, dtypes and shapes of a model.

    Attributes:
        model: name of the model.
        max_batch_size: largest batch of one request; 0 when the model has no batch axis, or when the server does not say.
        inputs: the inputs by name, in the model's order.
        outputs: the outputs by name, in the model's order.
    """

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
            return {
                entry["name"]: TensorSpec(
                    entry["name"], entry["datatype"], tuple(map(int, entry.get("shape", ()))), entry["name"] in optional
                )
                for entry in metadata.get(role, ())
            }

        return cls(metadata["name"], int(config.get("max_batch_size", 0)), specs("inputs"), specs("outputs"))

    @property
    def batched(self) -> bool:
        """True if the first axis of every tensor is the batch."""
        return self.max_batch_size > 0

    def check(self, inputs: Any) -> dict[str, Array]:
        """Check values by input name against the model, and return them as tensors in the model's order.

        Raises:
            InputError: a name, dtype, rank or shape does not fit, or the batch is empty; says what was given and expected.
        """
        if not isinstance(inputs, Mapping):
            raise InputError(
                f"The inputs of {self.model!r} were given as {type(inputs).__name__}.",
                "Expected a dictionary from input names to arrays.",
                f'Type: {{"{next(iter(self.inputs), "INPUT")}": x}}',
            )
        self._check_names(inputs)
        arrays = {name: to_tensor(name, inputs[name], spec.datatype) for name, spec in self.inputs.items() if name in inputs}
        for name, array in arrays.items():
            self._check_shape(self.inputs[name], array)
        if self.batched:
            self._check_batch(arrays)
        return arrays

    def check_outputs(self, names: Iterable[str] | str | None) -> list[str]:
        """Return the names of the wanted outputs, all of them for None.

        Raises:
            InputError: the model has no output of that name.
        """
        if names is None:
            return list(self.outputs)
        wanted = [names] if isinstance(names, str) else list(names)
        for name in wanted:
            if name not in self.outputs:
                known = f"Its outputs are {quoted(self.outputs)}."
                raise InputError(f"The model {self.model!r} has no output {name!r}.", known, suggestion(name, self.outputs))
        return wanted

    def check_size(self, inputs: Mapping[str, Array]) -> None:
        """Refuse one request whose tensors hold more bytes than one request may.

        Raises:
            InputError: they do.
        """
        size = sum(sum(4 + len(item) for item in array.flat) if array.dtype == object else array.nbytes for array in inputs.values())
        if size > MAX_REQUEST_BYTES:
            raise InputError(
                f"The inputs of {self.model!r} have {size:,} bytes in one request. Nothing was sent.",
                f"Expected at most {MAX_REQUEST_BYTES:,} bytes; the server would need several times as much memory.",
                "Send it in several requests: client.infer_many(…)",
            )

    def example(self, batch: int = 1, any_length: int = 20) -> dict[str, Array]:
        """Return made-up inputs that fit: normal numbers, small integers, ones for masks, the same each time.

        Args:
            batch: entries in the batch; ignored where the model has no batch axis.
            any_length: length of the axes that may have any.
        """
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

    def describe(self, spec: TensorSpec) -> str:
        """Return a tensor in words: ``FP32 with shape (batch up to 160, 25, any)``."""
        sizes = ["any" if length < 0 else str(length) for length in spec.shape]
        if self.batched and sizes:
            sizes[0] = f"batch up to {self.max_batch_size}"
        return f"{spec.datatype} with shape ({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"

    def _check_names(self, inputs: Mapping[str, Any]) -> None:
        unknown = [name for name in inputs if name not in self.inputs]
        missing = [name for name, spec in self.inputs.items() if name not in inputs and not spec.optional]
        if unknown or missing:
            faults = [f"has no input {quoted(unknown)}"] if unknown else []
            faults += [f"got nothing for {quoted(missing)}"] if missing else []
            hints = filter(None, (suggestion(name, missing or self.inputs) for name in unknown))
            known = (f"{name!r}: {self.describe(spec)}{' (optional)' if spec.optional else ''}" for name, spec in self.inputs.items())
            raise InputError(f"The model {self.model!r} {' and '.join(faults)}.", f"Its inputs are {'; '.join(known)}.", " ".join(hints))

    def _check_shape(self, spec: TensorSpec, array: Array) -> None:
        if max(array.shape, default=0) > MAX_LENGTH:
            raise InputError(
                f"The input {spec.name!r} of {self.model!r} has shape {array.shape}. Nothing was sent.",
                f"Expected at most {MAX_LENGTH:,} along each axis; a longer one could end the server.",
                "Bring the array into another shape.",
            )
        # The batch axis may be longer than the model's limit: such a batch is split.
        free = 1 if self.batched else 0
        if array.ndim != len(spec.shape) or not _fits(array.shape[free:], spec.shape[free:]):
            happened = f"The input {spec.name!r} of {self.model!r} has shape {array.shape}."
            raise InputError(happened, f"The model expects {self.describe(spec)}.", self._shape_hint(spec.shape, array.shape))

    def _shape_hint(self, wanted: tuple[int, ...], given: tuple[int, ...]) -> str:
        if self.batched and _fits(given, wanted[1:]):
            return "The batch axis is missing. Type: x[np.newaxis], which makes a batch of one"
        if not self.batched and given[:1] == (1,) and _fits(given[1:], wanted):
            return "This model has no batch axis. Type: x[0]"
        if len(given) >= 2 and _fits((*given[:-2], given[-1], given[-2]), wanted):
            return "The last two axes look swapped. Type: x.swapaxes(-1, -2)"
        return "Bring the array into that shape, and look at one entry to see that its numbers are where you want them."

    def _check_batch(self, arrays: Mapping[str, Array]) -> None:
        sizes = {name: array.shape[0] for name, array in arrays.items()}
        for name, size in sizes.items():
            if size == 0:
                raise InputError(
                    f"The batch of input {name!r} of {self.model!r} is empty: its shape is {arrays[name].shape}.",
                    "Expected at least one entry along the first axis.",
                    "Leave such a request out, or look why no entry passed your selection.",
                )
        if len(set(sizes.values())) > 1:
            given = ", ".join(f"{name!r}: {size}" for name, size in sizes.items())
            raise InputError(
                f"The inputs of {self.model!r} have batches of different length ({given}).",
                "Expected the same number of entries in all of them.",
                "Cut or pad them to one length along the first axis.",
            )


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
        places: where in shared memory a tensor lies, by name; the others travel with the request.
    """

    model: str
    version: str
    inputs: Mapping[str, tuple[Array, str]]
    outputs: Sequence[str]
    places: Mapping[str, Place] = field(default_factory=dict)

    def encode(self, protocol: Any) -> tuple[list[Any], list[Any]]:
        """Return the inputs and wanted outputs as objects of ``tritonclient.http`` or ``tritonclient.grpc``."""
        inputs = []
        for name, (array, datatype) in self.inputs.items():
            inputs.append(protocol.InferInput(name, list(array.shape), datatype))
            if name not in self.places:
                inputs[-1].set_data_from_numpy(array)
        outputs = [protocol.InferRequestedOutput(name) for name in self.outputs]
        for tensor in (*inputs, *outputs) if self.places else ():
            if place := self.places.get(tensor.name()):
                tensor.set_shared_memory(place.region, place.byte_size, place.offset)
        return inputs, outputs


def split(arrays: Mapping[str, Array], max_batch_size: int) -> list[dict[str, Array]]:
    """Cut a batch into parts of at most ``max_batch_size`` entries; 0 means that there is no batch axis to cut."""
    size = next((array.shape[0] for array in arrays.values()), 0) if max_batch_size else 0
    if size <= max_batch_size:
        return [dict(arrays)]
    return [{name: array[start : start + max_batch_size] for name, array in arrays.items()} for start in range(0, size, max_batch_size)]


def to_tensor(name: str, value: Any, datatype: str) -> Array:
    """Turn a value into the contiguous array that goes on the wire.

    Args:
        name: the input's name, for the message.
        value: a NumPy array, anything that converts to one, a number, a string, or lists of these.
        datatype: Triton's name of the wanted dtype, such as ``FP32`` or ``BYTES``.

    Returns:
        An array of the wanted dtype in native byte order; ``object`` with ``bytes`` inside for ``BYTES``.

    Raises:
        InputError: the value has another dtype, does not fit into the dtype, or is no tensor at all.
    """
    if type(value) is not np.ndarray or value.dtype.names:
        _refuse_what_is_no_tensor(name, value, datatype)
    array = _as_array(name, value, datatype)
    if datatype == "BYTES":
        return _to_bytes(name, array)
    wanted: np.dtype[Any] = np.dtype(triton_to_np_dtype(datatype))
    if array.dtype == object:
        raise _no_numbers(name, array, datatype)
    if not _is_array(_first_leaf(value)):
        return _from_python(name, array, datatype, wanted)
    if array.dtype.newbyteorder("=") != wanted:
        raise InputError(
            f"The input {name!r} is an array of {_dtype_text(array.dtype)}.",
            f"The model expects {_dtype_text(wanted)}.",
            f"Type: x.astype({_TYPED.get(datatype, wanted.name)})"
            if array.dtype.kind in "biufV"
            else f"Make an array of {datatype} of it.",
        )
    return np.ascontiguousarray(array, dtype=wanted).reshape(array.shape)


def _fits(given: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return len(given) == len(wanted) and all(want < 0 or want == got for want, got in zip(wanted, given, strict=True))


def _refuse_what_is_no_tensor(name: str, value: Any, datatype: str) -> None:
    """Name values that are no tensor for what they are: NumPy would make arrays of one Python object of them."""
    fields = list(getattr(value, "fields", None) or getattr(getattr(value, "dtype", None), "names", None) or ())
    if fields:
        raise InputError(
            f"The input {name!r} is an array of records with the fields {quoted(fields)}.",
            f"The model expects {datatype}: numbers of one kind, the fields along an axis.",
            f"Type: np.stack([np.asarray(x[name]) for name in {fields}], axis=-1).astype({_TYPED.get(datatype, 'object')})",
        )
    todo = _NO_TENSORS.get(type(value), "")
    sized = hasattr(value, "__array__") or hasattr(value, "__len__")
    if not todo and (isinstance(value, Iterator) or (isinstance(value, Iterable) and not sized)):
        todo = "Type: list(x), which takes all that it yields"
    if todo or isinstance(value, Mapping | KeysView | ValuesView):
        raise InputError(
            f"The input {name!r} is {_a_type(value)}.", f"The model expects a tensor of {datatype}.", todo or "Type: np.array(list(x))"
        )


def _a_type(value: Any) -> str:
    kind = type(value).__name__
    return "None" if value is None else f"{'an' if kind[0] in 'aeiouAEIOU' else 'a'} {kind}"


def _no_numbers(name: str, array: Array, datatype: str) -> InputError:
    """Return the error for Python objects where numbers were expected: which, and where."""
    first = (0, array.flat[0] if array.size else None)
    place, item = next(((place, item) for place, item in enumerate(array.flat) if not isinstance(item, numbers.Real)), first)
    if isinstance(item, int):  # all are numbers
        return _misfit(name, datatype, f"{max(array.flat, key=abs)} is out of range")
    what = f"holds {_a_type(item)} at position {place}" if array.ndim else f"is {_a_type(item)}"
    return _unfit(name, what, f"{datatype}, and rows of equal length", datatype, "it")


def _is_array(value: Any) -> bool:
    return hasattr(value, "dtype") or hasattr(value, "__array__")


def _first_leaf(value: Any) -> Any:
    # A list of float64 arrays is an array of another dtype in disguise, so the rule for arrays holds for it.
    while isinstance(value, (list, tuple)) and value:
        value = value[0]
    return value


def _as_array(name: str, value: Any, datatype: str) -> Array:
    if np.ma.is_masked(value):
        raise InputError(
            f"The input {name!r} is a masked array with masked values.",
            "A tensor has no place for a mask.",
            "Type: x.filled(0), or whatever value the model was trained with",
        )
    try:
        # Strings keep their Python objects: NumPy's own string dtypes cut off trailing zero bytes.
        return np.asarray(value, dtype=object) if datatype == "BYTES" and not _is_array(value) else np.asarray(value)
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise InputError(
            f"The input {name!r} cannot be made into an array: {error}.",
            f"The model expects a tensor of {datatype}, with rows of equal length.",
            "Pad the rows to one length; bring a tensor from a GPU to the CPU first, with x.cpu().",
        ) from error


def _to_bytes(name: str, array: Array) -> Array:
    if array.dtype.kind not in "OSUT":
        raise InputError(
            f"The input {name!r} is an array of {_dtype_text(array.dtype)}.",
            "The model expects strings (BYTES).",
            'Type for example: np.array(["jet", "muon"], dtype=object)',
        )
    out = np.empty(array.size, dtype=object)
    for index, item in enumerate(array.reshape(-1)):
        if not isinstance(item, str | bytes | bytearray | memoryview):
            raise InputError(
                f"The input {name!r} holds {item!r} ({type(item).__name__}) at position {index}.",
                "The model expects strings (BYTES), and rows of equal length.",
                "Type: str(item) for each item that is no string yet",
            )
        out[index] = item.encode() if isinstance(item, str) else bytes(item)
    return out.reshape(array.shape)


def _from_python(name: str, array: Array, datatype: str, wanted: np.dtype[Any]) -> Array:
    # Python numbers arrive as bool, int64/uint64, float64, or object when an integer is too large for any of them.
    kind = array.dtype.kind
    if array.size == 0:
        return np.empty(array.shape, dtype=wanted)
    if kind == wanted.kind == "b" or (datatype == "BOOL" and kind in "iu" and np.isin(array, (0, 1)).all()):
        return array.astype(wanted)
    if datatype == "BOOL" or kind not in "biuf" or (kind == "f" and wanted.kind in "iu"):
        raise _misfit(name, datatype, f"{_KINDS.get(kind, 'integers')} given")
    with np.errstate(over="ignore"):
        converted = array.astype(wanted)
    if kind == "f":
        # Rounding to the nearest value of the dtype is what everybody means by 0.1; a number out of range is a mistake.
        bad = np.isinf(converted.astype(np.float64)) & ~np.isinf(array)
    else:
        bad = np.array([not np.isfinite(new) or int(new) != int(old) for new, old in zip(converted.flat, array.flat, strict=True)])
    if bad.any():
        exact = "out of range" if kind == "f" or wanted.kind in "iu" else "not exact in this dtype"
        raise _misfit(name, datatype, f"{array.reshape(-1)[bad.reshape(-1)][0]} is {exact}")
    return converted


def _misfit(name: str, datatype: str, reason: str) -> InputError:
    return _unfit(name, f"holds numbers that do not fit: {reason}", datatype, datatype, "them")


def _unfit(name: str, what: str, expected: str, datatype: str, it: str) -> InputError:
    todo = f"Type: np.array(…, dtype={_TYPED.get(datatype, datatype)}) after you have made sure what should become of {it}"
    return InputError(f"The input {name!r} {what}.", f"The model expects {expected}.", todo)


def _dtype_text(dtype: np.dtype[Any]) -> str:
    """Return ``float64 (FP64)``: NumPy's name, and Triton's where there is one."""
    triton = np_to_triton_dtype(dtype) if dtype.kind in "biufSUO" else None
    return f"{dtype.name} ({triton})" if triton else str(dtype)
