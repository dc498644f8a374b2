"""The two environments of the course: what they must hold, what is there, and how what is missing is made, by ``uv`` and pip.

``.venv`` (or the active conda environment, when it has the packages) is the notebooks' side; ``.server`` is the embedded server's. Each
holds a stamp with the fingerprint of its lock, so that a second call starts at once, and a mark while it is being made, so that an
incomplete one is recognised. Standard library only: ``make`` runs this in the Python that :mod:`helpers.setup.bootstrap` has chosen.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from helpers.errors import CourseError, SetupError
from helpers.paths import make_folder, root, server_env, shown, writing
from helpers.setup import bootstrap
from helpers.terminal import write_whatever_the_terminal

# The tritonserver in the pinned wheel: of release 24.10, the newest that any wheel carries. That of images is in containers/VERSION.
EMBEDDED_TRITON = "2.51.0"

STAMP = "course-environment.json"
BEING_MADE = "course-being-made"
_NAMES = {"client": "the notebooks' environment", "server": "the embedded server's environment"}
_LOCKS = {"client": "requirements.lock", "server": "containers/server-requirements.lock"}
# Free disk space, in GB, that making the environments needs, with what is unpacked on the way: the notebooks' alone, and the server's
# without PyTorch, with its CPU build, and with the CUDA build.
CLIENT_GB, SERVER_GB, TORCH_CPU_GB, TORCH_CUDA_GB = 1.2, 0.8, 1.8, 7.8
# perf_analyzer of the server's release of tritonclient needs these libraries, which the server's own wheel has under names with a hash.
# Links of the plain names lie in this folder of the server's environment.
TOOL_LIBRARIES = "lib/perf_analyzer"
_LIBRARIES = {"libb64.so.0d": "libb64-*.so.0d", "libcudart.so.12": "libcudart-*.so.12*"}
# Settings of pip that say where packages are and how to get there -> the variables by which uv, which does not read them, knows them.
_PIP_TO_UV = {"index-url": "UV_DEFAULT_INDEX", "no-index": "UV_NO_INDEX", "find-links": "UV_FIND_LINKS"}
_PIP_TO_UV |= {"cert": "SSL_CERT_FILE", "proxy": "ALL_PROXY"}
# Variables that would lead pip, uv or Python to other packages than ours.
_UNWANTED = ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_REQUIRE_HASHES", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
# What is in the way of pip and uv is said by them, just above.
_FAILED = (
    "What pip or uv said is above.",
    "No connection: check the network (and the proxy, if there is one). No space or quota: make room (see: df -h .). Permission: check "
    "that this folder is yours (see: ls -ld .). No fitting version: git pull. Then type the same again.",
)


# --- what they must hold ---------------------------------------------------------------------------------------------------


def client_folder() -> Path:
    """Return where ``make`` puts the notebooks' environment (``COURSE_CLIENT_ENV``, else ``.venv`` in the course)."""
    return Path(os.environ["COURSE_CLIENT_ENV"]).resolve() if "COURSE_CLIENT_ENV" in os.environ else root() / ".venv"


def python_of(folder: Path) -> Path:
    """Return the interpreter of an environment."""
    return folder / "Scripts" / "python.exe" if os.name == "nt" else folder / "bin" / "python"


def _packages_of(folder: Path) -> list[Path]:
    """The folder of packages of an environment, if there is one."""
    return [folder / "Lib" / "site-packages"] if os.name == "nt" else list(folder.glob("lib/python3*/site-packages"))


