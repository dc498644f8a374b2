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

# As strangers try it, with no certificate or with one of their own: by the scheduler, then past it, to a worker and to its nanny.
_ATTACKS = """
import asyncio, os, pickle, sys
from distributed import Client, Security
from distributed.core import rpc
security = Security.temporary() if sys.argv[1] == "certificate" else None
def submit(address):
    with Client(address, security=security, timeout=8, set_as_default=False) as client:
        return client.submit(os.getuid, pure=False).result(timeout=8)
async def run(address):
    async with rpc(address, connection_args=security.get_connection_args("client") if security else {}, timeout=8) as worker:
        task = {"function": pickle.dumps(os.getuid), "args": pickle.dumps(()), "kwargs": pickle.dumps({})}
        return await asyncio.wait_for(worker.run(**task), 8)
for number, address in enumerate(sys.argv[2:]):
    try:
        print("tried", address, "ran as", submit(address) if number == 0 else asyncio.run(run(address)))
    except Exception as error:
        print("tried", address, type(error).__name__)
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


def _try(how: str, *addresses: str) -> list[str]:
    """What came of each attack: the scheduler's address, then those of workers and nannies."""
    command = [*as_user(STRANGER), sys.executable, "-c", _ATTACKS, how, *addresses]
    environment = {**python_path(), "HOME": "/nonexistent"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", env=environment, timeout=120)
    tried = [line for line in done.stdout.splitlines() if line.startswith("tried")]
    assert len(tried) == len(addresses), done.stderr
    return tried


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
        tried = _try("nothing", cluster.scheduler_address, next(iter(cluster.workers.values())).worker_address)
    assert all("ran as" in line and str(os.getuid()) in line for line in tried), tried


@pytest.mark.parametrize("how", ["nothing", "certificate"])
def test_a_stranger_runs_nothing(closed: LocalCluster, how: str) -> None:
    nanny = next(iter(closed.workers.values()))
    secured = (closed.scheduler_address, nanny.worker_address, nanny.address)
    assert closed.scheduler_address.startswith("tls://")
    tried = _try(how, *(address if how == "certificate" else address.replace("tls://", "tcp://") for address in secured))
    assert not any("ran as" in line for line in tried), tried
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
