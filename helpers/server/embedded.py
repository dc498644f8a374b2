"""The embedded runtime: the real tritonserver of a PyPI wheel, in an environment of its own, with the course's backends."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from helpers import paths
from helpers.errors import SetupError
from helpers.server.command import BACKENDS, Command, LaunchSpec
from helpers.setup import bootstrap

# Models that the embedded server loads at the same time; Triton's default is 4. Of each load it sleeps a second, so that twelve
# models of the course are ready after 4.0 instead of 5.7 s on two cores.
LOAD_THREADS = 16
# Variables for the threads of Python models. PyTorch's otherwise spin while they wait for each other: on a busy machine that made it ten
# times slower. The same for the matrix products of NumPy.
THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_NUM_THREADS": "1"}
# tritonserver's memory goes back to the system as soon as it is free: the C library's own allocator can keep 800 MB after a body of a
# million chunks. No huge pages: they cost 70 MB. The models' processes do without: PyTorch's took twice as long.
_ALLOCATOR = "libmimalloc.so.3"
MEMORY = {"MIMALLOC_PURGE_DELAY": "0", "MIMALLOC_ALLOW_THP": "0"}
# Read by the shell that starts a model's process.
_STUB_SETTINGS = "stub_settings.sh"
# ONNX Runtime reports each use to Microsoft by default, also on Linux, and keeps an identifier and a database for that in the home folder.
NO_REPORTS = {"ORT_DISABLE_TELEMETRY": "1"}

_TRITON = Path("pytriton", "tritonserver")
_OURS = (Path(__file__).parents[1] / "backends").resolve()
# What a shell's command line takes as it is, without quotation marks.
_PLAIN = re.compile(r"[A-Za-z0-9_.+=@%,:/-]+")
_NOT_ALONE = (
    "To be read, not to be pasted: launch_server also makes the folder of backends, and sets LD_LIBRARY_PATH, PATH and the key.\n"
    "# In a terminal type: python -m helpers serve"
)
# Seconds that the server's Python may take to say where its library is: on a network's disk it is slow at first.
_PROBE_S = 60.0


def command(spec: LaunchSpec, run_dir: Path) -> Command:
    """Return the command for a server whose private folder is ``run_dir``."""
    packages, libraries = _wheel()
    triton = packages / _TRITON
    # The link has a plain name, whatever that of the repository.
    repository = spec.repository if _PLAIN.fullmatch(str(spec.repository)) else run_dir / "models"
    words = [
        str(triton / "bin" / "tritonserver"),
        # Before the user's own, so that those win.
        # Objects that are kept for later requests keep the size of the largest that there ever was.
        "--grpc-infer-allocation-pool-size=0",
        f"--model-load-thread-count={LOAD_THREADS}",
        f"--backend-directory={run_dir / BACKENDS}",
        f"--cache-directory={triton / 'caches'}",
        *spec.triton_arguments(str(repository)),
    ]
    # The notebooks' own Python settings must not reach the server's Python, which has other packages.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "CONDA_"))}
    environment = {**THREADS, **MEMORY, **NO_REPORTS, **inherited, **spec.secrets()}
    # Triton starts each model's process by way of bash, and waits for ever where it does not find it.
    environment["PATH"] = os.pathsep.join(filter(None, (str(paths.server_env() / "bin"), environment.get("PATH"), os.defpath)))
    environment["LD_LIBRARY_PATH"] = f"{packages / 'nvidia_pytriton.libs'}{os.pathsep}{libraries}"
    # Python models' prints appear in the log at once.
    environment["PYTHONUNBUFFERED"] = "1"
    links = _backends(packages) | {"models": spec.repository}
    allocator = packages / "cmeel.prefix" / "lib" / _ALLOCATOR
    if allocator.exists():  # `helpers doctor` names a package that is missing
        links |= {_ALLOCATOR: allocator, _STUB_SETTINGS: _OURS / _STUB_SETTINGS}
        # Before what a site preloads into every program. The links have plain names, whatever those of their folders.
        environment["LD_PRELOAD"] = f"{run_dir / _ALLOCATOR}:{environment.get('LD_PRELOAD', '')}"
        environment["BASH_ENV"] = str(run_dir / _STUB_SETTINGS)
    return Command(words, environment, links)


def dry_command(spec: LaunchSpec) -> Command:
    """Return the command as it is to be read: it is no complete program, as an image is."""
    return replace(command(spec, Path("/tmp/course")), remark=_NOT_ALONE)


def _wheel() -> tuple[Path, Path]:
    """The packages of the server's environment and the folder of its Python's own library; an error where it cannot run tritonserver."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise SetupError(
            f"The embedded server runs on Linux with an x86-64 processor; this is {platform.system()} on {platform.machine()}.",
            "Everything else of the course works here against a server on another machine.",
            'Type: server = connect("gpu-node:9000")',
        )
    folder = paths.server_env()
    packages = next(folder.glob("lib/python3*/site-packages"), folder)
    question = [str(folder / "bin" / "python"), "-I", "-c", f"{bootstrap.LIBPYTHON}\nprint(libpython(), end='')"]
    library = ""
    with contextlib.suppress(OSError, subprocess.SubprocessError):  # no such Python, or one that does not run
        library = subprocess.run(question, capture_output=True, text=True, check=True, timeout=_PROBE_S).stdout
    if not library or not (packages / _TRITON).exists():
        raise SetupError(f"The environment of the embedded server is not there, or not complete: {folder}.", "", _install(folder))
    if not any(packages.glob("numpy-1.*.dist-info")):
        expected = "tritonserver needs numpy 1.26: with numpy 2 its Python models answer with empty tensors and no error."
        raise SetupError(f"The server's environment {folder} has another numpy.", expected, _install(folder))
    return packages, Path(library).parent


def _install(folder: Path) -> str:
    """What to type for a new environment: one that was complete, and was changed since, is made again only when it is gone."""
    from helpers.setup import environments  # a launch that goes well does not need it

    away = f"rm -r {paths.shown(folder)} && " * (environments.state("server") == "ready")
    return f"Type: {away}python -m helpers install-server"


def _backends(packages: Path) -> dict[str, Path]:
    """Triton's own python backend and the course's Python-based backends, by their places in the private folder."""
    triton, stub = packages / _TRITON, "triton_python_backend_stub"
    library = triton / "backends" / "python"
    return {
        f"{BACKENDS}/python/libtriton_python.so": library / "libtriton_python.so",
        f"{BACKENDS}/python/{stub}": triton / "python_backend_stubs" / packages.parent.name.removeprefix("python") / stub,
        f"{BACKENDS}/python/triton_python_backend_utils.py": _OURS / "python" / "triton_python_backend_utils.py",
        f"{BACKENDS}/python/triton_python_backend_utils_original.py": library / "triton_python_backend_utils.py",
        **{f"{BACKENDS}/{folder.name}": folder for folder in _OURS.iterdir() if (folder / "model.py").exists()},
    }


def lay_out(folder: Path) -> None:
    """Lay the server out as NVIDIA's image has its own, so that the same command line starts either; what is in the folder is replaced."""
    packages, libraries = _wheel()
    triton = packages / _TRITON
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    links = {"bin": triton / "bin", "caches": triton / "caches"}
    # For LD_LIBRARY_PATH and PATH.
    links |= {"lib": packages / "nvidia_pytriton.libs", "python": libraries, "environment": paths.server_env()}
    Command([], {}, links | _backends(packages)).make_links(folder)


if __name__ == "__main__":  # while the image is built
    lay_out(Path(sys.argv[1]))
