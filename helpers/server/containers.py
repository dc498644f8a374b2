"""Runtimes ``apptainer``, ``docker`` and ``podman``: NVIDIA's image, or one made from it, run by an engine. Linux.

What an engine cannot do, it says itself when it is asked or started; its words are quoted, with a line to type where one helps. Which
image runs, in this order: what the caller names, ``COURSE_IMAGE``, the course's own where it was built here (NVIDIA's with what the
course's Python models import), NVIDIA's. Tags come from ``containers/VERSION``. Standard library only.
"""

from __future__ import annotations

import dataclasses
import getpass
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from helpers import machine, paths
from helpers.errors import SetupError
from helpers.machine import Gpu
from helpers.server import in_container
from helpers.server.spec import Command, LaunchSpec

ENGINES = ("apptainer", "docker", "podman")
NVIDIA_IMAGE, _OWN_IMAGE = "nvcr.io/nvidia/tritonserver", "triton-course/tritonserver"
# Free disk space, in GB, that pulling NVIDIA's image needs, with the file that Apptainer makes of it: a generous guess.
_DISK_IMAGE_GB = 30.0
EMBEDDED = 'Type: server = launch_server("models", runtime="embedded")'

# The oldest branch of NVIDIA's driver that runs programs of each CUDA, by NVIDIA's table of minor version compatibility, and the oldest
# whose gaps an image fills by itself on GPUs for data centres: for CUDA 12 by the release notes of 24.10. Those of 26.10 name none for
# CUDA 13; 535 is the oldest long-term branch in NVIDIA's table of drivers of 2026.
CUDA_DRIVERS = {11: 450, 12: 525, 13: 580}
CARRIED_DRIVERS = {11: 450, 12: 470, 13: 535}
# CUDA of that image (13.4.3 in release 26.10); an image that says which it has is believed.
IMAGE_CUDA = "13.4"
# The first CUDA of NVIDIA's images for no GPU older than Turing (compute capability 7.5), in release 25.01, and the last release whose
# notes, as we found them, say 6.0.
TURING_CUDA = (12, 8)
PASCAL_RELEASE = "24.10"
# What newer servers want to hear for what the embedded one does unasked. The calls that it allows stay the owner's, by their key.
CHANGED_OPTIONS = ("--allow-client-shm=true",)

# Where a container finds the repository, the helpers that start the server in it, and the files for TLS.
_MODELS, _HELPERS = "/models", "/course/helpers"
_TLS = ("/tls/server.crt", "/tls/server.key")
# Words of an engine, and what to type then.
_HINTS = (
    (
        r"permission denied.*docker|docker.*permission denied",
        "Ask the administrator for: sudo usermod -aG docker {user}   (then log in again)",
    ),
    (r"docker daemon", "Type: sudo systemctl start docker   (or use podman, which needs no service)"),
    (r"newuidmap|newgidmap", "Ask the administrator for: sudo apt-get install uidmap   (shadow-utils on Alma and Fedora)"),
    (
        r"subuid|subgid|insufficient UIDs",
        "Ask the administrator for: sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}",
    ),
    (
        r"lchown|network file ?system|operation not supported",
        "Images cannot be unpacked on a network disk. Type: mkdir -p ~/.config/containers && printf"
        ' \'[storage]\\ndriver = "overlay"\\ngraphroot = "/tmp/{user}-podman"\\n\' > ~/.config/containers/storage.conf',
    ),
    (r"CDI device|nvidia\.com/gpu", "Ask the administrator for: sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml   {without}"),
    (
        r"unsatisfied condition: cuda|update your driver",
        "The driver is too old for the image: ask the administrator for a newer one. {without}",
    ),
    (r"device driver|nvidia-container", "Ask the administrator for the NVIDIA Container Toolkit. {without}"),
    (
        r"shared memory|shm.*(no space|too small)|Bus error",
        "Look what is left in /dev/shm, or type: export COURSE_SHM_SIZE=1g   (Docker and podman: a shared memory of its own)",
    ),
    (r"no space left", "Look with: df -h; quota. Apptainer keeps what it pulls where APPTAINER_CACHEDIR points."),
    (r"system migrate|invalid internal status", "Type: podman system migrate   (then once more: podman info)"),
)
_WITHOUT_GPU = "Without the GPU: launch_server(…, gpu=False)"
# Seconds for a question to an engine; a sleeping daemon takes a few.
_TIMEOUT_S = 30.0


