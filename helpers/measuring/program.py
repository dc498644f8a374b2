"""NVIDIA's own load generator, perf_analyzer: where it is on this machine, and how it is started. Standard library only."""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers import machine
from helpers.client.endpoint import ADMIN_HEADER, GRPC_HEADER_PREFIX, own_key, parse_address
from helpers.errors import InputError, SetupError
from helpers.paths import server_env
from helpers.server import isolation
from helpers.setup.environments import EMBEDDED_TRITON, TOOL_LIBRARIES

NAME = "perf_analyzer"
# Seconds for the question which version it is.
_VERSION_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Program:
    """A perf_analyzer that runs here: the file, its version, where it comes from, and the folder of its libraries, if it needs one."""

    file: str
    version: str
    origin: str
    libraries: str = ""

    def start(self, *arguments: str, private: Sequence[str] = (), **options: Any) -> subprocess.Popen[str]:
        """Start it; private arguments, with a token in them, are not seen by other users of this machine in ``ps``."""
        variables = _variables(self.libraries)
        variables |= machine.without_proxy(variables)
        private = [*private, *_key_arguments(arguments)]
        if private:
            return isolation.start_through([self.file, *arguments], private, variables, **options)
        return subprocess.Popen([self.file, *arguments], env=variables, text=True, **options)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end and return what it said."""
        with self.start(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            said, errors = process.communicate()
        return subprocess.CompletedProcess([self.file, *arguments], process.returncode, said, errors)


def _variables(libraries: str) -> dict[str, str]:
    return {**os.environ, **({"LD_LIBRARY_PATH": libraries} if libraries else {})}


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
    """The first perf_analyzer that runs: on PATH, as in NVIDIA's client image, or in the server's environment; else a SetupError."""
    folder, failures = server_env(), []
    carried = f"carried by the wheel tritonclient {EMBEDDED_TRITON}"
    for file, origin, libraries in ((NAME, "on PATH", ""), (str(folder / "bin" / NAME), carried, str(folder / TOOL_LIBRARIES))):
        if found := shutil.which(file):
            try:
                return Program(found, _version(found, libraries, Path(found).stat().st_mtime_ns), origin, libraries)
            except SetupError as error:
                failures.append(f"{origin}: {error}")
    here = platform.system(), platform.machine()
    tried = f" Tried: {'; '.join(failures)}." if failures else ""
    raise SetupError(
        f"No perf_analyzer runs on this machine ({', '.join(here)}).{tried}",
        "NVIDIA makes it for Linux on x86-64. Without it, results that others measured are still there: helpers.measuring.recorded.",
        "Type: python -m helpers install-server" if here == ("Linux", "x86_64") else "",
    )


@functools.cache
def _version(file: str, libraries: str, changed_ns: int) -> str:
    """Its version; a SetupError where it does not tell, which is not kept: it may run the next time."""
    try:
        done = subprocess.run(
            [file, "--version"], capture_output=True, text=True, check=False, timeout=_VERSION_TIMEOUT_S, env=_variables(libraries)
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SetupError(str(error)) from error
    said = done.stdout + done.stderr
    if done.returncode or not (found := re.search(r"Version (\d[\w.]*)", said)):
        raise SetupError((said.strip().splitlines() or [f"it ended with {done.returncode}"])[-1][:200])
    return found[1]
