"""One value that a person gives, and the tensor that the server wants.

Rules, made so that no number changes behind a physicist's back:

* an array must have exactly the model's dtype; only its byte order and memory layout may differ (both are lossless, and
  arrays read from ROOT files are big-endian);
* Python lists and numbers take the model's dtype: integers only where they stay exact, floats rounded to the nearest value
  that the dtype has, never out of range;
* strings and bytes go to BYTES tensors, ``str`` as UTF-8;
* NaN and infinities pass.
"""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Iterator, KeysView, Mapping, ValuesView
from contextlib import suppress
from typing import Any

import numpy as np
from tritonclient.utils import np_to_triton_dtype, triton_to_np_dtype

from helpers.errors import InputError, quoted

# What to type to get an array of this Triton datatype.
_TYPED = {"BOOL": "bool", "BF16": "ml_dtypes.bfloat16"} | {
    name: f"np.{np.dtype(triton_to_np_dtype(name)).name}"
    for name in ("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "FP16", "FP32", "FP64")
}


def to_tensor(name: str, value: Any, datatype: str) -> np.ndarray:
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
    _refuse_what_is_no_tensor(name, value, datatype)
    array = _as_array(name, value, datatype)
    if datatype == "BYTES":
        return _to_bytes(name, array)
    wanted = np.dtype(triton_to_np_dtype(datatype))
    if array.dtype == object:
        raise _no_numbers(name, array, datatype)
    if _is_array(_first_leaf(value)):
        native = array.dtype.newbyteorder("=")
        if native != wanted:
            numeric = array.dtype.kind in "biufV"
            raise InputError(
                f"The input {name!r} is an array of {_dtype_text(array.dtype)}.",
                f"The model expects {_dtype_text(wanted)}.",
                f"Type: x.astype({_TYPED.get(datatype, wanted.name)})" if numeric else f"Make an array of {datatype} of it.",
            )
        return np.ascontiguousarray(array, dtype=wanted).reshape(array.shape)
    return _from_python(name, array, datatype, wanted)


def own(value: Any) -> Any:
    """Return a value that shares no memory with the given one, so that this one may be changed while the other is still to be sent.

    Args:
        value: what :func:`to_tensor` takes: anything that holds its data elsewhere becomes an array of its own.
    """
    if isinstance(value, np.ndarray):
        copied = value.copy()
        if value.dtype == object:
            for index, item in enumerate(value.flat):
                copied.flat[index] = own(item)
        return copied
    if isinstance(value, (list, tuple)):
        return [own(item) for item in value]
    if isinstance(value, bytearray):
        return bytes(value)
    if isinstance(value, (str, bytes, int, float, complex, np.generic)):
        return value
    if isinstance(value, memoryview):
        return memoryview(np.asarray(value).copy())
    if hasattr(value, "__array__") or hasattr(value, "__array_interface__") or hasattr(value, "__array_struct__") or _has_buffer(value):
        # What cannot become an array is refused, with what to type, when it is to become a tensor.
        with suppress(ValueError, TypeError, RuntimeError):
            # In two steps: not every __array__ heeds the wish for a copy.
            return np.asarray(value).copy()
    return value


def _has_buffer(value: Any) -> bool:
    try:
        memoryview(value).release()
    except TypeError:
        return False
    return True


def _refuse_what_is_no_tensor(name: str, value: Any, datatype: str) -> None:
    """Name values that are no tensor for what they are: NumPy would make arrays of one Python object of them."""
    fields = list(getattr(value, "fields", None) or getattr(getattr(value, "dtype", None), "names", None) or ())
    if fields:
        chosen = ", ".join(repr(field) for field in fields)
        raise InputError(
            f"The input {name!r} is an array of records with the fields {quoted(fields)}.",
            f"The model expects {datatype}: numbers of one kind, the fields along an axis.",
            f"Type: np.stack([np.asarray(x[name]) for name in [{chosen}]], axis=-1).astype({_TYPED.get(datatype, 'object')})",
        )
    todo = {
        type(None): "Leave the input out if it is optional, or look where the value was lost",
        dict: 'Take the array out of it, such as x["name"]',
        set: "A set has no order. Type: sorted(x)",
        frozenset: "A set has no order. Type: sorted(x)",
    }.get(type(value), "")
    if not todo and isinstance(value, Iterator):
        todo = "Type: list(x), which takes all that it yields"
    if not todo and isinstance(value, Mapping | Iterable) and not hasattr(value, "__array__") and not hasattr(value, "__len__"):
        todo = "Type: list(x)"
    if todo or isinstance(value, Mapping | KeysView | ValuesView):
        raise InputError(
            f"The input {name!r} is {_a_type(value)}.", f"The model expects a tensor of {datatype}.", todo or "Type: np.array(list(x))"
        )


def _a_type(value: Any) -> str:
    kind = type(value).__name__
    return "None" if value is None else f"{'an' if kind[0] in 'aeiouAEIOU' else 'a'} {kind}"


def _no_numbers(name: str, array: np.ndarray, datatype: str) -> InputError:
    """Return the error for Python objects where numbers were expected: which, and where."""
    place, item = next(
        ((place, item) for place, item in enumerate(array.flat) if isinstance(item, str) or not isinstance(item, numbers.Real)),
        (0, array.flat[0] if array.size else None),
    )
    if isinstance(item, int):  # all are numbers
        return _misfit(name, array, datatype, f"{max(array.flat, key=abs)} is out of range")
    what = f"holds {_a_type(item)} at position {place}" if array.ndim else f"is {_a_type(item)}"
    return InputError(
        f"The input {name!r} {what}.",
        f"The model expects {datatype}, and rows of equal length.",
        f"Type: np.array(…, dtype={_TYPED.get(datatype, datatype)}) after you have made sure what should become of it",
    )


def _is_array(value: Any) -> bool:
    return hasattr(value, "dtype") or hasattr(value, "__array__")


def _first_leaf(value: Any) -> Any:
    # A list of float64 arrays is an array of another dtype in disguise, so the rule for arrays holds for it.
    while isinstance(value, (list, tuple)) and value:
        value = value[0]
    return value


def _as_array(name: str, value: Any, datatype: str) -> np.ndarray:
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


def _to_bytes(name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "OSUT":
        raise InputError(
            f"The input {name!r} is an array of {_dtype_text(array.dtype)}.",
            "The model expects strings (BYTES).",
            'Type for example: np.array(["jet", "muon"], dtype=object)',
        )
    out = np.empty(array.size, dtype=object)
    for index, item in enumerate(array.reshape(-1)):
        if isinstance(item, str):
            out[index] = item.encode()
        elif isinstance(item, (bytes, bytearray, memoryview)):
            out[index] = bytes(item)
        else:
            raise InputError(
                f"The input {name!r} holds {item!r} ({type(item).__name__}) at position {index}.",
                "The model expects strings (BYTES), and rows of equal length.",
                "Type: str(item) for each item that is no string yet",
            )
    return out.reshape(array.shape)


def _from_python(name: str, array: np.ndarray, datatype: str, wanted: np.dtype) -> np.ndarray:
    # Python numbers arrive as bool, int64/uint64, float64, or object when an integer is too large for any of them.
    kind = array.dtype.kind
    if array.size == 0:
        return np.empty(array.shape, dtype=wanted)
    numbers_to_bool = datatype == "BOOL" and kind in "iu" and np.isin(array, (0, 1)).all()
    if kind == wanted.kind == "b" or numbers_to_bool:
        return array.astype(wanted)
    if datatype == "BOOL" or kind not in "biuf" or (kind == "f" and wanted.kind in "iu"):
        raise _misfit(name, array, datatype, f"{_python_text(array)} given")
    with np.errstate(over="ignore"):
        converted = array.astype(wanted)
    if kind == "f":
        # Rounding to the nearest value of the dtype is what everybody means by 0.1; a number out of range is a mistake.
        bad = np.isinf(converted.astype(np.float64)) & ~np.isinf(array)
        reason = "out of range"
    else:
        bad = np.array([int(new) != int(old) if np.isfinite(new) else True for new, old in zip(converted.flat, array.flat, strict=True)])
        bad = bad.reshape(array.shape)
        reason = "out of range" if wanted.kind in "iu" else "not exact in this dtype"
    if bad.any():
        raise _misfit(name, array, datatype, f"{array[bad].flat[0]} is {reason}")
    return converted


def _misfit(name: str, array: np.ndarray, datatype: str, reason: str) -> InputError:
    return InputError(
        f"The input {name!r} holds numbers that do not fit: {reason}.",
        f"The model expects {datatype}.",
        f"Type: np.array(…, dtype={_TYPED.get(datatype, datatype)}) after you have made sure what should become of them",
    )


def _python_text(array: np.ndarray) -> str:
    kinds = {"f": "floats", "U": "strings", "S": "bytes", "c": "complex numbers", "b": "True and False"}
    return kinds.get(array.dtype.kind, "integers")


def _dtype_text(dtype: np.dtype) -> str:
    """``float64 (FP64)``: NumPy's name, and Triton's where there is one."""
    triton = np_to_triton_dtype(dtype) if dtype.kind in "biufSUO" else None
    return f"{dtype.name} ({triton})" if triton else str(dtype)
