"""The command that starts a server in a container: one meaning for three engines, and what is shown is what is run."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers import launch_server, paths
from helpers.__main__ import main
from helpers.errors import ServerError
from helpers.server import containers, in_container
from helpers.server.containers import ENGINES
from tests.support.engines import Engines

GPU = {"apptainer": ["--nv"], "docker": ["--gpus=all"], "podman": ["--device=nvidia.com/gpu=all"]}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A repository whose path people have: with a space in it."""
    folder = tmp_path / "my models"
    (folder / "add_sub").mkdir(parents=True)
    return folder


def shown(capsys: pytest.CaptureFixture[str], models: Path, engine: str, **options: object) -> list[str]:
    """Words of a dry run."""
    assert launch_server(models, runtime=engine, dry_run=True, **options) is None  # type: ignore[arg-type]
    return shlex.split(capsys.readouterr().out.replace("\\\n", " "))


def before_the_program(words: list[str]) -> list[str]:
    return words[: words.index("tritonserver")]


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_shown_is_what_is_run(
    engine: str, engines: Engines, models: Path, capsys: pytest.CaptureFixture[str], free_base_port: Callable[[], int]
) -> None:
    """But for the server's name, its ports, which its owner keeps for it, and the lifeline, which a typed command has not.

    The stand-in serves nothing, which is told.
    """
    engines.install(engine)
    image = {"image": "/"} if engine == "apptainer" else {}
    words = shown(capsys, models, engine, **image)
    with pytest.raises(ServerError, match="the stand-in serves nothing"):
        launch_server(models, runtime=engine, base_port=free_base_port(), **image)  # type: ignore[arg-type]
    ((*run,),) = engines.calls(engine, "run")
    name = next(word for word in run if word.startswith("--id=")).removeprefix("--id=")
    lifeline = {in_container.LIFELINE, "--interactive"}
    assert lifeline & set(run) == (lifeline if engine != "apptainer" else {in_container.LIFELINE})
    assert not lifeline & set(words)
    general = [re.sub(rf"\b{name}\b", "course", word) for word in run if word not in lifeline and not word.startswith("--reuse-")]
    assert [re.sub(r"(-port=)\d+", r"\1", word) for word in general] == [re.sub(r"(-port=)\d+", r"\1", word) for word in words]


