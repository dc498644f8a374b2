"""Windows, where no server of one's own can run: said in one sentence, and the server of somebody else works from there.

A child process lacks what Python lacks there. What the libraries do on Windows, only a machine with Windows would show.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from helpers import paths
from helpers.errors import SetupError
from helpers.server import Server, lease
from tests.support.processes import PATIENCE_S

_WINDOWS = """
import builtins, ctypes, json, os, platform, signal, socket, sys

real_import, real_library = builtins.__import__, ctypes.CDLL

def no_unix(name, names=None, *rest, **options):
    if name in ("fcntl", "pwd", "grp", "resource", "termios") and (names or {}).get("__name__", "").startswith("helpers"):
        raise ImportError(name)
    return real_import(name, names, *rest, **options)

class Library(real_library):
    def __init__(self, name, *rest, **options):
        if name is None:
            raise TypeError("LoadLibrary() argument 1 must be str, not None")
        super().__init__(name, *rest, **options)

# The libraries are those of this machine, and want it complete.
import gevent, grpc, psutil, tritonclient.grpc, tritonclient.http

builtins.__import__, ctypes.CDLL = no_unix, Library
for module, names in ((os, "getuid geteuid getgid getegid fork killpg"), (signal, "SIGKILL SIGHUP"), (socket, "AF_UNIX")):
    for name in names.split():
        delattr(module, name)
platform.system, platform.machine = lambda: "Windows", lambda: "AMD64"

import helpers
from helpers.errors import CourseError

said = {}
for runtime in ("embedded", "docker"):
    try:
        helpers.launch_server("models", runtime=runtime)
    except CourseError as error:
        said[runtime] = f"{type(error).__name__}: {error}"
server = helpers.connect(sys.argv[1])
for protocol in ("grpc", "http"):
    with helpers.Client(server, protocol) as client:
        said[protocol] = float(client.infer("add_sub", INPUT0=range(16), INPUT1=range(16))["OUTPUT0"].sum())
said["card"] = repr(server)
print(json.dumps(said))
"""
_TOLD = r"This machine cannot run a server of its own.*Linux.*connect\(\"gpu-node:9000\"\)"


def test_without_users_a_launch_is_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.getuid")
    with pytest.raises(SetupError, match=_TOLD):
        lease.run_root()


def test_a_launch_is_refused_and_connecting_works(models_server: Server) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WINDOWS, models_server.http_url],
        cwd=paths.root(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    for runtime in ("embedded", "docker"):
        assert said[runtime].startswith("SetupError: This machine cannot run a server of its own"), said[runtime]
        assert 'connect("gpu-node:9000")' in said[runtime]
    assert said["grpc"] == said["http"] == 240
    assert "running" in said["card"]
    assert "READY" in said["card"]
