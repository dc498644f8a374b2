"""Triton's data types: what each is in NumPy."""

from __future__ import annotations

import numpy as np

# The types of config.pbtxt that both the protocol and NumPy know. TYPE_BF16 is absent: NumPy has no such type, and the native
# backends of this release do not serve it either.
NUMPY_TYPES: dict[str, np.dtype] = {
    "TYPE_BOOL": np.dtype(bool),
    "TYPE_UINT8": np.dtype(np.uint8),
    "TYPE_UINT16": np.dtype(np.uint16),
    "TYPE_UINT32": np.dtype(np.uint32),
    "TYPE_UINT64": np.dtype(np.uint64),
    "TYPE_INT8": np.dtype(np.int8),
    "TYPE_INT16": np.dtype(np.int16),
    "TYPE_INT32": np.dtype(np.int32),
    "TYPE_INT64": np.dtype(np.int64),
    "TYPE_FP16": np.dtype(np.float16),
    "TYPE_FP32": np.dtype(np.float32),
    "TYPE_FP64": np.dtype(np.float64),
    "TYPE_STRING": np.dtype(object),
}
TRITON_TYPES: dict[np.dtype, str] = {numpy_type: name for name, numpy_type in NUMPY_TYPES.items()}


def triton_type(array: np.ndarray) -> str:
    """The name in config.pbtxt of an array's type; for types that Triton does not know, NumPy's own name."""
    if array.dtype.kind in "US":
        return "TYPE_STRING"
    return TRITON_TYPES.get(array.dtype, f"numpy {array.dtype}")
