"""Two servers for the whole folder: one with the ONNX models, one with the TorchScript models."""

from __future__ import annotations

import subprocess
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers import paths
from helpers.server import ModelWarning, Server, launch_server
from tests.served.backends import repositories


@pytest.fixture(scope="package")
def torchscript_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The TorchScript files, written by the server's Python, which has PyTorch."""
    folder = tmp_path_factory.mktemp("torchscript")
    script = Path(__file__).with_name("torchscript_models.py")
    subprocess.run([paths.server_env() / "bin" / "python", script, folder], check=True)
    return folder


def _serve(repository: Path, base_port: int) -> Server:
    with warnings.catch_warnings():
        # Models that must not load are part of the repository; test_…_refusals look at their reasons.
        warnings.simplefilter("ignore", ModelWarning)
        return launch_server(repository, base_port=base_port)


@pytest.fixture(scope="package")
def onnx_server(tmp_path_factory: pytest.TempPathFactory, free_base_port: Callable[[], int]) -> Iterator[Server]:
    """Serves the ONNX models."""
    with _serve(repositories.onnx_repository(tmp_path_factory.mktemp("onnx") / "models"), free_base_port()) as server:
        yield server


@pytest.fixture(scope="package")
def torch_server(tmp_path_factory: pytest.TempPathFactory, torchscript_folder: Path, free_base_port: Callable[[], int]) -> Iterator[Server]:
    """Serves the TorchScript models."""
    repository = repositories.torch_repository(tmp_path_factory.mktemp("torch") / "models", torchscript_folder)
    with _serve(repository, free_base_port()) as server:
        yield server
