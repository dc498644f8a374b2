"""The embedded runtime: the real tritonserver of a PyPI wheel, in an environment of its own, with the course's backends."""

from __future__ import annotations

import json
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
# million chunks. No huge pages: they cost 70 MB. Speeds with and without agree within 2 %. The models' processes do without, since every
# large tensor would be given back, too: PyTorch's took twice as long.
_ALLOCATOR = "libmimalloc.so.3"
MEMORY = {"MIMALLOC_PURGE_DELAY": "0", "MIMALLOC_ALLOW_THP": "0"}
# Read by the shell that starts a model's process.
_STUB_SETTINGS = "stub_settings.sh"
# ONNX Runtime reports each use to Microsoft by default, also on Linux, and keeps an identifier and a database for that in the home folder.
NO_REPORTS = {"ORT_DISABLE_TELEMETRY": "1"}

_OURS = (Path(__file__).parents[1] / "backends").resolve()
# What a shell's command line takes as it is, without quotation marks.
_PLAIN = re.compile(r"[A-Za-z0-9_.+=@%,:/-]+")
_NOT_ALONE = (
    "To be read, not to be pasted: launch_server also makes the folder of backends, and sets LD_LIBRARY_PATH, PATH and the key.\n"
    "# In a terminal type: python -m helpers serve"
)
# Seconds that the server's Python may take to say what it has: on a network's disk it is slow at first.
_PROBE_S = 60.0
# Runs in the server's environment: prints what the launcher must know about it.
_PROBE = (
    bootstrap.LIBPYTHON
    + """
import importlib.metadata, json, pathlib
def installed(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
purelib = sysconfig.get_paths()["purelib"]
print(json.dumps({
    "version": f"{sys.version_info[0]}.{sys.version_info[1]}",
    "purelib": purelib,
    "libpython": libpython(),
    "numpy": installed("numpy"),
    "triton": pathlib.Path(purelib, "pytriton", "tritonserver", "bin", "tritonserver").exists(),
}))
"""
)


def command(spec: LaunchSpec, run_dir: Path) -> Command:
    """Return the command for a server whose private folder is ``run_dir``."""
    facts = _facts()
    wheel = Path(facts["purelib"])
    triton = wheel / "pytriton" / "tritonserver"
    # The link has a plain name, whatever that of the repository.
    repository = spec.repository if _PLAIN.fullmatch(str(spec.repository)) else run_dir / "models"
    public = [
        str(triton / "bin" / "tritonserver"),
        # Before the user's own, so that those win.
        # Objects that are kept for later requests keep the size of the largest that there ever was.
        "--grpc-infer-allocation-pool-size=0",
        f"--model-load-thread-count={LOAD_THREADS}",
        *spec.triton_arguments(str(repository)),
        f"--backend-directory={run_dir / BACKENDS}",
        f"--cache-directory={triton / 'caches'}",
    ]
    # The notebooks' own Python settings must not reach the server's Python, which has other packages.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "CONDA_"))}
    environment = {**THREADS, **MEMORY, **NO_REPORTS, **inherited}
    # Triton starts each model's process by way of bash, and waits for ever where it does not find it.
    environment["PATH"] = os.pathsep.join(filter(None, (str(paths.server_env() / "bin"), environment.get("PATH"), os.defpath)))
    environment["LD_LIBRARY_PATH"] = f"{wheel / 'nvidia_pytriton.libs'}{os.pathsep}{Path(facts['libpython']).parent}"
    # Python models' prints appear in the log at once.
    environment["PYTHONUNBUFFERED"] = "1"
    links = _backends(triton, facts["version"]) | {"models": spec.repository}
    allocator = wheel / "cmeel.prefix" / "lib" / _ALLOCATOR
    if allocator.exists():  # `helpers doctor` names a package that is missing
        links |= {_ALLOCATOR: allocator, _STUB_SETTINGS: _OURS / _STUB_SETTINGS}
        # Before what a site preloads into every program. The links have plain names, whatever those of their folders.
        environment["LD_PRELOAD"] = f"{run_dir / _ALLOCATOR}:{environment.get('LD_PRELOAD', '')}"
        environment["BASH_ENV"] = str(run_dir / _STUB_SETTINGS)
    return Command(public, spec.private_arguments(), environment, links)


