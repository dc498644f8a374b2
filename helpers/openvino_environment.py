"""A second environment for the embedded server, whose ONNX Runtime has OpenVINO's execution provider; an optional extra.

``python -m helpers install-server --openvino`` makes it. A server runs in it when ``COURSE_SERVER_ENV`` names its folder. PyTorch is not
in it: accelerators act on ONNX models. Standard library only, as :mod:`helpers.environments`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from helpers import environments, installed, installer, preflight, settings
from helpers.errors import SetupError

REQUIREMENTS = "containers/openvino-requirements.txt"
PROVIDER = "lib/python3*/site-packages/onnxruntime/capi/libonnxruntime_providers_openvino.so"
# Packages of the server's list that this environment has in another build or does without.
_LEFT_OUT = ("onnxruntime", "torch")


def folder() -> Path:
    """Where it is made: among what students make, so that git does not see it."""
    return settings.work_dir() / "server-openvino"


def has_openvino(environment: Path) -> bool:
    """Whether a server's environment has an ONNX Runtime with OpenVINO, completely installed."""
    return any(environment.glob(PROVIDER)) and not (environment / installed.BEING_MADE).exists()


def make(base: str, target: Path | None = None) -> Path:
    """Make the environment, unless it is there.

    Args:
        base: interpreter to make it of.
        target: its folder; by default :func:`folder`.

    Returns:
        The folder, for ``COURSE_SERVER_ENV``.

    Raises:
        SetupError: this machine cannot run the embedded server, has no room, or a package cannot be had.
    """
    target = target or folder()
    if has_openvino(target):
        return target
    if obstacle := preflight.embedded_obstacle():
        raise SetupError(obstacle)
    if target.exists():
        if not (target / installed.BEING_MADE).exists():
            raise SetupError(f"There is a folder {target} that the course did not make.", "", f"Type: mv {target} {target}-mine")
        shutil.rmtree(target)
    target.mkdir(parents=True)
    environments.check_disk(settings.DISK_OPENVINO_GB, target)
    (target / installed.BEING_MADE).write_text("While this file is here, the environment is being made, or was left half made.\n")
    kept = [line for line in installed.server_requirements() if _package(line) not in _LEFT_OUT]
    packages = [*kept, *installed.lines(REQUIREMENTS)]
    progress = installer.Progress(f"making {target.name}: tritonserver, ONNX Runtime with OpenVINO, about a minute", 3 * len(packages))
    installer.make_venv(base, target)
    pip = installer.pip_command(base, target)
    lock = ["-c", str(settings.root() / "containers" / "server-requirements.lock")]
    log = environments.setup_log()
    installer.install(pip, [*lock, *packages], progress, target, log)
    installer.install(pip, ["--no-deps", *installed.lines("containers/server-wheel.txt")], progress, target, log)
    installer.clean(target)
    (target / installed.BEING_MADE).unlink()
    progress.done(f"{target.name} is ready")
    return target


def _package(requirement: str) -> str:
    """The package that a line of a list names."""
    for end in "=<>!~;[ ":
        requirement = requirement.partition(end)[0]
    return requirement
