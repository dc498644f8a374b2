"""The two environments of the course: what is there, and making what is missing from the locks.

``.venv`` (or the active conda environment, when it has the packages) is the notebooks' side; ``.server`` is the embedded
server's. Each holds a stamp with the fingerprint of its lock, so that a second call starts at once, and a mark while it is
being made, so that a half-made one is recognised and made anew. Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from helpers import installer, preflight, settings
from helpers.errors import CourseError, SetupError

STAMP = "course-environment.json"
BEING_MADE = "course-being-made"
_KIND = {"client": "the notebooks' environment", "server": "the embedded server's environment"}


def client_folder() -> Path:
    """Where ``make`` puts the notebooks' environment (``COURSE_CLIENT_ENV``, else ``.venv`` in the course)."""
    return Path(os.environ["COURSE_CLIENT_ENV"]).resolve() if "COURSE_CLIENT_ENV" in os.environ else settings.root() / ".venv"


def client_requirements(dev: bool = False) -> list[str]:
    """The packages of the notebooks' side with their ranges, from ``pyproject.toml``."""
    project = tomllib.loads((settings.root() / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["dependencies"] + (project["optional-dependencies"]["dev"] if dev else [])


def server_requirements(torch: bool = True) -> list[str]:
    """The packages of the server's side with their ranges, without the server's wheel."""
    return [line for line in _lines("containers/server-requirements.txt") if torch or not line.startswith("torch")]


def locked(name: str) -> dict[str, str]:
    """Package -> exact version in a lock (``requirements.lock`` or ``containers/server-requirements.lock``)."""
    pins = (re.match(r"([^=\s\[]+)(?:\[\w+\])?==([^\s;]+)", line) for line in _lines(name))
    return {re.sub(r"[-_.]+", "-", pin[1]).lower(): pin[2] for pin in pins if pin}


def _lines(name: str) -> list[str]:
    text = (settings.root() / name).read_text(encoding="utf-8")
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def fingerprint(kind: str) -> str:
    """What an environment must have been made from: changes when its lock or its list of packages does."""
    if kind == "client":
        parts = _lines("requirements.lock") + client_requirements(dev=True)
    else:
        parts = _lines("containers/server-requirements.lock") + _lines("containers/server-wheel.txt") + server_requirements()
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def state(folder: Path, kind: str) -> str:
    """``absent``, ``half-made``, ``moved``, ``old`` (another lock), ``ready``, or ``foreign`` (not made by the course)."""
    if not folder.exists() or not any(folder.iterdir()):
        return "absent"
    if (folder / BEING_MADE).exists():
        return "half-made"
    stamp = read_stamp(folder)
    if not stamp:
        return "foreign"
    if stamp.get("folder") != str(folder.resolve()) or not installer.python_of(folder).exists():
        return "moved"
    return "ready" if stamp.get("fingerprint") == fingerprint(kind) else "old"


def read_stamp(folder: Path) -> dict:
    """The stamp of a finished environment; empty when there is none or it is no stamp."""
    try:
        return json.loads((folder / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def numpy_fault(folder: Path) -> str:
    """Why the numpy of a server environment must not be used; empty when it may."""
    version = installer.installed_versions(folder).get("numpy", "")
    if version.startswith("1."):
        return ""
    return (
        f"The server's environment {folder} has {'numpy ' + version if version else 'no numpy'}; it needs numpy 1.26, "
        "because with numpy 2 models load, are READY and answer with empty tensors, without an error."
    )


def conda_lacks(dev: bool = False) -> list[str] | None:
    """What the active conda environment lacks for the notebooks; ``None`` when no conda environment is active."""
    prefix = os.environ.get("CONDA_PREFIX", "")
    python = Path(prefix) / "bin" / "python"
    if not prefix or not python.exists():
        return None
    done = subprocess.run([python, "-I", "-c", _LACKS, *client_requirements(dev)], capture_output=True, text=True, check=False)
    return done.stdout.split() if done.returncode == 0 else ["packaging"]


# Runs in a conda environment: prints the requirements (its arguments) that it does not meet.
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
"""


def client_python(dev: bool = False) -> Path | None:
    """The interpreter of the notebooks' side if it is ready, else ``None``."""
    if conda_lacks(dev) == []:
        return Path(os.environ["CONDA_PREFIX"]) / "bin" / "python"
    folder = client_folder()
    ready = state(folder, "client") == "ready" and (read_stamp(folder).get("dev") or not dev)
    return installer.python_of(folder) if ready else None


def server_ready(torch: bool | None = None) -> bool:
    """Whether the embedded server's environment is as its lock says; ``torch=None`` takes it with or without PyTorch."""
    folder = settings.server_env()
    if "COURSE_SERVER_ENV" in os.environ and state(folder, "server") == "foreign":
        return not numpy_fault(folder)
    return state(folder, "server") == "ready" and (not torch or bool(read_stamp(folder).get("torch"))) and not numpy_fault(folder)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Only one set-up of a course folder at a time; a second one waits."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with (settings.root() / ".setup.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another set-up of this folder is under way; waiting for it", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            pass  # some network file systems have no locks
        yield


def check_disk(need_gb: float, folder: Path, free_gb: float | None = None) -> None:
    """Refuse to begin what would not fit on the disk.

    Args:
        need_gb: space that is needed, in GB.
        folder: a folder on the disk in question.
        free_gb: free space there; asked of the system when not given.

    Raises:
        SetupError: there is less.
    """
    free_gb = shutil.disk_usage(folder).free / 1e9 if free_gb is None else free_gb
    if free_gb < need_gb:
        raise SetupError(
            f"There is no room: {free_gb:.1f} GB are free at {folder}, and {need_gb:.1f} GB are needed.",
            f"Without PyTorch (its models then stay UNAVAILABLE) {settings.DISK_NO_TORCH_GB} GB are enough.",
            "Make room and type the same again, or type: make lab TORCH=no",
        )


def _begin(folder: Path, kind: str) -> str:
    """Make or empty the environment's folder and mark it as being made; returns ``making`` or ``updating``."""
    found = state(folder, kind)
    if found == "foreign":
        raise SetupError(
            f"There is a folder {folder} that the course did not make.",
            f"{_KIND[kind].capitalize()} goes there.",
            f"Move it away and type the same again: mv {folder} {folder}-mine",
        )
    if found in ("half-made", "moved"):
        reason = {"half-made": "was left half made", "moved": "has been moved, or its Python is gone"}[found]
        print(f"{folder.name} {reason}: making it anew", flush=True)
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / BEING_MADE).write_text("If this file is still here when nothing is being installed, the environment is half made.\n")
    return "updating" if installer.python_of(folder).exists() else "making"


def _finish(folder: Path, kind: str, **facts: object) -> None:
    stamp = {"fingerprint": fingerprint(kind), "folder": str(folder.resolve()), "python": sys.version.split()[0], **facts}
    (folder / STAMP).write_text(json.dumps(stamp, indent=1) + "\n", encoding="utf-8")
    (folder / BEING_MADE).unlink()


def setup_log() -> Path:
    """Where all of pip's words go."""
    return settings.log_dir() / "setup.log"


def make_client(dev: bool, base: str = sys.executable) -> None:
    """Make or update ``.venv``."""
    folder, root = client_folder(), settings.root()
    dev = dev or bool(read_stamp(folder).get("dev"))
    verb = _begin(folder, "client")
    check_disk(settings.DISK_CLIENT_GB, root)
    total = len(_lines("requirements.lock"))
    progress = installer.Progress(f"{verb} {folder.name} ({_KIND['client']}): about {round(total, -1)} packages, one to two minutes", total)
    if verb == "making":
        installer.make_venv(base, folder)
    arguments = ["-c", str(root / "requirements.lock"), *client_requirements(dev)]
    installer.pip_install(installer.pip_command(base, folder), arguments, progress, folder, setup_log())
    # The course itself: a line with its folder is all that an editable install would leave, and needs no download.
    for packages in folder.glob("lib/python3*/site-packages") if os.name != "nt" else [folder / "Lib" / "site-packages"]:
        (packages / "triton_course.pth").write_text(f"{root}\n", encoding="utf-8")
    _finish(folder, "client", dev=dev)
    progress.done(f"{folder.name} is ready")


def make_server(torch: bool | None = None, base: str = sys.executable) -> None:
    """Make or update ``.server``.

    Args:
        torch: with PyTorch or without; ``None`` keeps what an earlier set-up chose, else takes it.
        base: interpreter to make it of.

    Raises:
        SetupError: the machine cannot run it, has no room, or the installation failed.
    """
    if obstacle := preflight.embedded_obstacle():
        raise SetupError(obstacle)
    if lack := preflight.missing(preflight.probe(base)):
        raise SetupError(lack)
    folder, root = settings.server_env(), settings.root()
    torch = read_stamp(folder).get("torch", True) if torch is None else torch
    verb = _begin(folder, "server")
    if verb == "making":
        installer.make_venv(base, folder)
    pip = installer.pip_command(base, folder)
    need, what = _torch_build(pip) if torch else (settings.DISK_NO_TORCH_GB - settings.DISK_CLIENT_GB, "without PyTorch, half a minute")
    check_disk(need, folder)
    total = len(server_requirements(torch)) * 5
    progress = installer.Progress(f"{verb} {folder.name} ({_KIND['server']}): tritonserver, ONNX Runtime, {what}", total)
    lock = ["-c", str(root / "containers" / "server-requirements.lock")]
    installer.pip_install(pip, [*lock, *server_requirements(torch)], progress, folder, setup_log())
    # Its own requirements are for PyTriton's Python API, which the course does not use.
    installer.pip_install(pip, ["--no-deps", *_lines("containers/server-wheel.txt")], progress, folder, setup_log())
    if fault := numpy_fault(folder):
        raise SetupError(fault, "", "Type: git checkout containers && make lab")
    _finish(folder, "server", torch=torch)
    progress.done(f"{folder.name} is ready")


def _torch_build(pip: list[str]) -> tuple[float, str]:
    """Space (GB) and words for the build of PyTorch that pip would take; asked without downloading it."""
    version = locked("containers/server-requirements.lock")["torch"]
    answer = subprocess.run([*pip, "index", "versions", "torch"], capture_output=True, text=True, check=False, env=installer.clean_environment())
    if re.search(rf"\b{re.escape(version)}\+cpu\b", answer.stdout):
        return settings.DISK_CPU_GB - settings.DISK_CLIENT_GB, "PyTorch for CPUs, one to two minutes"
    return settings.DISK_CUDA_GB - settings.DISK_CLIENT_GB, "PyTorch with CUDA (some 3 GB to fetch), several minutes"


def ready(dev: bool = False, server: bool = True, torch: bool | None = None) -> Path:
    """Make what is missing and return the notebooks' interpreter; at once when nothing is.

    Args:
        dev: with what the tests need.
        server: with the embedded server's environment.
        torch: with PyTorch in it; ``None`` keeps what an earlier set-up chose, else takes it.

    Raises:
        SetupError: something is in the way; its text says what to type.
    """
    if server and (obstacle := preflight.embedded_obstacle()):
        print(obstacle, flush=True)
        server = False
    client = client_python(dev)
    if client and (not server or server_ready(torch)):
        return client
    with _alone():
        if not (client := client_python(dev)):
            if lacking := conda_lacks(dev):
                print(f"the active conda environment lacks {', '.join(lacking[:5])}{' …' * (len(lacking) > 5)}: using .venv", flush=True)
            make_client(dev)
            client = installer.python_of(client_folder())
        if server and not server_ready(torch):
            make_server(torch)
    return client


def main(arguments: list[str] | None = None) -> int:
    """Make both environments, then run the notebooks' Python with what stands behind ``--``."""
    parser = argparse.ArgumentParser(prog="environments", description=main.__doc__)
    parser.add_argument("--dev", action="store_true", help="with what the tests need")
    parser.add_argument("--server", choices=["yes", "no", ""], default="", help="no: only the notebooks' side")
    parser.add_argument("--torch", choices=["yes", "no", ""], default="", help="no: the server without PyTorch")
    parser.add_argument("--as-is", action="store_true", help="make nothing; use this Python where the environment is not ready")
    parser.add_argument("run", nargs="*", help="arguments for the notebooks' Python")
    options = parser.parse_args(arguments)
    try:
        if options.as_is:
            python = client_python() or Path(sys.executable)
        else:
            python = ready(options.dev, options.server != "no", {"yes": True, "no": False, "": None}[options.torch])
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. Type the same again to go on: what is half made is made anew.", file=sys.stderr)
        return 130
    if not options.run:
        return 0
    environment = {**os.environ, "PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    sys.stdout.flush()
    if os.name == "posix":
        os.execve(python, [str(python), *options.run], environment)
    return subprocess.call([python, *options.run], env=environment)


if __name__ == "__main__":
    sys.exit(main())
