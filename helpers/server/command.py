"""What a launch was asked for, in one frozen object, and the command line of tritonserver that follows from it."""

from __future__ import annotations

import re
import shlex
import shutil
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from helpers import paths
from helpers.client.endpoint import BASE_PORT
from helpers.errors import SetupError
from helpers.machine import LOOPBACK
from helpers.server.listening import THIS_MACHINE, Listening, listening
from helpers.server.ports import triples

# Seconds until every model must be READY. PyTorch models with warm-up take longest, on a loaded 2-core machine tens of seconds.
START_TIMEOUT_S = 180.0
# Seconds that a server outlives the notebook kernel that owned it: enough for "Restart kernel", short enough that nothing is left behind.
GRACE_S = 15.0
# Seconds that tritonserver itself waits for models to unload before it exits all the same: after a load that failed on top of a
# running model it keeps count of one model too many, and would wait for its default of 30 s.
EXIT_TIMEOUT_S = 6
# The supervisor chooses the ports, since it holds their locks: until then the command has these in their places.
PORTS = ("{http}", "{grpc}", "{metrics}")
# Name of the folder of backends in a server's private folder.
BACKENDS = "backends"
# What the owner's launch fills in; all else is an argument of launch_server.
_FILLED_IN = ("repository", "place", "server_id", "admin_key", "ports")
# What stands for the secrets in a command that is shown.
_KEY, _TOKEN = "$COURSE_ADMIN_KEY", "$COURSE_TOKEN"


@dataclass(frozen=True)
class LaunchSpec:
    """The arguments of :func:`~helpers.server.server.launch_server`; from ``repository`` on, what the launch fills in."""

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
    token: str = field(default="", repr=False)
    private: bool | None = None
    keep_alive: bool = False
    repository: Path = Path()
    place: Listening = THIS_MACHINE
    server_id: str = "course"
    admin_key: str = field(default=_KEY, repr=False)
    ports: tuple[str, str, str] = PORTS

    def __post_init__(self) -> None:
        for name in ("load", "extra_arguments"):
            object.__setattr__(self, name, tuple(getattr(self, name)))

    def prepared(self) -> LaunchSpec:
        """Return it with the repository and the interfaces that are meant; all that is wrong with the arguments is said here."""
        triples(self.base_port)
        place = listening(self.listen, self.token, self.private)
        return replace(self, models=str(self.models), repository=_repository(self.models), place=place)

    def without_secrets(self) -> LaunchSpec:
        """Return it with variables in the place of the key and the token."""
        return replace(self, admin_key=_KEY, place=replace(self.place, token=_TOKEN if self.place.token else ""))

    def options(self) -> dict[str, Any]:
        """Return the arguments of the launch by name, as JSON has them."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items() if name not in _FILLED_IN}

    def differences(self, before: LaunchSpec) -> list[str]:
        """Return the names of the arguments in which a server that runs was launched otherwise."""
        return sorted(name for name, value in self.options().items() if before.options()[name] != value)

    def loadable(self) -> LaunchSpec:
        """Return it without the models for which Triton would wait for ever, so that nothing would be served."""
        from helpers import repository  # loads gRPC, which a call that finds a running server need not wait for

        hanging = repository.faults(self.repository, hanging=True)
        if not hanging:
            return self
        wanted = [folder.name for folder in sorted(self.repository.iterdir()) if folder.is_dir()] if "*" in self.load else self.load
        return replace(self, load=tuple(name for name in wanted if name not in hanging and not name.startswith(".")))

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
        ]

    def private_arguments(self) -> list[str]:
        """Return the options that carry the administration key and the class's token, for HTTP and for gRPC."""
        options = ("http-restricted-api", "grpc-restricted-protocol")
        return [f"--{option}={rule}" for option in options for rule in self.place.rules(self.admin_key)]


@dataclass(frozen=True)
class Command:
    """A command line ready to start."""

    public: list[str]  # program and arguments that everybody may read
    private: list[str]  # further arguments with the key in them
    environment: dict[str, str] = field(repr=False, default_factory=dict)  # the whole environment of the program
    links: dict[str, Path] = field(repr=False, default_factory=dict)  # backends and models, by their place in the private folder
    lifeline: bool = False  # whether the program ends when its standard input closes
    remark: str = ""  # what the user should know of it

    def make_links(self, run_dir: Path) -> None:
        """Make the links in ``run_dir``."""
        for place, source in self.links.items():
            path = run_dir / place
            path.parent.mkdir(parents=True, exist_ok=True)
            if source.suffix == ".so":
                # Triton refuses a library that leads out of its folder, so this one is a copy (1 MB).
                shutil.copy2(source, path)
            else:
                path.symlink_to(source)

    def shown(self) -> str:
        """Return the command as people type it, one option a line."""
        lines: list[str] = []
        for argument in self.public:
            # A word stays on one line with the option whose value it is, and with words before it ("docker run").
            if lines and not argument.startswith("-") and not re.match(r"-\S*[ =]", lines[-1]):
                lines[-1] += f" {shlex.quote(argument)}"
            else:
                lines.append(shlex.quote(argument))
        shown = " \\\n    ".join([*lines, *(f'"{argument}"' for argument in self.private)])
        return f"{shown}\n# {self.remark}" if self.remark else shown


def _repository(models: str | Path) -> Path:
    """The model repository that is meant: a path as given, else a folder of the course."""
    path = paths.find(models) if isinstance(models, (str, Path)) else None
    wanted = "Expected a folder with one folder for each model.", 'Type: launch_server("models")'
    if path is None or not path.is_dir():
        raise SetupError(f"There is no model repository {str(models)!r}.", *wanted)
    if not any(entry.is_dir() for entry in path.iterdir()):
        raise SetupError(f"The model repository {path} is empty.", *wanted)
    return path.resolve()
