"""The two environments of the course: what they must hold, what is there, and how what is missing is made, by ``uv`` and pip.

``.venv`` (or the environment that runs this, such as conda's, when it has the course) is the notebooks' side; ``.server`` is the embedded
server's. Standard library only: ``make`` runs this in the Python that :mod:`helpers.setup.bootstrap` has chosen.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from helpers.errors import CourseError, SetupError
from helpers.paths import replace, root, server_env, shown
from helpers.setup import bootstrap
from helpers.terminal import write_whatever_the_terminal

# The tritonserver in the pinned wheel: of release 24.10, the newest that any wheel carries. That of images is in containers/VERSION.
EMBEDDED_TRITON = "2.51.0"
# Of this Python environments are made; in one of its own, that of which it was made.
BASE = str(getattr(sys, "_base_executable", sys.executable))
# In each environment: what it was made from, nothing while it is being made, so that an incomplete one is recognised.
STAMP = "course-environment.json"
SERVER_PACKAGES, SERVER_WHEELS = "containers/server-requirements.txt", "containers/server-wheel.txt"
LOCKS = {"client": "requirements.lock", "server": "containers/server-requirements.lock"}
# Free disk space in GB that making an environment needs at least, with what is unpacked on the way, and what PyTorch adds.
_NEEDED_GB, _TORCH_GB = {"client": 1.2, "server": 0.8}, 1.0
# perf_analyzer of the server's release of tritonclient needs these libraries, which the server's own wheel has under names with a hash.
# Links of the plain names lie in this folder of the server's environment.
TOOL_LIBRARIES = "lib/perf_analyzer"
_LIBRARIES = {"libb64.so.0d": "libb64-*.so.0d", "libcudart.so.12": "libcudart-*.so.12*"}
# Settings of pip that say where packages are and how to get there -> the variables by which uv, which does not read them, knows them.
_PIP_TO_UV = {"index-url": "UV_DEFAULT_INDEX", "no-index": "UV_NO_INDEX", "find-links": "UV_FIND_LINKS", "cert": "SSL_CERT_FILE"}
# Variables that would lead pip, uv or Python to other packages than ours.
_UNWANTED = ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_REQUIRE_HASHES", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")


def folder_of(kind: str) -> Path:
    """Return the folder of the environment ``client``, the notebooks', or ``server``."""
    return server_env() if kind == "server" else root() / ".venv"


def _packages_of(folder: Path) -> Path:
    return next(folder.glob("lib/python3*/site-packages"), folder / "no packages")


