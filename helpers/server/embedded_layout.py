"""Lay the embedded server out as NVIDIA's image has its server, for an image that needs no GPU (``containers/Containerfile.cpu``).

In NVIDIA's image tritonserver lies in ``/opt/tritonserver``, with its backends and caches where it looks for them by itself. With the
same layout the same command line starts either.
Used while the image is built: ``python -m helpers.server.embedded_layout /opt/tritonserver``.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from helpers import paths
from helpers.server.embedded import Embedded
from helpers.server.serving import Command


def lay_out(folder: Path) -> None:
    """Make ``bin``, ``backends``, ``caches`` and, for ``LD_LIBRARY_PATH`` and ``PATH``, ``lib``, ``python`` and ``environment``.

    Args:
        folder: where; what is there is replaced.

    Raises:
        SetupError: the embedded server is not installed, or not complete.
    """
    facts = Embedded().environment_facts()
    wheel = Path(facts["purelib"])
    triton = wheel / "pytriton" / "tritonserver"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    links = {
        "bin": triton / "bin",
        "caches": triton / "caches",
        "lib": wheel / "nvidia_pytriton.libs",
        "python": Path(facts["libpython"]).parent,
        "environment": paths.server_env(),
    }
    for name, target in links.items():
        (folder / name).symlink_to(target)
    Command([], [], links=Embedded.backends(triton, facts["version"])).make_links(folder)


if __name__ == "__main__":
    lay_out(Path(sys.argv[1]))
