"""Can this machine run the server in a container? Looked at before the start, so that each obstacle has a name. Standard library only."""

from __future__ import annotations

import getpass
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from helpers.errors import SetupError
from helpers.machine import Gpu
from helpers.server import images
from helpers.server.images import DISK_IMAGE_GB

# The oldest branch of NVIDIA's driver that runs programs of each CUDA, by NVIDIA's table of minor version compatibility, and the oldest
# whose gaps an image fills by itself on GPUs for data centres, by the release notes of 24.10.
CUDA_DRIVERS = {11: 450, 12: 525, 13: 580}
CUDA_DRIVER_CARRIED = 470

# CUDA of that image (12.6.2 in release 24.10); an image that says which it has is believed.
IMAGE_CUDA = "12.6"

EMBEDDED = 'Type: server = launch_server("models", runtime="embedded")'
# Where podman looks for descriptions of GPUs, made by nvidia-ctk.
_CDI = (Path("/etc/cdi"), Path("/var/run/cdi"))
# File systems of network disks, on which rootless podman cannot keep images.
_NETWORK_DISKS = ("nfs", "nfs4", "afs", "fuse.sshfs", "lustre", "beegfs", "gpfs", "ceph", "fuse.eos")
# Free space in /dev/shm, in MB: each Python model instance takes 1 MB and grows with the tensors; a container's default is 64 MB.
_SHM_MB = 32
# Seconds for a question to an engine.
_TIMEOUT_S = 30.0


