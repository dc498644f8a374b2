"""What the repository's checks call fatal, the real server refuses; what else it refuses, it explains itself."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers import repository
from helpers.client import Client
from helpers.errors import ConfigError, ModelError
from helpers.repository.folders import raise_first
from helpers.server import ModelWarning, Server, launch_server
from tests.support import MODELS_FOR_TESTS

DOUBLE = MODELS_FOR_TESTS / "double"

# name -> (text to replace in the config of double, replacement)
REFUSED = {
    "other_name": ('name: "double"', 'name: "else"'),
    "no_dims": (" dims: [ -1 ] } ]\noutput", " } ]\noutput"),
    "no_type": ('"Y" data_type: TYPE_FP32', '"Y"'),
    "no_tensor_name": ('name: "X" ', ""),
    "dims_of_zero": ("dims: [ -1 ] } ]\noutput", "dims: [ 0 ] } ]\noutput"),
    "no_label_file": ("dims: [ -1 ] } ]\ninstance", 'dims: [ -1 ] label_filename: "labels.txt" } ]\ninstance'),
    "unknown_platform": ('backend: "python"', 'platform: "pytorch"'),
    "unknown_backend": ('backend: "python"', 'backend: "pyhton"'),
    "preferred_too_large": ("dynamic_batching { }", "dynamic_batching { preferred_batch_size: [ 8 ] }"),
    "negative_batch": ("max_batch_size: 4", "max_batch_size: -4"),
    "twice": ("max_batch_size: 4", "max_batch_size: 4 max_batch_size: 8"),
    "one_or_the_other": ("dynamic_batching { }", "dynamic_batching { } sequence_batching { }"),
    "syntax": ("dynamic_batching { }", "dynamic_batching {"),
    "unknown_field": ("max_batch_size", "max_batchsize"),
    "version_not_there": ("dynamic_batching { }", "version_policy { specific { versions: [ 3 ] } }"),
    "step_not_there": (
        'backend: "python"',
        'platform: "ensemble" ensemble_scheduling { step [ { model_name: "nobody" model_version: -1 input_map { key: "X" value: "X" } '
        'output_map { key: "Y" value: "Y" } } ] }',
    ),
}
LOADED = {
    "in_order": ("", ""),
    "no_name": ('name: "double"\n', ""),
    "batching_without_batch": ("max_batch_size: 4", "max_batch_size: 0"),
}


def validate(model: Path) -> None:
    raise_first(repository.problems(model), model)


def make(folder: Path, name: str, change: tuple[str, str]) -> Path:
    shutil.copytree(DOUBLE, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    config = folder / name / "config.pbtxt"
    old, new = change
    assert old in config.read_text()
    text = config.read_text().replace(old, new, 1)
    if "ensemble" in new:
        text = text.replace("dynamic_batching { }", "").replace("instance_group [ { kind: KIND_CPU } ]", "")
    config.write_text(text if name in ("other_name", "no_name") else text.replace('name: "double"', f'name: "{name}"'))
    return folder / name


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory, free_base_port: Callable[[], int]) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("broken") / "models"
    for name, change in {**REFUSED, **LOADED}.items():
        make(folder, name, change)
    # Only the latest version is loaded, so an older one may be unfinished; one without a version folder never loads.
    make(folder, "old_version_unfinished", ("", ""))
    (folder / "old_version_unfinished" / "1").rename(folder / "old_version_unfinished" / "2")
    (folder / "old_version_unfinished" / "1").mkdir()
    shutil.rmtree(make(folder, "no_version", ("", "")) / "1")
    with pytest.warns(ModelWarning):
        running = launch_server(folder, base_port=free_base_port(), name="broken")
    with running:
        yield running


# What the checks leave to Triton, whose own words are clear.
SAID_BY_TRITON = {
    "no_dims": "input 'X' must specify 'dims'",
    "no_type": "output 'Y' must specify 'data_type'",
    "no_tensor_name": "input must specify 'name'",
    "dims_of_zero": "input 'X' dimension must be integer >= 1, or -1",
    "no_label_file": r"labels\.txt: No such file",
    "preferred_too_large": "preferred size must be <= max batch size",
    "unknown_platform": "unexpected platform type 'pytorch'",
    "unknown_backend": "no backend 'pyhton'",
    "negative_batch": "'max_batch_size' must be non-negative",
    "version_not_there": "at least one version must be available under the version policy",
    "other_name": "'other_name'.*'else'",
}


@pytest.mark.slow
def test_the_checks_and_the_server_agree(broken: Server) -> None:
    assert broken.repository is not None
    faults = repository.faults(broken.repository)
    assert set(faults) == {*REFUSED, "no_version"} - set(SAID_BY_TRITON)
    models = {model.name: model for model in broken.models()}
    assert {name for name, model in models.items() if model.state == "READY"} == {*LOADED, "old_version_unfinished"}
    assert {name for name, model in models.items() if model.state != "READY"} == {*REFUSED, "no_version"}
    # The others serve.
    with Client(broken) as client:
        assert client.infer("in_order", X=[[1]])["Y"].tolist() == [[2]]
        for name, words in SAID_BY_TRITON.items():
            assert re.search(words, models[name].reason), models[name]
            with pytest.raises(ModelError, match=f"(?s)'{name}' is not loaded.*{words}"):
                client.infer(name, X=[[1]])


def test_each_fault_is_named(broken: Server) -> None:
    assert broken.repository is not None
    words = {
        "step_not_there": "the ensemble's step 'nobody' is no model",
        "syntax": "line 8, column 18",
        "unknown_field": 'line 4, column 1: .*ModelConfig" has no field named "max_batchsize"',
        "twice": "line 4, column 35: .*multiple",
        "one_or_the_other": "line 8, column 22: .*another member of oneof",
        "no_version": "no version folder",
    }
    assert set(words) == set(repository.faults(broken.repository))
    for name, word in words.items():
        with pytest.raises(ConfigError, match=f"(?s){word}"):
            validate(broken.repository / name)
    for name in LOADED:
        validate(broken.repository / name)


def test_a_python_model_without_its_file_is_found_before_triton_waits_for_it_for_ever(tmp_path: Path) -> None:
    model = make(tmp_path, "unfinished", ("", ""))
    (model / "1" / "model.py").rename(model / "1" / "mdel.py")
    assert repository.faults(tmp_path) == {"unfinished": "version 1 has no model.py. It holds 'mdel.py'."}
    make(tmp_path, "refused", ("max_batch_size: 4", "max_batchsize: 4"))
    assert set(repository.faults(tmp_path)) == {"refused", "unfinished"}
    assert set(repository.faults(tmp_path, hanging=True)) == {"unfinished"}
    shutil.rmtree(model / "1")
    (model / "1").mkdir()
    assert "It is empty" in repository.faults(tmp_path)["unfinished"]
    with pytest.raises(ConfigError, match="It is empty"):
        validate(model)


def test_old_new_and_reported_with_the_real_server(broken: Server) -> None:
    assert broken.repository is not None
    old = broken.repository / "in_order"
    comparison = repository.compare(old, old, broken.config("in_order"))
    remarks = {row.field: row.remark for row in comparison.rows}
    assert remarks["name"] == ""
    assert remarks["instance_group[0].count"] == "filled in by the server"
    assert remarks["default_model_filename"] == "filled in by the server"
    with Client(broken) as client:
        assert str(repository.compare(old, old, client.config("in_order"))) == str(comparison)
