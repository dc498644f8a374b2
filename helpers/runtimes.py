"""Runtimes: what runs the server. Each turns "serve this repository" into a command and an environment.

``embedded`` runs the real tritonserver of a PyPI wheel in the environment ``.server``; ``apptainer``, ``docker`` and
``podman`` run NVIDIA's container image of the same release. The options behind the program are the same for all.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from helpers import settings
from helpers.errors import SetupError

# The supervisor chooses the ports, since it holds their locks: until then the command has these in their places.
HTTP_PORT, GRPC_PORT, METRICS_PORT = "{http}", "{grpc}", "{metrics}"


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
    """

    repository: Path
    server_id: str
    admin_key: str
    load: Sequence[str] = ("*",)
    cache_size_bytes: int = 0
    extra_arguments: Sequence[str] = ()
    ports: tuple[str, str, str] = (HTTP_PORT, GRPC_PORT, METRICS_PORT)


@dataclass(frozen=True)
class Command:
    """A command line ready to start.

    Attributes:
        public: program and arguments that everybody may read.
        private: further arguments with the key in them.
        environment: the whole environment of the program.
    """

    public: list[str]
    private: list[str]
    environment: dict[str, str] = field(repr=False, default_factory=dict)

    def shown(self) -> str:
        """The command as people type it, one option a line, the key replaced by ``$COURSE_ADMIN_KEY``."""
        private = [f"{argument.rsplit('=', 1)[0]}=$COURSE_ADMIN_KEY" for argument in self.private]
        lines: list[str] = []
        for argument in self.public:
            # A word stays on one line with the option whose value it is, and with words before it ("docker run").
            if lines and not argument.startswith("-") and not re.match(r"-\S*[ =]", lines[-1]):
                lines[-1] += f" {shlex.quote(argument)}"
            else:
                lines.append(shlex.quote(argument))
        return " \\\n    ".join([*lines, *(f'"{argument}"' for argument in private)])


def triton_arguments(serving: Serving, repository: str) -> list[str]:
    """The options of tritonserver that all runtimes share."""
    http, grpc, metrics = serving.ports
    arguments = [
        f"--model-repository={repository}",
        f"--http-port={http}",
        f"--grpc-port={grpc}",
        f"--metrics-port={metrics}",
        # Triton's default is every interface of the machine.
        f"--http-address={settings.HOST}",
        f"--grpc-address={settings.HOST}",
        f"--metrics-address={settings.HOST}",
        f"--id={serving.server_id}",
        # One bad model must not stop the others, and models must be loadable while the server runs.
        "--exit-on-error=false",
        "--model-control-mode=explicit",
        *(f"--load-model={name}" for name in serving.load),
    ]
    if serving.cache_size_bytes:
        arguments.append(f"--cache-config=local,size={serving.cache_size_bytes}")
    return arguments + list(serving.extra_arguments)


def private_arguments(serving: Serving) -> list[str]:
    """The options that carry the administration key, for HTTP and for gRPC."""
    rule = f"{settings.ADMIN_APIS}:{settings.ADMIN_HEADER}={serving.admin_key}"
    return [f"--http-restricted-api={rule}", f"--grpc-restricted-protocol={rule}"]