def hint(words: str) -> str:
    """Return what to type after these words of an engine; empty where nothing is known."""
    found = next((advice for pattern, advice in _HINTS if re.search(pattern, words, re.IGNORECASE)), "")
    return found.format(user=getpass.getuser(), without=_WITHOUT_GPU) if found else ""


class Container:
    """NVIDIA's container image, or one made from it, run by Apptainer, Docker or podman.

    Args:
        name: the engine, which is also the name of its program.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def command(self, spec: LaunchSpec, run_dir: Path) -> Command:
        """Return the command for a server in a container on the host's own network.

        Raises:
            SetupError: the engine, the image, the GPU that was asked for or a new enough driver is not there.
        """
        facts = self._facts()
        image = chosen(self.name, spec.image)
        variables = self._variables_of(image)
        gpus = machine.gpus()
        if spec.gpu and not gpus:
            raise SetupError(
                "No NVIDIA GPU is seen on this machine.",
                "You asked for one with gpu=True.",
                "Leave gpu out, and models run on the processor.",
            )
        if spec.gpu is not False:
            check_gpus(gpus, variables)
        return self._command(spec, image, bool(gpus), rootless="name=rootless" in str(facts.get("SecurityOptions")), lifeline=True)

    def dry_command(self, spec: LaunchSpec) -> Command:
        """Return the same command as people type it, whatever this machine lacks: the server lives until it is interrupted."""
        return self._command(spec, chosen(self.name, spec.image), bool(machine.gpus()), rootless=False, lifeline=False)

    def _facts(self) -> Mapping[str, Any]:
        """What the engine says of itself; an error where it is not there or does not work for this user."""
        if platform.system() != "Linux":
            raise SetupError(
                f"Containers of the course need Linux; this is {platform.system()}.",
                "Elsewhere an engine runs them in a virtual machine, whose network and folders are others.",
                "Type: docker compose -f containers/compose.yaml up   (see containers/README.md)",
            )
        if not shutil.which(self.name):
            raise SetupError(
                f"The program {self.name} is not on this machine.", f"The runtime {self.name!r} starts the server with it.", EMBEDDED
            )
        if self.name == "apptainer":
            return {}
        status, words = _said(self.name, "info", "--format", "{{json .}}")
        try:
            facts: dict[str, Any] = {} if status else json.loads(words or "{}")
        except ValueError as error:
            raise SetupError(f"{self.name} does not answer: {error}.", "", f"Type: {self.name} info") from error
        # Docker's client answers without its service, too, and says then what is wrong.
        trouble = (words or f"it ended with status {status}") if status else "; ".join(facts.get("ServerErrors") or [])
        if trouble:
            raise SetupError(
                f"{self.name} cannot be used: {trouble.splitlines()[-1][:300]}",
                "",
                hint(f"{self.name} {trouble}") or f"Type: {self.name} info",
            )
        return facts

    def _variables_of(self, image: str) -> dict[str, str]:
        """The variables that an image sets; an error where it is not there, which says how to get it."""
        named = os.environ.get("COURSE_IMAGE") == image or image != f"docker://{nvidia()}"
        if self.name == "apptainer" and "://" in image and named:
            return {}  # somebody asked for it: Apptainer pulls it, into its cache
        variables = environment_of(self.name, image)
        if variables is None:
            raise SetupError(
                f"The image {image.removeprefix('docker://')} is not on this machine.",
                f"Pulling it takes a while and some {_DISK_IMAGE_GB:.0f} GB of disk; containers/README.md has ways without a network.",
                how_to_get(self.name, image),
            )
        return variables

    def _command(self, spec: LaunchSpec, image: str, seen: bool, rootless: bool, lifeline: bool) -> Command:
        gpu = seen if spec.gpu is None else spec.gpu
        place = spec.place
        secrets = {in_container.KEY_VARIABLE: spec.admin_key} | ({in_container.TOKEN_VARIABLE: place.token} if place.token else {})
        hidden = dataclasses.replace(place, token=in_container.TOKEN_PLACE if place.token else "")
        placed = dataclasses.replace(spec, admin_key=in_container.KEY_PLACE, place=hidden)
        tls = {to: Path(file) for to, file in zip(_TLS, (place.certificate, place.private_key))} if place.certificate else {}
        mounts = {_MODELS: spec.repository, _HELPERS: Path(__file__).resolve().parents[1], **tls}
        # Packages in the home folder of the host, which Apptainer shows to the container, are not the image's.
        values = {"PYTHONNOUSERSITE": "1", "PYTHONUNBUFFERED": "1"} | ({} if self.name == "apptainer" else {"HOME": "/tmp"})
        variables = [*secrets, *(["CUDA_VISIBLE_DEVICES"] if "CUDA_VISIBLE_DEVICES" in os.environ else [])]
        engine = self._apptainer(gpu) if self.name == "apptainer" else self._docker(spec, gpu, rootless, lifeline, variables)
        bind = "-B" if self.name == "apptainer" else "-v"
        public = [
            *engine,
            *(part for to, path in mounts.items() for part in (bind, _mount(path, to))),
            *(f"--env={name}={value}" for name, value in values.items()),
            *shlex.split(os.environ.get("COURSE_ENGINE_ARGUMENTS", "")),
            image,
            *("python3", f"{_HELPERS}/server/in_container.py", *([in_container.LIFELINE] if lifeline else []), "tritonserver"),
            *CHANGED_OPTIONS,
            *placed.triton_arguments(_MODELS, _TLS),
            *placed.private_arguments(),
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
            after=[] if self.name == "apptainer" else [self.name, "rm", "--force", spec.server_id],
            lifeline=lifeline,
            remark=remark if spec.gpu is None and not gpu else "",
        )

    @staticmethod
    def _apptainer(gpu: bool) -> list[str]:
        # Network, user and shared memory are the host's already, the environment comes along, and the container ends with the program.
        return ["apptainer", "run", *(["--nv"] if gpu else [])]

    def _docker(self, spec: LaunchSpec, gpu: bool, rootless: bool, lifeline: bool, variables: Sequence[str]) -> list[str]:
        # A shared memory of its own, such as 1g; by default the host's, which clients see, too.
        size = os.environ.get("COURSE_SHM_SIZE", "")
        gpus = {"docker": "--gpus=all", "podman": "--device=nvidia.com/gpu=all"}[self.name]
        # Docker's service runs containers as root unless told otherwise. In podman's, and in Docker without root, root is the caller.
        user = [f"--user={os.getuid()}:{os.getgid()}"] if self.name == "docker" and not rootless else []
        return [
            *(self.name, "run", "--rm", f"--name={spec.server_id}"),
            # The lifeline: see in_container.
            *(["--interactive"] if lifeline else []),
            # Servers listen on the loopback interface, and that of the host is meant.
            "--net=host",
            f"--shm-size={size}" if size else "--ipc=host",
            *([gpus] if gpu else []),
            *user,
            # Where SELinux rules, it would keep folders of the host and GPUs from the container; relabelling people's folders is no way.
            "--security-opt=label=disable",
            *(f"--env={name}" for name in variables),
        ]


def image_version() -> str:
    """Return the NGC image tag without its suffix, such as ``26.10``; ``containers/VERSION`` is the only place that names it."""
    return (paths.root() / "containers" / "VERSION").read_text().strip()


def nvidia() -> str:
    """Return NVIDIA's image of the course's release."""
    return f"{NVIDIA_IMAGE}:{image_version()}-py3"


def own() -> str:
    """Return the course's image: NVIDIA's, with what the course's Python models import."""
    return f"{_OWN_IMAGE}:{image_version()}"