def check_engine(engine: str) -> dict:
    """Whether an engine is there and works for this user; returns what it says of itself.

    Raises:
        SetupError: says what is missing, and what to type.
    """
    if platform.system() != "Linux":
        raise SetupError(
            f"Containers of the course need Linux; this is {platform.system()}.",
            "Elsewhere an engine runs them in a virtual machine, whose network and folders are others.",
            "Type: docker compose -f containers/compose.yaml up   (see containers/README.md)",
        )
    if not shutil.which(engine):
        raise SetupError(f"The program {engine} is not on this machine.", f"The runtime {engine!r} starts the server with it.", EMBEDDED)
    if engine == "apptainer":
        return {}
    if engine == "podman" and os.geteuid():
        _check_rootless()
    try:
        command = [engine, "info", "--format", "json" if engine == "podman" else "{{json .}}"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
        facts = json.loads(answer.stdout or "{}")
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise SetupError(f"{engine} does not answer: {error}.", "", f"Type: {engine} info") from error
    # Docker's client answers without a daemon, too, and says then what is wrong.
    trouble = answer.stderr.strip() if answer.returncode else "; ".join(facts.get("ServerErrors") or [])
    if trouble:
        raise SetupError(f"{engine} cannot be used: {trouble.splitlines()[-1][:300]}", "", _mend(engine, trouble))
    if engine == "podman" and os.geteuid():
        _check_storage(Path(facts.get("store", {}).get("graphRoot") or Path.home()))
    return facts


def _mend(engine: str, trouble: str) -> str:
    if engine == "docker" and "permission denied" in trouble.lower():
        return f"Ask the administrator for: sudo usermod -aG docker {getpass.getuser()}   (then log in again)"
    if engine == "docker":
        return "Type: sudo systemctl start docker   (or use podman, which needs no service)"
    return "Type: podman system migrate   (then once more: podman info)"


def _check_rootless() -> None:
    user = getpass.getuser()
    lacks = [program for program in ("newuidmap", "newgidmap") if not shutil.which(program)]
    if lacks:
        raise SetupError(
            f"podman without root needs {' and '.join(lacks)}, and this machine has none.",
            "They come with the package uidmap (Debian, Ubuntu) or shadow-utils (Alma, Fedora).",
            "Ask the administrator for: sudo apt-get install uidmap",
        )
    for table in (Path("/etc/subuid"), Path("/etc/subgid")):
        rows = [line.split(":")[0] for line in table.read_text().splitlines()] if table.is_file() else []
        if not {user, str(os.getuid())} & set(rows):
            raise SetupError(
                f"podman without root needs a range of user ids for {user}, and {table} has none.",
                "Without it an image with more than one owner of files cannot be unpacked.",
                f"Ask the administrator for: sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}",
            )


def _check_storage(folder: Path) -> None:
    kind = file_system(folder)
    if kind in _NETWORK_DISKS:
        raise SetupError(
            f"podman keeps its images in {folder}, which is a network disk ({kind}).",
            "Files of several owners cannot be unpacked there.",
            f'Type: mkdir -p ~/.config/containers && printf \'[storage]\\ndriver = "overlay"\\ngraphroot = "/tmp/{getpass.getuser()}'
            "-podman\"\\n' > ~/.config/containers/storage.conf",
        )


def file_system(folder: Path, mounts: str | None = None) -> str:
    """Kind of the file system that a folder lies on, from the text of ``/proc/mounts``."""
    rows = [line.split() for line in (mounts if mounts is not None else Path("/proc/mounts").read_text()).splitlines()]
    over = [(len(row[1]), row[2]) for row in rows if folder.is_relative_to(row[1].replace("\\040", " "))]
    return max(over, default=(0, ""))[1]


def check_image(engine: str, image: str) -> dict[str, str]:
    """Whether the image is there; returns the variables that it sets.

    Raises:
        SetupError: it is not; says how to get it.
    """
    named = os.environ.get("COURSE_IMAGE") == image or image != f"docker://{images.nvidia()}"
    if engine == "apptainer" and "://" in image and named:
        return {}  # somebody asked for it: Apptainer pulls it, into its cache
    environment = images.environment_of(engine, image)
    if environment is None:
        raise SetupError(
            f"The image {image.removeprefix('docker://')} is not on this machine.",
            f"Pulling it takes a while and some {DISK_IMAGE_GB:.0f} GB of disk; containers/README.md has ways without a network.",
            images.how_to_get(engine, image),
        )
    return environment


def check_shared_memory(engine: str, shm_size: str, folder: Path = Path("/dev/shm")) -> None:
    """Whether the server finds enough shared memory.

    Raises:
        SetupError: the host's, which the container uses, is too small.
    """
    if shm_size:
        return
    free_mb = shutil.disk_usage(folder).free / 1e6 if folder.is_dir() else 0.0
    if free_mb < _SHM_MB:
        other = "Type: export COURSE_SHM_SIZE=1g   (a shared memory of its own; clients cannot use it then)"
        raise SetupError(
            f"{folder} has {free_mb:.0f} MB free; the server and its Python models need {_SHM_MB} MB.",
            "The container uses the host's, so that clients on the host can send tensors through it.",
            f"Remove what is left over there (ls -l {folder})." if engine == "apptainer" else other,
        )


def check_gpus(engine: str, gpus: Sequence[Gpu], facts: dict, image: dict[str, str], cdi: Sequence[Path] = _CDI) -> None:
    """Whether a container can use these GPUs.

    Args:
        engine: ``apptainer``, ``docker`` or ``podman``.
        gpus: the machine's.
        facts: what the engine says of itself.
        image: the variables that the image sets.
        cdi: folders in which podman looks for GPUs.

    Raises:
        SetupError: the driver is too old for the image, or the engine cannot hand in GPUs.
    """
    if not gpus:
        return
    without = "Without the GPU: launch_server(…, gpu=False)"
    cuda = int((image.get("CUDA_VERSION") or IMAGE_CUDA).split(".")[0])
    least = CUDA_DRIVERS.get(cuda, 0)
    for gpu in gpus:
        carried = gpu.for_data_centres and gpu.driver_major >= CUDA_DRIVER_CARRIED
        if gpu.driver_major < least and not carried:
            raise SetupError(
                f"The NVIDIA driver {gpu.driver} of this machine ({gpu.name}) is too old for the image, whose CUDA {cuda} needs {least}.",
                "The driver is the host's; no container can bring it.",
                f"Ask the administrator for a newer one. {without}",
            )
    if engine == "docker" and "nvidia" not in facts.get("Runtimes", {}) and not shutil.which("nvidia-container-runtime-hook"):
        raise SetupError(
            "Docker cannot hand GPUs to containers on this machine.",
            "It needs the NVIDIA Container Toolkit (package nvidia-container-toolkit).",
            f"Ask the administrator for it. {without}",
        )
    if engine == "podman" and not any(path.is_dir() and any(path.glob("*nvidia*")) for path in cdi):
        raise SetupError(
            "podman does not know the GPUs of this machine.",
            f"It looks for their description in {cdi[0]}, which the NVIDIA Container Toolkit writes.",
            f"Ask the administrator for: sudo nvidia-ctk cdi generate --output={cdi[0]}/nvidia.yaml   {without}",
        )
