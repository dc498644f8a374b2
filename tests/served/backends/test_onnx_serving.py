"""The backend ``onnxruntime``: what it serves, and that the numbers are right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from helpers.server import Server
from tests.served.backends.asking import Asker
from tests.served.backends.repositories import ONNX_TYPES

# Their servers, with thirty models each, take half a minute to start.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def asker(onnx_server: Server) -> Asker:
    """Requests to the ONNX models."""
    return Asker(onnx_server)


def sample(numpy_type: type) -> np.ndarray:
    """Values at the edges of a type, shape (1, 2)."""
    if numpy_type is np.bool_:
        return np.array([[True, False]])
    limits = np.finfo(numpy_type) if np.issubdtype(numpy_type, np.floating) else np.iinfo(numpy_type)
    return np.array([[limits.min, limits.max]], dtype=numpy_type)


@pytest.fixture(scope="module")
def all_types(asker: Asker) -> dict[str, np.ndarray]:
    """The answer of a model that gives back one tensor of each type."""
    return asker.ask("types", **{name: sample(numpy_type) for name, (_, numpy_type) in ONNX_TYPES.items()})


@pytest.mark.parametrize("name", ONNX_TYPES)
def test_each_type_comes_back_unchanged(all_types: dict[str, np.ndarray], name: str) -> None:
    sent, received = sample(ONNX_TYPES[name][1]), all_types[f"{name}_back"]
    assert received.dtype == sent.dtype
    np.testing.assert_array_equal(received, sent)


def test_two_outputs_have_their_values_and_nan_and_infinity_pass(asker: Asker) -> None:
    x = np.array([[1, np.nan, np.inf], [-np.inf, 0, -2]], np.float32)
    answer = asker.ask("auto", x=x)
    np.testing.assert_array_equal(answer["y"], 2 * x + 1)
    np.testing.assert_array_equal(answer["z"], -x)


def test_only_the_outputs_asked_for_come_back(asker: Asker) -> None:
    assert asker.ask("auto", ["z"], x=np.ones((1, 3), np.float32)).keys() == {"z"}


def test_config_is_completed_from_the_file(onnx_server: Server) -> None:
    config = onnx_server.config("auto")
    described = [(entry["name"], entry["data_type"], entry["dims"]) for entry in config["input"] + config["output"]]
    assert described == [("x", "TYPE_FP32", [3]), ("y", "TYPE_FP32", [3]), ("z", "TYPE_FP32", [3])]
    assert (config["max_batch_size"], "dynamic_batching" in config) == (4, True)
    assert sum(group["count"] for group in config["instance_group"]) == 2


def test_a_model_without_batch_dimension_gets_max_batch_size_0(onnx_server: Server, asker: Asker) -> None:
    config = onnx_server.config("no_batch")
    assert (config["max_batch_size"], config["input"][0]["dims"], "dynamic_batching" in config) == (0, [2, 3], False)
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(asker.ask("no_batch", x=x)["y"], 2 * x + 1)


def test_one_number_per_element_of_the_batch_is_completed_with_a_reshape(onnx_server: Server, asker: Asker) -> None:
    entry = onnx_server.config("per_event")["input"][0]
    assert (entry["dims"], entry["reshape"]) == ([1], {"shape": []})
    np.testing.assert_array_equal(asker.ask("per_event", x=np.array([[1], [5]], np.float32))["y"], [[2], [6]])


def test_reshape_of_the_config_is_undone_on_the_way_back(asker: Asker) -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3, 1)
    np.testing.assert_array_equal(asker.ask("reshaped", x=x)["y"], 2 * x.reshape(2, 1, 3) + 1)


def test_optional_input_has_its_default_or_what_the_request_says(asker: Asker) -> None:
    x = np.array([1, 2, 3], np.float32)
    np.testing.assert_array_equal(asker.ask("optional", x=x)["y"], 3 * x)
    np.testing.assert_array_equal(asker.ask("optional", x=x, factor=np.array([5], np.float32))["y"], 5 * x)


def test_version_policy_and_file_name_of_the_config(onnx_server: Server, asker: Asker) -> None:
    versions = {state.version for state in onnx_server.models() if state.name == "versions" and state.state == "READY"}
    assert versions == {"1", "3"}
    assert asker.ask("versions", version="1", x=np.zeros(3, np.float32))["y"].tolist() == [1, 1, 1]
    with pytest.raises(InferenceServerException, match=r"version 2"):
        asker.ask("versions", version="2", x=np.zeros(3, np.float32))


def test_classification_with_a_label_file(asker: Asker) -> None:
    answer = asker.ask("tuned", ["y"], classes=2, x=np.array([[0.5, 2, 1]], np.float32))["y"]
    assert [value.decode() for value in answer.ravel()] == ["5.000000:1:gluon", "3.000000:2:top"]


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"x": np.zeros((1, 4), np.float32)}, r"\[-1,3\].*\[1,4\]"),
        ({"x": np.zeros((1, 3), np.float64)}, "FP64"),
        ({"w": np.zeros((1, 3), np.float32)}, "unexpected|w"),
        ({"x": np.zeros((5, 3), np.float32)}, "<= 4"),
    ],
)
def test_a_request_that_does_not_fit_is_refused_and_the_model_stays(asker: Asker, arrays: dict[str, Any], text: str) -> None:
    with pytest.raises(InferenceServerException, match=text):
        asker.ask("auto", **arrays)
    assert asker.ask("auto", x=np.zeros((1, 3), np.float32))["y"].tolist() == [[1, 1, 1]]


def test_of_a_long_refusal_the_end_is_there(asker: Asker) -> None:
    assert asker.ask("pairs", x=np.zeros(8, np.float32))["y"].shape == (2, 4)
    words = r"model 'pairs': ONNX Runtime: .*Reshape.* … .*Input shape:\{3\}, requested shape:\{2,4\}"
    with pytest.raises(InferenceServerException, match=words):
        asker.ask("pairs", x=np.zeros(3, np.float32))


def test_an_output_without_the_batch_dimension_is_said_so(asker: Asker) -> None:
    assert asker.ask("filter", x=np.ones((2, 3), np.float32))["y"].tolist() == [[1, 1, 1]] * 2
    with pytest.raises(InferenceServerException, match=r"output 'y' has shape \[1, 3\] for a batch of 2"):
        asker.ask("filter", x=np.array([[1, 1, 1], [-1, -1, -1]], np.float32))
