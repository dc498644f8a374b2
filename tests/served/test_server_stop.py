"""A server that is stopped: what is under way ends first, and then nobody waits for Triton's own looks at its clock."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from helpers import Client
from helpers.server import launch_server
from helpers.server.quiet import Quiet
from tests.support.processes import PATIENCE_S, session, wait_until

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
def stopping(tmp_path: Path, free_base_port):
    """A server with two instances of a model that takes its time and writes a line when it is asked and when it is unloaded."""
    folder = tmp_path / "models" / "slow_to_go"
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(_CONFIG)
    (folder / "1" / "model.py").write_text(f"FILE = {str(tmp_path / 'said')!r}\n{_MODEL}")
    with launch_server(tmp_path / "models", base_port=free_base_port(), name=f"stop-{tmp_path.name}") as server:
        yield server


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_what_is_under_way_is_answered_and_each_instance_says_goodbye(stopping, protocol, tmp_path):
    answers: list[np.ndarray] = []

    def ask() -> None:
        with Client(stopping, protocol=protocol) as client:
            answers.append(client.infer("slow_to_go", {"SECONDS": np.array([1.0], np.float32)})["ANSWER"])

    asking = threading.Thread(target=ask)
    asking.start()
    said = tmp_path / "said"
    wait_until(lambda: said.exists() and said.read_text() == "asked\n")
    stopping.stop()
    asking.join(PATIENCE_S)
    assert [answer.size for answer in answers] == [_SIZE]
    assert said.read_text().splitlines() == ["asked", "goodbye", "goodbye"]


@pytest.mark.slow
def test_it_ends_when_its_models_have(stopping):
    """Triton itself would look a second later, and then wait for its metrics."""
    stopping.stop()
    assert "All models are stopped, unloading models" in stopping.log(lines=0)
    assert "Found 0 live models" not in stopping.log(lines=0)


def _child(code: str, *, pass_fds: tuple[int, ...] = ()) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", code], start_new_session=True, pass_fds=pass_fds)


def test_a_process_of_a_model_is_waited_for():
    leader = _child("import subprocess, sys, time; subprocess.run([sys.executable, '-c', 'import time; time.sleep(90)']); time.sleep(90)")
    try:
        wait_until(lambda: len(session(leader.pid)) == 2)
        quiet = Quiet(leader.pid, [1])
        assert not any(_looks(quiet, 0.8))
        child = next(pid for pid in session(leader.pid) if pid != leader.pid)
        subprocess.run(["kill", str(child)], check=True)
        wait_until(quiet.lasts)
    finally:
        _end(leader)


def test_a_server_at_work_is_waited_for():
    leader = _child("import time\nend = time.monotonic() + 2\nwhile time.monotonic() < end: pass\ntime.sleep(90)")
    try:
        time.sleep(0.5)
        quiet = Quiet(leader.pid, [1])
        assert not any(_looks(quiet, 0.8))
        wait_until(quiet.lasts)
    finally:
        _end(leader)


def test_a_client_that_reads_slowly_is_waited_for():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        code = (
            f"import socket, time\nconnection, _ = socket.socket(fileno={listener.fileno()}).accept()\n"
            f"connection.sendall(bytes({_SIZE})); time.sleep(90)"
        )
        leader = _child(code, pass_fds=(listener.fileno(),))
        try:
            with socket.create_connection(("127.0.0.1", port)) as client:
                assert client.recv(1)
                quiet = Quiet(leader.pid, [port])
                assert not any(_looks(quiet, 0.8))
                left = _SIZE - 1
                while left:
                    left -= len(client.recv(1_000_000))
                wait_until(quiet.lasts)
        finally:
            _end(leader)


def _looks(quiet: Quiet, seconds: float) -> list[bool]:
    """What is said within these seconds, as often as the supervisor asks."""
    end, said = time.monotonic() + seconds, []
    while time.monotonic() < end:
        said.append(quiet.lasts())
        time.sleep(0.1)
    return said


def _end(leader: subprocess.Popen) -> None:
    for pid in session(leader.pid):
        subprocess.run(["kill", "-9", str(pid)], check=False)
    leader.wait()
