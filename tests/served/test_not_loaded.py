"""Models that are in a repository and are not served: everybody who asks hears that, and the owner why."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

import pytest

from helpers import paths
from helpers.__main__ import main
from helpers.client import Client
from helpers.errors import ConfigError, ModelError
from helpers.measuring.measure import sweep
from helpers.server import ModelWarning, Server, connect, launch_server
from helpers.server import log as server_log

_TENSORS = 'input [ { name: "X" data_type: TYPE_FP32 dims: [ 16 ] } ]\noutput [ { name: "Y" data_type: TYPE_FP32 dims: [ 16 ] } ]\n'
_MODEL = "class TritonPythonModel:\n    def initialize(self, args):\n        {}\n"
_PYTHON = f'backend: "python"\nmax_batch_size: 0\n{_TENSORS}'
# A process that cannot end, for which Triton would wait without a limit before it serves any model.
_STAYS = f"""
import sys, threading
sys.path.insert(0, {str(paths.root() / "helpers/backends/common")!r})
from course_backend import Fault, ServedModel

class TritonPythonModel(ServedModel):
    DEFAULT_FILE = "model.py"

    def load(self, settings):
        threading.Thread(target=threading.Event().wait).start()
        raise Fault("its process stays")

    def run(self, inputs, wanted):
        return []
