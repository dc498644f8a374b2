"""The checkers of notebook 11 with right, wrong and untouched answers: with the course's network and with one that is not ours."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from helpers import checkout, jets, paths
from helpers.client import Client
from helpers.course import ____
from helpers.course.judge import Kind
from helpers.errors import ModelError
from helpers.measuring.experiments import Experiments
from helpers.server import Server, launch_server
from tests.served.backends import onnx_models
from tests.support.judging import is_judged as _is
from tests.support.measured_rows import row

MODEL, OTHER = "jet_transformer", "affine"
OURS = paths.root() / "notebooks" / "data" / "jet_transformer"
ONNX = 'backend: "onnxruntime"'
DONE, FAILED = (SimpleNamespace(returncode=status, stderr="Traceback\nValueError: no such axis\n") for status in (0, 1))
NAMES = {
    "batch 1": (200, 5, 9000, 300),
    "batch 4": (390, 8, 11000, 300),
    "batch 16": (600, 8, 30000, 300),
    "2 instances": (500, 8, 9500, 300),
}


@pytest.fixture(scope="module")
def server(work: Path, free_base_port: Callable[[], int]) -> Iterator[Server]:
    models = checkout("add_sub")
    shutil.copytree(OURS, models / MODEL)
    (models / MODEL / "1").mkdir()
    shutil.copy(OURS / "exported.onnx", models / MODEL / "1" / "model.onnx")
    onnx_models.affine(models / OTHER / "1" / "model.onnx")
    for model in (MODEL, OTHER):
        (models / model / "config.pbtxt").write_text(ONNX)
    with launch_server("work/models", load=[MODEL, OTHER], base_port=free_base_port(), name="own-network-checkers") as running:
        yield running


@pytest.fixture
def table() -> Experiments:
    made = Experiments(None, OTHER, batch=1, concurrency=4, budget=2)
    for name, figures in NAMES.items():
        made._add(name, row(figures, model=OTHER), executed_batch=1.0)
    made._rows["2 instances"]["over"] = "batch 4"
    return made


def _write(server: Server, model: str, text: str) -> str:
    assert server.repository is not None
    (server.repository / model / "config.pbtxt").write_text(text)
    return text


def test_export(server: Server) -> None:
    assert server.repository is not None
    _is("11.1", Kind.CORRECT, "`sv_mask` [-1, 1, -1]", server, MODEL, DONE, "axes = …")
    _is("11.1", Kind.NOT_ATTEMPTED, "blank", server, MODEL, DONE, "sv_axes = ____")
    _is("11.1", Kind.NOT_YET, "Its last line: `ValueError: no such axis`", server, MODEL, FAILED, "axes = …")
    without = SimpleNamespace(returncode=1, stderr="ModuleNotFoundError: No module named 'torch'\n")
    _is("11.1", Kind.CANNOT_TELL, "make setup TORCH=yes", server, MODEL, without, "axes = …")
    # Of a file that is not ours it does not matter what the script did.
    _is("11.1", Kind.CORRECT, "`x` [-1, 3]", server, OTHER, FAILED, "axes = …")
    file = server.repository / OTHER / "1" / "model.onnx"
    good = file.read_bytes()
    try:
        onnx_models.affine(file, (64, 3))
        server.reload(OTHER, config=ONNX)
        _is("11.1", Kind.NOT_YET, "`x` has the shape [64, 3]: axis 0 is the same for ever", server, OTHER, DONE, "axes = …")
        tensors = [onnx_models.tensor(name, ("jets", 11, 4)) for name in ("sv_features", "y")]
        onnx_models.save(file, [onnx.helper.make_node("Neg", ["sv_features"], ["y"])], tensors[:1], tensors[1:])
        server.reload(OTHER, config=ONNX)
        _is("11.1", Kind.NOT_YET, "[-1, 11, 4]: axis 2 is the same for ever", server, OTHER, DONE, "axes = …")
    finally:
        file.write_bytes(good)


def test_config(server: Server) -> None:
    tensors = [f'{{ name: "{name}" data_type: TYPE_FP32 dims: [ 3 ] }}' for name in "xyz"]
    right = f"{ONNX} max_batch_size: 64 input [ {tensors[0]} ] output [ {tensors[1]}, {tensors[2]} ]"
    server.reload(OTHER, config=ONNX)
    _is("11.2", Kind.NOT_ATTEMPTED, "blank", server, OTHER, "max_batch_size: ____")
    _is("11.2", Kind.CANNOT_TELL, "line 1, column", server, OTHER, "max_batch_size 64 64")
    _is("11.2", Kind.NOT_YET, "has no 'z', which the model has", server, OTHER, right.replace(f", {tensors[2]}", ""))
    _is("11.2", Kind.NOT_YET, "says 64 in a request, and the server still 4. Reload", server, OTHER, right)
    server.reload(OTHER, config=right.replace("64", "32"))
    _is("11.2", Kind.NOT_YET, "`max_batch_size` is 32; up to 64", server, OTHER, right.replace("64", "32"))
    with pytest.raises(ModelError, match=r"Write .*dims: \[3\]"):
        server.reload(OTHER, config=right.replace("[ 3 ]", "[ 4 ]", 1))
    _is("11.2", Kind.NOT_YET, "refused your config", server, OTHER, right)
    server.reload(OTHER, config=right)
    _is("11.2", Kind.CORRECT, "answered 64 in one request", server, OTHER, right)


def test_agreement(server: Server) -> None:
    with Client(server) as client:
        sample = jets.read("ak4")[:4]
        inputs = jets.Tagger(client, MODEL).inputs(sample)
        served = {"softmax": np.array(client.infer(MODEL, inputs)["softmax"])}
    rounded = {"softmax": served["softmax"] * (1 + 1e-6)}
    _is("11.3", Kind.CORRECT, "7.2e-05 allowed", server, MODEL, inputs, rounded, 1200 * 2**-24)
    _is("11.3", Kind.NOT_ATTEMPTED, "blank", server, MODEL, inputs, rounded, ____)
    _is("11.3", Kind.NOT_YET, "How many additions", server, MODEL, inputs, rounded, 2**-24)
    _is("11.3", Kind.NOT_YET, "16 bits would pass", server, MODEL, inputs, rounded, 1e-3)
    _is("11.3", Kind.NOT_YET, "should be one number", server, MODEL, inputs, rounded, "small")
    _is("11.3", Kind.NOT_YET, "That is no rounding", server, MODEL, inputs, {"softmax": served["softmax"][::-1]}, 1e-4)
    _is("11.3", Kind.NOT_YET, "That is no rounding", server, MODEL, inputs, {"softmax": served["softmax"] * np.nan}, 1e-4)
    _is("11.3", Kind.CANNOT_TELL, "stumbled", server, MODEL, inputs, {}, 1e-4)


def test_batch(table: Experiments) -> None:
    _is("11.4", Kind.CORRECT, "within 18.0 ms", table, "2 instances")
    _is("11.4", Kind.NOT_ATTEMPTED, "blank", table, ____)
    _is("11.4", Kind.NOT_YET, "`2 instances` is inside the budget, too, and faster", table, "batch 4")
    _is("11.4", Kind.NOT_YET, "over the budget of 18.0 ms", table, "batch 16")
    _is("11.4", Kind.CANNOT_TELL, "There is no experiment 'batch 5'", table, "batch 5")
    _is("11.4", Kind.CANNOT_TELL, "needs `table`", [1], "batch 4")
    table.rows[3]["latency_high_us"] = 20000.0
    _is("11.4", Kind.CANNOT_TELL, "may be over 18.0 ms or not", table, "2 instances")


def test_instances(server: Server, table: Experiments) -> None:
    one, two = (f"{ONNX} instance_group {{ count: {count} kind: KIND_CPU }}" for count in (1, 2))
    server.reload(OTHER, config=one)
    _is("11.5", Kind.NOT_ATTEMPTED, "blank", server, OTHER, table, ____)
    _is("11.5", Kind.NOT_YET, "`count` is 1. Faster", server, OTHER, table, 1)
    _is("11.5", Kind.NOT_YET, "the server runs 1. Write it into", server, OTHER, table, 2)
    server.reload(OTHER, config=two)
    _is("11.5", Kind.CORRECT, "The server runs 2. Faster", server, OTHER, table, 2)
    for spread, answer in ((200.0, "Cannot tell"), (8.0, "Faster")):
        table.rows[3] |= {"throughput_spread_infer_per_s": spread, "latency_low_us": 9000.0, "latency_high_us": 9900.0}
        if answer == "Faster":  # and over the budget
            table.rows[3] |= {"latency_low_us": 19000.0, "latency_high_us": 21000.0}
        _is("11.5", Kind.NOT_YET, f"`count` is 2. {answer}", server, OTHER, table, 2)
        _is("11.5", Kind.NOT_YET, "the server runs 2. Write it into", server, OTHER, table, 1)
    # Its interval reaches over the budget: either will do, if the server runs it.
    table.rows[3] |= {"latency_low_us": 17000.0}
    _is("11.5", Kind.CORRECT, "The server runs 2", server, OTHER, table, 2)


def test_card(server: Server, table: Experiments) -> None:
    """What the notebook's cell writes is looked at where the notebook runs; here what the check asks of it."""
    assert server.repository is not None
    folder = server.repository / OTHER
    text = _write(server, OTHER, f"{ONNX} instance_group {{ count: 1 kind: KIND_CPU }}")
    server.reload(OTHER)
    purpose, limits = "Doubles three numbers and adds one.", "Not for a number that is too large to double."
    digest = hashlib.sha256((folder / "1" / "model.onnx").read_bytes()).hexdigest()
    (folder / "MODEL_CARD.md").write_text(f"{purpose} {limits} `{digest}`\n{text}")
    _is("11.6", Kind.CORRECT, "that are there now", server, OTHER, purpose, limits)
    _is("11.6", Kind.NOT_ATTEMPTED, "blank", server, OTHER, ____, limits)
    _is("11.6", Kind.NOT_YET, "`limits` is `none`. Say it in a sentence", server, OTHER, purpose, "none")
    other = "Not for numbers of more than 16 bits."
    _is("11.6", Kind.NOT_YET, "does not have the limits as it is now", server, OTHER, purpose, other)
    _write(server, OTHER, text.replace("1", "2"))
    _is("11.6", Kind.NOT_YET, "does not have the config as it is now", server, OTHER, purpose, limits)
    onnx_models.affine(folder / "1" / "model.onnx", ("n", 4))
    _is("11.6", Kind.NOT_YET, "does not have the SHA-256 of the file", server, OTHER, purpose, limits)
    (folder / "MODEL_CARD.md").unlink()
    _is("11.6", Kind.CANNOT_TELL, "stumbled over this answer (FileNotFoundError", server, OTHER, purpose, limits)
