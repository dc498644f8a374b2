"""Runtimes: what runs the server. Each turns "serve this repository" into a command and an environment.

``embedded`` runs the real tritonserver of a PyPI wheel in the environment ``.server``; ``apptainer``, ``docker`` and
``podman`` run NVIDIA's container image of the same release. The options behind the program are the same for all.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from helpers import machine
from helpers.errors import SetupError
from helpers.server import container_checks, images, in_container
from helpers.server.container_command import ENGINES, Specification
from helpers.server.embedded import Embedded
from helpers.server.serving import Command, Serving, private_arguments, triton_arguments


def shm_size() -> str:
    """Size of a container's own shared memory (``COURSE_SHM_SIZE``, such as ``1g``); empty for the host's, which clients see, too."""
    return os.environ.get("COURSE_SHM_SIZE", "")


# Where a container finds the repository, and the helpers that start the server in it.
_MODELS, _HELPERS = "/models", "/course/helpers"
_TLS = ("/tls/server.crt", "/tls/server.key")


class Container:
    """NVIDIA's container image, or one made from it, run by Apptainer, Docker or podman.

    Args:
        name: the engine, which is also the name of its program.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def command(self, serving: Serving, run_dir: Path) -> Command:
        """The command for a server in a container on the host's own network.

        Raises:
            SetupError: the engine, the image or something that they need is not there.
        """
        facts = container_checks.check_engine(self.name)
        image = images.chosen(self.name, serving.image)
        environment = container_checks.check_image(self.name, image)
        container_checks.check_shared_memory(self.name, shm_size())
        seen = machine.gpus()
        if serving.gpu and not seen:
            raise SetupError(
                "No NVIDIA GPU is seen on this machine.",
                "You asked for one with gpu=True.",
                "Leave gpu out, and models run on the processor.",
            )
        if serving.gpu is not False:
            container_checks.check_gpus(self.name, seen, facts, environment)
        rootless = "name=rootless" in str(facts.get("SecurityOptions"))
        return self._command(serving, image, bool(seen), rootless, lifeline=True)

    def dry_command(self, serving: Serving) -> Command:
        """The same command as people type it, whatever this machine lacks: the server lives until it is interrupted."""
        return self._command(serving, images.chosen(self.name, serving.image), bool(machine.gpus()), rootless=False, lifeline=False)

    def _command(self, serving: Serving, image: str, seen: bool, rootless: bool, lifeline: bool) -> Command:
        gpu = seen if serving.gpu is None else serving.gpu
        listening = serving.listening
        secrets = {in_container.KEY_VARIABLE: serving.admin_key}
        if listening.token:
            secrets[in_container.TOKEN_VARIABLE] = listening.token
        tls = dict(zip(_TLS, (listening.certificate, listening.private_key))) if listening.certificate else {}
        specification = Specification(
            image=image,
            name=serving.server_id,
            mounts={
                _MODELS: serving.repository,
                _HELPERS: Path(__file__).resolve().parents[1],
                **{to: Path(file) for to, file in tls.items()},
            },
            gpu=gpu,
            lifeline=lifeline,
            shm_size="" if self.name == "apptainer" else shm_size(),
            # Docker's service runs containers as root unless told otherwise. In podman's, and in Docker without root, root is the caller.
            user=f"{os.getuid()}:{os.getgid()}" if self.name == "docker" and not rootless else "",
            variables=(*secrets, *(["CUDA_VISIBLE_DEVICES"] if "CUDA_VISIBLE_DEVICES" in os.environ else [])),
            # Packages in the home folder of the host, which Apptainer shows to the container, are not the image's.
            values={"PYTHONNOUSERSITE": "1", "PYTHONUNBUFFERED": "1"} | ({} if self.name == "apptainer" else {"HOME": "/tmp"}),
            extra=tuple(shlex.split(os.environ.get("COURSE_ENGINE_ARGUMENTS", ""))),
        )
        hidden = dataclasses.replace(listening, token=in_container.TOKEN_PLACE if listening.token else "")
        placed = dataclasses.replace(serving, admin_key=in_container.KEY_PLACE, listening=hidden)
        public = [
            *specification.words(self.name),
            *("python3", f"{_HELPERS}/server/in_container.py", *([in_container.LIFELINE] if lifeline else []), "tritonserver"),
            *triton_arguments(placed, _MODELS, _TLS),
            *private_arguments(placed),
        ]
        remark = "No NVIDIA GPU is seen on this machine: the container runs without one, and models on the processor."
        return Command(
            public,
            [],
            self._environment(secrets),
            after=specification.end(self.name),
            lifeline=lifeline,
            remark=remark if serving.gpu is None and not gpu else "",
        )

    @staticmethod
    def _environment(secrets: Mapping[str, str]) -> dict[str, str]:
        # Apptainer hands all of it in: the notebooks' own Python settings are not for the image's Python.
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "CONDA_"))}
        # The second name is for an Apptainer that is set up to hand in nothing else.
        return {**environment, **secrets, **{f"APPTAINERENV_{name}": value for name, value in secrets.items()}}


RUNTIMES: dict[str, Embedded | Container] = {"embedded": Embedded(), **{engine: Container(engine) for engine in ENGINES}}


def runtime(name: str) -> Embedded | Container:
    """The runtime of this name.

    Raises:
        SetupError: there is none of this name.
    """
    if name not in RUNTIMES:
        raise SetupError(f"There is no runtime {name!r}.", f"The runtimes are {', '.join(RUNTIMES)}.", container_checks.EMBEDDED)
    return RUNTIMES[name]