def sif_files() -> tuple[Path, Path]:
    """Return the course's ``.sif`` file and NVIDIA's, by the names that ``containers/README.md`` gives them.

    They lie where ``COURSE_IMAGES`` points, such as a folder that a class shares, else in ``work/images``.
    """
    folder = Path(os.environ["COURSE_IMAGES"]).resolve() if "COURSE_IMAGES" in os.environ else paths.work_dir() / "images"
    version = image_version()
    return folder / f"triton-course_{version}.sif", folder / f"tritonserver_{version}-py3.sif"


def chosen(engine: str, given: str = "") -> str:
    """Return the image that an engine is to run; ``given`` is what the caller names, if anything."""
    if named := given or os.environ.get("COURSE_IMAGE", ""):
        return named
    if engine == "apptainer":
        return next((str(file) for file in sif_files() if file.exists()), f"docker://{nvidia()}")
    return own() if environment_of(engine, own()) is not None else nvidia()


def environment_of(engine: str, image: str) -> dict[str, str] | None:
    """Return the variables that an image sets; None where the engine does not have it (or cannot be asked).

    Apptainer's files are only looked for: what they set is not worth the seconds that asking takes.
    """
    if engine == "apptainer":
        return {} if Path(image).exists() else None
    try:
        status, words = _said(engine, "image", "inspect", "--format", "{{json .Config.Env}}", image)
    except SetupError:
        return None
    try:
        return dict(entry.split("=", 1) for entry in json.loads(words) or [] if "=" in entry) if status == 0 else None
    except ValueError:
        return {}


