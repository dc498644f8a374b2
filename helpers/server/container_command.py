"""One specification of a container, written out for Apptainer, for Docker and for podman. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from helpers.errors import SetupError

ENGINES = ("apptainer", "docker", "podman")


@dataclass(frozen=True)
class Specification:
    """What a container is to be, whatever the engine.

    Attributes:
        image: name of an image, or for Apptainer a ``.sif`` file, a folder or a ``docker://`` address.
        name: name of the container, by which this one and no other is ended.
        mounts: folders of the host by their places in the container; read-only.
        gpu: whether it sees the machine's GPUs.
        lifeline: whether its standard input stays open as long as the process that starts it.
        shm_size: size of a shared memory of its own, such as ``1g``; empty for the host's, which clients on the host see, too.
        user: ``uid:gid`` to run as; empty where the engine does that by itself.
        variables: names of variables that are handed in from the environment of the engine's client.
        values: further variables with their values, which everybody may read.
        extra: further arguments for the engine.
    """

    image: str
    name: str
    mounts: Mapping[str, Path]
    gpu: bool = False
    lifeline: bool = True
    shm_size: str = ""
    user: str = ""
    variables: tuple[str, ...] = ()
    values: Mapping[str, str] = field(default_factory=dict)
    extra: tuple[str, ...] = ()

    def words(self, engine: str) -> list[str]:
        """The command line of an engine up to the image; what runs in the container follows.

        Raises:
            SetupError: a path cannot be written in such a command line.
        """
        for path in self.mounts.values():
            if set(str(path)) & set(":,"):
                raise SetupError(
                    f"The path {path} has a colon or a comma in it.",
                    "Container engines cannot be told of such a folder.",
                    "Move it, or make a link to it elsewhere.",
                )
        return self._apptainer() if engine == "apptainer" else self._docker(engine)

    def _apptainer(self) -> list[str]:
        # Network, user and shared memory are the host's already, the environment comes along, and the container ends with the program.
        words = ["apptainer", "run", *(["--nv"] if self.gpu else [])]
        for place, path in self.mounts.items():
            words += ["-B", f"{path}:{place}:ro"]
        return [*words, *(f"--env={name}={value}" for name, value in self.values.items()), *self.extra, self.image]

    def _docker(self, engine: str) -> list[str]:
        gpus = {"docker": "--gpus=all", "podman": "--device=nvidia.com/gpu=all"}[engine]
        return [
            engine,
            "run",
            "--rm",
            f"--name={self.name}",
            # The lifeline: see in_container.
            *(["--interactive"] if self.lifeline else []),
            # Servers listen on the loopback interface, and that of the host is meant.
            "--net=host",
            f"--shm-size={self.shm_size}" if self.shm_size else "--ipc=host",
            *([gpus] if self.gpu else []),
            *([f"--user={self.user}"] if self.user else []),
            # Where SELinux rules, it would keep folders of the host and GPUs from the container; relabelling people's folders is no way.
            "--security-opt=label=disable",
            *(part for place, path in self.mounts.items() for part in ("-v", f"{path}:{place}:ro")),
            *(f"--env={name}" for name in self.variables),
            *(f"--env={name}={value}" for name, value in self.values.items()),
            *self.extra,
            self.image,
        ]

    def end(self, engine: str) -> list[str]:
        """The command that ends this container if it is still there; empty where it cannot outlive the engine's client."""
        return [] if engine == "apptainer" else [engine, "rm", "--force", self.name]