def client_requirements(dev: bool = False) -> list[str]:
    """Return the packages of the notebooks' side with their ranges, from ``pyproject.toml``."""
    project = tomllib.loads((root() / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [*project["dependencies"], *(project["optional-dependencies"]["dev"] if dev else [])]


def lines(name: str) -> list[str]:
    """Return the lines of a list of packages or of a lock, without comments; ``name`` is relative to the course."""
    text = (root() / name).read_text(encoding="utf-8")
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def locked(name: str) -> dict[str, str]:
    """Return package -> exact version of a lock (``requirements.lock`` or ``containers/server-requirements.lock``)."""
    return {pin[1]: pin[2] for pin in (re.match(r"([^=\s]+)==([^\s;]+)", line) for line in lines(name)) if pin}


def installed_versions(folder: Path) -> dict[str, str]:
    """Return name (lower case, with ``-``) and version of each package in an environment, read from its folders without starting it."""
    found = (each.stem.rpartition("-") for each in _packages_of(folder).glob("*.dist-info"))
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, _, version in found}


def fingerprint(kind: str) -> str:
    """Return what an environment must have been made from: changes when its lock or its list of packages does."""
    more = client_requirements(dev=True) if kind == "client" else lines(SERVER_WHEELS) + lines(SERVER_PACKAGES)
    return hashlib.sha256("\n".join(lines(LOCKS[kind]) + more).encode()).hexdigest()[:16]


def read_stamp(folder: Path) -> dict[str, Any]:
    """Return the stamp of an environment; empty when there is none or it is no stamp."""
    try:
        return dict(json.loads((folder / STAMP).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def state(kind: str) -> str:
    """Return ``absent``, ``incomplete`` (or moved), ``outdated`` (another lock), ``ready``, or ``foreign`` (not made by the course)."""
    folder = folder_of(kind)
    if not folder.exists() or not any(folder.iterdir()):
        return "absent"
    if not (stamp := read_stamp(folder)):
        # The server's that COURSE_SERVER_ENV names, as in an image, is taken as it is.
        return "ready" if kind == "server" and "COURSE_SERVER_ENV" in os.environ else "foreign"
    if not stamp["fingerprint"] or stamp["folder"] != str(folder.resolve()) or not (folder / "bin" / "python").exists():
        return "incomplete"
    return "ready" if stamp["fingerprint"] == fingerprint(kind) else "outdated"


def client_python(dev: bool = False) -> Path | None:
    """Return the interpreter of the notebooks' side if it is ready, else ``None``.

    It is the one that runs this, when its owner installed the course there: by pip, or from ``environment.yml``.
    """
    if "triton-course" in installed_versions(Path(sys.prefix)) and not dev:
        return Path(sys.executable)
    folder = folder_of("client")
    complete = state("client") == "ready" and (read_stamp(folder).get("dev") or not dev)
    return folder / "bin" / "python" if complete else None


def server_ready(torch: bool | None = None) -> bool:
    """True if the embedded server's environment can be used; ``torch=True`` asks for one with PyTorch."""
    return state("server") == "ready" and (not torch or "torch" in installed_versions(server_env()))


def to_complete() -> str:
    """Return what to type to make what is missing here; in a course folder of somebody else, whom to ask."""
    if os.access(root(), os.W_OK):
        return "make setup   (without make: python -m helpers install-server)"
    return f"Ask the owner of {root()} to type there: make setup   (or make a copy of your own: git clone {root()} ~/triton-course)"


def run(command: Sequence[object], what: str, **extra: str) -> None:
    """Run an installing program, which shows its own progress and errors; raise SetupError if ``what`` could not be made."""
    kept = {name: value for name, value in os.environ.items() if name not in _UNWANTED}
    kept |= {"PIP_USER": "0", "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", **extra}
    sys.stdout.flush()
    # In a session of its own: Ctrl-C is answered here, in one sentence, and not by each program below as well.
    with subprocess.Popen(list(map(str, command)), env=kept, start_new_session=True) as process:
        try:
            process.wait()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode:
        todo = "No connection: check the network. No room: see df -h . No fitting version: git pull. Then type the same again."
        raise SetupError(f"{what} could not be made.", "What pip or uv said is above.", todo)


def places_for_uv(pip: Sequence[object]) -> dict[str, str]:
    """Return the variables by which uv takes packages from where this pip is set up to take them."""
    said = subprocess.run([*map(str, pip), "config", "list"], capture_output=True, text=True, check=False).stdout
    places = {name.replace("_", "-"): value for name, value in re.findall(r"[.:]([\w-]+)='(.+)'$", said, re.MULTILINE)}
    # pip puts blanks or line ends between several places, uv commas.
    variables = {uv: re.sub(r"(\\n|\s)+", ",", places[name]) for name, uv in _PIP_TO_UV.items() if name in places}
    # The system's certificates, as pip takes them, and no other Python.
    return {**variables, "UV_SYSTEM_CERTS": "1", "UV_PYTHON_DOWNLOADS": "never"}


def _fill(kind: str, **facts: object) -> None:
    """Fill an environment, new or the one that is there."""
    folder, before = folder_of(kind), state(kind)
    python, stamp = folder / "bin" / "python", {"folder": str(folder.resolve()), **facts}
    if before == "foreign":
        todo = f"Move it away and type the same again: mv {folder} {folder}-mine"
        raise SetupError(f"There is a folder {folder} that the course did not make.", "The course's environment goes there.", todo)
    needed, free = _NEEDED_GB[kind] + _TORCH_GB * bool(facts.get("torch")), shutil.disk_usage(root()).free / 1e9
    if free < needed:
        happened = f"There is no room for {folder.name}: {free:.1f} GB are free at {root()}, and {needed:.1f} GB are needed."
        raise SetupError(happened, "", "Make room (see: df -h .) and type the same again, or leave PyTorch out: make lab TORCH=no")
    if before == "incomplete":
        print(f"{folder.name} is incomplete; creating it again", flush=True)
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    replace(folder / STAMP, json.dumps({**stamp, "fingerprint": ""}))
    print(f"{'updating' if python.exists() else 'making'} {folder.name}, the {kind}'s environment: a minute or several", flush=True)
    # It is missing on Colab: pip then works from outside.
    ensurepip = importlib.util.find_spec("ensurepip") is not None
    pip = [python, "-m", "pip"] if ensurepip else [BASE, "-m", "pip", "--python", python]
    exactly = ["-c", root() / LOCKS[kind]]
    # On the environment's own disk, since /tmp is small on many machines; no cache that would double what lies there.
    with tempfile.TemporaryDirectory(dir=folder) as tmp:
        if not python.exists():
            run([BASE, "-m", "venv", *([] if ensurepip else ["--without-pip"]), folder], folder.name, TMPDIR=tmp)
        variables = {**places_for_uv(pip), "TMPDIR": tmp, "UV_CACHE_DIR": f"{tmp}/cache"}
        uv = f"uv=={locked(LOCKS['client'])['uv']}"
        run([*pip, "install", "--quiet", "--no-deps", "--target", f"{tmp}/uv", uv], folder.name, **variables)
        by_uv = [f"{tmp}/uv/bin/uv", "pip", "install", "--compile-bytecode", "--python", python]
        if kind == "client":
            run([*by_uv, *exactly, *client_requirements(bool(facts["dev"]))], folder.name, **variables)
            # The course itself: a line with its folder is all that an editable install would leave, and needs no download.
            (_packages_of(folder) / "triton_course.pth").write_text(f"{root()}\n", encoding="utf-8")
        else:
            torch, others = ([line for line in lines(SERVER_PACKAGES) if line.startswith("torch") is wanted] for wanted in (True, False))
            run([*by_uv, *exactly, *others], folder.name, **variables)
            run([*by_uv, "--no-deps", *lines(SERVER_WHEELS)], folder.name, **variables)
            if facts["torch"]:
                # By pip: it may be set up to find a CPU build of the same version, which uv would not take.
                run([*pip, "install", *exactly, *torch], folder.name, **variables)
            (folder / TOOL_LIBRARIES).mkdir(exist_ok=True)
            for plain, pattern in _LIBRARIES.items():
                (library,) = (_packages_of(folder) / "nvidia_pytriton.libs").glob(pattern)
                (folder / TOOL_LIBRARIES / plain).unlink(missing_ok=True)
                (folder / TOOL_LIBRARIES / plain).symlink_to(library)
    replace(folder / STAMP, json.dumps({**stamp, "fingerprint": fingerprint(kind)}))
    print(f"{folder.name} is ready", flush=True)


def _wait_for_others() -> None:
    """Wait for another set-up in this folder, which this one would take the half installed away from, and make others wait."""
    folder = os.open(root(), os.O_RDONLY)  # no file of its own; closed when this process ends, or becomes another
    with contextlib.suppress(OSError):  # some network file systems have no locks
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another set-up is at work in this folder; waiting for it", flush=True)
            fcntl.flock(folder, fcntl.LOCK_EX)


def make(client: bool = True, server: bool = True, dev: bool = False, torch: bool | None = None) -> None:
    """Make what is missing, ``dev`` with what the tests need; ``torch=None`` keeps what an earlier set-up chose, else takes it."""
    if not (client and not client_python(dev)) and not (server and not server_ready(torch)):
        return
    if not os.access(root(), os.W_OK):
        states = ", ".join(f"{shown(folder_of(kind))} is {state(kind)}" for kind in LOCKS)
        happened = f"The folder of the course, {root()}, is not yours to write, and what it needs is not complete: {states}."
        raise SetupError(happened, "", to_complete())
    _wait_for_others()
    if client and not client_python(dev):
        _fill("client", dev=dev or bool(read_stamp(folder_of("client")).get("dev")))
    if server and not server_ready(torch):
        _fill("server", torch=bool(read_stamp(server_env()).get("torch", True)) if torch is None else torch)


def install_server(torch: bool | None = None) -> None:
    """Make ``.server`` of the Python that runs this, unless it is ready."""
    if problem := bootstrap.embedded_obstacle() or bootstrap.missing(bootstrap.probe(BASE) or {}, venv=False):
        raise SetupError(problem)
    make(client=False, torch=torch)
    print(f"{shown(server_env())} is ready.")


def main() -> None:
    """Make both environments, then run the notebooks' Python with what stands behind ``--``."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--dev", action="store_true", help="with what the tests need")
    parser.add_argument("--server", help="no: only the notebooks' side")
    parser.add_argument("--torch", help="no: the server without PyTorch; yes: with it, also when it was left out before")
    parser.add_argument("--as-is", action="store_true", help="make nothing; use this Python where the environment is not ready")
    parser.add_argument("run", nargs="*", help="arguments for the notebooks' Python")
    write_whatever_the_terminal()
    options = parser.parse_args()
    server = options.server != "no" and not options.as_is
    if server and (obstacle := bootstrap.embedded_obstacle()):
        print(obstacle, flush=True)
        server = False
    try:
        make(not options.as_is, server, options.dev, {"yes": True, "no": False}.get(options.torch))
    except CourseError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        print("\nStopped. Type the same again to go on: an incomplete environment is created again.", file=sys.stderr)
        sys.exit(130)
    if options.run:
        python = client_python(options.dev) or Path(sys.executable)
        os.environ["PATH"] = f"{python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        os.execv(python, [str(python), *options.run])


if __name__ == "__main__":
    main()