def how_to_get(engine: str, image: str) -> str:
    """Return what to type to get an image that is not there."""
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
        raise SetupError(
            f"The path {path} has a colon or a comma in it.",
            "Container engines cannot be told of such a folder.",
            "Move it, or make a link to it elsewhere.",
        )
    return f"{path}:{to}:ro"


def check_gpus(gpus: Sequence[Gpu], image: Mapping[str, str]) -> None:
    """Refuse a GPU or a driver that is too old for the image: the container would start, and each model fail.

    Args:
        gpus: the machine's.
        image: the variables that the image sets.

    Raises:
        SetupError: one is.
    """
    cuda, minor = (int(word) for word in f"{image.get('CUDA_VERSION') or IMAGE_CUDA}.0".split(".")[:2])
    least = CUDA_DRIVERS.get(cuda, 0)
    for gpu in gpus:
        if gpu.before_turing and (cuda, minor) >= TURING_CUDA:
            raise SetupError(
                f"The GPU of this machine ({gpu.name}) is too old for the image: since 25.01 NVIDIA's images need a T4, RTX 20 or newer.",
                f"Release {PASCAL_RELEASE} serves it, with holes that later ones have closed: for a node where you trust everybody "
                "(docs/safety.md).",
                f"Type: launch_server(…, image=…) with {NVIDIA_IMAGE}:{PASCAL_RELEASE}-py3, once you have it. {_WITHOUT_GPU}",
            )
        carried = gpu.for_data_centres and gpu.driver_major >= CARRIED_DRIVERS.get(cuda, 0)
        if gpu.driver_major < least and not carried:
            raise SetupError(
                f"The NVIDIA driver {gpu.driver} of this machine ({gpu.name}) is too old for the image, whose CUDA {cuda} needs {least}.",
                "The driver is the host's; no container can bring it.",
                f"Ask the administrator for a newer one. {_WITHOUT_GPU}",
            )
