"""Images of the server: which one an engine runs, whether it is there, how to get it. Standard library only.

The tag comes from ``containers/VERSION``. In this order: what the caller names, ``COURSE_IMAGE``, the course's own image where it
was built here (NVIDIA's with what the course's Python models import), NVIDIA's.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from helpers import paths


def image_version() -> str:
    """The NGC image tag without its suffix, such as ``26.10``; ``containers/VERSION`` is the only place that names it."""
    return (paths.root() / "containers" / "VERSION").read_text().strip()


# Free disk space, in GB, that pulling NVIDIA's image needs, with the file that Apptainer makes of it: a generous guess.
DISK_IMAGE_GB = 30.0

# NVIDIA's image of the server, and the course's own: NVIDIA's with what the course's Python models import. Their tags come from VERSION.
NVIDIA_IMAGE = "nvcr.io/nvidia/tritonserver"
OWN_IMAGE = "triton-course/tritonserver"

# Seconds for a question to an engine; a sleeping daemon takes a few.
_TIMEOUT_S = 30.0


def nvidia() -> str:
    """NVIDIA's image of the course's release."""
    return f"{NVIDIA_IMAGE}:{image_version()}-py3"


def own() -> str:
    """The course's image: NVIDIA's, with what the course's Python models import."""
    return f"{OWN_IMAGE}:{image_version()}"


def sif_folder() -> Path:
    """Where ``.sif`` files for Apptainer lie (``COURSE_IMAGES``, such as a folder that a class shares; else ``work/images``)."""
    return Path(os.environ["COURSE_IMAGES"]).resolve() if "COURSE_IMAGES" in os.environ else paths.work_dir() / "images"


def sif_files() -> tuple[Path, Path]:
    """The course's ``.sif`` file and NVIDIA's, by the names that ``containers/README.md`` gives them."""
    version = image_version()
    return sif_folder() / f"triton-course_{version}.sif", sif_folder() / f"tritonserver_{version}-py3.sif"


def chosen(engine: str, given: str = "") -> str:
    """The image that an engine is to run.

    Args:
        engine: ``apptainer``, ``docker`` or ``podman``.
        given: what the caller names, if anything.
    """
    if named := given or os.environ.get("COURSE_IMAGE", ""):
        return named
    if engine == "apptainer":
        return next((str(file) for file in sif_files() if file.exists()), f"docker://{nvidia()}")
    return own() if environment_of(engine, own()) is not None else nvidia()


def environment_of(engine: str, image: str) -> dict[str, str] | None:
    """The variables that an image sets; None where the engine does not have it (or cannot be asked).

    Apptainer's files are only looked for: what they set is not worth the seconds that asking takes.
    """
    if engine == "apptainer":
        return {} if Path(image).exists() else None
    words = said([engine, "image", "inspect", "--format", "{{json .Config.Env}}", image])
    if words is None:
        return None
    try:
        return dict(entry.split("=", 1) for entry in json.loads(words) or [] if "=" in entry)
    except ValueError:
        return {}


def how_to_get(engine: str, image: str) -> str:
    """What to type to get an image that is not there."""
    if engine == "apptainer":
        target = Path(image) if image.endswith(".sif") else sif_files()[1]
        # What it pulls lies in the home folder otherwise, whose quota it soon fills.
        room = "export APPTAINER_CACHEDIR=/a/disk/with/room APPTAINER_TMPDIR=/a/disk/with/room"
        return f"Type: {room} && mkdir -p {target.parent} && apptainer pull {target} docker://{nvidia()}"
    if image.startswith(OWN_IMAGE):
        build = f"{engine} build -f containers/Containerfile.server --build-arg VERSION={image_version()} -t {image} ."
        return f"In the course's folder, type: {build}"
    return f"Type: {engine} pull {image}"


def said(command: list[str]) -> str | None:
    """What a command prints; None where it fails."""
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
