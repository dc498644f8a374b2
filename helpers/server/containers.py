"""Runtimes ``apptainer``, ``docker`` and ``podman``: NVIDIA's image, or one made from it, run by an engine. Linux.

What an engine cannot do, it says itself when it is asked or started; its words are quoted.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
from pathlib import Path

from helpers import machine, paths
from helpers.errors import SetupError
from helpers.server import in_container
from helpers.server.command import Command, LaunchSpec

ENGINES = ("apptainer", "docker", "podman")
# What newer servers want to hear for what the embedded one does unasked. The calls that it allows stay the owner's, by their key.
CHANGED_OPTIONS = ("--allow-client-shm=true",)
# Where a container finds the repository, and the helpers that start the server in it.
_MODELS, _HELPERS = "/models", "/course/helpers"
# Seconds for a question to an engine; a sleeping daemon takes a few.
_TIMEOUT_S = 30.0


def command(spec: LaunchSpec, run_dir: Path) -> Command:
    """Return the command for a server in a container on the host's own network."""
    engine, image = spec.runtime, chosen(spec.runtime, spec.image)
    if platform.system() != "Linux":
        todo = "Type: docker compose -f containers/compose.yaml up   (see containers/README.md)"
        raise SetupError(f"Containers of the course need Linux; this is {platform.system()}.", "", todo)
    if not shutil.which(engine):
        raise SetupError(f"The program {engine} is not on this machine.", "", 'Type: server = launch_server("models", runtime="embedded")')
    there, words = (Path(image).exists(), "") if engine == "apptainer" else _said(engine, "image", "inspect", image)
    # Apptainer pulls what somebody asks for by name, into its cache.
    if not there and not ("://" in image and image in (spec.image, os.environ.get("COURSE_IMAGE"))):
        # What Apptainer pulls lies in the home folder otherwise, whose quota it soon fills.
        room = "export APPTAINER_CACHEDIR=/a/disk/with/room APPTAINER_TMPDIR=/a/disk/with/room"
        target = image if image.endswith(".sif") else sif_files()[1]
        pull = f"{room} && mkdir -p {Path(target).parent} && apptainer pull {target} docker://{nvidia()}"
        raise SetupError(
            f"The image {image.removeprefix('docker://')} is not on this machine{words and f' ({engine} says: {words})'}.",
            "Pulling it takes a while and some 30 GB of disk; containers/README.md has ways without a network.",
            f"Type: {pull if engine == 'apptainer' else f'{engine} pull {image}'}",
        )
    rootless = engine == "docker" and "rootless" in _said(engine, "info", "--format", "{{.SecurityOptions}}")[1]
    return _command(spec, image, rootless, lifeline=True)


def dry_command(spec: LaunchSpec) -> Command:
    """Return the same command as people type it, whatever this machine lacks: the server lives until it is interrupted."""
    return _command(spec, chosen(spec.runtime, spec.image), rootless=False, lifeline=False)


def _command(spec: LaunchSpec, image: str, rootless: bool, lifeline: bool) -> Command:
    engine, gpu = spec.runtime, bool(machine.gpus()) if spec.gpu is None else spec.gpu
    # Packages in the home folder of the host, which Apptainer shows to the container, are not the image's.
    values = {"PYTHONNOUSERSITE": "1", "PYTHONUNBUFFERED": "1"}
    if engine == "apptainer":
        # Network, user and shared memory are the host's already, the environment comes along, and the container ends with the program.
        words, mount = [engine, "run", *(["--nv"] if gpu else [])], "-B"
    else:
        values["HOME"], mount = "/tmp", "-v"
        words = [engine, "run", "--rm", f"--name={spec.server_id}"]
        # The lifeline: see in_container.
        words += ["--interactive"] if lifeline else []
        # Servers listen on the loopback interface, and that of the host is meant; clients see the host's shared memory, too.
        words += ["--net=host", "--ipc=host"]
        words += [{"docker": "--gpus=all", "podman": "--device=nvidia.com/gpu=all"}[engine]] if gpu else []
        # Docker's service runs containers as root unless told otherwise. In podman's, and in Docker without root, root is the caller.
        words += [f"--user={os.getuid()}:{os.getgid()}"] if engine == "docker" and not rootless else []
        # Where SELinux rules, it would keep folders of the host and GPUs from the container; relabelling people's folders is no way.
        words += ["--security-opt=label=disable", *(f"--env={name}" for name in spec.secrets())]
        words += ["--env=CUDA_VISIBLE_DEVICES"] if "CUDA_VISIBLE_DEVICES" in os.environ else []
    words += [
        *(mount, f"{spec.repository}:{_MODELS}:ro", mount, f"{Path(__file__).resolve().parents[1]}:{_HELPERS}:ro"),
        *(f"--env={name}={value}" for name, value in values.items()),
        *shlex.split(os.environ.get("COURSE_ENGINE_ARGUMENTS", "")),
        image,
        *("python3", f"{_HELPERS}/server/in_container.py", *([in_container.LIFELINE] if lifeline else []), "tritonserver"),
        *CHANGED_OPTIONS,
        *spec.triton_arguments(_MODELS),
    ]
    # Apptainer hands all of it in: the notebooks' own Python settings are not for the image's Python.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "CONDA_"))}
    # The second name is for an Apptainer that is set up to hand in nothing else.
    environment |= spec.secrets() | {f"APPTAINERENV_{name}": value for name, value in spec.secrets().items()}
    return Command(words, environment, lifeline=lifeline)


def image_version() -> str:
    """Return the NGC image tag without its suffix, such as ``26.10``; ``containers/VERSION`` is the only place that names it."""
    return (paths.root() / "containers" / "VERSION").read_text().strip()


def nvidia() -> str:
    """Return NVIDIA's image of the course's release."""
    return f"nvcr.io/nvidia/tritonserver:{image_version()}-py3"


def own() -> str:
    """Return the course's image: NVIDIA's, with what the course's Python models import."""
    return f"triton-course/tritonserver:{image_version()}"


def sif_files() -> tuple[Path, Path]:
    """Return the course's ``.sif`` file and NVIDIA's: where ``COURSE_IMAGES`` points, such as a class's folder, else in ``work/images``."""
    folder = Path(os.environ["COURSE_IMAGES"]).resolve() if "COURSE_IMAGES" in os.environ else paths.work_dir() / "images"
    version = image_version()
    return folder / f"triton-course_{version}.sif", folder / f"tritonserver_{version}-py3.sif"


def chosen(engine: str, given: str = "") -> str:
    """Return the image to run: what the caller or ``COURSE_IMAGE`` names, else the course's own where it is here, else NVIDIA's."""
    if named := given or os.environ.get("COURSE_IMAGE", ""):
        return named
    if engine == "apptainer":
        return next((str(file) for file in sif_files() if file.exists()), f"docker://{nvidia()}")
    return own() if _said(engine, "image", "inspect", own())[0] else nvidia()


def _said(engine: str, *question: str) -> tuple[bool, str]:
    """Whether an engine answers a question, and its answer, or what it says of its trouble."""
    try:
        answer = subprocess.run([engine, *question], capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return False, str(error)
    return answer.returncode == 0, (answer.stderr if answer.returncode else answer.stdout).strip()
