"""Inputs against a model's metadata: names, ranks, shapes, batches. No server needed."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.client.tensors import Signature, split
from helpers.errors import InputError

BATCHED = Signature.from_server(
    {
        "name": "tagger",
        "inputs": [
            {"name": "points", "datatype": "FP32", "shape": [-1, 2, -1]},
            {"name": "mask", "datatype": "FP32", "shape": [-1, 1, -1]},
        ],
        "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 5]}, {"name": "any", "datatype": "FP16", "shape": [-1, -1]}],
    },
    {"max_batch_size": 8},
)
PLAIN = Signature.from_server(
    {
        "name": "add",
        "inputs": [{"name": "X", "datatype": "FP32", "shape": [3]}],
        "outputs": [{"name": "Y", "datatype": "INT64", "shape": [3]}],
    },
    {"max_batch_size": 0},
)


def inputs(batch: int = 2, length: int = 7) -> dict[str, np.ndarray]:
    return {"points": np.zeros((batch, 2, length), np.float32), "mask": np.ones((batch, 1, length), np.float32)}


def test_what_fits_passes_in_the_order_of_the_model() -> None:
    given = inputs()
    checked = BATCHED.check(dict(reversed(given.items())))
    assert list(checked) == ["points", "mask"]
    assert checked["mask"].shape == (2, 1, 7)


def test_a_batch_above_the_limit_is_no_mistake_and_is_cut() -> None:
    parts = split(BATCHED.check(inputs(batch=19)), BATCHED.max_batch_size)
    assert [part["points"].shape[0] for part in parts] == [8, 8, 3]
    assert [part["mask"].shape[0] for part in parts] == [8, 8, 3]


def test_without_a_batch_axis_nothing_is_cut() -> None:
    parts = split(PLAIN.check({"X": [1, 2, 3]}), PLAIN.max_batch_size)
    assert [part["X"].tolist() for part in parts] == [[1, 2, 3]]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"point": 0, "mask": 0}, ["no input 'point'", "nothing for 'points'", "Did you mean 'points'?"]),
        ({"Points": 0, "mask": 0}, ["Did you mean 'points'?"]),
        ({"mask": 0}, ["nothing for 'points'", "'points': FP32 with shape (batch up to 8, 2, any)"]),
        (inputs() | {"xyz": 0}, ["no input 'xyz'"]),
        (inputs() | {"mask": np.ones((2, 7), np.float32)}, ["(2, 7)", "(batch up to 8, 1, any)"]),
        ({name: array[0] for name, array in inputs().items()}, ["batch axis is missing", "x[np.newaxis]"]),
        (inputs() | {"points": np.zeros((2, 7, 2), np.float32)}, ["(2, 7, 2)", "(batch up to 8, 2, any)"]),
        (inputs(batch=0), ["empty", "(0, 2, 7)"]),
        (inputs() | {"points": np.zeros((2, 2, 7))}, ["float64", "astype"]),
    ],
)
def test_what_does_not_fit_is_said_with_what_was_expected(given: object, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        BATCHED.check(given)
    for word in words:
        assert word in str(caught.value)


def test_a_batch_axis_too_many_is_named() -> None:
    with pytest.raises(InputError, match=r"has shape \(1, 3\).*no batch axis. Type: x\[0\]"):
        PLAIN.check({"X": np.zeros((1, 3), np.float32)})


def test_an_event_without_candidates_passes() -> None:
    assert BATCHED.check(inputs(length=0))["points"].shape == (2, 2, 0)


def test_made_up_inputs_fit_and_are_the_same_each_time() -> None:
    made = BATCHED.example(batch=3)
    checked = BATCHED.check(made)
    assert checked["points"].shape == (3, 2, 20)
    assert (checked["mask"] == 1).all()
    np.testing.assert_array_equal(checked["points"], BATCHED.example(batch=3)["points"])
