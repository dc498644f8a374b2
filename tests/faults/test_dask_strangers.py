"""Dask workers on a machine that others use: another account can neither have code run as their owner nor read what they do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest
from distributed import Client, LocalCluster

from helpers.scaling import local_workers
from tests.support.other_users import STRANGER, as_user, can_run_as_users, python_path, stranger
from tests.support.processes import PATIENCE_S

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not can_run_as_users(), reason="other users cannot run the course's Python here"),
]

# As strangers try it: with no certificate, and with one of their own.
_SUBMIT = """
import os, sys
from distributed import Client, Security
security = Security.temporary() if sys.argv[2] == "certificate" else None
with Client(sys.argv[1], security=security, timeout=8, set_as_default=False) as client:
    print("ran as", client.submit(os.getuid, pure=False).result(timeout=8))
"""
# The same, past the scheduler, to a worker or its nanny.
_DIRECT = """
import asyncio, os, pickle, sys
from distributed import Security
from distributed.core import rpc
async def main():
    arguments = Security.temporary().get_connection_args("client") if sys.argv[2] == "certificate" else {}
    async with rpc(sys.argv[1], connection_args=arguments, timeout=8) as worker:
        task = {"function": pickle.dumps(os.getuid), "args": pickle.dumps(()), "kwargs": pickle.dumps({})}
        print("ran as", await asyncio.wait_for(worker.run(**task), 8))
asyncio.run(main())
"""
_PAGES = (
    "/",
    "/status",
    "/health",
    "/metrics",
    "/sysmon",
    "/json/counts.json",
    "/info/main/workers.html",
    "/info/main/logs.html",
    "/api/v1",
)


def _try(code: str, address: str, how: str) -> subprocess.CompletedProcess[str]:
    command = [*as_user(STRANGER), sys.executable, "-c", code, address, how]
    environment = {**python_path(), "HOME": "/nonexistent"}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", env=environment, timeout=120)


@pytest.fixture(scope="module")
def others() -> set[int]:
    """Ports of what other tests in this process still have, which are not the cluster's."""
    return set(_listening())


@pytest.fixture(scope="module")
def closed(others: set[int]) -> Iterator[LocalCluster]:
    with local_workers(1) as cluster:
        yield cluster


def _listening() -> list[int]:
    """Ports on which this process and its children listen."""
    own = psutil.Process()
    ends = [end for process in (own, *own.children(recursive=True)) for end in process.net_connections("tcp")]
    assert all(end.laddr.ip in ("127.0.0.1", "::1") for end in ends if end.status == psutil.CONN_LISTEN)
    return [end.laddr.port for end in ends if end.status == psutil.CONN_LISTEN]


@pytest.mark.slow
def test_the_attack_works_on_an_open_cluster() -> None:
    """Without this, the tests below could pass because the attack is a wrong one."""
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster:
        done = _try(_SUBMIT, cluster.scheduler_address, "nothing")
        direct = _try(_DIRECT, next(iter(cluster.workers.values())).worker_address, "nothing")
    assert f"ran as {os.getuid()}" in done.stdout, done.stderr
    assert "ran as" in direct.stdout and str(os.getuid()) in direct.stdout, direct.stderr


@pytest.mark.parametrize("how", ["nothing", "certificate"])
def test_a_stranger_runs_nothing(closed: LocalCluster, how: str) -> None:
    nanny = next(iter(closed.workers.values()))
    assert closed.scheduler_address.startswith("tls://")
    for code, secured in ((_SUBMIT, closed.scheduler_address), (_DIRECT, nanny.worker_address), (_DIRECT, nanny.address)):
        address = secured if how == "certificate" else secured.replace("tls://", "tcp://")
        done = _try(code, address, how)
        assert done.returncode != 0 and "ran as" not in done.stdout, (address, done.stdout)
    with Client(closed, set_as_default=False) as client:
        assert client.submit(os.getuid, pure=False).result(timeout=PATIENCE_S) == os.getuid()


def test_a_stranger_reads_no_page(closed: LocalCluster, others: set[int]) -> None:
    code = """
import sys, urllib.request
for port in sys.argv[2].split(","):
    for path in sys.argv[1].split(","):
        try:
            print("read", port, path, urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5).status)
        except Exception as error:
            print(port, path, error)
"""
    ports = [port for port in _listening() if port not in others]
    assert len(ports) >= 4, "scheduler, nanny, worker and what Dask listens on for pages"
    done = stranger(code, ",".join(_PAGES), ",".join(map(str, ports)))
    assert done.returncode == 0 and len(done.stdout.splitlines()) == len(ports) * len(_PAGES), done.stderr
    assert "read" not in done.stdout
