"""``python -m helpers lab``, or ``make lab``: JupyterLab on the first notebook, in the students' own copies."""

from __future__ import annotations

import argparse
import getpass
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

from helpers import machine, settings, workspace
from helpers.errors import SetupError
from helpers.files import shown

PASSES_ON = True
FIRST = "notebooks/00_start_here.ipynb"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.epilog = "Other options go to JupyterLab, such as --no-browser --port=8899."


def run(args: argparse.Namespace) -> int:
    """Hand out the notebooks, then become JupyterLab.

    Raises:
        SetupError: ``work/`` cannot be written, or a token stands where everybody can read it.
    """
    _refuse_readable_token(args.others)
    for sentence in workspace.hand_out():
        print(sentence)
    print(f"Your notebooks are in {shown(workspace.folder())}. Stop JupyterLab with Ctrl-C.")
    options = list(args.others)
    if "SSH_CONNECTION" in os.environ and "DISPLAY" not in os.environ:
        here = f"{getpass.getuser()}@{socket.getfqdn()}"
        print(f"You are on another machine. On your own type: ssh -N -L 8888:localhost:8888 {here}   then open there the address below.")
        options.append("--no-browser")
    command = [sys.executable, "-m", "helpers.lab_server", *arguments(), *options]
    sys.stdout.flush()
    if os.name == "posix":
        os.execve(command[0], command, environment())
    return subprocess.call(command, env=environment())


def _refuse_readable_token(options: list[str]) -> None:
    if any(re.match(r"--\w+\.token(=.|$)", option) for option in options):
        raise SetupError(
            "A token on the command line can be read by everybody on this machine (ps shows it).",
            "Without one JupyterLab makes its own; one of yours goes into an environment variable.",
            "Type: export JUPYTER_TOKEN=…   and then the same without the token",
        )


def arguments() -> list[str]:
    """JupyterLab's options: loopback only, its own token, the next free port."""
    return [
        "--ServerApp.ip=127.0.0.1",
        "--ServerApp.port_retries=50",
        f"--ServerApp.root_dir={settings.work_dir()}",
        f"--LabApp.default_url=/lab/tree/{FIRST}",
        # In a container people are root, and JupyterLab would refuse.
        *(["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []),
    ]


def environment() -> dict[str, str]:
    """The environment of JupyterLab and its kernels: without the pop-up that asks about news, before the user's own settings.

    Kernels send raw requests to servers on this machine, which no proxy of the site can find.
    """
    ours = str(Path(__file__).resolve().parent.parent / "jupyter")
    others = os.environ.get("JUPYTER_CONFIG_PATH")
    return {**os.environ, **machine.without_proxy(os.environ), "JUPYTER_CONFIG_PATH": f"{ours}{os.pathsep}{others}" if others else ours}
