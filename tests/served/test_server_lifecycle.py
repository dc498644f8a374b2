"""Who owns a server: real kernels are interrupted, restarted, shut down and killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from jupyter_client.manager import KernelManager, start_new_kernel

from helpers.server import lease
from tests.support import kernels
from tests.support.processes import PATIENCE_S, alive, session, wait_until

pytestmark = pytest.mark.slow

# Seconds that a server lives without a lease: where that is to happen, and where a kernel restarts meanwhile, on a machine however slow.
_SHORT_GRACE_S, _LONG_GRACE_S = 1.0, PATIENCE_S


class Kernel:
    """A real kernel that tests can run code in."""

    def __init__(self, base_port: int, grace_s: float) -> None:
        self.launch = (
            "from helpers import launch_server\n"
            f"server = launch_server('models', base_port={base_port}, grace_s={grace_s}, load=['add_sub'])\n"
            "print('PID', server.pid, server.is_ready(), server.http.port)"
        )
        self.manager: KernelManager
        self.manager, self.client = start_new_kernel(kernel_name="python3", extra_arguments=["--IPKernelApp.capture_fd_output=False"])

    def run(self, code: str) -> str:
        """Run a cell and return what it printed; errors included."""
        return kernels.run(self.client, code)

    def launch_server(self) -> int:
        """Launch (or find) the server; returns its process id."""
        text = self.run(self.launch)
        words = next((line for line in text.splitlines() if line.startswith("PID")), "").split()
        assert words[2:3] == ["True"], text
        return int(words[1])


@pytest.fixture
def kernel(free_base_port: Callable[[], int], request: pytest.FixtureRequest) -> Iterator[Kernel]:
    """A kernel whose server outlives it by a moment, or by the seconds that a test names."""
    running = Kernel(free_base_port(), getattr(request, "param", _SHORT_GRACE_S))
    yield running
    running.client.stop_channels()
    if running.manager.has_kernel:
        running.manager.shutdown_kernel(now=True)


def test_an_interrupt_does_not_touch_the_server(kernel):
    pid = kernel.launch_server()
    kernel.manager.interrupt_kernel()
    time.sleep(3)  # a slow machine may deliver it late
    assert kernel.launch_server() == pid
    message = kernel.client.execute("import time; print('asleep', flush=True); time.sleep(60)")
    # Busy is not enough: an interrupt before the cell's own code runs ends the request without a reply.
    wait_until(lambda: "asleep" in kernel.client.get_iopub_msg(timeout=PATIENCE_S)["content"].get("text", ""))
    kernel.manager.interrupt_kernel()
    reply = kernel.client.get_shell_msg(timeout=PATIENCE_S)
    while reply["parent_header"].get("msg_id") != message:
        reply = kernel.client.get_shell_msg(timeout=PATIENCE_S)
    assert reply["content"]["ename"] == "KeyboardInterrupt"
    assert kernel.launch_server() == pid
    # Nor does a variable that is lost.
    kernel.run("del server\nimport gc; gc.collect()")
    time.sleep(_SHORT_GRACE_S + 2)
    assert kernel.launch_server() == pid


@pytest.mark.parametrize("kernel", [_LONG_GRACE_S], indirect=True)
def test_a_restarted_kernel_finds_the_same_server(kernel):
    """That its new lease holds like any other is seen in test_supervisor."""
    pid = kernel.launch_server()
    kernel.manager.restart_kernel(now=False)
    kernel.client.wait_for_ready(timeout=PATIENCE_S)
    assert kernel.launch_server() == pid
    assert "Already running" in kernel.run(kernel.launch)
    kernel.run("server.stop()")
    wait_until(lambda: not alive(pid))


@pytest.mark.parametrize("how", ["shutdown", "kill -9"])
def test_a_kernel_that_ends_takes_its_server_along(kernel, how):
    pid = kernel.launch_server()
    processes = session(pid)
    assert len(processes) >= 2
    if how == "shutdown":
        kernel.manager.shutdown_kernel(now=False)
    else:
        os.kill(kernel.manager.provisioner.pid, signal.SIGKILL)
    wait_until(lambda: not any(alive(process) for process in processes))


def test_a_killed_supervisor_takes_the_server_along(tmp_path, free_base_port):
    from helpers.server import launch_server

    server = launch_server("models", base_port=free_base_port(), name="orphan", load=["add_sub"])
    processes = session(server.pid)
    os.kill(int(server._lease.state()["supervisor_pid"]), signal.SIGKILL)
    wait_until(lambda: not any(alive(process) for process in processes))
    assert server.state() == "died"
    # What it left is cleared away: memory by whoever looks for servers, and its folder when its owner has read how it ended.
    run_dir = server._lease.run_dir
    assert lease.find(name="orphan") is None and server.state() == "died"
    assert not list(Path("/dev/shm").glob(f"{run_dir.name}*"))
    server.stop()
    assert not run_dir.exists()
