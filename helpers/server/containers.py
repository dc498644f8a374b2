"""Runtimes ``apptainer``, ``docker`` and ``podman``: NVIDIA's image, or one made from it, run by an engine. Linux.

What an engine cannot do, it says itself when it is asked or started; its words are quoted, with a line to type where one helps.
"""

from __future__ import annotations

import getpass
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

from helpers import machine, paths
from helpers.errors import SetupError
from helpers.server import in_container
from helpers.server.command import Command, LaunchSpec

ENGINES = ("apptainer", "docker", "podman")
_OWN_IMAGE = "triton-course/tritonserver"
# What newer servers want to hear for what the embedded one does unasked. The calls that it allows stay the owner's, by their key.
CHANGED_OPTIONS = ("--allow-client-shm=true",)
# Where a container finds the repository, and the helpers that start the server in it.
_MODELS, _HELPERS = "/models", "/course/helpers"
# Words of an engine, and what to type then.
_WITHOUT_GPU = "Without the GPU: launch_server(…, gpu=False)"
_SUBIDS = "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}"
_STORAGE = '[storage]\\ndriver = "overlay"\\ngraphroot = "/tmp/{user}-podman"\\n'
_HINTS = {
    r"permission denied.*docker|docker.*permission denied": "Ask for: sudo usermod -aG docker {user}   (then log in again)",
    r"docker daemon": "Type: sudo systemctl start docker   (or use podman, which needs no service)",
    r"newuidmap|newgidmap": "Ask the administrator for: sudo apt-get install uidmap   (shadow-utils on Alma and Fedora)",
    r"subuid|subgid|insufficient UIDs": f"Ask the administrator for: {_SUBIDS}",
    r"lchown|network file ?system|operation not supported": "Images cannot be unpacked on a network disk. Type: "
    f"mkdir -p ~/.config/containers && printf '{_STORAGE}' > ~/.config/containers/storage.conf",
    r"CDI device|nvidia\.com/gpu": "Ask the administrator for: sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml   {without}",
    r"unsatisfied condition: cuda|update your driver|compatibility mode is UNAVAILABLE": "The driver is too old for the image: ask the "
    "administrator for a newer one. {without}",
    r"device driver|nvidia-container": "Ask the administrator for the NVIDIA Container Toolkit. {without}",
    r"shared memory|shm.*(no space|too small)|Bus error": "Look what is left in /dev/shm; it is the host's.",
    r"no space left": "Look with: df -h; quota. Apptainer keeps what it pulls where APPTAINER_CACHEDIR points.",
}
# Seconds for a question to an engine; a sleeping daemon takes a few.
_TIMEOUT_S = 30.0


def hint(words: str) -> str:
    """Return what to type after these words of an engine; empty where nothing is known."""
    found = next((advice for pattern, advice in _HINTS.items() if re.search(pattern, words, re.IGNORECASE)), "")
    return found.format(user=getpass.getuser(), without=_WITHOUT_GPU) if found else ""


def command(spec: LaunchSpec, run_dir: Path) -> Command:
    """Return the command for a server in a container on the host's own network.

    Raises:
        SetupError: the engine, the image or the GPU that was asked for is not there.
    """
    engine, image = spec.runtime, chosen(spec.runtime, spec.image)
    if platform.system() != "Linux":
        raise SetupError(
            f"Containers of the course need Linux; this is {platform.system()}.",
            "Elsewhere an engine runs them in a virtual machine, whose network and folders are others.",
            "Type: docker compose -f containers/compose.yaml up   (see containers/README.md)",
        )
    if not shutil.which(engine):
        raise SetupError(
            f"The program {engine} is not on this machine.",
            f"The runtime {engine!r} starts the server with it.",
            'Type: server = launch_server("models", runtime="embedded")',
        )
    rootless = engine != "apptainer" and _is_rootless(engine)
    # Apptainer pulls what somebody asks for by name, into its cache.
    pulled = engine == "apptainer" and "://" in image and (image in (spec.image, os.environ.get("COURSE_IMAGE")))
    if not pulled and not _has(engine, image):
        raise SetupError(
            f"The image {image.removeprefix('docker://')} is not on this machine.",
            "Pulling it takes a while and some 30 GB of disk; containers/README.md has ways without a network.",
            _how_to_get(engine, image),
        )
    seen = bool(machine.gpus())
    if spec.gpu and not seen:
        raise SetupError(
            "No NVIDIA GPU is seen on this machine.", "You asked for one with gpu=True.", "Leave gpu out: then the processor serves."
        )
    return _command(spec, image, seen, rootless, lifeline=True)


def dry_command(spec: LaunchSpec) -> Command:
    """Return the same command as people type it, whatever this machine lacks: the server lives until it is interrupted."""
    return _command(spec, chosen(spec.runtime, spec.image), bool(machine.gpus()), rootless=False, lifeline=False)


def _is_rootless(engine: str) -> bool:
    """True if the engine says that it runs without root; an error where it does not work for this user."""
    status, words = _said(engine, "info", "--format", "{{json .}}")
    try:
        facts = {} if status else json.loads(words or "{}")
    except ValueError as error:
        raise SetupError(f"{engine} does not answer: {error}.", "", f"Type: {engine} info") from error
    # Docker's client answers without its service, too, and says then what is wrong.
    trouble = (words or f"it ended with status {status}") if status else "; ".join(facts.get("ServerErrors") or [])
    if trouble:
        advice = hint(f"{engine} {trouble}") or f"Type: {engine} info"
        raise SetupError(f"{engine} cannot be used: {trouble.splitlines()[-1][:300]}", "", advice)
    return "name=rootless" in str(facts.get("SecurityOptions"))


