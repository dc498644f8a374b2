"""What runs the server: the real tritonserver of a PyPI wheel, or NVIDIA's image of it. A new runtime is a module and a line here."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from helpers.errors import SetupError
from helpers.server.containers import EMBEDDED, ENGINES, Container
from helpers.server.embedded import Embedded
from helpers.server.spec import Command, LaunchSpec


class Runtime(Protocol):
    """Turns "serve this" into a command and an environment."""

    def command(self, spec: LaunchSpec, run_dir: Path) -> Command:
        """Return the command for a server whose private folder is ``run_dir``; a SetupError says what this machine lacks for it."""

    def dry_command(self, spec: LaunchSpec) -> Command:
        """Return what people would type."""


RUNTIMES: dict[str, Runtime] = {"embedded": Embedded(), **{engine: Container(engine) for engine in ENGINES}}


def runtime(name: str) -> Runtime:
    """Return the runtime of this name.

    Raises:
        SetupError: there is none of this name.
    """
    if name not in RUNTIMES:
        raise SetupError(f"There is no runtime {name!r}.", f"The runtimes are {', '.join(RUNTIMES)}.", EMBEDDED)
    return RUNTIMES[name]
