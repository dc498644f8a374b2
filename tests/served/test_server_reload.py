"""Reloading one model while the server runs: good and bad changes, other models untouched."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from helpers import repository
from helpers.client import Client
from helpers.errors import ConfigError, ModelError
from helpers.server import Server

_LEFT = np.arange(16, dtype=np.float32)
_RIGHT = np.full(16, 2, dtype=np.float32)


@pytest.fixture
def own(workbench: Server) -> Server:
    """A server of a repository that the tests may edit."""
    return workbench


@pytest.fixture
def model(own: Server) -> Path:
    """The model's folder."""
    assert own.repository is not None
    return own.repository / "add_sub"


def _sum(server: Server) -> np.ndarray:
    with Client(server) as client:
        return client.infer("add_sub", INPUT0=_LEFT, INPUT1=_RIGHT)["OUTPUT0"]


@pytest.mark.slow
def test_a_changed_config_is_served_without_a_restart(own, model):
    pid = own.pid
    repository.change_config(model, instance_group=[{"count": 2, "kind": "KIND_CPU"}])
    assert own.config("add_sub")["instance_group"][0]["count"] == 1
    own.reload("add_sub")
    assert own.config("add_sub")["instance_group"][0]["count"] == 2
    assert own.pid == pid
    np.testing.assert_array_equal(_sum(own), _LEFT + _RIGHT)


def test_changed_code_is_served_after_a_reload(own, model):
    code = model / "1" / "model.py"
    code.write_text(code.read_text().replace("left + right", "left + right + 100"))
    np.testing.assert_array_equal(_sum(own), _LEFT + _RIGHT)
    own.reload("add_sub")
    np.testing.assert_array_equal(_sum(own), _LEFT + _RIGHT + 100)


def test_a_syntax_error_names_its_line_and_the_old_model_keeps_serving(own, model):
    config = model / "config.pbtxt"
    lines = config.read_text().splitlines()
    number = next(n for n, line in enumerate(lines, 1) if "data_type" in line)
    lines[number - 1] = "    data_type TYPE_FP32"
    config.write_text("\n".join(lines))
    with pytest.raises(ConfigError, match=f"config.pbtxt, line {number}"):
        own.reload("add_sub")
    assert own.is_ready()
    np.testing.assert_array_equal(_sum(own), _LEFT + _RIGHT)


def test_a_config_that_only_the_server_refuses_leaves_the_old_model_serving(own, model):
    code = model / "1" / "model.py"
    code.write_text(
        code.read_text().replace(
            "    def execute", "    def initialize(self, args):\n        raise ValueError('broken')\n\n    def execute"
        )
    )
    with pytest.raises(ModelError, match=r"(?s)refused to load 'add_sub'.*broken.*keeps serving"):
        own.reload("add_sub")
    np.testing.assert_array_equal(_sum(own), _LEFT + _RIGHT)


@pytest.mark.slow
@pytest.mark.parametrize("as_text", [True, False])
def test_a_config_can_come_with_the_request(own, model, as_text):
    text = (model / "config.pbtxt").read_text().replace("instance_group [ {", "instance_group [ { count: 3,")
    own.reload("add_sub", text if as_text else {**own.config("add_sub"), "instance_group": [{"count": 3, "kind": "KIND_CPU"}]})
    assert own.config("add_sub")["instance_group"][0]["count"] == 3
    own.reload("add_sub")  # back to the file
    assert own.config("add_sub")["instance_group"][0]["count"] == 1


def test_a_config_in_the_request_with_a_fault_names_the_line(own, model):
    with pytest.raises(ConfigError, match=r"the given configuration, line 2"):
        own.reload("add_sub", 'name: "add_sub"\nbackend "python"')
    np.testing.assert_array_equal(_sum(own), _LEFT + _RIGHT)


def test_unload_and_load_again(own, model):
    own.unload("add_sub")
    assert {state.name: state.state for state in own.models()}["add_sub"] == "UNAVAILABLE"
    with pytest.raises(ModelError, match="add_sub"):
        _sum(own)
    own.load("add_sub")
    np.testing.assert_array_equal(_sum(own), _LEFT + _RIGHT)


def test_a_model_that_is_not_there_cannot_be_loaded(own):
    with pytest.raises(ModelError, match="no_such_model"):
        own.load("no_such_model")
    assert own.is_ready()


def test_a_new_model_in_the_folder_is_loaded_by_name(own, model):
    folder = own.repository / "second"
    shutil.copytree(model, folder)
    config = folder / "config.pbtxt"
    config.write_text(config.read_text().replace('"add_sub"', '"second"'))
    own.load("second")
    assert "second" in {state.name for state in own.models() if state.state == "READY"}
    own.unload("second")
    shutil.rmtree(folder)
