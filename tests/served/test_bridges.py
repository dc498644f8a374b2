"""The same request from coffea, run where coffea is; names in the CMSSW configuration that is shown, against our models."""

from __future__ import annotations

import ast
import importlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest

from helpers import jets, paths
from helpers.client import Client
from helpers.physics.jets import Table
from helpers.server import Server
from tests.support.tls_front import ENVOY, TOKEN, front, make_certificates

TEXT = (paths.root() / "containers" / "CLIENTS.md").read_text()
COFFEA, TOKEN_IN_COFFEA, *_, CMSSW = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
MODEL = "particlenet_AK4"


def _run(code: str, space: dict[str, Any]) -> None:
    exec(compile(code, "CLIENTS.md", "exec"), space)


def test_the_examples_take_from_the_course_what_there_is() -> None:
    """Where coffea is not installed, too."""
    taken = re.findall(r"^from (helpers[\w.]*) import (.+)$", TEXT, re.MULTILINE)
    assert len(taken) > 1
    for module, names in taken:
        for name in names.split(", "):
            assert hasattr(importlib.import_module(module), name), f"{module}.{name}"


@pytest.fixture(scope="module")
def space() -> dict[str, Any]:
    """What the example's names mean."""
    pytest.importorskip("coffea", reason="coffea is not installed; containers/CLIENTS.md says how to try it")
    return {"__name__": "coffea_example"}


@pytest.fixture(scope="module")
def direct(server: Server) -> np.ndarray:
    with Client(server) as client:
        tagger = jets.Tagger(client, MODEL)
        return tagger.scores(client.infer(MODEL, tagger.inputs(jets.read("ak4", stop=120), candidates=50, vertices=4))).probabilities


@pytest.fixture(scope="module")
def example(space: dict[str, Any], server: Server) -> dict[str, Any]:
    """The example as it is shown, run against the server."""
    _run(COFFEA.replace("localhost:9001", server.grpc_url), space)
    return space


def test_coffea_gets_the_same_scores(example: dict[str, Any], direct: np.ndarray) -> None:
    assert np.abs(np.asarray(example["scores"]) - direct).max() < 1e-5


def test_the_wrapper_of_coffea_travels_to_workers(example: dict[str, Any], direct: np.ndarray) -> None:
    there = cloudpickle.loads(cloudpickle.dumps(example["tagger"]))
    assert np.abs(np.asarray(there(["softmax"], jets.read("ak4", stop=60))["softmax"]) - direct[:60]).max() < 1e-5


@pytest.mark.skipif(not ENVOY.exists() or not shutil.which("openssl"), reason="no envoy or no openssl in this environment")
def test_coffea_gets_through_a_front_with_a_token(
    example: dict[str, Any],
    direct: np.ndarray,
    server: Server,
    free_base_port: Callable[[], int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    certificates, port = make_certificates(tmp_path), free_base_port()
    ours = f"grpc.ssl_channel_credentials({certificates.ca.read_bytes()!r})"
    _run(TOKEN_IN_COFFEA.replace("grpc.ssl_channel_credentials()", ours), example)
    tagger = example["ParticleNetWithToken"](f"triton+grpc://localhost:{port}/{MODEL}/1", batch_size=50)
    tagger = cloudpickle.loads(cloudpickle.dumps(tagger))
    monkeypatch.setenv("COURSE_TOKEN", TOKEN)
    with front(server, port, certificates, tmp_path):
        scores = tagger(["softmax"], jets.read("ak4", stop=60))["softmax"]
    assert np.abs(np.asarray(scores) - direct[:60]).max() < 1e-5


def test_the_configuration_for_cmssw_names_our_model() -> None:
    calls = [node for node in ast.walk(ast.parse(CMSSW)) if isinstance(node, ast.Call)]
    keywords = {word.arg: word.value for call in calls for word in call.keywords}

    def text(name: str) -> str:
        value = keywords[name]
        return ast.literal_eval(value.args[0] if isinstance(value, ast.Call) else value)

    folder = paths.models_dir() / text("modelName")
    table = Table.read(folder / text("preprocess_json"))
    assert text("modelName") == MODEL
    assert (paths.root() / text("modelConfigPath")) == folder / "config.pbtxt"
    assert tuple(ast.literal_eval(keywords["flav_names"])) == table.labels
    explained = re.findall(r"^\| `(\w+)(?:\.\w+)?`", TEXT, re.MULTILINE)
    in_client = next(call for call in calls if any(word.arg == "modelName" for word in call.keywords))
    left_out = {word.arg for word in in_client.keywords} - {"compression", "verbose"} - set(explained)
    assert left_out == set(), "each field is explained"


def test_the_example_for_coffea_names_our_tensors() -> None:
    assert f"/{MODEL}/1" in COFFEA and '"softmax"' in COFFEA
    config = (paths.models_dir() / MODEL / "config.pbtxt").read_text()
    assert re.search(r'name: "softmax"', config)
