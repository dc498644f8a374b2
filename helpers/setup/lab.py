"""JupyterLab on the first notebook, in the students' own copies, for this machine alone.

A JupyterLab without a token runs code as its owner for everybody who reaches its port, and on a shared machine every user does. A line in
an old ``~/.jupyter`` or an option can turn the token off. So the settings are looked at when all are known, right before JupyterLab
begins to listen. ``python -m helpers lab`` calls :func:`start`, which becomes this module's own program.
"""

from __future__ import annotations

import getpass
import json
import logging
import os
import re
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from helpers.errors import SetupError
from helpers.machine import is_loopback, without_proxy
from helpers.paths import shown, work_dir, writing
from helpers.setup import notebook_copies

_WORKSPACES = "JUPYTERLAB_WORKSPACES_DIR"
# The notebook gets the whole width: on a projector half of it would go to the list of files, which is one click away.
_LAYOUT = {"data": {"layout-restorer:data": {"left": {"collapsed": True, "widgetStates": {}}}}, "metadata": {"id": "default"}}
# On another machine: no browser there, and how to reach it.
_REMOTE = "SSH_CONNECTION" in os.environ and "DISPLAY" not in os.environ


def start(options: Sequence[str]) -> NoReturn:
    """Hand out the notebooks, then become JupyterLab on a free loopback port, with further options such as ``--port=8899``."""
    if any(re.match(r"--\w+\.token(=.|$)", option) for option in options):
        todo = "Type: export JUPYTER_TOKEN=…   and then the same without the token"
        raise SetupError("A token on the command line can be read by everybody on this machine (ps shows it).", "", todo)
    for sentence in notebook_copies.hand_out():
        print(sentence)
    print(f"Your notebooks are in {shown(notebook_copies.folder())}. Stop JupyterLab with Ctrl-C.")
    command = [sys.executable, "-m", "helpers.setup.lab", "--ServerApp.ip=127.0.0.1", "--ServerApp.port_retries=50"]
    command += [f"--ServerApp.root_dir={work_dir()}", "--LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb"]
    # Only what is wrong; and in a container people are root, where JupyterLab would refuse.
    command += [f"--Application.log_level={logging.WARNING}", *(["--allow-root"] if os.geteuid() == 0 else [])]
    command += [*options, *(["--no-browser"] if _REMOTE else [])]
    sys.stdout.flush()
    os.execve(sys.executable, command, environment())


def environment() -> dict[str, str]:
    """The environment of JupyterLab and its kernels: no proxy for this machine, our settings before the user's, a layout of our own."""
    ours = str(Path(__file__).resolve().parent.parent / "jupyter")
    config = os.pathsep.join(filter(None, (ours, os.environ.get("JUPYTER_CONFIG_PATH"))))
    return {_WORKSPACES: str(work_dir() / ".jupyterlab"), **os.environ, **without_proxy(os.environ), "JUPYTER_CONFIG_PATH": config}


def _become() -> None:
    """Run JupyterLab in this process."""
    from jupyter_server.serverapp import ServerApp
    from jupyterlab.labapp import LabApp
    from jupyterlab_server.workspaces_handler import WorkspacesManager

    workspaces = WorkspacesManager(os.environ[_WORKSPACES])
    if not workspaces.load("default")["data"]:
        with writing(workspaces.workspaces_dir):
            workspaces.save("default", json.dumps(_LAYOUT))

    class CourseServer(ServerApp):
        """Jupyter's server, which refuses settings that would open it to others, and prints one line when it listens."""

        def init_httpserver(self) -> None:
            if not self.identity_provider.auth_enabled:
                raise SetupError(
                    "JupyterLab would start without its token: everybody on this machine could then run programs in your name.",
                    f"An option turns it off, or a line such as c.ServerApp.token = '' in {', '.join(self.config_file_paths)}.",
                )
            if not self.sock and not is_loopback(self.ip):
                todo = "From another machine type: ssh -N -L 8888:127.0.0.1:8888 user@this-machine"
                raise SetupError(f"JupyterLab would listen on {self.ip or 'every address'}, for the whole network.", "", todo)
            super().init_httpserver()

        def start_app(self) -> None:
            if _REMOTE:
                here = f"{getpass.getuser()}@{socket.getfqdn()}"
                print(f"You are on another machine. On your own type: ssh -N -L {self.port}:127.0.0.1:{self.port} {here}")
            # The one line that a person needs; Jupyter would say the same address three times over.
            print(f"Open {self.display_url.split()[0]}", flush=True)
            self.identity_provider.token_generated = False
            super().start_app()

    class CourseLab(LabApp):  # type: ignore[misc]  # it has no types
        """JupyterLab on such a server."""

        serverapp_class = CourseServer

        @classmethod
        def get_extension_package(cls) -> str:
            return "jupyterlab"

    try:
        CourseLab.launch_instance()
    except SetupError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    _become()
