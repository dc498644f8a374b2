"""What a launch was asked for, in one frozen object, and the command line of tritonserver that follows from it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from helpers import paths
from helpers.client.endpoint import BASE_PORT
from helpers.errors import SetupError
from helpers.machine import LOOPBACK
from helpers.server.listening import KEY_VARIABLE, THIS_MACHINE, TOKEN_VARIABLE, Listening, listening
from helpers.server.ports import triples

# Seconds until every model must be READY. PyTorch models with warm-up take longest, on a loaded 2-core machine tens of seconds.
START_TIMEOUT_S = 180.0
# Seconds that a server outlives the notebook kernel that owned it: enough for "Restart kernel", short enough that nothing is left behind.
GRACE_S = 15.0
# Seconds that tritonserver itself waits for models to unload: after a load that failed it would wait for its default of 30 s.
EXIT_TIMEOUT_S = 6
# The supervisor chooses the ports, since it holds their locks: until then the command has these in their places.
PORTS = ("{http}", "{grpc}", "{metrics}")
# Name of the folder of backends in a server's private folder.
BACKENDS = "backends"
# What the launch fills in; all else is an option of launch_server.
_FILLED_IN = ("repository", "place", "server_id", "admin_key", "ports")


@dataclass(frozen=True)
class LaunchSpec:
    """The options of :func:`~helpers.server.server.launch_server`; from ``token`` on, what is not a person's to say."""

    models: str = "models"
    runtime: str = "embedded"
    base_port: int = BASE_PORT
    name: str = ""
    load: tuple[str, ...] = ("*",)
    cache_size_bytes: int = 0
    extra_arguments: tuple[str, ...] = ()
    image: str = ""
    gpu: bool | None = None
    timeout_s: float = START_TIMEOUT_S
    grace_s: float = GRACE_S
    listen: str = ""
    private: bool | None = None
    token: str = field(default="", repr=False)  # what others have already: a restart keeps it
    keep_alive: bool = False  # of a fleet's servers: start it again when it crashes
    repository: Path = Path()
    place: Listening = THIS_MACHINE
    server_id: str = "course"
    admin_key: str = field(default="", repr=False)
    ports: tuple[str, str, str] = PORTS

    def __post_init__(self) -> None:
        for name in ("load", "extra_arguments"):
            object.__setattr__(self, name, tuple(getattr(self, name)))

    def prepared(self) -> LaunchSpec:
        """Return it with the repository and the interfaces that are meant; all that is wrong with the arguments is said here."""
        triples(self.base_port)
        place = listening(self.listen, self.token, self.private)
        return replace(self, models=str(self.models), repository=_repository(self.models), place=place)

    def options(self) -> dict[str, Any]:
        """Return the arguments of the launch by name, as JSON has them."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items() if name not in _FILLED_IN}

    def without(self, models: Collection[str]) -> LaunchSpec:
        """Return it without these models."""
        if not models:
            return self
        wanted = [folder.name for folder in sorted(self.repository.iterdir()) if folder.is_dir()] if "*" in self.load else self.load
        return replace(self, load=tuple(name for name in wanted if name not in models and not name.startswith(".")))

    def triton_arguments(self, folder: str) -> list[str]:
        """Return the options of tritonserver that all runtimes share, for a repository at this place."""
        http, grpc, metrics = self.ports
        return [
            f"--model-repository={folder}",
            f"--http-port={http}",
            f"--grpc-port={grpc}",
            f"--metrics-port={metrics}",
            # Triton's default is every interface of the machine.
            f"--http-address={self.place.address}",
            f"--grpc-address={self.place.address}",
            # This port knows no token.
            f"--metrics-address={LOOPBACK}",
            f"--id={self.server_id}",
            f"--exit-timeout-secs={EXIT_TIMEOUT_S}",
            # One bad model must not stop the others, and models must be loadable while the server runs.
            "--exit-on-error=false",
            "--model-control-mode=explicit",
            # Names of shared memory regions that the supervisor can recognise and remove if the server was killed.
            f"--backend-config=python,shm-region-prefix-name={self.server_id}",
            *(f"--load-model={name}" for name in self.load),
            # The supervisor keeps these ports for the server; in a command to be typed, a second server on a port shall be an error.
            *(("--reuse-http-port=true", "--reuse-grpc-port=true") if self.ports == PORTS else ()),
            *([f"--cache-config=local,size={self.cache_size_bytes}"] if self.cache_size_bytes else ()),
            *self.extra_arguments,
            *(f"--{option}={rule}" for option in ("http-restricted-api", "grpc-restricted-protocol") for rule in self.place.rules()),
        ]

    def secrets(self) -> dict[str, str]:
        """Return the variables that stand for the secrets in these options."""
        return {KEY_VARIABLE: self.admin_key} | ({TOKEN_VARIABLE: self.place.token} if self.place.token else {})


@dataclass(frozen=True)
class Command:
    """A command line ready to start."""

    words: list[str]  # program and arguments
    environment: dict[str, str] = field(repr=False, default_factory=dict)  # the whole environment of the program
    links: dict[str, Path] = field(repr=False, default_factory=dict)  # backends and models, by their place in the private folder
    lifeline: bool = False  # whether the program ends when its standard input closes
    remark: str = ""  # what the user should know of it

    def make_links(self, run_dir: Path) -> None:
        """Make the links in ``run_dir``."""
        for place, source in self.links.items():
            (run_dir / place).parent.mkdir(parents=True, exist_ok=True)
            # Triton refuses a library that leads out of its folder, so this one is a copy (1 MB).
            (shutil.copy2 if source.suffix == ".so" else os.symlink)(source, run_dir / place)

    def shown(self) -> str:
        """Return the command as people type it, one option a line."""
        lines: list[str] = []
        for argument in self.words:
            # A word stays on one line with the option whose value it is, and with words before it ("docker run").
            if lines and not argument.startswith("-") and not re.match(r"-\S*[ =]", lines[-1]):
                lines[-1] += f" {shlex.quote(argument)}"
            else:
                lines.append(shlex.quote(argument))
        shown = " \\\n    ".join(lines)
        return f"{shown}\n# {self.remark}" if self.remark else shown


def _repository(models: str | Path) -> Path:
    """The model repository that is meant: a path as given, else a folder of the course."""
    path = paths.find(models)
    there = path is not None and path.is_dir()
    if path is None or not there or not any(entry.is_dir() for entry in path.iterdir()):
        happened = f"The model repository {path} is empty." if there else f"There is no model repository {str(models)!r}."
        raise SetupError(happened, "Expected a folder with one folder for each model.", 'Type: launch_server("models")')
    return path.resolve()
