"""Tensors without bytes over every way, and buffers that change while requests wait."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import awkward as ak
import numpy as np
import pandas as pd
import pytest

from helpers.client import Client
from helpers.server import Server, launch_server

ECHO = """import triton_python_backend_utils as pb_utils
class TritonPythonModel:
    def execute(self, requests):
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor(t.name() + "_back", t.as_numpy()) for t in r.inputs()])
            for r in requests
        ]
"""


class Sharing:
    """Stands for a tensor of another library on the CPU: shares its memory with what it gives, and heeds no wish for a copy."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        return self.array


class Interface:
    """Stands for a tensor of a library that knows NumPy's older protocol only."""

    def __init__(self, array: np.ndarray) -> None:
        self.__array_interface__ = array.__array_interface__


SHARING = {
    "array": lambda buffer: buffer,
    "view": lambda buffer: buffer[::-1],
    "another library's": Sharing,
    "interface": Interface,
    "memoryview": memoryview,
    "list of arrays": lambda buffer: [buffer, buffer],
    "tuple of tensors": lambda buffer: (Sharing(buffer), Sharing(buffer)),
    "list of memoryviews": lambda buffer: [memoryview(buffer)],
    "nested": lambda buffer: [[buffer], [buffer]],
    "awkward": lambda buffer: ak.from_numpy(buffer),
    "pandas": lambda buffer: pd.Series(buffer, copy=False),
    "pandas frame": lambda buffer: pd.DataFrame({"a": buffer}, copy=False),
    "ctypes": lambda buffer: (ctypes.c_float * 4).from_buffer(buffer),
    "masked": lambda buffer: np.ma.masked_array(buffer, copy=False),
    "record's field": lambda buffer: buffer.view([("x", np.float32)])["x"],
}
MODELS = {
    "hits": ("", {"x": "FP32 [ -1, 3 ]"}),
    "batched": ("max_batch_size: 4", {"x": "FP32 [ -1 ]", "y": "INT64 [ 2 ]"}),
    "two": ("", {"x": "FP32 [ -1, 3 ]", "y": "FP64 [ -1 ]"}),
    "words": ("", {"x": "STRING [ -1 ]", "y": "INT8 [ -1 ]"}),
    "cube": ("", {"x": "BOOL [ -1, -1, -1 ]"}),
}


def config(extra: str, tensors: dict[str, str]) -> str:
    lines = ['backend: "python"', "instance_group [ { kind: KIND_CPU } ]", extra]
    for name, text in tensors.items():
        dtype, dims = text.split(" ", 1)
        lines.append(f'input {{ name: "{name}" data_type: TYPE_{dtype} dims: {dims} }}')
        lines.append(f'output {{ name: "{name}_back" data_type: TYPE_{dtype} dims: {dims} }}')
    return "\n".join(lines)


@pytest.fixture(scope="module")
def echoes(tmp_path_factory: pytest.TempPathFactory, free_base_port: Callable[[], int]) -> Iterator[Server]:
    """Models that give back what they get."""
    folder = tmp_path_factory.mktemp("echoes")
    texts = {name: config(*model) for name, model in MODELS.items()}
    for name, text in texts.items():
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "1" / "model.py").write_text(ECHO)
        (folder / name / "config.pbtxt").write_text(text)
    with launch_server(folder, base_port=free_base_port()) as server:
        yield server


SHAPES: list[tuple[str, dict[str, tuple[int, ...]]]] = [
    ("hits", {"x": (0, 3)}),
    ("batched", {"x": (2, 0), "y": (2, 2)}),
    ("two", {"x": (0, 3), "y": (5,)}),
    ("two", {"x": (5, 3), "y": (0,)}),
    ("two", {"x": (0, 3), "y": (0,)}),
    ("words", {"x": (0,), "y": (0,)}),
    ("words", {"x": (2,), "y": (0,)}),
    ("cube", {"x": (4, 0, 2)}),
]


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_tensors_without_bytes_travel_over_both_protocols(echoes: Server, protocol: str) -> None:
    dtypes = {"FP32": np.float32, "FP64": np.float64, "INT64": np.int64, "INT8": np.int8, "BOOL": bool, "STRING": object}
    with Client(echoes, protocol) as client:
        for model, shapes in SHAPES:
            inputs: dict[str, Any] = {
                name: np.full(shape, 1 if "STRING" not in MODELS[model][1][name] else b"jet", dtypes[MODELS[model][1][name].split()[0]])
                for name, shape in shapes.items()
            }
            answer = client.infer(model, inputs)
            for name, array in inputs.items():
                assert answer[f"{name}_back"].shape == array.shape, (model, shapes)
                np.testing.assert_array_equal(answer[f"{name}_back"], array)


@pytest.mark.parametrize("form", sorted(set(SHARING) - {"array", "nested", "pandas frame", "list of arrays", "tuple of tensors"}))
def test_requests_that_wait_have_the_numbers_of_their_time(echoes: Server, form: str) -> None:
    buffer, numbers = np.zeros(4, np.float32), [float(number) for number in range(24)]

    def value() -> Any:
        made = SHARING[form](buffer)
        return ak.from_numpy(np.asarray(buffer).reshape(1, 4)) if form == "awkward" else made if np.ndim(made) == 2 else [made]

    def one_after_the_other() -> Iterator[dict[str, Any]]:
        for number in numbers:
            buffer[:] = number
            yield {"x": value(), "y": [[0, 0]]}

    with Client(echoes) as client:
        assert [float(answer["x_back"].flat[0]) for answer in client.infer_many("batched", one_after_the_other())] == numbers
