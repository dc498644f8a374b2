"""What is looked at before a container starts: each obstacle has a name, and a line to type. And what the doctor says of engines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from helpers import launch_server
from helpers.errors import ServerError, SetupError
from helpers.machine import gpus
from helpers.server import containers
from tests.support.engines import Engines


@pytest.mark.parametrize("engine", ["apptainer", "docker", "podman"])
def test_the_engine_is_missing(engine: str, engines: Engines) -> None:
    with pytest.raises(SetupError, match=rf'{engine} is not on this machine.*runtime="embedded"'):
        launch_server("models", runtime=engine)


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ("docker", rf"{re.escape(containers.nvidia())} is not on this machine.*Type: docker pull {re.escape(containers.nvidia())}"),
        ("podman", rf"{re.escape(containers.nvidia())} is not on this machine.*Type: podman pull {re.escape(containers.nvidia())}"),
        ("apptainer", rf"is not on this machine.*APPTAINER_CACHEDIR.*apptainer pull \S+\.sif docker://{re.escape(containers.nvidia())}"),
    ],
)
def test_the_image_is_missing(engine: str, words: str, engines: Engines) -> None:
    engines.install(engine)
    absent = (1, "", "Error: No such image")
    engines.tell(**{f"{engine}_image inspect nvcr.io": absent})
    with pytest.raises(SetupError, match=words):
        launch_server("models", runtime=engine)
    assert engines.calls(engine, "run") == []


def test_a_sif_file_is_missing(engines: Engines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engines.install("apptainer")
    monkeypatch.setenv("COURSE_IMAGE", str(tmp_path / "mine.sif"))
    with pytest.raises(SetupError, match=rf"apptainer pull {tmp_path}/mine.sif"):
        launch_server("models", runtime="apptainer")


def test_dockers_service_does_not_answer(engines: Engines) -> None:
    engines.install("docker")
    words = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock."
    engines.tell(**{"docker_image inspect": (1, "", words), "docker_image inspect nvcr.io": (1, "", words)})
    with pytest.raises(SetupError, match=f"docker says: {words}"):
        launch_server("models", runtime="docker")


def test_an_engine_that_does_not_start_a_container_is_quoted(engines: Engines) -> None:
    engines.install("docker")
    engines.tell(docker_run=(125, "", 'docker: Error response from daemon: could not select device driver "" with capabilities: [[gpu]].'))
    with pytest.raises(ServerError, match=r"(?s)did not start.*could not select device driver.*gpu=False"):
        launch_server("models", runtime="docker")


def test_gpus_of_this_machine(engines: Engines) -> None:
    assert gpus() == ()
    engines.install("nvidia-smi")
    assert gpus() == ("Tesla T4",)
    engines.tell(**{"nvidia-smi_--query-gpu": (9, "", "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.")})
    assert gpus() == ()
