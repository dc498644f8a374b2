"""Labels as the server counts them, tensors without bytes over every way, and buffers that change while requests wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import awkward as ak
import numpy as np
import pytest

from helpers.client import Client
from helpers.server import Server, launch_server
from tests.unit.test_client_tensors import SHARING

ECHO = """import triton_python_backend_utils as pb_utils
class TritonPythonModel:
    def execute(self, requests):
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor(t.name() + "_back", t.as_numpy()) for t in r.inputs()])
            for r in requests
        ]
"""
# Label files in which a line's number and its class, or its text and the label, are easily confused.
LABEL_FILES = {
    "blank_first": b"\nb\nc\ng\n",
    "blank_last": b"b\nc\n\n\n",
    "blank_with_spaces": b"b\n   \n\t\ng",
    "windows": b"b\r\n\r\nlight\r\ng",
    "mark": b"\xef\xbb\xbfb\r\nc\nlight\ng\n",
    "padded": b" b\t\n  c  \nlight \n g",
    "too_few": b"b\nc",
    "too_many": b"b\nc\nlight\ng\nundef\npu\n",
    "not_utf8": b"b\xe9\nc\nlight\ng\n",
    "greek_and_colons": "Z→μμ\nH:bb\n1:2\n\u2028g\n".encode(),
    "form_feed": b"b\x0cc\nd\x1ce\nlight\ng\n",
    "empty": b"",
}
MODELS = {
    "hits": ("", {"x": "FP32 [ -1, 3 ]"}),
    "batched": ("max_batch_size: 4", {"x": "FP32 [ -1 ]", "y": "INT64 [ 2 ]"}),
    "two": ("", {"x": "FP32 [ -1, 3 ]", "y": "FP64 [ -1 ]"}),
    "words": ("", {"x": "STRING [ -1 ]", "y": "INT8 [ -1 ]"}),
    "cube": ("", {"x": "BOOL [ -1, -1, -1 ]"}),
}


def config(extra: str, tensors: dict[str, str], labels: str = "") -> str:
    lines = ['backend: "python"', "instance_group [ { kind: KIND_CPU } ]", extra]
    for name, text in tensors.items():
        dtype, dims = text.split(" ", 1)
        lines.append(f'input {{ name: "{name}" data_type: TYPE_{dtype} dims: {dims} }}')
        lines.append(f'output {{ name: "{name}_back" data_type: TYPE_{dtype} dims: {dims} {labels} }}')
    return "\n".join(lines)


@pytest.fixture(scope="module")
def echoes(tmp_path_factory: pytest.TempPathFactory, free_base_port: Callable[[], int]) -> Iterator[Server]:
    """Models that give back what they get."""
    folder = tmp_path_factory.mktemp("echoes")
    texts = {name: config(*model) for name, model in MODELS.items()}
    for name in LABEL_FILES:
        texts[name] = config("max_batch_size: 2", {"x": "FP32 [ 4 ]"}, 'label_filename: "labels.txt"')
    for name, text in texts.items():
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "1" / "model.py").write_text(ECHO)
        (folder / name / "config.pbtxt").write_text(text)
        if name in LABEL_FILES:
            (folder / name / "labels.txt").write_bytes(LABEL_FILES[name])
    with launch_server(folder, base_port=free_base_port()) as server:
        yield server


@pytest.mark.parametrize("name", LABEL_FILES)
def test_class_i_is_what_the_server_calls_class_i(echoes: Server, name: str) -> None:
    with Client(echoes) as client, Client(echoes.grpc_url) as remote, Client(echoes.http_url, "http") as over_http:
        ranked = client.infer(name, x=[[4.0, 3.0, 2.0, 1.0]], classes=4)["x_back"][0]
        said = [entry.label or str(entry.index) for entry in ranked]
        assert client.labels(name) == remote.labels(name) == over_http.labels(name) == said
        assert all(label == label.strip() and "\ufeff" not in label for label in said)
        assert len(said) == 4


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
@pytest.mark.parametrize("before", [False, True], ids=["new", "used before"])
def test_tensors_without_bytes_travel_over_every_way(echoes: Server, protocol: str, before: bool) -> None:
    dtypes = {"FP32": np.float32, "FP64": np.float64, "INT64": np.int64, "INT8": np.int8, "BOOL": bool, "STRING": object}
    with Client(echoes, protocol) as client:
        for model, shapes in SHAPES:
            if before:
                client.infer("hits", x=np.ones((5, 3), np.float32), shared_memory=True)
            inputs: dict[str, Any] = {
                name: np.full(shape, 1 if "STRING" not in MODELS[model][1][name] else b"jet", dtypes[MODELS[model][1][name].split()[0]])
                for name, shape in shapes.items()
            }
            for shared in (False, True):
                answer = client.infer(model, inputs, shared_memory=shared)
                for name, array in inputs.items():
                    assert answer[f"{name}_back"].shape == array.shape, (model, shapes, shared)
                    np.testing.assert_array_equal(answer[f"{name}_back"], array)
            assert client.infer_async(model, inputs).result()[f"{name}_back"].shape == array.shape


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
        futures = [client.infer_async("batched", inputs) for inputs in one_after_the_other()]
        assert [float(future.result()["x_back"].flat[0]) for future in futures] == numbers
        futures = [client.infer_async("batched", **inputs) for inputs in one_after_the_other()]
        assert [float(future.result()["x_back"].flat[0]) for future in futures] == numbers
        assert [float(answer["x_back"].flat[0]) for answer in client.infer_many("batched", one_after_the_other())] == numbers
