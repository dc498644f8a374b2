"""Model files that are damaged on the way or on the disk: said by name, never served, and no harm to what serves."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import numpy as np
import pytest

from helpers.errors import ModelError
from helpers.server import Server
from tests.served.backends import onnx_models
from tests.served.backends.asking import Asker
from tests.served.backends.repositories import ONE_CPU, configure

pytestmark = pytest.mark.slow

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut short": lambda good: good[: len(good) // 2],
    "garbage": lambda good: bytes(np.random.default_rng(1).integers(0, 256, len(good), dtype=np.uint8)),
    "empty": lambda good: b"",
}


def _ready(server: Server) -> set[str]:
    return {state.name for state in server.models() if state.state == "READY"}


def _check(server: Server, source: str, file: str, inputs: dict[str, np.ndarray], damages: list[str]) -> None:
    """Damage the file of a copy of this model, once under a copy that serves, and once before it is loaded."""
    assert server.repository is not None
    folder, others, asker = server.repository / "bad_damaged", _ready(server), Asker(server)
    shutil.copytree(server.repository / source, folder)
    path = folder / "1" / file
    good = path.read_bytes()
    try:
        server.load("bad_damaged")
        expected = asker.ask("bad_damaged", **inputs)
        for damage in damages:
            path.write_bytes(DAMAGES[damage](good))
            with pytest.raises(
                ModelError, match=rf"(?s)refused to load 'bad_damaged'.*bad_damaged/1/{file}.*What was loaded before keeps serving"
            ):
                server.reload("bad_damaged")
            answer = asker.ask("bad_damaged", **inputs)
            for name, array in expected.items():
                np.testing.assert_array_equal(answer[name], array)
            assert _ready(server) == others | {"bad_damaged"}
        server.unload("bad_damaged")
        with pytest.raises(ModelError, match=f"bad_damaged/1/{file}"):
            server.load("bad_damaged")
        (state,) = [state for state in server.models() if state.name == "bad_damaged"]
        assert state.state == "UNAVAILABLE"
        assert f"bad_damaged/1/{file}" in state.reason
        assert _ready(server) == others
        path.write_bytes(good)
        server.reload("bad_damaged")
        assert asker.ask("bad_damaged", **inputs).keys() == expected.keys()
    finally:
        server.unload("bad_damaged")
        shutil.rmtree(folder)


def test_onnx(onnx_server: Server) -> None:
    _check(onnx_server, "no_batch", "model.onnx", {"x": np.ones((2, 3), np.float32)}, ["cut short", "empty", "garbage"])


@pytest.mark.nightly
def test_two_hundred_megabytes(onnx_server: Server) -> None:
    """A large file is no mistake: it is loaded, beside all others, and gives its memory back."""
    assert onnx_server.repository is not None
    folder, others, rows = onnx_server.repository / "bad_large", _ready(onnx_server), 25_000_000
    try:
        onnx_models.table(folder / "1/model.onnx", rows)
        assert (folder / "1/model.onnx").stat().st_size > 200e6
        configure(folder, 'backend: "onnxruntime"', "max_batch_size: 8", ONE_CPU)
        onnx_server.load("bad_large")
        assert Asker(onnx_server).ask("bad_large", i=np.array([[rows - 1]]))["y"].tolist() == [[2.0 * rows, 2.0 * rows]]
        assert _ready(onnx_server) == others | {"bad_large"}
    finally:
        onnx_server.unload("bad_large")
        shutil.rmtree(folder)


@pytest.mark.nightly
def test_torchscript(torch_server: Server) -> None:
    _check(torch_server, "spread", "model.pt", {"x__0": np.zeros((1, 4), np.float32)}, ["garbage"])