def dry_command(spec: LaunchSpec) -> Command:
    """Return the command as it is to be read: it is no complete program, as an image is."""
    return replace(command(spec, Path("/tmp/course")), remark=_NOT_ALONE)


def _facts() -> dict[str, str]:
    """Version, packages folder, libpython and numpy of the server's environment; an error where it cannot run tritonserver."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise SetupError(
            f"The embedded server runs on Linux with an x86-64 processor; this is {platform.system()} on {platform.machine()}.",
            "Everything else of the course works here against a server on another machine.",
            'Type: server = connect("gpu-node:9000")',
        )
    folder, install = paths.server_env(), "Type: python -m helpers install-server"
    facts: dict[str, str] = {}
    words = ""
    try:
        probe = subprocess.run(
            [folder / "bin" / "python", "-I", "-c", _PROBE], capture_output=True, text=True, check=False, timeout=_PROBE_S
        )
        words = probe.stderr.strip()[-200:]
        facts = json.loads(probe.stdout) if probe.returncode == 0 else {}
    except (OSError, subprocess.TimeoutExpired) as error:
        words = str(error)
    if not facts.get("triton"):
        raise SetupError(
            f"The environment of the embedded server is not there, or not complete: {folder}{words and f' ({words})'}.",
            "It holds tritonserver, PyTorch and ONNX Runtime, apart from the notebooks' own packages.",
            install,
        )
    if not facts["numpy"].startswith("1."):
        raise SetupError(
            f"The server's environment has numpy {facts['numpy'] or '(none)'}.",
            "tritonserver needs numpy 1.26: with numpy 2 its Python models answer with empty tensors and no error.",
            install,
        )
    if not facts["libpython"]:
        raise SetupError(
            f"The Python {facts['version']} of {folder} has no shared library libpython{facts['version']}.so.",
            "tritonserver runs Python models with it.",
            f"Type: sudo apt-get install libpython{facts['version']}   (or use a Python from conda, which brings it)",
        )
    return facts


def _backends(triton: Path, version: str) -> dict[str, Path]:
    """Triton's own python backend and the course's Python-based backends, by their places in the private folder."""
    library = triton / "backends" / "python"
    return {
        f"{BACKENDS}/python/libtriton_python.so": library / "libtriton_python.so",
        f"{BACKENDS}/python/triton_python_backend_stub": triton / "python_backend_stubs" / version / "triton_python_backend_stub",
        f"{BACKENDS}/python/triton_python_backend_utils.py": _OURS / "python" / "triton_python_backend_utils.py",
        f"{BACKENDS}/python/triton_python_backend_utils_original.py": library / "triton_python_backend_utils.py",
        **{f"{BACKENDS}/{folder.name}": folder for folder in _OURS.iterdir() if (folder / "model.py").exists()},
    }


def lay_out(folder: Path) -> None:
    """Lay the server out as NVIDIA's image has its own, so that the same command line starts either; what is in the folder is replaced.

    Besides ``bin``, ``backends`` and ``caches`` there are, for ``LD_LIBRARY_PATH`` and ``PATH``, ``lib``, ``python`` and ``environment``.
    """
    facts = _facts()
    wheel = Path(facts["purelib"])
    triton = wheel / "pytriton" / "tritonserver"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    links = {"bin": triton / "bin", "caches": triton / "caches", "lib": wheel / "nvidia_pytriton.libs"}
    links |= {"python": Path(facts["libpython"]).parent, "environment": paths.server_env()}
    Command([], [], links=links | _backends(triton, facts["version"])).make_links(folder)


if __name__ == "__main__":  # while the image is built
    lay_out(Path(sys.argv[1]))
