"""Real containers, made and run by a real engine: they serve, and they are gone when they should be, whatever was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from helpers import jets, launch_server, paths, taus
from helpers.client import Client, http
from helpers.client.endpoint import ADMIN_HEADER
from helpers.physics.tracks import load_events, quality
from helpers.server import Server, isolation
from tests.support.container_image import Made, NoContainersError, make
from tests.support.memory import shared
from tests.support.processes import alive, wait_until, with_word

pytestmark = [pytest.mark.slow, pytest.mark.container]


@pytest.fixture(scope="module", params=["podman", "docker"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """An engine that runs containers here, with the image of Containerfile.cpu."""
    try:
        image = make(request.param, tmp_path_factory.mktemp(request.param))
    except NoContainersError as error:
        pytest.skip(f"{request.param} runs no containers on this machine: {error}")
    before = {name: os.environ.get(name) for name in ("COURSE_IMAGE", "COURSE_ENGINE_ARGUMENTS")}
    os.environ.update(COURSE_IMAGE=image.image, COURSE_ENGINE_ARGUMENTS=image.arguments)
    yield image
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value
    image.remove()


@pytest.fixture(scope="module")
def server(made: Made, free_base_port: Callable[[], int]) -> Iterator[Server]:
    """The course's four models in one container; the ensemble brings its stages along."""
    load = ["add_sub", "particlenet", "particlenet_PT", "ExaTrk", taus.MODEL]
    with launch_server("models", runtime=made.engine, load=load, base_port=free_base_port(), name="tests-container") as running:
        yield running


@pytest.fixture
def small(made: Made, free_base_port: Callable[[], int]) -> Callable[[], Server]:
    """Calls launch a server with one small model."""
    return lambda: launch_server("models", runtime=made.engine, load=["add_sub"], base_port=free_base_port(), name="small", grace_s=1.0)


def container(server: Server) -> str:
    """Name of a server's container."""
    return str(server.metadata()["name"])


def test_the_courses_four_models_answer(server: Server) -> None:
    left, right = np.arange(16, dtype=np.float32), np.full(16, 3, np.float32)
    sample, events = jets.read("ak8")[:20], load_events()[:2]
    with Client(server) as client:
        answer = client.infer("add_sub", INPUT0=left, INPUT1=right)
        assert np.array_equal(answer["OUTPUT0"], left + right)
        assert np.array_equal(answer["OUTPUT1"], left - right)
        onnx, torch = (jets.Tagger(client, model).tag(sample).probabilities for model in ("particlenet", "particlenet_PT"))
        assert onnx.shape == (20, 20)
        assert np.allclose(onnx.sum(axis=1), 1, atol=1e-5)
        assert np.median(np.abs(onnx - torch).max(axis=1)) < 1e-5
        labels = [client.infer("ExaTrk", FEATURES=event.features)["LABELS"] for event in events]
        hundred = taus.tensors(taus.read().take(range(100)))
        probabilities = client.infer(taus.MODEL, hundred)["main_output/Softmax"]
    with shared(server, taus.MODEL, hundred) as answer:
        same = answer.as_numpy("main_output/Softmax")
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5) and np.allclose(probabilities, same, atol=1e-5)
    found = quality(events, labels)
    assert found.efficiency.value > 0.9
    assert found.fake_rate.value < 0.1


def test_tensors_through_the_hosts_shared_memory(server: Server) -> None:
    ones = np.ones(16, np.float32)
    with shared(server, "add_sub", {"INPUT0": ones, "INPUT1": ones}) as answer:
        assert np.array_equal(answer.as_numpy("OUTPUT0"), 2 * ones)
        regions = http.ask(server.http, "/v2/systemsharedmemory/status", headers=server.admin_headers("http"))
        assert len(regions) == 1, "it went through shared memory for real"


def test_the_tensors_of_python_models_are_closed_to_others_on_the_host(server: Server) -> None:
    regions = list(Path("/dev/shm").glob(f"{container(server)}*"))
    assert regions, "a Python model has a region in the host's shared memory"
    assert {path.name: oct(path.stat().st_mode & 0o077) for path in regions} == {path.name: "0o0" for path in regions}
    assert isolation.MEMORY_SEEN not in server.log(lines=0)


def test_only_the_owner_administers_and_nobody_reads_the_key(server: Server) -> None:
    server.reload("add_sub")
    key = server.admin_headers("http")[ADMIN_HEADER]
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert key.encode() not in entry.read_bytes(), entry
        except OSError:
            continue  # a process that has ended meanwhile
    assert isolation.KEY_SEEN not in server.log(lines=0)


def test_the_repository_is_read_only_in_the_container(server: Server, made: Made) -> None:
    write = [made.engine, "exec", container(server), "touch", "/models/new"]
    answer = subprocess.run(write, capture_output=True, text=True, check=False)
    assert answer.returncode != 0
    assert "Read-only" in answer.stderr


def test_a_container_ends_with_stop_and_the_log_stays(server: Server, made: Made) -> None:
    """The last test of this server."""
    name = container(server)
    assert name in made.containers()
    server.stop()
    assert name not in made.containers()
    assert with_word(f"--id={name}") == []
    assert list(Path("/dev/shm").glob(f"{name}*")) == []
    assert server.log_path is not None
    assert "successfully loaded 'add_sub'" in server.log_path.read_text()


@pytest.mark.parametrize("victim", ["client", "supervisor", "kernel"])
def test_a_container_ends_when_what_it_hangs_on_is_killed(
    victim: str, small: Callable[[], Server], made: Made, free_base_port: Callable[[], int]
) -> None:
    """The engine's client, whose death engines do not mind; the supervisor, which would have cleaned up; the notebook's kernel."""
    if victim == "kernel":
        code = (
            "import time; from helpers import launch_server\n"
            f"server = launch_server('models', runtime={made.engine!r}, load=['add_sub'], base_port={free_base_port()}, grace_s=1.0)\n"
            "print('NAME', server.metadata()['name'], flush=True); time.sleep(600)"
        )
        kernel = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=paths.root())
        assert kernel.stdout is not None
        name = next(line.split()[1] for line in kernel.stdout if line.startswith("NAME"))
        kernel.kill()
        kernel.communicate()
    else:
        server = small()
        name, state = container(server), server._lease.state()  # type: ignore[union-attr]
        pid = int(state["pid" if victim == "client" else "supervisor_pid"])
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not alive(pid))
        wait_until(lambda: server.state() == "died")
    wait_until(lambda: name not in made.containers())
    wait_until(lambda: with_word(f"--id={name}") == [])  # the engine's client, too
