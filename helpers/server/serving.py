"""What is to be served, and the command line that serves it: what all runtimes share."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from helpers.client.endpoint import ADMIN_HEADER, TOKEN_HEADER
from helpers.machine import LOOPBACK
from helpers.server.listening import THIS_MACHINE, Listening

# Seconds that tritonserver itself waits for models to unload before it exits all the same: after a load that failed on top of a
# running model it keeps count of one model too many, and would wait for its default of 30 s.
EXIT_TIMEOUT_S = 6

# The supervisor chooses the ports, since it holds their locks: until then the command has these in their places.
HTTP_PORT, GRPC_PORT, METRICS_PORT = "{http}", "{grpc}", "{metrics}"
# Name of the folder of backends in a server's private folder.
BACKENDS = "backends"


# The secrets in an option, and the variables that stand for them in a command that is shown.
_VARIABLES = {ADMIN_HEADER: "COURSE_ADMIN_KEY", TOKEN_HEADER: "COURSE_TOKEN"}
_HIDDEN = re.compile(rf"(:({'|'.join(_VARIABLES)})=(?:Bearer )?).*")


@dataclass(frozen=True)
class Serving:
    """What is to be served, whatever the runtime.

    Attributes:
        repository: the model repository.
        server_id: name of the server, by which its owner recognises it.
        admin_key: key that administration calls must carry.
        load: names of the models to load, or ``("*",)`` for all.
        cache_size_bytes: size of the response cache; 0 turns it off.
        extra_arguments: further arguments for tritonserver.
        ports: HTTP, gRPC and metrics port, as text.
        image: image for a container, where it is not the usual one.
        gpu: whether a container gets the GPUs; None for yes where there are some.
        listening: on which interfaces, and who is let in.
    """

    repository: Path
    server_id: str
    admin_key: str
    load: Sequence[str] = ("*",)
    cache_size_bytes: int = 0
    extra_arguments: Sequence[str] = ()
    ports: tuple[str, str, str] = (HTTP_PORT, GRPC_PORT, METRICS_PORT)
    image: str = ""
    gpu: bool | None = None
    listening: Listening = THIS_MACHINE


@dataclass(frozen=True)
class Command:
    """A command line ready to start.

    Attributes:
        public: program and arguments that everybody may read.
        private: further arguments with the key in them.
        environment: the whole environment of the program.
        links: what the private folder must hold, by path in it: the backends, where they do not come with the program, and the models.
        after: a command that ends what the program may leave behind; empty where it leaves nothing.
        lifeline: whether the program ends when its standard input closes.
        remark: what the user should know of it.
    """

    public: list[str]
    private: list[str]
    environment: dict[str, str] = field(repr=False, default_factory=dict)
    links: dict[str, Path] = field(repr=False, default_factory=dict)
    after: list[str] = field(default_factory=list)
    lifeline: bool = False
    remark: str = ""

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
        """The command as people type it, one option a line, the key and the token replaced by variables."""
        private = [_HIDDEN.sub(lambda found: f"{found[1]}${_VARIABLES[found[2]]}", argument) for argument in self.private]
        lines: list[str] = []
        for argument in self.public:
            # A word stays on one line with the option whose value it is, and with words before it ("docker run").
            if lines and not argument.startswith("-") and not re.match(r"-\S*[ =]", lines[-1]):
                lines[-1] += f" {shlex.quote(argument)}"
            else:
                lines.append(shlex.quote(argument))
        shown = " \\\n    ".join([*lines, *(f'"{argument}"' for argument in private)])
        return f"{shown}\n# {self.remark}" if self.remark else shown


def triton_arguments(serving: Serving, repository: str, tls: tuple[str, str] | None = None) -> list[str]:
    """The options of tritonserver that all runtimes share.

    Args:
        serving: what is to be served.
        repository: the model repository as the server sees it.
        tls: certificate and key as the server sees them, where that is elsewhere.
    """
    http, grpc, metrics = serving.ports
    arguments = [
        f"--model-repository={repository}",
        f"--http-port={http}",
        f"--grpc-port={grpc}",
        f"--metrics-port={metrics}",
        # Triton's default is every interface of the machine.
        f"--http-address={serving.listening.http}",
        f"--grpc-address={serving.listening.grpc}",
        # This port knows no token.
        f"--metrics-address={LOOPBACK}",
        f"--id={serving.server_id}",
        f"--exit-timeout-secs={EXIT_TIMEOUT_S}",
        # One bad model must not stop the others, and models must be loadable while the server runs.
        "--exit-on-error=false",
        "--model-control-mode=explicit",
        # Names of shared memory regions that the supervisor can recognise and remove if the server was killed.
        f"--backend-config=python,shm-region-prefix-name={serving.server_id}",
        *(f"--load-model={name}" for name in serving.load),
    ]
    if http == HTTP_PORT:
        # The supervisor keeps these ports for the server; in a command to be typed, a second server on a port shall be an error.
        arguments += ["--reuse-http-port=true", "--reuse-grpc-port=true"]
    if serving.listening.certificate:
        certificate, key = tls or (serving.listening.certificate, serving.listening.private_key)
        arguments += ["--grpc-use-ssl=true", f"--grpc-server-cert={certificate}", f"--grpc-server-key={key}"]
    if serving.cache_size_bytes:
        arguments.append(f"--cache-config=local,size={serving.cache_size_bytes}")
    return arguments + list(serving.extra_arguments)


def private_arguments(serving: Serving) -> list[str]:
    """The options that carry the administration key and the class's token, for HTTP and for gRPC."""
    return [
        f"--{option}={rule}"
        for option in ("http-restricted-api", "grpc-restricted-protocol")
        for rule in serving.listening.rules(serving.admin_key)
    ]
