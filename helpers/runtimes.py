"""Runtimes: what runs the server. Each turns "serve this repository" into a command and an environment.

``embedded`` runs the real tritonserver of a PyPI wheel in the environment ``.server``; ``apptainer``, ``docker`` and
``podman`` run NVIDIA's container image of the same release. The options behind the program are the same for all.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from helpers import settings
from helpers.embedded import Embedded
from helpers.errors import SetupError
from helpers.serving import Command, Serving, private_arguments, triton_arguments


class Container:
    """NVIDIA's container image, run by Apptainer, Docker or podman.

    Args:
        name: the engine, which is also the name of its program.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def command(self, serving: Serving, run_dir: Path) -> Command:
        """The command for a server in a container on the host's own network.

        Raises:
            SetupError: the engine is not installed.
        """
        if not shutil.which(self.name):
            raise SetupError(
                f"The program {self.name} is not on this machine.", f"The runtime {self.name!r} starts the server with it.", _OTHER
            )
        return self.dry_command(serving)

    def dry_command(self, serving: Serving) -> Command:
        """The same command, without a look at the machine."""
        image = f"nvcr.io/nvidia/tritonserver:{settings.image_version()}-py3"
        listening, inside = serving.listening, ("/tls/server.crt", "/tls/server.key")
        files = zip((listening.certificate, listening.private_key), inside) if listening.certificate else ()
        mounts = [f"{serving.repository}:/models:ro", *(f"{outside}:{place}:ro" for outside, place in files)]
        binds = [word for mount in mounts for word in ("-B" if self.name == "apptainer" else "-v", mount)]
        if self.name == "apptainer":
            engine = ["apptainer", "run", "--nv", *binds, f"docker://{image}"]
        else:
            gpus = ["--device", "nvidia.com/gpu=all"] if self.name == "podman" else ["--gpus", "all"]
            engine = [self.name, "run", "--rm", "--net=host", "--shm-size=1g", *gpus, *binds, image]
        return Command(
            [*engine, "tritonserver", *triton_arguments(serving, "/models", inside)], private_arguments(serving), dict(os.environ)
        )


_OTHER = 'Type: server = launch_server("models", runtime="embedded")'
RUNTIMES: dict[str, Embedded | Container] = {
    "embedded": Embedded(),
    "apptainer": Container("apptainer"),
    "docker": Container("docker"),
    "podman": Container("podman"),
}


def runtime(name: str) -> Embedded | Container:
    """The runtime of this name.

    Raises:
        SetupError: there is none of this name.
    """
    if name not in RUNTIMES:
        raise SetupError(f"There is no runtime {name!r}.", f"The runtimes are {', '.join(RUNTIMES)}.", _OTHER)
    return RUNTIMES[name]
