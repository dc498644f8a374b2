"""JupyterLab as ``jupyter lab`` starts it, except that it never runs without a token or a password, nor beyond this machine.

Whoever reaches a JupyterLab without a token runs code as its owner, and on a shared machine every user reaches its port. A line in
an old ``~/.jupyter`` or an option can turn the token off. So the settings are looked at when all of them are known, right before
JupyterLab begins to listen. ``python -m helpers lab`` starts this.
"""

from __future__ import annotations

import sys

from jupyter_server.serverapp import ServerApp
from jupyterlab.labapp import LabApp

from helpers import rest
from helpers.errors import SetupError


class CourseServer(ServerApp):
    """Jupyter's server, which refuses settings that would open it to others."""

    def init_httpserver(self) -> None:
        """Look at the settings, then listen.

        Raises:
            SetupError: no token and no password, or an address beyond the loopback interface.
        """
        if not self.identity_provider.auth_enabled:
            raise SetupError(
                "JupyterLab would start without its token: everybody on this machine could then run programs in your name.",
                "An option, or a line such as c.ServerApp.token = '' in a file of these folders, turns it off: "
                f"{', '.join(self.config_file_paths)}.",
                "Take it out and type the same again.",
            )
        if not self.sock and not rest.is_loopback(self.ip):
            raise SetupError(
                f"JupyterLab would listen on {self.ip or 'every address'}, for the whole network.",
                "The course's listens on this machine alone.",
                "From another machine type: ssh -N -L 8888:localhost:8888 user@this-machine",
            )
        super().init_httpserver()


class CourseLab(LabApp):
    """JupyterLab on such a server."""

    serverapp_class = CourseServer

    @classmethod
    def get_extension_package(cls) -> str:
        """The package that the server loads: JupyterLab's, not that of this class."""
        return LabApp.get_extension_package()


if __name__ == "__main__":
    try:
        CourseLab.launch_instance()
    except SetupError as error:
        sys.exit(str(error))
