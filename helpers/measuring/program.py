"""NVIDIA's own load generator, perf_analyzer: where it is on this machine, and how it is started. Standard library only.

Typical use::

    program = find_perf_analyzer()
    program.version, program.origin              # "2.51.0", "carried by the wheel tritonclient 2.51.0"
    program.run("-m", "add_sub", "-u", "localhost:9001", "-i", "grpc")
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helpers import machine
from helpers.client.endpoint import ADMIN_HEADER, GRPC_HEADER_PREFIX, own_key, parse_address
from helpers.errors import InputError, SetupError
from helpers.paths import server_env, work_dir
from helpers.server import isolation
from helpers.server.containers import image_version
from helpers.setup.environments import EMBEDDED_TRITON, TOOL_LIBRARIES

NAME = "perf_analyzer"
# The wheel of the server's release carries the program as well; a newer package of its own needs a newer C library than many have.
VERSION = EMBEDDED_TRITON
# Seconds for the question which version it is.
_VERSION_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Program:
    """A perf_analyzer that runs here: what to type before its arguments, its version, where it comes from, and variables that it needs."""

    command: tuple[str, ...]
    version: str = ""
    origin: str = ""
    environment: dict[str, str] = field(default_factory=dict, hash=False)

    def start(self, *arguments: str, private: Sequence[str] = (), **options: Any) -> subprocess.Popen[str]:
        """Start it with these arguments.

        Args:
            *arguments: what everybody may read.
            private: further arguments with a token in them, which other users of this machine do not see in ``ps``.
            **options: those of :class:`subprocess.Popen`.
        """
        variables = {**os.environ, **self.environment}
        variables |= machine.without_proxy(variables)
        private = [*private, *_key_arguments(arguments)]
        if private:
            return isolation.start_through([*self.command, *arguments], private, variables, **options)
        return subprocess.Popen([*self.command, *arguments], env=variables, text=True, **options)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end and return what it said."""
        with self.start(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            said, errors = process.communicate()
        return subprocess.CompletedProcess([*self.command, *arguments], process.returncode, said, errors)


def typed_place(words: Sequence[str]) -> tuple[str, str, str]:
    """Return protocol, address, and way of shared memory in arguments as people type them; the tool's own choices where there are none."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for option, choice in (("-i", "http"), ("-u", "localhost:8000"), ("--shared-memory", "none")):
        parser.add_argument(option, default=choice)
    typed, _ = parser.parse_known_args(list(words))
    return typed.i.lower(), typed.u, typed.shared_memory


def _key_arguments(arguments: Sequence[str]) -> list[str]:
    """The option with the administration key, for a server of one's own that shall take tensors from shared memory; else nothing.

    Without the key the server refuses the regions, and the tool leaves them behind.
    """
    protocol, url, memory = typed_place(arguments)
    # What it makes of an address that is none, the tool says itself.
    with contextlib.suppress(InputError):
        if memory != "none" and (key := own_key(parse_address(url, 8000))):
            return ["-H", f"{GRPC_HEADER_PREFIX if protocol == 'grpc' else ''}{ADMIN_HEADER}:{key}"]
    return []


def find_perf_analyzer() -> Program:
    """The first perf_analyzer that runs: on PATH, in its own Python package, in the server's environment, in the client's container.

    Raises:
        SetupError: none does; says what to type, and that recorded results are there.
    """
    failures = []
    for candidate in _candidates():
        version, failure = _version(candidate)
        if version:
            return Program(candidate.command, version, candidate.origin, candidate.environment)
        failures.append(f"{candidate.origin}: {failure}")
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise SetupError(
            f"perf_analyzer does not run on this machine ({platform.system()}, {platform.machine()}), because NVIDIA makes it for Linux "
            "only; measured results of others are recorded in helpers.measuring.recorded, and the notebooks show those."
        )
    tried = f" Tried: {'; '.join(failures)}." if failures else ""
    raise SetupError(
        f"No perf_analyzer runs on this machine.{tried}",
        "It was looked for on PATH, in the package perf-analyzer, in the server's environment, and in a client's container. Without it, "
        "measured results of others are still there: helpers.measuring.recorded.",
        "Type: python -m helpers install-server",
    )


def _candidates() -> Iterator[Program]:
    if found := shutil.which(NAME):
        yield Program((found,), origin="on PATH")
    if found := _packaged():
        yield Program((found,), origin="in the Python package perf-analyzer")
    if (fetched := server_env() / "bin" / NAME).exists():
        libraries = {"LD_LIBRARY_PATH": str(server_env() / TOOL_LIBRARIES)}
        yield Program((str(fetched),), "", f"carried by the wheel tritonclient {VERSION}", libraries)
    if command := container_command():
        yield Program(command, origin=f"in a container, run by {command[0]}")


def _packaged() -> str:
    """The program of the package ``perf-analyzer``; a placeholder of that name on PyPI holds none."""
    try:
        files = importlib.metadata.files("perf-analyzer") or []
    except importlib.metadata.PackageNotFoundError:
        return ""
    return next((str(file.locate()) for file in files if file.name == NAME and Path(str(file.locate())).is_file()), "")


def container_command() -> tuple[str, ...]:
    """What starts the program in NVIDIA's client image, where an engine has that image already; nothing is downloaded.

    The variable ``COURSE_CLIENT_IMAGE`` names another image, such as a ``.sif`` file for Apptainer.
    """
    named = os.environ.get("COURSE_CLIENT_IMAGE", "")
    work = str(work_dir())
    if shutil.which("apptainer") and named.endswith(".sif"):
        return ("apptainer", "exec", "-B", work, named, NAME)
    image = named or f"nvcr.io/nvidia/tritonserver:{image_version()}-py3-sdk"
    for engine in ("docker", "podman"):
        if shutil.which(engine) and not _said([engine, "image", "inspect", image])[0]:
            # The host's network, because servers of the course listen on its loopback interface.
            return (engine, "run", "--rm", "--net=host", "-v", f"{work}:{work}", image, NAME)
    return ()


# What programs have answered, by command and time of the file. A failure is not kept: the program may be there the next time.
_versions: dict[tuple[object, ...], str] = {}


def _version(candidate: Program) -> tuple[str, str]:
    """Its version, and when it does not tell, why."""
    file = Path(candidate.command[0])
    key = (candidate.command, file.stat().st_mtime_ns if file.exists() else None)
    if key in _versions:
        return _versions[key], ""
    code, words = _said([*candidate.command, "--version"], {**os.environ, **candidate.environment})
    found = re.search(r"Version (\d[\w.]*)", words)
    if code == 0 and found:
        return _versions.setdefault(key, found[1]), ""
    return "", (words.strip().splitlines() or [f"it ended with {code}"])[-1][:200]


def _said(command: list[str], environment: dict[str, str] | None = None) -> tuple[int, str]:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_VERSION_TIMEOUT_S, env=environment)
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, str(error)
    return done.returncode, done.stdout + done.stderr
