"""Values that people give, and the tensors that the server wants: no server needed."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date
from decimal import Decimal

import awkward as ak
import numpy as np
import pytest

from helpers.client.tensors import to_tensor
from helpers.errors import InputError


@pytest.mark.parametrize(
    ("value", "datatype", "expected"),
    [
        ([1, 2, 3], "FP32", np.array([1, 2, 3], np.float32)),
        ([0.1, 2], "FP32", np.array([0.1, 2], np.float32)),
        ([[True, False]], "BOOL", np.array([[True, False]])),
        ([0, 1], "BOOL", np.array([False, True])),
        ([True, False], "FP32", np.array([1, 0], np.float32)),
        ([255], "UINT8", np.array([255], np.uint8)),
        ([-(2**63), 2**63 - 1], "INT64", np.array([-(2**63), 2**63 - 1])),
        ([2**64 - 1], "UINT64", np.array([2**64 - 1], np.uint64)),
        (1.5, "FP16", np.array(1.5, np.float16)),
        ([float("nan"), float("inf"), -float("inf")], "FP16", np.array([np.nan, np.inf, -np.inf], np.float16)),
        ([], "INT32", np.array([], np.int32)),
        (np.float32(2), "FP32", np.array(2, np.float32)),
        ([np.float32(2), np.float32(3)], "FP32", np.array([2, 3], np.float32)),
        ([[np.zeros(2, np.int8)] * 2], "INT8", np.zeros((1, 2, 2), np.int8)),
    ],
)
def test_lists_and_numbers_take_the_dtype_of_the_model(value: object, datatype: str, expected: np.ndarray) -> None:
    tensor = to_tensor("X", value, datatype)
    assert tensor.dtype == expected.dtype
    assert tensor.shape == expected.shape
    np.testing.assert_array_equal(tensor, expected)


@pytest.mark.parametrize(
    ("value", "datatype", "words"),
    [
        (np.zeros(2), "FP32", ["array of float64", "float32 (FP32)", "x.astype(np.float32)"]),
        (np.zeros(2, np.int64), "INT32", ["array of int64", "x.astype(np.int32)"]),
        (np.zeros(2, np.float32), "FP16", ["x.astype(np.float16)"]),
        (np.zeros(2), "BOOL", ["x.astype(np.bool)"]),
        (np.array(["a"], dtype=object), "FP32", ["array of object", "FP32"]),
        (np.zeros(2, complex), "FP32", ["complex128"]),
        ([1.5], "INT32", ["array of float64", "int32 (INT32)", "x.astype(np.int32)"]),
        ([2**24 + 1], "FP32", ["16777217", "another number"]),
        ([300], "UINT8", ["300", "another number"]),
        ([-1], "UINT64", ["-1", "another number"]),
        ([2**70], "INT64", ["array of object", "INT64"]),
        ([1e39], "FP32", ["1e+39", "another number"]),
        ([70000.0], "FP16", ["70000", "another number"]),
        ([2], "BOOL", ["2, which would become another number", "dtype=np.bool"]),
        (["a"], "FP32", ["array of <U1", "FP32"]),
        ([1j], "FP32", ["array of complex128"]),
        ([None], "FP32", ["array of object"]),
        ([[1, 2], [3]], "FP32", ["cannot be made into an array", "equal length"]),
        (np.ma.masked_array([1.0, 2.0], [True, False], np.float32), "FP32", ["masked", "x.filled(0)"]),
    ],
)
def test_what_would_change_a_number_is_refused_with_what_to_type(value: object, datatype: str, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        to_tensor("X", value, datatype)
    for word in ["'X'", *words]:
        assert word in str(caught.value)


def test_byte_order_and_layout_may_differ_because_nothing_is_lost() -> None:
    big_endian = np.arange(6, dtype=">f4").reshape(2, 3)
    tensor = to_tensor("X", big_endian.T, "FP32")
    assert tensor.dtype == np.dtype("=f4")
    assert tensor.dtype.isnative
    assert tensor.flags.c_contiguous
    np.testing.assert_array_equal(tensor, big_endian.T)


def test_a_tensor_that_fits_is_not_copied() -> None:
    array = np.arange(4, dtype=np.float32)
    assert np.shares_memory(to_tensor("X", array, "FP32"), array)


def test_a_mask_without_masked_values_passes() -> None:
    np.testing.assert_array_equal(to_tensor("X", np.ma.masked_array(np.ones(2, np.float32)), "FP32"), np.ones(2))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (["µτ", b"x\0", ""], ["µτ", b"x\0", ""]),
        (np.array(["ab", "c"]), ["ab", "c"]),
        (np.array([b"ab"]), [b"ab"]),
        ("jet", "jet"),
    ],
)
def test_strings_keep_every_byte(value: object, expected: object) -> None:
    tensor = to_tensor("X", value, "BYTES")
    assert tensor.dtype == object
    assert tensor.tolist() == expected


def test_messages_are_one_paragraph() -> None:
    with pytest.raises(InputError) as caught:
        to_tensor("X", np.zeros(2), "FP32")
    assert not re.search(r"\n|  ", str(caught.value))


NA = np.dtypes.StringDType(na_object=None)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.array(["H→bb", ""], np.dtypes.StringDType()), ["H→bb", ""]),
        (np.array([["a"], ["b"]], np.dtypes.StringDType(coerce=False)), [["a"], ["b"]]),
        (np.array("jet", np.dtypes.StringDType()), "jet"),
        (np.array([], np.dtypes.StringDType()), []),
        (np.array(["µ", "x" * 40], NA), ["µ", "x" * 40]),
    ],
)
def test_strings_of_any_length(value: np.ndarray, expected: object) -> None:
    assert to_tensor("X", value, "BYTES").tolist() == expected


@pytest.mark.parametrize("datatype", ["FP32", "INT64", "BOOL"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: None,
        lambda: (x for x in "ab"),
        lambda: {"a": 1},
        lambda: {1, 2},
        lambda: [None, 1.0],
        lambda: np.array([{}, 1.0], dtype=object),
        lambda: [1, Decimal(2), []],
        lambda: [date(2026, 1, 1)],
        lambda: np.ones(2, [("pt", np.float32), ("eta", np.float32)]),
        lambda: ak.zip({"pt": np.ones(2, np.float32), "eta": np.zeros(2, np.float32)}),
    ],
)
def test_what_is_no_tensor_is_refused(make: Callable[[], object], datatype: str) -> None:
    with pytest.raises(InputError, match=r"The input 'X' (is an array of|cannot be made into an array).*The model expects"):
        to_tensor("X", make(), datatype)
