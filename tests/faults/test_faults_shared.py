"""Two notebooks of one person share a server: neither takes it from the other, and with the last of them it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from helpers import paths
from helpers.client.endpoint import Address
from helpers.client.http import listens
from helpers.server import lease
from tests.support.processes import alive, session, wait_until

pytestmark = pytest.mark.slow

_GRACE_S = 1.0
_LAUNCH = """
import sys
from helpers import launch_server
server = launch_server("models", base_port={port}, grace_s={grace}, load=["add_sub"], name="shared")
print("HERE", server.pid, server.http.port, flush=True)
sys.stdin.readline()
"""
_CONNECT = """
import sys
from helpers import Client, connect
server = connect("localhost:{port}")
print("HERE", server.owned, flush=True)
with Client(server) as client:
    for line in sys.stdin:
        print("SUM", client.infer("add_sub", INPUT0=range(16), INPUT1=range(16))["OUTPUT0"].sum(), flush=True)
"""


class _Notebook:
    """A process of one's own, as the kernel of a notebook is."""

    def __init__(self, code: str) -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen([sys.executable, "-c", code], cwd=paths.root(), **pipes)

    def said(self, word: str) -> list[str]:
        for line in self.process.stdout:
            if line.startswith(word):
                return line.split()[1:]
        raise AssertionError(f"it ended with status {self.process.wait()}")

    def ask(self) -> float:
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.said("SUM")[0])


@contextmanager
def _notebook(code: str, **values: object) -> Iterator[_Notebook]:
    one = _Notebook(code.format(**values))
    try:
        yield one
    finally:
        one.process.kill()
        one.process.communicate()


def test_one_notebook_ends_and_the_other_keeps_the_server(free_base_port: Callable[[], int]) -> None:
    with _notebook(_LAUNCH, port=free_base_port(), grace=_GRACE_S) as first:
        pid, port = map(int, first.said("HERE"))
        processes = session(pid)
        with _notebook(_CONNECT, port=port) as second, _notebook(_CONNECT, port=port) as third:
            # Found, and not owned: it cannot be stopped or reloaded from there.
            assert second.said("HERE") == third.said("HERE") == ["False"]
            assert second.ask() == third.ask() == 240
            third.process.send_signal(signal.SIGKILL)
            third.process.wait()
            assert second.ask() == 240
            # The notebook that launched it goes, and the grace period with it.
            first.process.send_signal(signal.SIGKILL)
            first.process.wait()
            time.sleep(_GRACE_S + 1)
            assert second.ask() == 240
            assert lease.find(name="shared") is not None
        wait_until(lambda: not any(alive(process) for process in processes))
        assert not listens(Address("127.0.0.1", port))
