"""The same request from coffea, run where coffea is; names in the CMSSW configuration that is shown, against our models."""

from __future__ import annotations

import ast
import re
from typing import Any

import numpy as np
import pytest

from helpers import jets, settings
from helpers.client import Client
from helpers.jet_table import Table
from helpers.server import Server

TEXT = (settings.root() / "containers" / "CLIENTS.md").read_text()
COFFEA, CMSSW = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
MODEL = "particlenet_AK4"


def test_coffea_gets_the_same_scores(server: Server) -> None:
    pytest.importorskip("coffea", reason="coffea is not installed")
    space: dict[str, Any] = {"__name__": "coffea_example"}
    exec(compile(COFFEA.replace("localhost:9001", server.grpc_url), "CLIENTS.md", "exec"), space)
    with Client(server) as client:
        direct = jets.Tagger(client, MODEL).tag(jets.read("ak4", stop=120), candidates=50, vertices=4)
    assert np.abs(np.asarray(space["scores"]) - direct.probabilities).max() < 1e-5


def test_the_configuration_for_cmssw_names_our_model() -> None:
    calls = [node for node in ast.walk(ast.parse(CMSSW)) if isinstance(node, ast.Call)]
    keywords = {word.arg: word.value for call in calls for word in call.keywords}

    def text(name: str) -> str:
        value = keywords[name]
        return ast.literal_eval(value.args[0] if isinstance(value, ast.Call) else value)

    folder = settings.models_dir() / text("modelName")
    table = Table.read(folder / text("preprocess_json"))
    assert text("modelName") == MODEL
    assert (settings.root() / text("modelConfigPath")) == folder / "config.pbtxt"
    assert tuple(ast.literal_eval(keywords["flav_names"])) == table.labels
    explained = re.findall(r"^\| `(\w+)(?:\.\w+)?`", TEXT, re.MULTILINE)
    in_client = next(call for call in calls if any(word.arg == "modelName" for word in call.keywords))
    left_out = {word.arg for word in in_client.keywords} - {"compression", "verbose"} - set(explained)
    assert left_out == set(), "each field is explained"


def test_the_example_for_coffea_names_our_tensors() -> None:
    assert f"/{MODEL}/1" in COFFEA and '"softmax"' in COFFEA
    config = (settings.models_dir() / MODEL / "config.pbtxt").read_text()
    assert re.search(r'name: "softmax"', config)
