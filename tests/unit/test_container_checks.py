"""What is looked at before a container starts: each obstacle has a name, and a line to type. And what the doctor says of engines."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from helpers import launch_server
from helpers.errors import ServerError, SetupError
from helpers.machine import Gpu, gpus
from helpers.server import containers
from helpers.server.containers import CUDA_DRIVERS, IMAGE_CUDA, PASCAL_RELEASE, TURING_CUDA, check_gpus, hint
from tests.support.engines import Engines

T4_OLD = Gpu("Tesla T4", "450.80.02")
RTX_OLD = Gpu("NVIDIA GeForce RTX 2080", "470.82.01")


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
    engines.tell(**{f"{engine}_image inspect --format {{{{json .Config.Env}}}} nvcr.io": absent})
    with pytest.raises(SetupError, match=words):
        launch_server("models", runtime=engine)
    assert engines.calls(engine, "run") == []


def test_an_image_of_ones_own_is_missing(engines: Engines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engines.install("docker", "apptainer")
    with pytest.raises(SetupError, match=r"docker build -f containers/Containerfile.server --build-arg VERSION=\S+ -t triton-course/"):
        launch_server("models", runtime="docker", image=containers.own())
    monkeypatch.setenv("COURSE_IMAGE", str(tmp_path / "mine.sif"))
    with pytest.raises(SetupError, match=rf"apptainer pull {tmp_path}/mine.sif"):
        launch_server("models", runtime="apptainer")


@pytest.mark.parametrize(
    ("status", "out", "err", "words"),
    [
        (1, "", "Cannot connect to the Docker daemon at unix:///var/run/docker.sock.", "Cannot connect.*systemctl start docker"),
        # Newer clients exit with 0 or 1, and have the reason among the facts.
        (0, '{"ServerErrors": ["permission denied while trying to connect"]}', "", "permission denied.*usermod -aG docker"),
        (0, "no JSON", "", "does not answer.*docker info"),
    ],
)
def test_dockers_service_does_not_answer(status: int, out: str, err: str, words: str, engines: Engines) -> None:
    engines.install("docker")
    engines.tell(docker_info=(status, out, err))
    with pytest.raises(SetupError, match=words):
        launch_server("models", runtime="docker")


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ('exec: "newuidmap": executable file not found in $PATH', "apt-get install uidmap"),
        ("no subuid ranges found for user in /etc/subuid", "--add-subuids"),
        ("potentially insufficient UIDs or GIDs available in user namespace", "--add-subuids"),
        ("lchown /etc/gshadow: operation not permitted on network filesystem", "graphroot"),
        ("Error: setting up CDI devices: unresolvable CDI devices nvidia.com/gpu=all", "nvidia-ctk cdi generate.*gpu=False"),
        ('could not select device driver "" with capabilities: [[gpu]]', "NVIDIA Container Toolkit.*gpu=False"),
        (
            "nvidia-container-cli: requirement error: unsatisfied condition: cuda>=13.4, please update your driver",
            "driver is too old.*gpu=False",
        ),
        ("FATAL: while extracting image: no space left on device", "APPTAINER_CACHEDIR"),
        ("Failed to increase the shared memory pool size for key", "COURSE_SHM_SIZE=1g"),
    ],
)
def test_what_to_type_after_the_words_of_an_engine(words: str, advice: str) -> None:
    assert re.search(advice, hint(words))


def test_an_engine_that_does_not_start_a_container_is_quoted(engines: Engines) -> None:
    engines.install("docker")
    engines.tell(docker_run=(125, "", 'docker: Error response from daemon: could not select device driver "" with capabilities: [[gpu]].'))
    with pytest.raises(ServerError, match=r"(?s)did not start.*could not select device driver.*NVIDIA Container Toolkit"):
        launch_server("models", runtime="docker")


@pytest.mark.parametrize(
    ("gpu", "cuda", "good"),
    [
        (Gpu("Tesla T4", "550.54.15"), "12.6.2", True),
        (Gpu("NVIDIA GeForce RTX 2080", "525.60.13"), "12.6.2", True),
        (RTX_OLD, "12.6.2", False),
        (Gpu("Tesla T4", "470.57.02"), "12.6.2", True),  # NVIDIA's images carry what is lacking there
        (T4_OLD, "12.6.2", False),
        (T4_OLD, "11.8.0", True),
        (Gpu("NVIDIA RTX A6000", "550.54.15"), "13.0", False),
        (RTX_OLD, "", False),  # an image that does not tell is taken for NVIDIA's of the course
        (Gpu("Tesla T4", "unknown"), "", False),
        (Gpu("Tesla T4", "535.183.01"), "13.4.3.001", True),
        (Gpu("Tesla T4", "525.85.12"), "13.4.3.001", False),
        (Gpu("NVIDIA GeForce RTX 2080", "580.65.06"), "", True),
    ],
)
def test_the_driver_and_the_images_cuda(gpu: Gpu, cuda: str, good: bool) -> None:
    image = {"CUDA_VERSION": cuda} if cuda else {}
    if good:
        check_gpus([gpu], image)
    else:
        with pytest.raises(SetupError, match=rf"driver {gpu.driver} .*{gpu.name}.*too old.*gpu=False"):
            check_gpus([gpu], image)


@pytest.mark.parametrize("name", ["Tesla P100-PCIE-16GB", "Tesla V100-SXM2-32GB", "NVIDIA GeForce GTX 1080 Ti", "Quadro GV100", "TITAN V"])
def test_a_gpu_older_than_turing_gets_the_release_that_serves_it_by_name(name: str) -> None:
    """With any driver; and with the image of that release it is served."""
    gpu = Gpu(name, "580.65.06")
    for image in ({}, {"CUDA_VERSION": "12.8.0.038"}):
        with pytest.raises(SetupError, match=rf"{name}\) is too old for the image.*tritonserver:24\.10-py3.*gpu=False"):
            check_gpus([gpu], image)
    check_gpus([gpu], {"CUDA_VERSION": "12.6.2.004"})


@pytest.mark.parametrize(
    "name", ["Tesla T4", "NVIDIA GeForce GTX 1660 Ti", "NVIDIA TITAN RTX", "NVIDIA A100-SXM4-40GB", "NVIDIA H200", "NVIDIA L4"]
)
def test_gpus_from_turing_on_are_served(name: str) -> None:
    check_gpus([Gpu(name, "580.65.06")], {})


def test_a_driver_that_is_too_old_stops_the_start_unless_the_gpu_is_left_out(engines: Engines) -> None:
    engines.install("docker", "nvidia-smi")
    engines.tell(**{"nvidia-smi_--query-gpu": (0, "NVIDIA GeForce GTX 1660, 418.40.04\n", "")})
    with pytest.raises(SetupError, match=r"driver 418\.40\.04 .* too old for the image, whose CUDA 13 needs 580"):
        launch_server("models", runtime="docker")
    with pytest.raises(Exception, match="the stand-in serves nothing"):
        launch_server("models", runtime="docker", gpu=False)


def test_gpus_of_this_machine(engines: Engines) -> None:
    assert gpus() == ()
    engines.install("nvidia-smi")
    assert gpus() == (Gpu("Tesla T4", "550.54.15"),)
    engines.tell(**{"nvidia-smi_--query-gpu": (9, "", "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.")})
    assert gpus() == ()


def test_the_requirement_of_the_image_is_that_of_the_release() -> None:
    """Whoever changes VERSION must look these up again in the release notes."""
    assert (containers.nvidia(), IMAGE_CUDA) == ("nvcr.io/nvidia/tritonserver:26.10-py3", "13.4")
    assert json.dumps(CUDA_DRIVERS) == '{"11": 450, "12": 525, "13": 580}'
    assert (TURING_CUDA, PASCAL_RELEASE) == ((12, 8), "24.10")