def _command(spec: LaunchSpec, image: str, seen: bool, rootless: bool, lifeline: bool) -> Command:
    engine, gpu = spec.runtime, seen if spec.gpu is None else spec.gpu
    secrets = {in_container.KEY_VARIABLE: spec.admin_key}
    place = spec.place
    if place.token:
        secrets[in_container.TOKEN_VARIABLE] = place.token
        place = replace(place, token=f"${in_container.TOKEN_VARIABLE}")
    hidden = replace(spec, admin_key=f"${in_container.KEY_VARIABLE}", place=place)
    # Packages in the home folder of the host, which Apptainer shows to the container, are not the image's.
    values = {"PYTHONNOUSERSITE": "1", "PYTHONUNBUFFERED": "1"}
    if engine == "apptainer":
        # Network, user and shared memory are the host's already, the environment comes along, and the container ends with the program.
        public, mount = [engine, "run", *(["--nv"] if gpu else [])], "-B"
    else:
        values["HOME"], mount = "/tmp", "-v"
        public = [engine, "run", "--rm", f"--name={spec.server_id}"]
        # The lifeline: see in_container.
        public += ["--interactive"] if lifeline else []
        # Servers listen on the loopback interface, and that of the host is meant; clients see the host's shared memory, too.
        public += ["--net=host", "--ipc=host"]
        public += [{"docker": "--gpus=all", "podman": "--device=nvidia.com/gpu=all"}[engine]] if gpu else []
        # Docker's service runs containers as root unless told otherwise. In podman's, and in Docker without root, root is the caller.
        public += [f"--user={os.getuid()}:{os.getgid()}"] if engine == "docker" and not rootless else []
        # Where SELinux rules, it would keep folders of the host and GPUs from the container; relabelling people's folders is no way.
        public += ["--security-opt=label=disable", *(f"--env={name}" for name in secrets)]
        public += ["--env=CUDA_VISIBLE_DEVICES"] if "CUDA_VISIBLE_DEVICES" in os.environ else []
    public += [
        *(mount, _mount(spec.repository, _MODELS), mount, _mount(Path(__file__).resolve().parents[1], _HELPERS)),
        *(f"--env={name}={value}" for name, value in values.items()),
        *shlex.split(os.environ.get("COURSE_ENGINE_ARGUMENTS", "")),
        image,
        *("python3", f"{_HELPERS}/server/in_container.py", *([in_container.LIFELINE] if lifeline else []), "tritonserver"),
        *CHANGED_OPTIONS,
        *hidden.triton_arguments(_MODELS),
        *hidden.private_arguments(),
    ]
    # Apptainer hands all of it in: the notebooks' own Python settings are not for the image's Python.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "CONDA_"))}
    # The second name is for an Apptainer that is set up to hand in nothing else.
    environment |= secrets | {f"APPTAINERENV_{name}": value for name, value in secrets.items()}
    remark = "No NVIDIA GPU is seen on this machine: the container runs without one, and models on the processor."
    return Command(
        public,
        [],
        environment,
        # Apptainer's containers end with its program.
        after=[] if engine == "apptainer" else [engine, "rm", "--force", spec.server_id],
        lifeline=lifeline,
        remark=remark if spec.gpu is None and not gpu else "",
    )


def image_version() -> str:
    """Return the NGC image tag without its suffix, such as ``26.10``; ``containers/VERSION`` is the only place that names it."""
    return (paths.root() / "containers" / "VERSION").read_text().strip()


def nvidia() -> str:
    """Return NVIDIA's image of the course's release."""
    return f"nvcr.io/nvidia/tritonserver:{image_version()}-py3"


def own() -> str:
    """Return the course's image: NVIDIA's, with what the course's Python models import."""
    return f"{_OWN_IMAGE}:{image_version()}"


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
    return own() if _has(engine, own()) else nvidia()


def _has(engine: str, image: str) -> bool:
    """True if the engine has this image; False also where it cannot be asked."""
    try:
        return Path(image).exists() if engine == "apptainer" else _said(engine, "image", "inspect", image)[0] == 0
    except SetupError:
        return False


def _how_to_get(engine: str, image: str) -> str:
    if engine == "apptainer":
        target = Path(image) if image.endswith(".sif") else sif_files()[1]
        # What it pulls lies in the home folder otherwise, whose quota it soon fills.
        room = "export APPTAINER_CACHEDIR=/a/disk/with/room APPTAINER_TMPDIR=/a/disk/with/room"
        return f"Type: {room} && mkdir -p {target.parent} && apptainer pull {target} docker://{nvidia()}"
    if image.startswith(_OWN_IMAGE):
        build = f"{engine} build -f containers/Containerfile.server --build-arg VERSION={image_version()} -t {image} ."
        return f"In the course's folder, type: {build}"
    return f"Type: {engine} pull {image}"


def _said(engine: str, *question: str) -> tuple[int, str]:
    """Status of a question to an engine, and its answer, or what it says of its trouble."""
    try:
        answer = subprocess.run([engine, *question], capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SetupError(f"{engine} does not answer: {error}.", "", f"Type: {engine} info") from error
    return answer.returncode, (answer.stderr if answer.returncode else answer.stdout).strip()


def _mount(path: Path, to: str) -> str:
    """A folder of the host at its place in the container, read-only."""
    if set(str(path)) & set(":,"):
        told = "Container engines cannot be told of such a folder."
        raise SetupError(f"The path {path} has a colon or a comma in it.", told, "Move it, or make a link to it elsewhere.")
    return f"{path}:{to}:ro"
