"""Model instances and their threads: by a relaunch and by a reload, with both copies at work."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from helpers import repository
from helpers.client import Client
from helpers.metrics.load import BackgroundLoad
from helpers.server import Server, launch_server
from tests.served.optimise import MODEL, counted
from tests.support.logs import logged
from tests.support.processes import wait_until


def cpu_seconds(server: Server) -> dict[str, float]:
    """CPU time of each instance's process since its start."""
    instances = [each for each in psutil.Process(server.pid).children(recursive=True) if each.name().startswith("triton_python")]
    names = {each.cmdline()[-2]: each for each in instances}
    return {name: sum(each.cpu_times()[:2]) for name, each in names.items() if re.fullmatch(rf"{MODEL}(_\d+)+", name)}


def work_done_by(server: Server) -> dict[str, float]:
    """CPU time that a load of eight requests at once costs each instance."""
    before = cpu_seconds(server)
    with BackgroundLoad(server, MODEL, batch=4, concurrency=8) as load:
        counted(server, MODEL, at_least=counted(server, MODEL)["inferences"] + 400)
        assert load.failed == 0
    return {name: seconds - before[name] for name, seconds in cpu_seconds(server).items()}


@pytest.fixture
def working_copy(work: Path, free_base_port: Callable[[], int]) -> Iterator[Server]:
    """A server of ``work/models``, as a student has it."""
    repository.checkout(MODEL, fresh=True)
    repository.change_config(MODEL, model_warmup=None, instance_group=[{"count": 1, "kind": "KIND_CPU"}])
    server = launch_server("work/models", load=[MODEL], base_port=free_base_port(), name="instances")
    yield server
    server.stop()


@pytest.mark.slow
def test_a_relaunch_serves_the_edited_working_copy_with_two_instances_at_work(working_copy: Server) -> None:
    assert len(cpu_seconds(working_copy)) == 1
    config = working_copy.repository / MODEL / "config.pbtxt"
    text = config.read_text()
    config.write_text(re.sub(r"count: 1\b", "count: 2", text))
    assert config.read_text() != text
    again = working_copy.restart()
    try:
        assert again.config(MODEL)["instance_group"][0]["count"] == 2
        done = work_done_by(again)
        assert len(done) == 2
        assert min(done.values()) > 0, done
    finally:
        again.stop()


def test_a_reload_changes_the_number_of_instances_and_no_answer(
    own: Server, model: Path, client: Client, requests: Callable[..., list[dict[str, np.ndarray]]]
) -> None:
    own.reload(MODEL)
    jet = requests(50)[0]
    alone, pid = client.infer(MODEL, jet)["softmax"], own.pid
    comparison = repository.change_config(model, instance_group=[{"count": 2, "kind": "KIND_CPU"}])
    assert [row.field for row in comparison.rows if row.old != row.new] == ["instance_group[0].count"]
    assert own.config(MODEL)["instance_group"][0]["count"] == 1
    own.reload(MODEL)
    assert (own.config(MODEL)["instance_group"][0]["count"], own.pid) == (2, pid)
    done = work_done_by(own)
    assert len(done) == 2
    assert min(done.values()) > 0, done
    np.testing.assert_allclose(client.infer(MODEL, jet)["softmax"], alone, atol=1e-6)


def test_threads_of_each_instance_are_what_the_config_says(own: Server, model: Path) -> None:
    threads = {}
    for number in (1, 3):
        repository.change_config(model, parameters={"intra_op_thread_count": {"string_value": str(number)}})
        own.reload(MODEL)
        wait_until(lambda number=number: f"; {number} thread(s)" in logged(own, f"{MODEL}_0_0: ONNX Runtime"))
        instances = [each for each in psutil.Process(own.pid).children(recursive=True) if f"{MODEL}_0_0" in each.cmdline()]
        # The process that served before the reload may still be ending.
        threads[number] = max(instances, key=psutil.Process.create_time).num_threads()
    # The first of an instance's computing threads is the one that takes the requests.
    assert threads[3] - threads[1] == 2, threads
