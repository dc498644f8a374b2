"""A server that is stopped: what is under way is answered, and its models end cleanly."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from helpers import Client
from helpers.server import launch_server
from tests.support.processes import PATIENCE_S, wait_until

# Seconds that an instance of this file's model needs to say goodbye, and bytes of an answer.
_GOODBYE_S, _SIZE = 0.5, 40_000_000

_CONFIG = """backend: "python"
input [ { name: "SECONDS" data_type: TYPE_FP32 dims: [ 1 ] } ]
output [ { name: "ANSWER" data_type: TYPE_UINT8 dims: [ -1 ] } ]
instance_group [ { kind: KIND_CPU count: 2 } ]
"""
_MODEL = f"""
import os, time
import numpy as np
import triton_python_backend_utils as pb_utils
class TritonPythonModel:
    def execute(self, requests):
        open(FILE, "a").write("asked\\n")
        time.sleep(float(pb_utils.get_input_tensor_by_name(requests[0], "SECONDS").as_numpy()[0]))
        return [pb_utils.InferenceResponse([pb_utils.Tensor("ANSWER", np.ones({_SIZE}, np.uint8))]) for _ in requests]
    def finalize(self):
        time.sleep({_GOODBYE_S})
        open(FILE, "a").write("goodbye\\n")
"""


@pytest.fixture
def stopping(tmp_path: Path, free_base_port, monkeypatch):
    """A server with two instances of a model that takes its time and writes a line when it is asked and when it is unloaded."""
    # So that on a busy machine no time-out ends it first.
    monkeypatch.setattr("helpers.server.lease.STOP_TIMEOUT_S", PATIENCE_S)
    monkeypatch.setattr("helpers.server.server.STOP_TIMEOUT_S", PATIENCE_S)
    patient = [f"--exit-timeout-secs={PATIENCE_S:.0f}"]
    folder = tmp_path / "models" / "slow_to_go"
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(_CONFIG)
    (folder / "1" / "model.py").write_text(f"FILE = {str(tmp_path / 'said')!r}\n{_MODEL}")
    with launch_server(tmp_path / "models", base_port=free_base_port(), name=f"stop-{tmp_path.name}", extra_arguments=patient) as server:
        yield server


@pytest.mark.slow
def test_what_is_under_way_is_answered_and_each_instance_says_goodbye(stopping, tmp_path):
    said = tmp_path / "said"
    with Client(stopping) as client:
        under_way = ThreadPoolExecutor().submit(client.infer, "slow_to_go", SECONDS=np.array([1.0], np.float32))
        wait_until(lambda: said.exists() and said.read_text() == "asked\n")
        stopping.stop()
        assert under_way.result(PATIENCE_S)["ANSWER"].size == _SIZE
    assert said.read_text().splitlines() == ["asked", "goodbye", "goodbye"]
    assert "Exit timeout expired" not in stopping.log(lines=0)
