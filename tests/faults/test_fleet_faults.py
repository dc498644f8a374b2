"""What becomes of requests when servers of a fleet, its front, or the kernel that owns them are killed."""

from __future__ import annotations

import contextlib
import os
import signal

import numpy as np
import pytest

from helpers import Client, launch_fleet
from helpers.errors import RequestError, ServerError
from helpers.fleet import Fleet, envoy
from helpers.server import ModelWarning, Server
from tests.served.test_server_lifecycle import Kernel, kernel  # noqa: F401 a fixture
from tests.support.fleet_load import Load
from tests.support.processes import PATIENCE_S, alive, session, wait_until

pytestmark = pytest.mark.slow


def _kill(pid: int | None) -> None:
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not alive(pid))


def _healthy(fleet: Fleet) -> set[int]:
    """Ports, as Envoy sees it: a look that changes nothing."""
    return envoy.healthy(fleet._lease.run_dir)


def test_a_killed_server_costs_no_answer_and_comes_back_by_itself(fleet: Fleet, request: pytest.FixtureRequest) -> None:
    victim, other = fleet.servers
    with Load(fleet, threads=6) as load:
        killed = victim.pid
        _kill(killed)
        wait_until(lambda: {victim.grpc.port, other.grpc.port} & _healthy(fleet) == {other.grpc.port})
        load.more(50)
        # Nobody told Envoy, nor the supervisor.
        wait_until(lambda: victim.grpc.port in _healthy(fleet))
        assert fleet.servers[0] is victim
        assert victim.pid not in (None, killed)
        assert "signal 9 (Killed)" in victim.noticed
        before = fleet.snapshot()
        wait_until(lambda: (fleet.shares(before)[0]["requests"] or 0) >= 20)
    assert load.wrong == []
    assert load.answers == load.requests


def _kill_for_good(server: Server) -> None:
    """Kill it whenever it comes back, until its supervisor gives it up."""

    def down() -> bool:
        state, pid = server.state(), server.pid
        if state == "running" and pid is not None:
            with contextlib.suppress(ProcessLookupError):  # it has ended between the two looks
                os.kill(pid, signal.SIGKILL)
        return state == "died"

    wait_until(down)


def test_when_all_servers_are_down_a_sentence_comes_at_once_and_launching_again_mends_it(fleet: Fleet) -> None:
    for server in fleet.servers:
        _kill_for_good(server)
        assert "signal 9" in repr(fleet)
    wait_until(lambda: not _healthy(fleet))
    for protocol in ("grpc", "http"):
        said = r"server at localhost:\d+ cannot be reached.*upstream.*fleet\.servers\[0\]\.restart\(\)"
        with Client(fleet, protocol) as client, pytest.raises(RequestError, match=said):
            client.infer("double", X=np.ones((1, 3), np.float32))
    front = fleet.pid
    assert launch_fleet(fleet.repository, base_port=fleet.spec.base_port) is fleet
    assert fleet.pid == front
    assert fleet.in_rotation() == [True, True]
    with Client(fleet) as client:
        np.testing.assert_array_equal(client.infer("double", X=np.ones((1, 3), np.float32))["Y"], [[2, 2, 2]])


def test_a_server_that_hangs_leaves_and_its_requests_end(fleet: Fleet) -> None:
    """Stopped, not killed: its connections stay open, and nothing comes."""
    victim = fleet.servers[1]
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGSTOP)
    try:
        wait_until(lambda: victim.grpc.port not in _healthy(fleet))
        with Client(fleet) as client:
            for _ in range(20):
                client.infer("double", X=np.ones((1, 3), np.float32))
    finally:
        os.kill(victim.pid, signal.SIGCONT)
    wait_until(lambda: victim.grpc.port in _healthy(fleet))


def test_a_killed_front_is_said_and_launching_again_keeps_the_servers(fleet: Fleet) -> None:
    pids = [server.pid for server in fleet.servers]
    _kill(fleet.pid)
    wait_until(lambda: fleet.state() == "died")
    assert "launch_fleet" in repr(fleet) or "fleet.restart()" in repr(fleet)
    with pytest.raises(ServerError, match=r"fleet\.restart\(\)"):
        fleet.grow()
    with Client(fleet) as client, pytest.raises(RequestError, match="no longer running"):
        client.infer("double", X=np.ones((1, 3), np.float32))
    with pytest.warns(ModelWarning, match="broken"), launch_fleet(fleet.repository, base_port=fleet.spec.base_port) as again:
        assert again is not fleet
        assert [server.pid for server in again.servers] == pids
        assert (again.http, again.grpc) == (fleet.http, fleet.grpc)
        with Client(fleet) as client:
            client.infer("double", X=np.ones((1, 3), np.float32))


_LOOK = "print('PIDS', fleet.pid, *(server.pid for server in fleet.servers), fleet.is_ready())"


def _launch_fleet(kernel: Kernel) -> str:  # noqa: F811
    """What a kernel says that launches a fleet, or finds its own."""
    return kernel.run(kernel.launch.replace("launch_server", "launch_fleet").replace("server =", "fleet =").split("print")[0] + _LOOK)


def _pids(said: str) -> str:
    return next(line for line in said.splitlines() if line.startswith("PIDS"))


@pytest.mark.parametrize("kernel", [PATIENCE_S], indirect=True)
def test_a_restarted_kernel_finds_its_fleet(kernel: Kernel) -> None:  # noqa: F811
    first = _pids(_launch_fleet(kernel))
    assert first.endswith("True")
    kernel.manager.restart_kernel(now=False)
    kernel.client.wait_for_ready(timeout=PATIENCE_S)
    said = _launch_fleet(kernel)
    assert "same fleet as before" in said
    assert first in said
    kernel.run("fleet.stop()")
    wait_until(lambda: not any(alive(int(pid)) for pid in first.split()[1:-1]))


@pytest.mark.nightly  # by the leases that each server has, as each day a single one's kernel shows
def test_a_killed_kernel_takes_its_fleet_along(kernel: Kernel) -> None:  # noqa: F811
    pids = [int(word) for word in _pids(_launch_fleet(kernel)).split()[1:-1]]
    assert len(pids) == 3
    processes = [process for pid in pids for process in session(pid)]
    assert len(processes) >= 5
    os.kill(kernel.manager.provisioner.pid, signal.SIGKILL)
    wait_until(lambda: not any(alive(process) for process in processes))
