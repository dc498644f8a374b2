"""NVIDIA's own load generator, perf_analyzer: where it is on this machine, and how it is started."""

from __future__ import annotations

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
from helpers.errors import SetupError
from helpers.paths import server_env
from helpers.server import isolation
from helpers.setup.environments import TOOL_LIBRARIES

NAME = "perf_analyzer"


@dataclass(frozen=True)
class Program:
    """A perf_analyzer that runs here: the file, its version, and the folder of its libraries, if it needs one."""

    file: str
    version: str
    libraries: str = ""

    def start(self, *arguments: str, private: Sequence[str] = (), **options: Any) -> subprocess.Popen[str]:
        """Start it; private arguments, with a token in them, are not seen by other users of this machine in ``ps``."""
        variables = _variables(self.libraries)
        variables |= machine.without_proxy(variables)
        if private:
            return isolation.start_through([self.file, *arguments], private, variables, **options)
        return subprocess.Popen([self.file, *arguments], env=variables, text=True, **options)

    def run(self, *arguments: str, private: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        """Run it to its end and return what it said."""
        with self.start(*arguments, private=private, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            said, errors = process.communicate()
        return subprocess.CompletedProcess([self.file, *arguments], process.returncode, said, errors)


def _variables(libraries: str) -> dict[str, str]:
    return {**os.environ, **({"LD_LIBRARY_PATH": libraries} if libraries else {})}


def find_perf_analyzer() -> Program:
    """The first perf_analyzer that runs: on PATH, as in NVIDIA's client image, or in the server's environment; else a SetupError."""
    folder, failures = server_env(), []
    for file, libraries in ((NAME, ""), (str(folder / "bin" / NAME), str(folder / TOOL_LIBRARIES))):
        if found := shutil.which(file):
            try:
                return Program(found, _version(found, libraries, Path(found).stat().st_mtime_ns), libraries)
            except SetupError as error:
                failures.append(f"{found}: {error}")
    here = platform.system(), platform.machine()
    raise SetupError(
        f"No perf_analyzer runs on this machine ({', '.join([*here, *failures])}).",
        "NVIDIA makes it for Linux on x86-64. Without it, results that others measured are still there: helpers.measuring.recorded.",
        "Type: python -m helpers install-server" if here == ("Linux", "x86_64") else "",
    )


@functools.cache
def _version(file: str, libraries: str, changed_ns: int) -> str:
    """Its version; a SetupError where it does not tell, which is not kept: it may run the next time."""
    try:
        done = subprocess.run([file, "--version"], capture_output=True, text=True, check=False, env=_variables(libraries))
    except OSError as error:
        raise SetupError(str(error)) from error
    said = done.stdout + done.stderr
    if done.returncode or not (found := re.search(r"Version (\d[\w.]*)", said)):
        raise SetupError((said.strip().splitlines() or [f"it ended with {done.returncode}"])[-1][:200])
    return found[1]
