"""Repositories, run folders and environments whose paths a shell would take apart, and letters beyond ASCII in models."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers import paths
from helpers.client import Client
from helpers.errors import ConfigError, RequestError
from helpers.server import ModelWarning, launch_server
from tests.support import MODELS_FOR_TESTS
from tests.support.logs import logged
from tests.support.processes import PATIENCE_S

WRITTEN = {"print": "H \u2192 bb \u2713", "stderr": "Gl\u00fchw\u00fcrmchen", "log": "\u03c0 log", "list": "\u017bycie.txt"}
TALKS = MODELS_FOR_TESTS.parent / "talking_models" / "talks"


def copy(model: Path, repository: Path) -> None:
    shutil.copytree(model, repository / model.name, ignore=shutil.ignore_patterns("__pycache__"))


NAMES = [
    "models (2024)",
    'say "hello"',
    "a & b; c",
    "donn\u00e9es/\u03bc\u2192e",
    "$HOME `date`",
    "tab\there",
    "50% *? off",
    "it's #1 \\ ~",
]


@pytest.mark.slow
def test_a_repository_is_served_whatever_its_path(tmp_path: Path, free_base_port: Callable[[], int]) -> None:
    repository = tmp_path.joinpath(*NAMES)
    for model in (MODELS_FOR_TESTS / "double", paths.models_dir() / "ExaTrk_embedding", paths.models_dir() / "particlenet_AK4_PT"):
        copy(model, repository)
    with launch_server(repository, base_port=free_base_port(), timeout_s=PATIENCE_S) as server, Client(server) as client:
        assert server.repository == repository
        assert {model.state for model in server.models()} == {"READY"}, "a Python model, ONNX, TorchScript"
        assert client.infer("double", X=[[1]])["Y"].tolist() == [[2]]
        server.reload("double")
        assert client.infer("double", X=[[2]])["Y"].tolist() == [[4]]


def test_a_model_with_such_a_name_is_named_and_the_others_serve(tmp_path: Path, free_base_port: Callable[[], int]) -> None:
    repository = tmp_path / "models"
    copy(MODELS_FOR_TESTS / "double", repository)
    for name in ("double (copy)", "mod\u00e8le"):
        shutil.copytree(repository / "double", repository / name)
        config = repository / name / "config.pbtxt"
        config.write_text(config.read_text().replace('name: "double"', ""))
    with pytest.warns(ModelWarning, match=r"(?s)double \(copy\): the folder's name .* has other .*mod\u00e8le: the folder's name"):
        server = launch_server(repository, base_port=free_base_port(), timeout_s=PATIENCE_S)
    with server, Client(server) as client:
        assert client.infer("double", X=[[1]])["Y"].tolist() == [[2]]
        (repository / "double (copy)" / "config.pbtxt").unlink()
        for config in (None, {"backend": "python"}):
            with pytest.raises(ConfigError, match="the folder's name"):
                server.load("double (copy)", config=config)


def test_the_servers_environment_may_lie_in_such_a_path(
    tmp_path: Path, free_base_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # An environment of its own, whose packages are links to those of the real one: as in a course in a folder "my course".
    real, own = paths.server_env(), tmp_path / "my co\u00fbrse" / ".server"
    python = (real / "bin" / "python").resolve()
    subprocess.run([python, "-m", "venv", "--without-pip", own], check=True)
    (packages,) = real.glob("lib/python3.*/site-packages")
    for entry in packages.iterdir():
        (own / "lib" / packages.parent.name / "site-packages" / entry.name).symlink_to(entry)
    monkeypatch.setenv("COURSE_SERVER_ENV", str(own))
    copy(MODELS_FOR_TESTS / "double", tmp_path / "models")
    with launch_server(tmp_path / "models", base_port=free_base_port()) as server, Client(server) as client:
        assert client.infer("double", X=[[1]])["Y"].tolist() == [[2]]


def test_python_models_speak_utf8_whatever_the_locale(
    tmp_path: Path, free_base_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("LANG", "LC_ALL"):
        monkeypatch.setenv(variable, "C")
    repository = tmp_path / "models"
    copy(TALKS, repository)
    (repository / "talks" / "1" / "\u017bycie.txt").write_text("Z \u2192 \u03bc\u03bc", encoding="utf-8")
    with launch_server(repository, base_port=free_base_port()) as server, Client(server) as client, Client(server, "http") as http:

        def say(what: str) -> str:
            return client.infer("talks", WHAT=[what])["SAID"][0].decode()

        for what, text in WRITTEN.items():
            assert say(what) == "done"
            assert logged(server, text)
        assert say("read") == "Z \u2192 \u03bc\u03bc"
        assert say("write") == "\u00e9t\u00e9"
        assert say("load") == "1.0"
        assert say("subprocess") == "\u2713"
        for one in (client, http):
            with pytest.raises(RequestError, match="kein g\u00fcltiges \u03bc"):
                one.infer("talks", WHAT=["raise"])
