"""A background load against the real server: what it sends is what the server counts, and it ends with its owner."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from helpers import paths
from helpers.errors import InputError, ModelError, RequestError
from helpers.metrics import scrape
from helpers.metrics.load import BackgroundLoad
from helpers.server import Server, launch_server
from tests.support.processes import alive, wait_until

OWNER = """
import multiprocessing, sys, time
from helpers.metrics.load import BackgroundLoad
load = BackgroundLoad(sys.argv[1], "double", 2, 2)
print(multiprocessing.active_children()[0].pid, flush=True)
time.sleep(600)
"""
REFUSED = r"for 'double'.*from 1 to 4, and a concurrency from 0 to 32"


def _mine() -> list[int]:
    """Processes of loads that this process started."""
    return [int(child.pid or 0) for child in multiprocessing.active_children() if child.name == "course-load"]


def test_what_it_sends_is_what_the_server_counts(models_server: Server) -> None:
    before = scrape(models_server)
    with BackgroundLoad(models_server, "double", batch=3, concurrency=2) as load:
        wait_until(lambda: load.sent > 20)
        assert load.running and "running" in repr(load)
    # The server counts a request a moment after it has answered.
    wait_until(lambda: (scrape(models_server) - before).value("nv_inference_request_success", model="double") >= load.sent)
    change = scrape(models_server) - before
    assert load.sent == change.value("nv_inference_request_success", model="double")
    assert change.value("nv_inference_count", model="double") == 3 * load.sent
    assert (load.failed, load.error, load.running, _mine()) == (0, "", False, [])
    assert f"stopped): double, batch 3, concurrency 2; {load.sent} requests sent, 0 failed" in repr(load)


def test_it_changes_while_it_runs(models_server: Server) -> None:
    with BackgroundLoad(models_server, "double") as load:
        wait_until(lambda: load.sent > 5)
        load.change(4, 3)

        def only_batches_of_four() -> bool:
            before = scrape(models_server)
            time.sleep(0.5)
            change = scrape(models_server) - before
            requests, inferences = (change.value(f"nv_inference_{name}", model="double") for name in ("request_success", "count"))
            return inferences == 4 * requests > 0

        # Requests from before the change may still be under way on a busy machine.
        wait_until(only_batches_of_four)
        load.change(4, 0)

        def at_rest() -> bool:
            before = load.sent
            time.sleep(0.6)
            return load.sent == before

        wait_until(at_rest)
        sent = load.sent
        time.sleep(0.6)
        assert load.sent == sent, "0 sends nothing"
        load.change(1, 1)
        wait_until(lambda: load.sent > sent + 5)
        for batch, concurrency in ((5, 1), (0, 1), (1, -1), (1, 33)):
            with pytest.raises(InputError, match=REFUSED):
                load.change(batch, concurrency)
        assert (load.batch, load.concurrency) == (1, 1)
        sent = load.sent
        wait_until(lambda: load.sent > sent)
        assert load.failed == 0


def test_as_many_requests_at_once_as_it_says(models_server: Server) -> None:
    """`slow` sleeps in two instances, so with five requests at once three wait."""
    pending = {}
    with BackgroundLoad(models_server, "slow", concurrency=2) as load:
        for concurrency in (2, 5):
            load.change(1, concurrency)
            sent = load.sent
            wait_until(lambda sent=sent: load.sent > sent + 1)
            # Between an answer and the next request it is one less for a moment.
            seen = []
            for _ in range(9):
                time.sleep(0.1)
                seen.append(scrape(models_server).value("nv_inference_pending_request_count", model="slow"))
            pending[concurrency] = max(set(seen), key=seen.count), max(seen)
    assert load.failed == 0, load
    assert pending[2][0] == 0
    assert pending[5] == (3, 3)


def test_what_cannot_be_sent_is_refused_before_a_process_starts(models_server: Server) -> None:
    with pytest.raises(ModelError, match="double"):
        BackgroundLoad(models_server, "doubel")
    with pytest.raises(InputError, match=REFUSED):
        BackgroundLoad(models_server, "double", 10_000)
    with pytest.raises(InputError, match=r"for 'add_sub'.*from 1 to 1"):
        BackgroundLoad(models_server, "add_sub", batch=2)
    with pytest.raises(RequestError, match="cannot be reached"):
        BackgroundLoad("localhost:9", "double")
    assert _mine() == []


@pytest.mark.slow
def test_it_survives_a_restart_of_the_server_and_keeps_the_error(free_base_port: Callable[[], int]) -> None:
    server = launch_server(paths.models_dir(), base_port=free_base_port(), load=["add_sub"], name="load-restart")
    try:
        with BackgroundLoad(server, "add_sub", concurrency=2) as load:
            wait_until(lambda: load.sent > 10)
            began = time.monotonic()
            server = server.restart()
            assert load.running
            good = load.sent - load.failed
            wait_until(lambda: load.sent - load.failed > good + 10)
            assert load.failed > 0 and ("add_sub" in load.error or "reached" in load.error), load.error
            assert f"{load.failed} failed" in repr(load) and "Last: " in repr(load)
            rate = load.failed / (time.monotonic() - began)
        assert rate < 20, "a server that is gone is asked twice a second, not thousands of times"
    finally:
        server.stop()


def test_it_ends_with_its_owner(models_server: Server) -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER, models_server.grpc_url], stdout=subprocess.PIPE, cwd=paths.root())
    assert owner.stdout is not None
    with owner, owner.stdout:
        load = int(owner.stdout.readline())
        owner.kill()
    wait_until(lambda: not alive(load))


def test_it_ends_when_nobody_remembers_it(models_server: Server) -> None:
    load = BackgroundLoad(models_server, "double")
    (pid,) = _mine()
    del load
    gc.collect()
    wait_until(lambda: not alive(pid))


def test_an_interrupt_of_the_notebook_leaves_it_alone_and_its_own_death_is_seen(models_server: Server) -> None:
    load = BackgroundLoad(models_server, "double")
    (pid,) = _mine()
    os.kill(pid, signal.SIGINT)
    sent = load.sent
    wait_until(lambda: load.sent > sent + 5)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not load.running)
    load.change(2, 1)
    load.stop()
    load.stop()
    assert "stopped" in repr(load)
