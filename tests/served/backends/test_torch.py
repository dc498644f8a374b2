"""The backend ``pytorch``: names, types, options, and models that cannot be loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import psutil
import pytest
from tritonclient.utils import InferenceServerException

from helpers.server import Server
from tests.served.backends.asking import Asker
from tests.served.backends.repositories import ONNX_TYPES, TORCH_TYPES
from tests.served.backends.test_onnx_loading import reason
from tests.served.backends.test_onnx_serving import sample
from tests.support.logs import logged

# Their servers, with thirty models each, take half a minute to start.
pytestmark = pytest.mark.slow

A, B = np.array([[7, 5]], np.float32), np.array([[2, 3]], np.float32)


@pytest.fixture(scope="module")
def asker(torch_server: Server) -> Asker:
    """Requests to the TorchScript models."""
    return Asker(torch_server)


@pytest.fixture(scope="module")
def all_types(asker: Asker) -> dict[str, np.ndarray]:
    """The answer of a model that gives back one tensor of each type."""
    arrays = {f"{name.lower()}__{place}": sample(ONNX_TYPES[name][1]) for place, name in enumerate(TORCH_TYPES)}
    return asker.ask("types", **arrays)


# The config lists them in another order than the module: the index in the name decides.
@pytest.mark.parametrize("name", TORCH_TYPES)
def test_each_type_comes_back_unchanged(all_types: dict[str, np.ndarray], name: str) -> None:
    sent, received = sample(ONNX_TYPES[name][1]), all_types[f"{name.lower()}_back__{TORCH_TYPES.index(name)}"]
    assert received.dtype == sent.dtype
    np.testing.assert_array_equal(received, sent)


def test_the_arguments_name_decides_which_tensor_is_which(asker: Asker) -> None:
    answer = asker.ask("by_name", b=B, a=A)
    assert answer["difference__0"].tolist() == [[5, 2]]
    assert answer["product__1"].tolist() == [[14, 15]]


def test_without_such_names_the_order_of_the_config_decides(asker: Asker) -> None:
    answer = asker.ask("in_order", right=B, left=A)
    assert (answer["minus"].tolist(), answer["times"].tolist()) == ([[5, 2]], [[14, 15]])


def test_only_the_outputs_asked_for_come_back(asker: Asker) -> None:
    assert asker.ask("by_name", ["product__1"], a=A, b=B).keys() == {"product__1"}


def test_a_file_saved_on_a_gpu_runs_on_a_cpu_and_nan_passes(asker: Asker) -> None:
    answer = asker.ask("tuned", ["y__0"], x__0=np.array([[1, 1, 1], [np.nan, 0, 0]], np.float32))["y__0"]
    assert answer[0].tolist() == [4, 11]
    assert np.isnan(answer[1, 1])


def test_modules_run_in_inference_mode(asker: Asker) -> None:
    assert asker.ask("tuned", ["inference__1"], x__0=np.zeros((1, 3), np.float32))["inference__1"].tolist() == [[1]]


def test_two_instances_are_two_and_both_serve(torch_server: Server, asker: Asker) -> None:
    for instance in ("tuned_0_0", "tuned_0_1"):
        assert logged(torch_server, f"{instance}: PyTorch")
    answers = asker.ask_together("tuned", [{"x__0": np.zeros((1, 3), np.float32)}] * 16, ["inference__1"])
    assert [answer["inference__1"].item() for answer in answers if isinstance(answer, dict)] == [1] * 16


def test_threads_of_the_config_are_used(torch_server: Server) -> None:
    assert "on cpu; 3 thread(s)" in logged(torch_server, "tuned_0_0: PyTorch")


@pytest.mark.parametrize(
    "part",
    [
        "execution accelerator 'tensorrt' has no effect here: accelerators act on ONNX models",
        "'ENABLE_WEIGHT_SHARING' has no effect here",
        "'INFERENCE_MODE' has no effect here",
    ],
)
def test_what_does_nothing_here_is_a_warning(torch_server: Server, part: str) -> None:
    assert logged(torch_server, "model 'tuned'", part).startswith("W")


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ("double__0", "output 'double__0' is TYPE_FP64 in the config and TYPE_FP32 in the model"),
        ("none__3", r"output 'none__3' stands for output 3 of the network, which returns 2"),
    ],
)
def test_a_fault_found_while_running_is_named(asker: Asker, output: str, text: str) -> None:
    with pytest.raises(InferenceServerException, match=f"model 'tuned': {text}"):
        asker.ask("tuned", [output], x__0=np.zeros((1, 3), np.float32))


@pytest.mark.parametrize(
    ("model", "parts"),
    [
        ("bad_count", ["the config has 1 inputs (a)", "forward() takes 2 (a, b)"]),
        ("bad_index", ["must be 0 to 1, each once"]),
        ("bad_statedict", ["bad_statedict/1/model.pt", "a class that needs its Python code", "torch.onnx.export("]),
    ],
)
def test_the_reason_names_the_fault(torch_server: Server, model: str, parts: list[str]) -> None:
    text = reason(torch_server, model)
    assert f"model '{model}'" in text
    for part in parts:
        assert part in text


@pytest.mark.slow
def test_memory_of_one_run_serves_the_next_one(asker: Asker, torch_server: Server) -> None:
    (instance,) = [process for process in psutil.Process(torch_server.pid).children(recursive=True) if "spread_0_0" in process.cmdline()]
    x = np.zeros((1, 1024), np.float32)
    for _ in range(10):
        asker.ask("spread", x__0=x)
    seen = [page_faults(instance.pid)]
    for _ in range(10):
        assert asker.ask("spread", x__0=x)["y__0"] == 120 * 1024**2
        seen.append(page_faults(instance.pid))
    # Memory that is given back and asked for again costs a fault for each of its pages: some hundred in each run. A new stack or arena,
    # which comes now and then, costs some thousand once.
    assert np.median(np.diff(seen)) < 150, seen


def page_faults(pid: int) -> int:
    """Pages that the system gave to a process so far, without reading a disk."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7])