def client_requirements(dev: bool = False) -> list[str]:
    """Return the packages of the notebooks' side with their ranges, from ``pyproject.toml``."""
    project = tomllib.loads((root() / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [*project["dependencies"], *(project["optional-dependencies"]["dev"] if dev else [])]


def server_requirements(torch: bool = True) -> list[str]:
    """Return the packages of the server's side with their ranges, without the wheels of ``server-wheel.txt``."""
    return [line for line in lines("containers/server-requirements.txt") if torch or not line.startswith("torch")]


def lines(name: str) -> list[str]:
    """Return the lines of a list of packages or of a lock, without comments; ``name`` is relative to the course."""
    text = (root() / name).read_text(encoding="utf-8")
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(name: str) -> dict[str, str]:
    """Return package -> exact version of a lock (``requirements.lock`` or ``containers/server-requirements.lock``)."""
    pins = (re.match(r"([^=\s\[]+)(?:\[\w+\])?==([^\s;]+)", line) for line in lines(name))
    return {_plain(pin[1]): pin[2] for pin in pins if pin}


def fingerprint(kind: str) -> str:
    """Return what an environment must have been made from: changes when its lock or its list of packages does."""
    more = client_requirements(dev=True) if kind == "client" else lines("containers/server-wheel.txt") + server_requirements()
    return hashlib.sha256("\n".join(lines(_LOCKS[kind]) + more).encode()).hexdigest()[:16]


# --- what is there ---------------------------------------------------------------------------------------------------------


def state(folder: Path, kind: str) -> str:
    """Return ``absent``, ``incomplete``, ``moved``, ``outdated`` (another lock), ``ready``, or ``foreign`` (not made by the course)."""
    if not folder.exists() or not any(folder.iterdir()):
        return "absent"
    if (folder / BEING_MADE).exists():
        return "incomplete"
    stamp = read_stamp(folder)
    if not stamp:
        return "foreign"
    if stamp.get("folder") != str(folder.resolve()) or not python_of(folder).exists():
        return "moved"
    return "ready" if stamp.get("fingerprint") == fingerprint(kind) else "outdated"


def read_stamp(folder: Path) -> dict[str, Any]:
    """Return the stamp of a finished environment; empty when there is none or it is no stamp."""
    try:
        return dict(json.loads((folder / STAMP).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def installed_versions(folder: Path) -> dict[str, str]:
    """Return name (lower case, with ``-``) and version of each package in an environment, read from its folders without starting it."""
    found = (each.name.removesuffix(".dist-info") for packages in _packages_of(folder) for each in packages.glob("*.dist-info"))
    return {_plain(name): version for name, _, version in (each.rpartition("-") for each in found)}


def numpy_fault(folder: Path) -> str:
    """Return why the numpy of a server environment must not be used; empty when it may."""
    version = installed_versions(folder).get("numpy", "")
    if version.startswith("1."):
        return ""
    return (
        f"The server's environment {folder} has {'numpy ' + version if version else 'no numpy'}; it needs numpy 1.26, "
        "because with numpy 2 models load, are READY and answer with empty tensors, without an error."
    )


# Runs in that environment: prints the requirements (its arguments) that it does not meet.
_LACKS = """
import importlib.metadata as metadata, importlib.util, sys
from packaging.requirements import Requirement
if not (3, 11) <= sys.version_info[:2] <= (3, 12):
    print("python<3.13,>=3.11")
for requirement in map(Requirement, sys.argv[1:]):
    try:
        good = requirement.specifier.contains(metadata.version(requirement.name), prereleases=True)
    except metadata.PackageNotFoundError:
        good = False
    if not good:
        print(requirement.name)
if importlib.util.find_spec("helpers") is None:
    print("triton-course")
"""


@functools.cache
def lacks(python: Path, dev: bool = False) -> list[str]:
    """Return what this interpreter's environment lacks for the notebooks, names of packages."""
    done = subprocess.run([python, "-I", "-c", _LACKS, *client_requirements(dev)], capture_output=True, text=True, check=False)
    return done.stdout.split() if done.returncode == 0 else ["packaging"]


def conda_lacks(dev: bool = False) -> list[str] | None:
    """Return what the active conda environment lacks for the notebooks; ``None`` when no conda environment is active."""
    python = Path(os.environ.get("CONDA_PREFIX", ""), "bin", "python")
    return lacks(python, dev) if "CONDA_PREFIX" in os.environ and python.exists() else None


def client_python(dev: bool = False) -> Path | None:
    """Return the interpreter of the notebooks' side if it is ready, else ``None``."""
    if conda_lacks(dev) == []:
        return Path(os.environ["CONDA_PREFIX"]) / "bin" / "python"
    folder = client_folder()
    complete = state(folder, "client") == "ready" and (read_stamp(folder).get("dev") or not dev)
    return python_of(folder) if complete else None


def server_ready(torch: bool | None = None) -> bool:
    """True if the embedded server's environment is as its lock says; ``torch=None`` takes it with or without PyTorch."""
    folder = server_env()
    if numpy_fault(folder):
        return False
    found = state(folder, "server")
    own = "COURSE_SERVER_ENV" in os.environ and found == "foreign"
    return own or (found == "ready" and (not torch or bool(read_stamp(folder).get("torch"))))


def to_complete() -> str:
    """Return what to type to make what is missing here; in a course folder of somebody else, whom to ask."""
    if os.access(root(), os.W_OK):
        return "make setup"
    return f"Ask the owner of {root()} to type there: make setup   (or make a copy of your own: git clone {root()} ~/triton-course)"


# --- how they are made -----------------------------------------------------------------------------------------------------


def check_disk(need_gb: float, folder: Path, free_gb: float | None = None) -> None:
    """Refuse, by a :class:`~helpers.errors.SetupError`, to begin what would not fit on the disk of a folder."""
    free_gb = shutil.disk_usage(folder).free / 1e9 if free_gb is None else free_gb
    if free_gb < need_gb:
        raise SetupError(
            f"There is no room: {free_gb:.1f} GB are free at {folder}, and {need_gb:.1f} GB are needed.",
            f"Without PyTorch (its models then stay UNAVAILABLE) {CLIENT_GB + SERVER_GB:g} GB are enough.",
            "Make room and type the same again, or type: make lab TORCH=no",
        )


def run(command: Sequence[object], what: str, **extra: str) -> None:
    """Run an installing program, which shows its own progress and errors, with further variables.

    Raises:
        SetupError: it failed, and ``what`` could not be made.
    """
    kept = {name: value for name, value in os.environ.items() if name not in _UNWANTED}
    kept |= {"PIP_USER": "0", "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", **extra}
    sys.stdout.flush()
    # In a session of its own: Ctrl-C is answered here, in one sentence, and not by each program below as well.
    process = subprocess.Popen(list(map(str, command)), env=kept, start_new_session=True)
    try:
        status = process.wait()
    except BaseException:
        if hasattr(os, "killpg"):  # not on Windows
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()
        raise
    if status:
        raise SetupError(f"{what} could not be made.", *_FAILED)


def places_for_uv(pip: Sequence[object]) -> dict[str, str]:
    """Return the variables by which uv takes packages from where this pip is set up to take them."""
    said = subprocess.run([*map(str, pip), "config", "list"], capture_output=True, text=True, check=False).stdout
    places = {name.replace("_", "-"): value for name, value in re.findall(r"(?:^|[.:])([\w-]+)='(.*)'$", said, re.MULTILINE)}
    # pip puts blanks or line ends between several places, uv commas.
    variables = {uv: re.sub(r"(\\n|\s)+", ",", places[name]) for name, uv in _PIP_TO_UV.items() if places.get(name)}
    # The system's certificates, as pip takes them, and no other Python.
    return {**variables, "UV_SYSTEM_CERTS": "1", "UV_PYTHON_DOWNLOADS": "never"}


def _has(python: object, module: str) -> bool:
    return not subprocess.run([str(python), "-I", "-c", f"import {module}"], capture_output=True, check=False).returncode


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Only one set-up of a course folder at a time; a second one waits."""
    folders = {"client": client_folder(), "server": server_env()}
    place = next((each for each in (root(), *(folder.parent for folder in folders.values())) if os.access(each, os.W_OK)), None)
    if place is None:
        states = ", ".join(f"{shown(folder)} is {state(folder, kind)}" for kind, folder in folders.items())
        happened = f"The folder of the course, {root()}, is not yours to write, and what it needs is not complete: {states}."
        raise SetupError(happened, "", to_complete())
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with (place / ".setup.lock").open("w") as file, contextlib.suppress(OSError):  # some network file systems have no locks
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another set-up of this folder is under way; waiting for it", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
    yield


class _Making:
    """An environment while it is filled: an empty one, or the one that is there; marked until it is complete, then stamped."""

    def __init__(self, folder: Path, kind: str, base: str, what: str, **facts: object) -> None:
        self.folder, self.kind, self.base, self.what, self.facts = folder, kind, base, what, facts

    def __enter__(self) -> _Making:
        folder, kind = self.folder, self.kind
        self.began, self.had, before = time.monotonic(), set(read_stamp(folder).get("packages", ())), state(folder, kind)
        if before == "foreign":
            todo = f"Move it away and type the same again: mv {folder} {folder}-mine"
            raise SetupError(f"There is a folder {folder} that the course did not make.", f"{_NAMES[kind].capitalize()} goes there.", todo)
        if before in ("incomplete", "moved"):
            again = {"incomplete": "is incomplete; creating it again", "moved": "was moved, or its Python is gone; creating it again"}
            print(f"{folder.name} {again[before]}", flush=True)
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / BEING_MADE).write_text("While this file is here, the environment is being made, or is incomplete.\n")
        # Unpacking happens on the environment's own disk: /tmp is small on many machines.
        self.tmp = folder / "tmp"
        self.tmp.mkdir(exist_ok=True)
        there = python_of(folder).exists()
        print(f"{'updating' if there else 'making'} {folder.name} ({_NAMES[kind]}): {self.what}", flush=True)
        if not there:
            # ensurepip is missing on Colab and on Debian without its venv package: pip then works from outside.
            run([self.base, "-m", "venv", *([] if _has(self.base, "ensurepip") else ["--without-pip"]), folder], folder.name)
        python = python_of(folder)
        self._pip = [python, "-m", "pip"] if _has(python, "pip") else [self.base, "-m", "pip", "--python", python]
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        if kind is not None:
            return
        folder, packages = self.folder, sorted(locked(_LOCKS[self.kind]))
        # What an earlier lock had brought; a student's own packages stay.
        if gone := sorted(self.had.difference(packages).intersection(installed_versions(folder))):
            self.pip("uninstall", "--yes", *gone)
        shutil.rmtree(self.tmp, ignore_errors=True)
        made_of = {"fingerprint": fingerprint(self.kind), "folder": str(folder.resolve()), "packages": packages}
        (folder / STAMP).write_text(json.dumps(self.facts | made_of, indent=1) + "\n", encoding="utf-8")
        (folder / BEING_MADE).unlink()
        print(f"{folder.name} is ready ({time.monotonic() - self.began:.0f} s)", flush=True)

    def pip(self, *words: object) -> None:
        """Run this environment's pip."""
        run([*self._pip, *words], self.folder.name, TMPDIR=str(self.tmp))

    def uv(self, *packages: object) -> None:
        """Install packages by the uv of the lock, from where pip is set up to take them."""
        tool = self.tmp / "uv"
        if not tool.exists():
            self.pip("install", "--quiet", "--no-deps", "--target", tool, f"uv=={locked('requirements.lock')['uv']}")
        # No cache that would double what lies on the disk.
        variables = {**places_for_uv(self._pip), "UV_CACHE_DIR": str(self.tmp / "cache")}
        command = [tool / "bin" / "uv", "pip", "install", "--compile-bytecode", "--python", python_of(self.folder), *packages]
        run(command, self.folder.name, **variables)


def make_client(dev: bool = False) -> None:
    """Make or update ``.venv``; a :class:`~helpers.errors.SetupError` says what is in the way."""
    folder = client_folder()
    dev = dev or bool(read_stamp(folder).get("dev"))
    check_disk(CLIENT_GB, root())
    with _Making(folder, "client", sys.executable, "about a hundred packages, about a minute", dev=dev) as making:
        making.uv("-c", root() / "requirements.lock", *client_requirements(dev))
        # The course itself: a line with its folder is all that an editable install would leave, and needs no download.
        for packages in _packages_of(folder):
            (packages / "triton_course.pth").write_text(f"{root()}\n", encoding="utf-8")


def make_server(torch: bool | None = None, base: str = sys.executable) -> None:
    """Make or update ``.server``, of the interpreter ``base``.

    ``torch`` is with PyTorch or without; ``None`` keeps what an earlier set-up chose, else takes it.

    Raises:
        SetupError: the machine cannot run it, has no room, or the installation failed.
    """
    if problem := bootstrap.embedded_obstacle() or bootstrap.missing(bootstrap.probe(base) or {}):
        raise SetupError(problem)
    folder, torch = server_env(), _with_torch(torch)
    need_gb, what = _server_size(torch, base)
    check_disk(need_gb, folder.parent)
    lock = ["-c", root() / _LOCKS["server"]]
    with _Making(folder, "server", base, f"tritonserver, ONNX Runtime, {what}", torch=torch) as making:
        making.uv(*lock, *server_requirements(torch=False))
        making.uv("--no-deps", *lines("containers/server-wheel.txt"))
        if torch:
            # By pip: it may be set up to find a CPU build of the same version, which uv would not take.
            only = [line for line in server_requirements() if line not in server_requirements(torch=False)]
            making.pip("install", *lock, *only)
        for plain, pattern in _LIBRARIES.items():
            link = make_folder(folder / TOOL_LIBRARIES) / plain
            link.unlink(missing_ok=True)
            for library in folder.glob(f"lib/python3*/site-packages/nvidia_pytriton.libs/{pattern}"):
                link.symlink_to(os.path.relpath(library, link.parent))
        if fault := numpy_fault(folder):
            raise SetupError(fault, "", "Type: git checkout containers && make lab")


def _with_torch(torch: bool | None) -> bool:
    return bool(read_stamp(server_env()).get("torch", True)) if torch is None else torch


def _server_size(torch: bool, base: str) -> tuple[float, str]:
    """Space (GB) that the server's environment needs, and words for it; asks pip, without a download, which PyTorch it would take."""
    if not torch:
        return SERVER_GB, "without PyTorch, half a minute"
    cpu_build = re.compile(rf"\b{re.escape(locked(_LOCKS['server'])['torch'])}\+cpu\b")
    # A bare Debian has no pip beside its Python; the notebooks' environment has.
    for python in filter(None, (base, client_python())):
        command = [str(python), "-m", "pip", "index", "versions", "torch"]
        if cpu_build.search(subprocess.run(command, capture_output=True, text=True, check=False).stdout):
            return TORCH_CPU_GB, "PyTorch for CPUs, about a minute"
    return TORCH_CUDA_GB, "PyTorch with CUDA (some 3 GB to fetch), several minutes"


def ready(dev: bool = False, server: bool = True, torch: bool | None = None) -> Path:
    """Make what is missing and return the notebooks' interpreter; at once when nothing is.

    Args:
        dev: with what the tests need.
        server: with the embedded server's environment.
        torch: as for :func:`make_server`.

    Raises:
        SetupError: something is in the way; its text says what to type.
    """
    if server and (obstacle := bootstrap.embedded_obstacle()):
        print(obstacle, flush=True)
        server = False
    client = client_python(dev)
    if client and (not server or server_ready(torch)):
        return client
    with _alone():
        client, make_one = client_python(dev), server and not server_ready(torch)
        if make_one and not client:
            # Both, before the first is begun.
            check_disk(CLIENT_GB + _server_size(_with_torch(torch), sys.executable)[0], root())
        if not client:
            if lacking := conda_lacks(dev):
                print(f"the active conda environment lacks {', '.join(lacking[:5])}{' …' * (len(lacking) > 5)}: using .venv", flush=True)
            make_client(dev)
        if make_one:
            make_server(torch)
    return client or python_of(client_folder())


def install_server(torch: bool | None = None) -> None:
    """Make ``.server`` of the Python that runs this, unless it is ready; arguments and errors as for :func:`make_server`."""
    if server_ready(torch):
        print(f"{shown(server_env())} is ready.")
        return
    with _alone(), writing(server_env(), "", to_complete()):
        make_server(torch, getattr(sys, "_base_executable", sys.executable))


def main(arguments: list[str] | None = None) -> int:
    """Make both environments, then run the notebooks' Python with what stands behind ``--``."""
    parser = argparse.ArgumentParser(prog="environments", description=main.__doc__)
    parser.add_argument("--dev", action="store_true", help="with what the tests need")
    parser.add_argument("--server", choices=["yes", "no", ""], default="", help="no: only the notebooks' side")
    parser.add_argument("--torch", choices=["yes", "no", ""], default="", help="no: the server without PyTorch")
    parser.add_argument("--as-is", action="store_true", help="make nothing; use this Python where the environment is not ready")
    parser.add_argument("run", nargs="*", help="arguments for the notebooks' Python")
    write_whatever_the_terminal()
    options = parser.parse_args(arguments)
    try:
        if options.as_is:
            python = client_python() or Path(sys.executable)
        else:
            python = ready(options.dev, options.server != "no", {"yes": True, "no": False, "": None}[options.torch])
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        words = "Check that this folder is yours and the disk has room: ls -ld . ; df -h ."
        print(f"{error.strerror}: {error.filename}. {words}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. Type the same again to go on: an incomplete environment is created again.", file=sys.stderr)
        return 130
    if not options.run:
        return 0
    environment = {**os.environ, "PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    sys.stdout.flush()
    if os.name == "posix":
        os.execve(python, [str(python), *options.run], environment)
    return subprocess.call([str(python), *options.run], env=environment)


if __name__ == "__main__":
    sys.exit(main())