@pytest.mark.parametrize("engine", ENGINES)
def test_the_key_comes_in_the_environment(engine: str, engines: Engines, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engines.install(engine)
    monkeypatch.setenv("PYTHONPATH", "/notebooks/own")
    with pytest.raises(ServerError):
        launch_server(models, runtime=engine, image="/" if engine == "apptainer" else "")
    environment = engines.environment()
    key = environment["COURSE_ADMIN_KEY"]
    assert len(key) >= 32
    ((*run,),) = engines.calls(engine, "run")
    assert key not in " ".join(run)
    assert sum(word.endswith(":course-admin-key=$COURSE_ADMIN_KEY") for word in run) == 2
    assert "--env=COURSE_ADMIN_KEY" in run or environment["APPTAINERENV_COURSE_ADMIN_KEY"] == key
    assert "PYTHONPATH" not in environment


@pytest.mark.parametrize("engine", ENGINES)
def test_the_courses_own_command(engine: str, engines: Engines, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``apptainer run --nv -B …:/models … tritonserver --model-repository=/models --http-port=$BasePort …``, and its equal."""
    engines.install("nvidia-smi")
    words = shown(capsys, models, engine, base_port=9300)
    engine_words = before_the_program(words)
    assert words[:2] == [engine, "run"]
    assert set(GPU[engine]) <= set(engine_words)
    mount = "-B" if engine == "apptainer" else "-v"
    assert f"{models}:/models:ro" in [words[at + 1] for at, word in enumerate(words) if word == mount]
    assert all(words[at + 1].endswith(":ro") for at, word in enumerate(words) if word == mount)
    assert any(word.endswith(containers.nvidia()) for word in engine_words)
    program = words[words.index("tritonserver") :]
    wanted = ["--model-repository=/models", "--http-port=9300", "--grpc-port=9301", "--metrics-port=9302"]
    wanted += [f"--{service}-address=127.0.0.1" for service in ("http", "grpc", "metrics")]
    assert set(wanted) <= set(program)


@pytest.mark.parametrize("engine", ENGINES)
def test_without_a_gpu(engine: str, engines: Engines, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = shown(capsys, models, engine)
    assert not set(GPU[engine]) & set(words)
    asked = shown(capsys, models, engine, gpu=True)  # the command for another machine
    assert set(GPU[engine]) <= set(asked)


def test_a_gpu_that_is_not_wanted_or_not_allowed(
    engines: Engines, models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engines.install("nvidia-smi")
    words = shown(capsys, models, "docker", gpu=False)
    assert "--gpus=all" not in words
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "--gpus=all" not in shown(capsys, models, "docker")
    # A batch system's choice of GPU counts in the container, too.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    words = shown(capsys, models, "docker")
    assert {"--gpus=all", "--env=CUDA_VISIBLE_DEVICES"} <= set(words)


def test_who_the_server_is(engines: Engines, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The caller: Docker must be told; podman's root is the caller, and Docker's is where Docker itself runs without root."""
    me = f"--user={os.getuid()}:{os.getgid()}"
    assert me in shown(capsys, models, "docker")
    assert not any("user" in word for word in before_the_program(shown(capsys, models, "podman")))
    engines.install("docker")
    engines.tell(docker_info=(0, '{"SecurityOptions": ["name=seccomp", "name=rootless"]}', ""))
    with pytest.raises(ServerError):
        launch_server(models, runtime="docker")
    assert me not in engines.calls("docker", "run")[0]


def test_shared_memory(engines: Engines, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The host's, so that clients can hand tensors over in it."""
    assert "--ipc=host" in shown(capsys, models, "podman")
    assert not any("ipc" in word for word in shown(capsys, models, "apptainer"))


def test_which_image(
    engines: Engines, models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    version = (paths.root() / "containers" / "VERSION").read_text().strip()

    def image(engine: str, **options: object) -> str:
        words = shown(capsys, models, engine, **options)
        return words[words.index("python3") - 1]

    assert image("docker") == f"nvcr.io/nvidia/tritonserver:{version}-py3"
    assert image("apptainer") == f"docker://nvcr.io/nvidia/tritonserver:{version}-py3"
    engines.install("podman")
    engines.tell(**{f"podman_image inspect triton-course/tritonserver:{version}": (0, "[]", "")})
    assert image("podman") == f"triton-course/tritonserver:{version}"
    assert image("docker") == f"nvcr.io/nvidia/tritonserver:{version}-py3"
    monkeypatch.setenv("COURSE_IMAGES", str(tmp_path))
    (tmp_path / f"tritonserver_{version}-py3.sif").touch()
    assert image("apptainer") == str(tmp_path / f"tritonserver_{version}-py3.sif")
    monkeypatch.setenv("COURSE_IMAGE", "/cvmfs/images/tritonserver")
    assert image("apptainer") == "/cvmfs/images/tritonserver"
    assert image("podman", image="mine:1") == "mine:1"


def test_further_arguments_for_the_engine(
    engines: Engines, models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COURSE_ENGINE_ARGUMENTS", "--cpus=4 -v '/a b:/c:ro'")
    words = before_the_program(shown(capsys, models, "docker"))
    at = words.index("--cpus=4")
    assert words[at : at + 4] == ["--cpus=4", "-v", "/a b:/c:ro", containers.nvidia()]


@pytest.mark.parametrize(("engine", "option"), [("apptainer", "--nv"), ("docker", "--gpus=all"), ("podman", "--device=nvidia.com/gpu=all")])
@pytest.mark.parametrize(("typed", "there"), [(["--gpu"], True), (["--no-gpu"], False)])
def test_serve_prints_what_one_types_on_a_node_with_or_without_gpus(
    engine: str, option: str, typed: list[str], there: bool, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--models", str(models), "--runtime", engine, *typed, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert (option in shlex.split(printed.replace("\\\n", " "))) is there