class Embedded:
    """The real tritonserver of the pinned wheel, with the Python-based backends of this course. Linux on x86-64."""

    name = "embedded"

    def command(self, serving: Serving, run_dir: Path) -> Command:
        """The command for a server whose folder of backends is ``run_dir / "backends"`` (see :meth:`prepare`).

        Raises:
            SetupError: this machine or the server's environment cannot run it.
        """
        facts = self.environment_facts()
        wheel = Path(facts["purelib"])
        triton = wheel / "pytriton" / "tritonserver"
        public = [
            str(triton / "bin" / "tritonserver"),
            *triton_arguments(serving, str(serving.repository)),
            f"--backend-directory={run_dir / 'backends'}",
            f"--cache-directory={triton / 'caches'}",
            # Names of shared memory regions that the supervisor can recognise and remove if the server was killed.
            f"--backend-config=python,shm-region-prefix-name={serving.server_id}",
        ]
        return Command(public, private_arguments(serving), self._environment(wheel, Path(facts["libpython"]).parent))

    def environment_facts(self) -> dict[str, str]:
        """Version, packages folder, libpython and numpy of the server's environment.

        Raises:
            SetupError: the environment is missing, has numpy 2 or no shared libpython, or this is no Linux on x86-64.
        """
        if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
            raise SetupError(
                f"The embedded server runs on Linux with an x86-64 processor; this is {platform.system()} on {platform.machine()}.",
                "Everything else of the course works here against a server on another machine.",
                'Type: server = connect("gpu-node:9000")',
            )
        python = settings.server_env() / "bin" / "python"
        install = "Type: python -m helpers install-server"
        if not python.exists():
            raise SetupError(
                f"The environment of the embedded server is not there: {python.parent.parent}.",
                "It holds tritonserver, PyTorch and ONNX Runtime, apart from the notebooks' own packages.",
                install,
            )
        probe = subprocess.run([python, "-I", "-c", _PROBE], capture_output=True, text=True, check=False)
        if probe.returncode:
            raise SetupError(f"The Python of {python.parent.parent} does not start: {probe.stderr.strip()[-200:]}", "", install)
        facts = json.loads(probe.stdout)
        if not facts["triton"]:
            raise SetupError(f"{python.parent.parent} holds no tritonserver.", "Expected the wheel nvidia-pytriton 0.7.0.", install)
        if not facts["numpy"].startswith("1."):
            raise SetupError(
                f"The server's environment has numpy {facts['numpy'] or '(none)'}.",
                "tritonserver needs numpy 1.26: with numpy 2 its Python models answer with empty tensors and no error.",
                install,
            )
        if not facts["libpython"]:
            raise SetupError(
                f"The Python {facts['version']} of {python.parent.parent} has no shared library libpython{facts['version']}.so.",
                "tritonserver runs Python models with it.",
                f"Type: sudo apt-get install libpython{facts['version']}   (or use a Python from conda, which brings it)",
            )
        return facts

    def prepare(self, run_dir: Path) -> None:
        """Make the folder of backends: Triton's python backend and the course's own, as links."""
        facts = self.environment_facts()
        triton, version = Path(facts["purelib"]) / "pytriton" / "tritonserver", facts["version"]
        folder = run_dir / "backends"
        (folder / "python").mkdir(parents=True, exist_ok=True)
        parts = [triton / "backends" / "python" / "libtriton_python.so", triton / "backends" / "python" / "triton_python_backend_utils.py"]
        for part in [*parts, triton / "python_backend_stubs" / version / "triton_python_backend_stub"]:
            if part.suffix == ".so":
                # Triton refuses a library that leads out of its folder for Python-based backends, so this one is a copy (1 MB).
                shutil.copy2(part, folder / "python" / part.name)
            else:
                (folder / "python" / part.name).symlink_to(part)
        for backend in (Path(__file__).parent / "backends").resolve().iterdir():
            if (backend / "model.py").exists():
                (folder / backend.name).symlink_to(backend)

    @staticmethod
    def _environment(wheel: Path, libpython: Path) -> dict[str, str]:
        # The notebooks' own Python settings must not reach the server's Python, which has other packages.
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "CONDA_"))}
        environment["PATH"] = f"{settings.server_env() / 'bin'}{os.pathsep}{environment.get('PATH', os.defpath)}"
        environment["LD_LIBRARY_PATH"] = f"{wheel / 'nvidia_pytriton.libs'}{os.pathsep}{libpython}"
        # Python models' prints appear in the log at once.
        environment["PYTHONUNBUFFERED"] = "1"
        return environment


# Runs in the server's environment: prints what the launcher must know about it.
_PROBE = """
import importlib.metadata, json, pathlib, sys, sysconfig
version = f"{sys.version_info[0]}.{sys.version_info[1]}"
def installed(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
variables = sysconfig.get_config_vars()
folders = [variables.get("LIBDIR") or "", f"{variables.get('LIBDIR')}/{variables.get('MULTIARCH')}", f"{sys.base_prefix}/lib"]
folders += ["/usr/lib/x86_64-linux-gnu", "/usr/lib64"] if sys.base_prefix == "/usr" else []
libraries = [path for folder in folders for path in sorted(pathlib.Path(folder).glob(f"libpython{version}.so*"))]
purelib = sysconfig.get_paths()["purelib"]
print(json.dumps({
    "version": version,
    "purelib": purelib,
    "libpython": str(libraries[0]) if libraries else "",
    "numpy": installed("numpy"),
    "triton": pathlib.Path(purelib, "pytriton", "tritonserver", "bin", "tritonserver").exists(),
}))
"""


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
            raise SetupError(f"The program {self.name} is not on this machine.", f"The runtime {self.name!r} starts the server with it.", _OTHER)
        return self.dry_command(serving)

    def prepare(self, run_dir: Path) -> None:
        """Nothing to make: the image holds the backends."""

    def dry_command(self, serving: Serving) -> Command:
        """The same command, without a look at the machine."""
        image = f"nvcr.io/nvidia/tritonserver:{settings.image_version()}-py3"
        if self.name == "apptainer":
            engine = ["apptainer", "run", "--nv", "-B", f"{serving.repository}:/models:ro", f"docker://{image}"]
        else:
            gpus = ["--device", "nvidia.com/gpu=all"] if self.name == "podman" else ["--gpus", "all"]
            engine = [self.name, "run", "--rm", "--net=host", "--shm-size=1g", *gpus, "-v", f"{serving.repository}:/models:ro", image]
        return Command([*engine, "tritonserver", *triton_arguments(serving, "/models")], private_arguments(serving), dict(os.environ))


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
