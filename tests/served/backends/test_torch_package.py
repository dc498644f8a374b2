"""The backend ``pytorch`` with networks that AOTInductor compiled ahead of time."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from helpers import paths
from helpers.server import ModelWarning, Server, launch_server
from tests.served.backends.asking import Asker
from tests.served.backends.repositories import ONE_CPU, configure, tensors
from tests.served.backends.test_onnx_loading import reason
from tests.support.logs import logged

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(shutil.which("g++") is None, reason="AOTInductor needs g++ to compile: sudo apt-get install g++"),
]

BACKEND, BATCH = 'backend: "pytorch"', "max_batch_size: 8"
BY_NUMBER = [
    tensors("input", INPUT__1="FP32 [2]", INPUT__2="FP32 [1]", INPUT__0="FP32 [2]"),
    tensors("output", OUTPUT__1="FP32 [2]", OUTPUT__0="FP32 [2]"),
]
ONE_TENSOR = [tensors("input", INPUT__0="FP32 [2]"), tensors("output", OUTPUT__0="FP32 [2]")]
# What must not load: the file, the config, and what the reason says.
REFUSED: dict[str, tuple[str, list[str], list[str]]] = {
    "bad_processor": ("other_processor", BY_NUMBER, ["compiled for processors with", "avx9000, which this one does not have", "ONNX"]),
    "bad_device": ("other_device", BY_NUMBER, ["compiled for 'cuda', and this instance runs on the CPU"]),
    "bad_exported": ("exported", ONE_TENSOR, ["holds no compiled network", "aoti_compile_and_package()"]),
    "bad_cut": ("cut", BY_NUMBER, ["is damaged, or holds no compiled network"]),
    "bad_name": (
        "scaled",
        [tensors("input", a="FP32 [2]", b="FP32 [2]", scale="FP32 [1]"), BY_NUMBER[1]],
        ["the package's inputs are called INPUT__0, INPUT__1, INPUT__2 in config.pbtxt, which has a, b, scale"],
    ),
    "bad_count": (
        "scaled",
        [tensors("input", INPUT__0="FP32 [2]", INPUT__1="FP32 [2]"), BY_NUMBER[1]],
        ["inputs are called INPUT__0, INPUT__1, INPUT__2", "which has INPUT__0, INPUT__1"],
    ),
}
A, B, SCALE = np.array([[7, 5]], np.float32), np.array([[2, 3]], np.float32), np.array([[10]], np.float32)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, free_base_port: Callable[[], int]) -> Iterator[Server]:
    """Compiled networks, started where no compiler is on PATH, beside a TorchScript model."""
    files, root = tmp_path_factory.mktemp("compiled"), tmp_path_factory.mktemp("packages") / "models"
    script = Path(__file__).with_name("compiled_models.py")
    subprocess.run([paths.server_env() / "bin" / "python", script, files], check=True, capture_output=True)
    models = {
        "by_number": ("scaled", [*BY_NUMBER, "instance_group { kind: KIND_CPU count: 2 }", "dynamic_batching { }"]),
        "two_and_more": ("two_and_more", [*ONE_TENSOR, ONE_CPU]),
        "too_wide": ("two_and_more", [tensors("input", INPUT__0="FP32 [3]"), tensors("output", OUTPUT__0="FP32 [3]"), ONE_CPU]),
        "other_type": ("two_and_more", [tensors("input", INPUT__0="INT32 [2]"), ONE_TENSOR[1], ONE_CPU]),
    } | {name: (file, [*config, ONE_CPU]) for name, (file, config, _) in REFUSED.items()}
    for name, (file, config) in models.items():
        configure(root / name, BACKEND, BATCH, *config)
        (root / name / "1").mkdir()
        shutil.copyfile(files / f"{file}.pt2", root / name / "1" / "model.pt2")
    configure(root / "nvidias", 'platform: "torch_aoti"', BATCH, *BY_NUMBER)
    shutil.copytree(root / "by_number" / "1", root / "nvidias" / "1")
    shutil.copytree(paths.models_dir() / "particlenet_AK4_PT", root / "particlenet_AK4_PT")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        tools = tmp_path_factory.mktemp("bin")
        for tool in ("bash", "sh", "env"):
            (tools / tool).symlink_to(shutil.which(tool) or "")
        patch.setenv("PATH", str(tools))
        warnings.simplefilter("ignore", ModelWarning)
        server = launch_server(root, base_port=free_base_port(), name="packages", timeout_s=600)
    with server:
        yield server


@pytest.fixture(scope="module")
def asker(served: Server) -> Asker:
    """Requests to the compiled networks."""
    return Asker(served)


def test_a_process_that_is_killed_leaves_nothing_unpacked(asker: Asker) -> None:
    assert asker.ask("by_number", INPUT__0=A, INPUT__1=B, INPUT__2=SCALE)
    assert list(Path(tempfile.gettempdir()).glob("**/aotinductor_*")) == []


def test_numbers_decide_and_requests_run_together(asker: Asker) -> None:
    requests = [{"INPUT__0": number * A, "INPUT__1": B, "INPUT__2": SCALE} for number in range(16)]
    answers = asker.ask_together("by_number", requests, ["OUTPUT__0", "OUTPUT__1"])
    for number, answer in enumerate(answers):
        assert isinstance(answer, dict), answer
        assert answer["OUTPUT__0"].tolist() == [[10 * (7 * number - 2), 10 * (5 * number - 3)]]
        assert answer["OUTPUT__1"].tolist() == [[14 * number, 15 * number]]


@pytest.mark.parametrize("batch", [1, 2, 3, 8])
def test_any_batch_is_computed(asker: Asker, batch: int) -> None:
    answer = asker.ask("by_number", INPUT__0=np.repeat(A, batch, 0), INPUT__1=np.repeat(B, batch, 0), INPUT__2=np.repeat(SCALE, batch, 0))
    assert answer["OUTPUT__1"].tolist() == [[14, 15]] * batch


def test_a_package_for_two_and_more_refuses_one(asker: Asker) -> None:
    assert asker.ask("two_and_more", INPUT__0=np.vstack([A, B]))["OUTPUT__0"].tolist() == [[15, 11], [5, 7]]
    with pytest.raises(InferenceServerException, match=r"model 'two_and_more': PyTorch: .*dim value is too small"):
        asker.ask("two_and_more", INPUT__0=A)


def test_tensors_that_it_was_not_compiled_for_are_refused_and_it_serves_on(asker: Asker) -> None:
    with pytest.raises(InferenceServerException, match=r"model 'too_wide': PyTorch: .*expected: 2, but got: 3"):
        asker.ask("too_wide", INPUT__0=np.ones((2, 3), np.float32))
    for _ in range(2):
        with pytest.raises(InferenceServerException, match=r"model 'other_type': PyTorch: .*unmatched dtype"):
            asker.ask("other_type", INPUT__0=np.ones((2, 2), np.int32))


@pytest.mark.parametrize("model", REFUSED)
def test_the_reason_names_the_fault(served: Server, model: str) -> None:
    text = reason(served, model)
    for part in REFUSED[model][2]:
        assert part in text, text


def test_the_platform_of_newer_releases_is_refused(served: Server) -> None:
    assert "unexpected platform type 'torch_aoti'" in reason(served, "nvidias")


def test_torchscript_goes_on_beside_it(served: Server) -> None:
    assert logged(served, "particlenet_AK4_PT_0", ": PyTorch")
    assert served.config("particlenet_AK4_PT")["platform"] == "pytorch_libtorch"
    assert {state.name: state.state for state in served.models()}["particlenet_AK4_PT"] == "READY"
