"""An image for tests, made from this machine, since no image can be pulled everywhere.

A root file system with a shell, the libraries that Python and the server load, and the server laid out as ``Containerfile.cpu`` does
it, with that file's settings. Python itself and the server's environment, 2 GB that are here already, are mounted at their own places.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from helpers import paths
from helpers.server.embedded import lay_out

PROGRAMS = ("sh", "bash", "env", "mkdir", "rm", "touch", "true")
# Sandboxes allow less than the limits that engines set by themselves.
LIMITS = ("", "--ulimit=nofile=1024:1024 --ulimit=nproc=1000:1000")


class NoContainersError(Exception):
    """Containers cannot be run here; says why."""


@dataclass(frozen=True)
class Made:
    """An engine that runs containers here, and the image in it.

    Attributes:
        engine: ``podman`` or ``docker``.
        image: name of the image.
        arguments: for ``COURSE_ENGINE_ARGUMENTS``.
    """

    engine: str
    image: str
    arguments: str

    def containers(self) -> list[str]:
        """Names of all its containers, running or not."""
        return said(self.engine, "ps", "--all", "--format", "{{.Names}}").split()

    def remove(self) -> None:
        """Remove the image."""
        said(self.engine, "rmi", "--force", self.image)


def said(*command: str) -> str:
    """What a command prints.

    Raises:
        RuntimeError: it failed; has what it wrote.
    """
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if answer.returncode:
        raise RuntimeError(f"{' '.join(command[:3])}: {(answer.stderr or answer.stdout).strip()[-500:]}")
    return answer.stdout.strip()


def make(engine: str, folder: Path) -> Made:
    """Make the image.

    Args:
        engine: ``podman`` or ``docker``.
        folder: for its archive.

    Raises:
        NoContainersError: this engine runs none here.
        RuntimeError: the image cannot be made.
    """
    if not shutil.which(engine):
        raise NoContainersError(f"there is no {engine}")
    try:
        said(engine, "info")
    except RuntimeError as error:
        raise NoContainersError(str(error)) from error
    python = (paths.server_env() / "bin" / "python").resolve()
    archive = folder / "root.tar"
    pack(archive, python, folder / "tritonserver")
    changes = [f"--change=ENV {name}={value}" for name, value in environment(f"{python.parent}:/usr/bin:/bin").items()]
    name = f"localhost/triton-course-tests:{os.getpid()}"
    said(engine, "import", *changes, str(archive), name)
    # podman can lay a thin layer over a folder, so that nothing that happens in a container reaches the folder itself.
    option = "O" if engine == "podman" else "ro"
    volumes = " ".join(f"--volume={path}:{path}:{option}" for path in (paths.server_env(), python.parent.parent))
    made = Made(engine, name, f"{working_limits(engine, name)} {volumes}")
    said(engine, "run", "--rm", "--net=host", *made.arguments.split(), name, "python3", "-c", "import numpy")
    return made


def working_limits(engine: str, image: str) -> str:
    """The first arguments with which a container runs here.

    Raises:
        NoContainersError: it does with none.
    """
    reasons = []
    for limits in LIMITS:
        try:
            said(engine, "run", "--rm", "--net=host", *limits.split(), image, "true")
        except RuntimeError as error:
            reasons.append(str(error))
        else:
            return limits
    said(engine, "rmi", "--force", image)
    raise NoContainersError(f"tried: {'; '.join(reasons)}")


def environment(path: str) -> dict[str, str]:
    """The variables that ``Containerfile.cpu`` sets.

    Args:
        path: the base image's ``PATH``.
    """
    text = (paths.root() / "containers" / "Containerfile.cpu").read_text().replace("\\\n", " ")
    pairs = [pair.split("=", 1) for line in re.findall(r"^ENV (.*)$", text, re.MULTILINE) for pair in line.split()]
    known = {"${PATH}": path, "${COURSE_SERVER_ENV}": str(paths.server_env())}
    return {name: re.sub(r"\$\{\w+\}", lambda found: known[found[0]], value) for name, value in pairs}


def pack(archive: Path, python: Path, layout: Path) -> None:
    """A root file system with the few programs, the server's layout, and the libraries of the system that all of it loads."""
    programs = {name: shutil.which(name, path="/usr/bin:/bin") or "" for name in PROGRAMS}
    packages = Path(json.loads(said(str(paths.server_env() / "bin" / "python"), "-c", _WHERE)))
    loaded = [python, *python.parent.parent.glob("lib/python3*/lib-dynload/*.so"), packages / "pytriton/tritonserver/bin/tritonserver"]
    loaded += [*packages.glob("nvidia_pytriton.libs/*.so*"), *packages.glob("torch/lib/*.so"), *packages.glob("onnxruntime/capi/*.so*")]
    listed = subprocess.run(["ldd", *programs.values(), *map(str, loaded)], capture_output=True, text=True, check=False).stdout
    words = {word.rstrip(":") for line in listed.splitlines() for word in line.split() if word.startswith(("/lib", "/usr/lib"))}
    lay_out(layout)
    with tarfile.open(archive, "w") as tar:
        for file in sorted(words):
            # Under the name by which it is asked for; the target, where that is a link.
            tar.add(Path(file).resolve(), arcname=file.lstrip("/"), recursive=False)
        for name, program in programs.items():
            for folder in ("bin", "usr/bin"):
                tar.add(Path(program).resolve(), arcname=f"{folder}/{name}", recursive=False)
        tar.add("/usr/lib/locale/C.utf8", arcname="usr/lib/locale/C.utf8")
        tar.add(layout, arcname="opt/tritonserver", filter=_to_mounted_helpers)
        temporary = tarfile.TarInfo("tmp")
        temporary.type, temporary.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(temporary)


def _to_mounted_helpers(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """The course's backends as links to where the helpers are mounted in every container; the stub of Python models as it is."""
    entry.linkname = entry.linkname.replace(str(paths.root() / "helpers"), "/course/helpers", 1)
    return entry


_WHERE = "import json, sysconfig; print(json.dumps(sysconfig.get_paths()['purelib']))"