"""


def _ensemble(stage: str, version: str) -> str:
    maps = 'input_map { key: "INPUT0" value: "X" } input_map { key: "INPUT1" value: "X" } output_map { key: "OUTPUT0" value: "Y" }'
    step = f'ensemble_scheduling {{ step [ {{ model_name: "{stage}" {version} {maps} }} ] }}\n'
    return f'platform: "ensemble"\nmax_batch_size: 0\n{_TENSORS}{step}'


# Config, file in the version's folder, its text, and what the owner is told.
FAILING = {
    "raises": (_PYTHON, "model.py", _MODEL.format("raise ValueError('no weights')"), "ValueError: no weights"),
    "syntax": (_PYTHON, "model.py", "class TritonPythonModel\n", "SyntaxError|invalid syntax|expected ':'"),
    "imports": (_PYTHON, "model.py", "import nosuchmodule\n", "No module named 'nosuchmodule'"),
    "no_class": (_PYTHON, "model.py", "x = 1\n", "TritonPythonModel"),
    "stays": (_PYTHON, "model.py", _STAYS, "its process stays"),
    "corrupt": (f'platform: "onnxruntime_onnx"\nmax_batch_size: 0\n{_TENSORS}', "model.onnx", "nothing", "ONNX Runtime cannot load"),
    "tensorflow": (
        f'platform: "tensorflow_graphdef"\nmax_batch_size: 0\n{_TENSORS}',
        "model.graphdef",
        "x",
        "no backend 'tensorflow'. The embedded runtime has",
    ),
    "on_raises": (_ensemble("raises", "model_version: -1"), "", "", "depends on 'raises' which has no loaded version"),
    "on_corrupt": (_ensemble("corrupt", "model_version: -1"), "", "", "depends on 'corrupt' which has no loaded version"),
    "on_on_raises": (_ensemble("on_raises", "model_version: -1"), "", "", "depends on 'on_raises'"),
    "version_7": (_ensemble("add_sub", "model_version: 7"), "", "", "version 7"),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, free_base_port: Callable[[], int]) -> Iterator[Server]:
    """A server of which one model serves, one is unloaded, and all others fail."""
    folder = tmp_path_factory.mktemp("failing") / "models"
    for name in ("add_sub", "unloaded"):
        shutil.copytree(paths.models_dir() / "add_sub", folder / name)
        config = folder / name / "config.pbtxt"
        config.write_text(config.read_text().replace('"add_sub"', f'"{name}"'))
    for name, (config, file, text, _) in FAILING.items():
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "config.pbtxt").write_text(config)
        if file:
            (folder / name / "1" / file).write_text(text)
    with pytest.warns(ModelWarning) as caught:
        running = launch_server(folder, base_port=free_base_port(), name="not-loaded")
    with running:
        assert "gives no reason" not in str(caught[0].message)
        running.unload("unloaded")
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("name", FAILING)
def test_the_owner_is_told_why(server: Server, name: str) -> None:
    words = f"(?s){FAILING[name][3]}"
    state = next(model for model in server.models() if model.name == name)
    assert state.state == "UNAVAILABLE" and "try specifying runtime" not in state.reason
    for deed in (lambda: server.config(name), lambda: server.reload(name), lambda: _ask(server, name)):
        with pytest.raises((ModelError, ConfigError), match=words):
            deed()
    line = next(line for line in repr(server).splitlines() if f" {name} " in line)
    assert "UNAVAILABLE" in line


@pytest.mark.parametrize("name", ["raises", "on_raises", "version_7", "unloaded"])
@pytest.mark.parametrize("way", ["grpc", "http", "connect", "connect over grpc", "version", "config", "sweep"])
def test_others_hear_that_it_is_not_loaded(server: Server, name: str, way: str) -> None:
    there = connect(server.http_url)
    deeds: dict[str, Callable[[], object]] = {
        "grpc": lambda: _ask(server.grpc_url, name),
        "http": lambda: _ask(f"http://{server.http_url}", name),
        "connect": lambda: _ask(there, name),
        "connect over grpc": lambda: _ask(connect(f"grpc://{server.grpc_url}"), name),
        "version": lambda: _ask(server.grpc_url, name, version="1"),
        "config": lambda: there.config(name),
        "sweep": lambda: sweep(there, name, (1,), (1,)),
    }
    with pytest.raises(ModelError) as refused:
        deeds[way]()
    said = str(refused.value)
    assert f"The model '{name}' is not loaded" in said and "Leave the version out" not in said
    assert "The models that are loaded: 'add_sub'." in said
    if not FAILING.get(name, ("",))[0].startswith('platform: "ensemble"'):  # a server does not know an ensemble that it has refused
        assert "The card and the log of the server's owner say why" in said


@pytest.mark.parametrize("name", ["raises", "version_7", "unloaded"])
def test_the_command_line_says_it_too(server: Server, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["infer", "-m", name, "-u", server.grpc_url], ["sweep", "-m", name, "-u", server.grpc_url, "-b", "1", "-c", "1"]):
        assert main(words) != 0
        printed = capsys.readouterr()
        assert f"The model '{name}' is not loaded" in printed.out + printed.err


def test_a_version_that_there_is_not_is_told_apart(server: Server) -> None:
    for place in (server, server.grpc_url, f"http://{server.http_url}"):
        words = r"'add_sub' is loaded, but not in the version that was asked for.*Leave the version out"
        with Client(place) as client, pytest.raises(ModelError, match=words):
            client.infer("add_sub", INPUT0=[0] * 16, INPUT1=[0] * 16, version=7)


def test_a_model_that_there_is_not_has_a_suggestion(server: Server) -> None:
    for place in (server, server.grpc_url, connect(server.http_url)):
        with pytest.raises(ModelError, match=r"'ad_sub' is not loaded. .*Did you mean 'add_sub'"):
            _ask(place, "ad_sub")


def _ask(place: object, name: str, **options: str) -> None:
    with Client(place) as client:
        client.infer(name, X=[0.0] * 16, **options)


@pytest.mark.parametrize(
    ("said", "plain"),
    [
        (
            "unable to find backend library for backend 'tensorflow', try specifying runtime on the model configuration.",
            "no backend 'tensorflow'",
        ),
        ("ensemble 'a' depends on 'b' which has no loaded version. Model 'b' loading failed with error: \x01;", "no loaded version"),
        ("Internal: a\\n\\nb;", "Internal: a b"),
    ],
)
def test_what_leads_nobody_further_is_said_in_other_words(said: str, plain: str) -> None:
    assert plain in server_log.plain(said) and "\n" not in server_log.plain(said) and "\\n" not in server_log.plain(said)


def test_a_reason_is_what_the_backend_said_alone() -> None:
    around = (
        "load failed for model 'a': version 1 is at UNAVAILABLE state: Internal: TritonModelException: {}\n\nAt:\n  /b/m.py(7): load\n;"
    )
    assert server_log.plain(around.format("model 'a': no file. Copy it.")) == "model 'a': no file. Copy it."
