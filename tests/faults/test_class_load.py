"""A whole class at one server: forty students at once, good and bad requests mixed, and not one answer lost or wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from helpers import paths
from helpers.server import Server, launch_server
from tests.support import MODELS_FOR_TESTS
from tests.support.class_load_student import KINDS
from tests.support.processes import PATIENCE_S

STUDENTS, PROCESSES = 40, 4
# Requests of each student. A whole thousand took 30 s, and the suite makes do with a quarter; the whole one:
# COURSE_CLASS_REQUESTS=1000 pytest tests/faults/test_class_load.py
REQUESTS = int(os.environ.get("COURSE_CLASS_REQUESTS", "250"))
TIMEOUT_S = PATIENCE_S + 5 * REQUESTS
JETS = 6
# Runs in the server's environment, which has ONNX Runtime: what the network says without a server.
_EXPECTED = """
import sys
import numpy as np
import onnxruntime
inputs, outputs = dict(np.load(sys.argv[2])), {}
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
for number in range(int(inputs["count"])):
    own = {name.partition(":")[2]: array for name, array in inputs.items() if name.startswith(f"{number}:")}
    outputs[f"{number}:softmax"] = session.run(["softmax"], own)[0]
np.savez(sys.argv[2], **inputs, **outputs)
"""


@pytest.fixture(scope="module")
def jets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up jets of several sizes, and what the network makes of them in a process of its own."""
    path, numbers = tmp_path_factory.mktemp("jets") / "jets.npz", np.random.default_rng(1)
    arrays: dict[str, np.ndarray] = {"count": np.array(JETS)}
    for jet in range(JETS):
        batch, pf, sv = 1 + jet % 3, (20, 50)[jet % 2], (2, 4)[jet % 2]
        for name, features, length in (("pf_points", 2, pf), ("pf_features", 20, pf), ("sv_points", 2, sv), ("sv_features", 11, sv)):
            arrays[f"{jet}:{name}"] = numbers.normal(size=(batch, features, length)).astype(np.float32)
        arrays |= {f"{jet}:pf_mask": np.ones((batch, 1, pf), np.float32), f"{jet}:sv_mask": np.ones((batch, 1, sv), np.float32)}
    np.savez(path, **arrays)
    model = paths.models_dir() / "particlenet_AK4" / "1" / "model.onnx"
    subprocess.run([paths.server_env() / "bin" / "python", "-I", "-c", _EXPECTED, model, path], check=True, capture_output=True)
    return path


@pytest.fixture(scope="module")
def class_server(tmp_path_factory: pytest.TempPathFactory, free_base_port: Callable[[], int]) -> Iterator[Server]:
    repository = tmp_path_factory.mktemp("class") / "models"
    repository.mkdir()
    for folder in ("add_sub", "particlenet_AK4"):
        (repository / folder).symlink_to(paths.models_dir() / folder)
    for folder in ("double", "slow"):
        (repository / folder).symlink_to(MODELS_FOR_TESTS / folder)
    with launch_server(repository, listen="127.0.0.2", base_port=free_base_port(), name="whole-class") as server:
        yield server


def _memory_mb(server: Server) -> float:
    """Memory of the server and of its models' processes; what the processes share counts once for each."""
    process = psutil.Process(server.pid)
    return sum(one.memory_info().rss for one in (process, *process.children(recursive=True))) / 1e6


def _counts(server: Server) -> dict[str, tuple[int, int, int]]:
    """Requests answered, requests failed, and inferences of each model, by the server's own counters."""
    found = {}
    for state in server.models():
        counters = server.statistics(state.name)
        own = counters["inference_stats"]
        found[state.name] = own["success"]["count"], own["fail"]["count"], counters["inference_count"]
    return found


@pytest.mark.nightly
def test_a_whole_class_at_once(class_server: Server, jets: Path) -> None:
    before, sent = _counts(class_server), STUDENTS * REQUESTS
    wanted = {"url": f"127.0.0.2:{class_server.http.port}", "token": class_server.token, "requests": REQUESTS, "jets": str(jets)}
    command = [sys.executable, "-m", "tests.support.class_load_student"]
    parts = [
        subprocess.Popen(command, cwd=paths.root(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(PROCESSES)
    ]
    start = time.monotonic()
    for number, part in enumerate(parts):
        assert part.stdin is not None
        json.dump({**wanted, "students": list(range(number, STUDENTS, PROCESSES))}, part.stdin)
        part.stdin.close()
        part.stdin = None
    third = None
    while any(part.poll() is None for part in parts):
        assert time.monotonic() - start < TIMEOUT_S, "the class is not done in time"
        answered = sum(success - before[name][0] for name, (success, *_) in _counts(class_server).items())
        if third is None and answered >= sent / 3:
            third = _memory_mb(class_server)
        time.sleep(0.2)
    seconds, end = time.monotonic() - start, _memory_mb(class_server)
    reports = []
    for part in parts:
        out, errors = part.communicate()
        assert part.returncode == 0, errors
        reports.append(json.loads(out))
    wrong = [text for report in reports for text in report["wrong"]]
    done = sum((Counter(report["done"]) for report in reports), Counter())
    requests = sum((Counter(report["requests"]) for report in reports), Counter())
    memory = f"memory {third or 0:.0f} MB at a third, {end:.0f} MB at the end"
    print(f"{sent} requests of {STUDENTS} students in {seconds:.1f} s; {memory}; {dict(done)}")
    assert not wrong, f"{len(wrong)} of {sent}: {wrong[:5]}"
    assert done.total() == sent, "none was lost"
    assert set(done) == set(KINDS)
    change = {name: tuple(b - a for a, b in zip(before[name], after)) for name, after in _counts(class_server).items()}
    # The server counted each request once, those that it refused or failed too; a client's own refusals never came to it.
    for model in ("add_sub", "double", "particlenet_AK4"):
        assert change[model][0] == requests[model], model
    # Triton 2.51 counts a request that a Python model answers with an error among the successes.
    assert sum(change["slow"][:2]) == done["failing"]
    assert change["double"][1] == change["particlenet_AK4"][1] == 0
    assert third is not None
    assert end < 1.1 * third + 20, "the server's memory does not grow with the requests"
    assert class_server.state() == "running"
    assert class_server.is_ready()
    assert {state.name for state in class_server.models() if state.state == "READY"} == set(before)
