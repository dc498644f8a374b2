"""Makes the two environments of the course from their locks, where they are missing, old or half made.

``.venv`` (or the active conda environment, when it has the packages) is the notebooks' side; ``.server`` is the embedded
server's. Standard library only: ``make`` runs this in the Python that :mod:`helpers.preflight` has chosen.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from helpers import installed, installer, perf_fetch, preflight, settings
from helpers.errors import CourseError, SetupError
from helpers.files import make_folder
from helpers.terminal import write_whatever_the_terminal


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
    found = installed.state(folder, kind)
    if found == "foreign":
        raise SetupError(
            f"There is a folder {folder} that the course did not make.",
            f"{installed.KINDS[kind].capitalize()} goes there.",
            f"Move it away and type the same again: mv {folder} {folder}-mine",
        )
    if found in ("half-made", "moved"):
        reason = {"half-made": "was left half made: making it anew", "moved": "was moved, or its Python is gone: making it anew"}[found]
        print(f"{folder.name} {reason}", flush=True)
        shutil.rmtree(folder)
    # The log first: where it cannot be written, nothing is begun.
    make_folder(setup_log().parent)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / installed.BEING_MADE).write_text("While this file is here, the environment is being made, or was left half made.\n")
    return "updating" if installer.python_of(folder).exists() else "making"


def _finish(folder: Path, kind: str, **facts: object) -> None:
    stamp = {"fingerprint": installed.fingerprint(kind), "folder": str(folder.resolve()), "python": sys.version.split()[0], **facts}
    (folder / installed.STAMP).write_text(json.dumps(stamp, indent=1) + "\n", encoding="utf-8")
    (folder / installed.BEING_MADE).unlink()


def _uv() -> str:
    return f"uv=={installed.locked('requirements.lock')['uv']}"


def setup_log() -> Path:
    """Where all of pip's words go."""
    return settings.log_dir() / "setup.log"


def make_client(dev: bool, base: str = sys.executable) -> None:
    """Make or update ``.venv``."""
    folder, root = installed.client_folder(), settings.root()
    dev = dev or bool(installed.read_stamp(folder).get("dev"))
    check_disk(settings.DISK_CLIENT_GB, root)
    verb = _begin(folder, "client")
    total = len(installed.lines("requirements.lock"))
    progress = installer.Progress(
        f"{verb} {folder.name} ({installed.KINDS['client']}): about {round(total, -1)} packages, about a minute", total
    )
    if verb == "making":
        installer.make_venv(base, folder)
    arguments = ["-c", str(root / "requirements.lock"), *installed.client_requirements(dev)]
    installer.install(installer.pip_command(base, folder), arguments, progress, folder, setup_log(), _uv())
    installer.clean(folder)
    # The course itself: a line with its folder is all that an editable install would leave, and needs no download.
    for packages in folder.glob("lib/python3*/site-packages") if os.name != "nt" else [folder / "Lib" / "site-packages"]:
        (packages / "triton_course.pth").write_text(f"{root}\n", encoding="utf-8")
    _finish(folder, "client", dev=dev)
    progress.done(f"{folder.name} is ready")


def make_server(torch: bool | None = None, base: str = sys.executable, measure: bool = True) -> None:
    """Make or update ``.server``.

    Args:
        torch: with PyTorch or without; ``None`` keeps what an earlier set-up chose, else takes it.
        base: interpreter to make it of.
        measure: fetch perf_analyzer, too.

    Raises:
        SetupError: the machine cannot run it, has no room, or the installation failed.
    """
    if obstacle := preflight.embedded_obstacle():
        raise SetupError(obstacle)
    if lack := preflight.missing(preflight.probe(base)):
        raise SetupError(lack)
    folder, root = settings.server_env(), settings.root()
    torch = installed.read_stamp(folder).get("torch", True) if torch is None else torch
    need, what = _server_size(torch, base)
    check_disk(need, folder.parent)
    verb = _begin(folder, "server")
    if verb == "making":
        installer.make_venv(base, folder)
    pip = installer.pip_command(base, folder)
    total = len(installed.server_requirements(torch)) * 5
    progress = installer.Progress(f"{verb} {folder.name} ({installed.KINDS['server']}): tritonserver, ONNX Runtime, {what}", total)
    lock = ["-c", str(root / "containers" / "server-requirements.lock")]
    installer.install(pip, [*lock, *installed.server_requirements(torch=False)], progress, folder, setup_log(), _uv())
    # Its own requirements are for PyTriton's Python API, which the course does not use.
    installer.install(pip, ["--no-deps", *installed.lines("containers/server-wheel.txt")], progress, folder, setup_log(), _uv())
    if torch:
        # By pip in any case: it may be set up to find a CPU build of the same version, which uv would pass by.
        only = [line for line in installed.server_requirements() if line not in installed.server_requirements(torch=False)]
        installer.install(pip, [*lock, *only], progress, folder, setup_log())
    installer.clean(folder)
    if fault := installed.numpy_fault(folder):
        raise SetupError(fault, "", "Type: git checkout containers && make lab")
    _finish(folder, "server", torch=torch)
    progress.done(f"{folder.name} is ready")
    if measure:
        perf_fetch.fetch_or_say()


def make_server_alone(torch: bool | None, base: str, measure: bool = True) -> None:
    """:func:`make_server`, while no other set-up of this folder runs.

    Raises:
        SetupError: as there.
    """
    with _alone():
        make_server(torch, base, measure)


def _server_size(torch: bool, base: str) -> tuple[float, str]:
    """Space (GB) that the server's environment needs, and words for it; asks pip, without a download, which PyTorch it would take."""
    if not torch:
        return settings.DISK_NO_TORCH_GB - settings.DISK_CLIENT_GB, "without PyTorch, half a minute"
    version = installed.locked("containers/server-requirements.lock")["torch"]
    # A bare Debian has no pip beside its Python; the notebooks' environment has.
    pythons = [python for python in (base, installed.client_python()) if python]
    answers = (installer.said([str(python), "-m", "pip", "index", "versions", "torch"]) for python in pythons)
    if re.search(rf"\b{re.escape(version)}\+cpu\b", next(filter(None, answers), "")):
        return settings.DISK_CPU_GB - settings.DISK_CLIENT_GB, "PyTorch for CPUs, about a minute"
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
    client = installed.client_python(dev)
    if client and (not server or (installed.server_ready(torch) and (perf_fetch.is_there() or perf_fetch.gave_up()))):
        return client
    with _alone():
        client, make_one = installed.client_python(dev), server and not installed.server_ready(torch)
        if make_one and not client:
            # Both, before the first is begun.
            chosen = installed.read_stamp(settings.server_env()).get("torch", True) if torch is None else torch
            check_disk(settings.DISK_CLIENT_GB + _server_size(chosen, sys.executable)[0], settings.root())
        if not client:
            if lacking := installed.conda_lacks(dev):
                print(f"the active conda environment lacks {', '.join(lacking[:5])}{' …' * (len(lacking) > 5)}: using .venv", flush=True)
            make_client(dev)
            client = installer.python_of(installed.client_folder())
        if make_one:
            make_server(torch)
        elif server and not perf_fetch.gave_up():
            perf_fetch.fetch_or_say()
    return client


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
            python = installed.client_python() or Path(sys.executable)
        else:
            python = ready(options.dev, options.server != "no", {"yes": True, "no": False, "": None}[options.torch])
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"{error.strerror}: {error.filename}. Check that this folder is yours and the disk has room: ls -ld . ; df -h .",
            file=sys.stderr,
        )
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
