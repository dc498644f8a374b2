"""A server whose repository these tests edit, with the jet tagger as its model; each test gets its folder as it was shipped."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from helpers import jets, paths, repository
from helpers.client import Client
from helpers.server import Server, launch_server
from tests.served.optimise import MODEL

Request = dict[str, np.ndarray]


@pytest.fixture(scope="package")
def own(free_base_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The tagger, without warm-up so that it loads quickly, and a model that holds its instance."""
    folder = tmp_path_factory.mktemp("optimise") / "models"
    shutil.copytree(Path(__file__).parent / "models", folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(paths.models_dir() / MODEL, folder / MODEL)
    repository.change_config(folder / MODEL, model_warmup=None, instance_group=[{"count": 1, "kind": "KIND_CPU"}], dynamic_batching=None)
    with launch_server(folder, base_port=free_base_port(), name="optimise", cache_size_bytes=16_000_000) as server:
        yield server


@pytest.fixture
def model(own: Server) -> Iterator[Path]:
    """The tagger's folder; what a test changed in it is undone. The server has what the last test left, until a test loads the model."""
    config = own.repository / MODEL / "config.pbtxt"
    before = config.read_text()
    yield config.parent
    config.write_text(before)


@pytest.fixture(scope="package")
def client(own: Server) -> Iterator[Client]:
    with Client(own) as one:
        yield one


@pytest.fixture(scope="package")
def requests(client: Client) -> Callable[..., list[Request]]:
    """Calls give requests of one jet each, padded to these numbers of candidates."""
    sample = jets.read("ak4")[:16]
    tagger = jets.Tagger(client, MODEL)

    def made(*lengths: int) -> list[Request]:
        return [tagger.inputs(sample[jet : jet + 1], candidates=length, vertices=4) for jet, length in enumerate(lengths)]

    return made
