"""A neighbour on the machine, another Unix user, sends what ends or corrupts Triton 2.51: the server goes on serving its owner."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from helpers import Client, launch_fleet, launch_server, paths, scrape
from helpers.fleet import Fleet
from helpers.server import Server
from helpers.server.listening import TOKEN_BYTES
from tests.support import MODELS_FOR_TESTS, attacks
from tests.support.other_users import STRANGER, as_user, can_run_as_users, python_path, stranger
from tests.support.processes import memory_mb, session

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not can_run_as_users(), reason="other users cannot run the course's Python here")]

# Seconds within which the owner has an answer, and MB that may stay taken, after each attack.
_ANSWER_S, _KEPT_MB = 5.0, 300.0
# Seconds in which that memory goes back.
_BACK_S = 60.0
# How Triton and the front refuse.
_REFUSED = ("HTTP/1.1 403", "UNAVAILABLE This protocol is restricted", "PERMISSION_DENIED This protocol is restricted")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python model, one with strings, and a network."""
    folder = tmp_path_factory.mktemp("neighbour") / "models"
    sources = (paths.models_dir() / "add_sub", MODELS_FOR_TESTS / "strings", paths.models_dir() / "particlenet_AK4")
    for source in sources:
        shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def private(repository: Path, free_base_port) -> Iterator[Server]:
    with launch_server(repository, base_port=free_base_port(), private=True, name="private") as server:
        yield server


@pytest.fixture(scope="module")
def private_fleet(repository: Path, free_base_port) -> Iterator[Fleet]:
    with launch_fleet(repository, base_port=free_base_port(), private=True, name="private") as fleet:
        yield fleet


class Neighbour:
    """Another user's program, which attacks when this test says so."""

    def __init__(self) -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        command = [*as_user(STRANGER), sys.executable, str(Path(attacks.__file__))]
        self.process = subprocess.Popen(command, cwd="/", env=python_path(), bufsize=1, **pipes)

    def begin(self, name: str, port: int) -> None:
        """Start an attack."""
        print(name, port, file=self.process.stdin)

    def came(self, until: str = "done") -> list[str]:
        """What came back, up to a line that says so; each attack ends by itself."""
        lines: list[str] = []
        for line in self.process.stdout:
            if line.rstrip("\n") == until:
                return lines
            lines.append(line.rstrip("\n"))
        raise AssertionError(f"the neighbour's program ended: {lines}")

    def attack(self, name: str, port: int) -> list[str]:
        """What came back of a whole attack."""
        self.begin(name, port)
        return self.came()


@pytest.fixture(scope="module")
def neighbour() -> Iterator[Neighbour]:
    one = Neighbour()
    yield one
    one.process.communicate()


def _answers_its_owner(server: Server | Fleet) -> None:
    x = np.arange(16, dtype=np.float32)
    for protocol in ("http", "grpc"):
        with Client(server, protocol, timeout_s=_ANSWER_S) as client:
            assert np.array_equal(client.infer("add_sub", INPUT0=x, INPUT1=x)["OUTPUT0"], x + x)


def _memory_is_back(server: Server, before: float) -> None:
    deadline = time.monotonic() + _BACK_S
    while (now := memory_mb(server)) > before + _KEPT_MB and time.monotonic() < deadline:
        time.sleep(0.5)
    assert now < before + _KEPT_MB, f"{before:.0f} MB became {now:.0f}"


def _try_all(neighbour: Neighbour, server: Server, owners: Server | Fleet, http: int, grpc: int) -> None:
    before, pid = memory_mb(server), server.pid
    for attack in (*attacks.OVER_GRPC, *attacks.OVER_HTTP):
        said = neighbour.attack(attack.__name__, grpc if attack in attacks.OVER_GRPC else http)
        assert said[-1].startswith(_REFUSED), (attack.__name__, said)
        _answers_its_owner(owners)
        _memory_is_back(server, before)
    assert (server.state(), server.pid) == ("running", pid)
    assert {model.state for model in server.models()} == {"READY"}


def test_a_private_server(neighbour: Neighbour, private: Server) -> None:
    assert private.http is not None and private.grpc is not None
    _try_all(neighbour, private, private, private.http.port, private.grpc.port)


def test_a_private_fleet_at_its_front(neighbour: Neighbour, private_fleet: Fleet) -> None:
    _try_all(neighbour, private_fleet.servers[0], private_fleet, private_fleet.http.port, private_fleet.grpc.port)


@pytest.mark.nightly  # each day names, detours and guesses go to it
def test_a_server_of_a_private_fleet_at_its_own_ports(neighbour: Neighbour, private_fleet: Fleet) -> None:
    server = private_fleet.servers[1]
    assert server.http is not None and server.grpc is not None
    _try_all(neighbour, server, private_fleet, server.http.port, server.grpc.port)
    assert private_fleet.in_rotation() == [True, True]


@pytest.mark.parametrize(
    "attack",
    ["chunks_to_a_path_of_each_kind", pytest.param("chunks_where_no_secret_is_needed", marks=pytest.mark.nightly)],
)
def test_chunks_to_paths_that_need_no_secret(neighbour: Neighbour, private: Server, attack: str) -> None:
    assert private.http is not None and private.metrics is not None
    before, pid = memory_mb(private), private.pid
    for name, port in ((attack, private.http.port), ("chunks_where_metrics_are", private.metrics.port)):
        said = neighbour.attack(name, port)
        assert not [line for line in said if " HTTP/1.1 200" in line and "/metrics" not in line], said
        _answers_its_owner(private)
    assert (private.state(), private.pid) == ("running", pid)
    _memory_is_back(private, before)


def test_the_server_alone_has_the_allocator_that_gives_memory_back(private: Server) -> None:
    """With it PyTorch's models would take twice as long."""
    maps = {pid: Path(f"/proc/{pid}/maps").read_text() for pid in session(private.pid)}
    assert len(maps) == 5, "add_sub, strings and two of the network"
    assert [pid for pid, text in maps.items() if "libmimalloc" in text] == [private.pid]


@pytest.mark.parametrize("name", ["climbing", "detours", "guesses"])
def test_names_that_lead_elsewhere_and_secrets_that_are_guessed(
    neighbour: Neighbour, private: Server, private_fleet: Fleet, name: str
) -> None:
    targets: tuple[Server | Fleet, ...] = (private, private_fleet, private_fleet.servers[0])
    for target in targets:
        assert target.http is not None
        said = neighbour.attack(name, target.http.port)
        assert len(said) > 10
        assert not [line for line in said if "HTTP/1.1 200" in line or "HTTP/1.1 5" in line], said
        _answers_its_owner(target)


@pytest.mark.parametrize("name", ["idle", "slow"])
@pytest.mark.slow
def test_a_thousand_connections_that_say_nothing(neighbour: Neighbour, repository: Path, free_base_port, name: str) -> None:
    """Under the limit of 1,024 open files that a log-in shell usually has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        server = launch_server(repository, base_port=free_base_port(), load=["add_sub"], private=True, name=name)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with server:
        assert server.http is not None and server.log_path is not None
        before = server.log_path.stat().st_size
        neighbour.begin(name, server.http.port)
        assert neighbour.came("held") == []
        _answers_its_owner(server)
        assert neighbour.came() == [f"{attacks.CONNECTIONS} connections"]
        _answers_its_owner(server)
        assert server.log_path.stat().st_size < before + 1_000_000


def test_the_secret_is_where_no_neighbour_reads(private: Server, private_fleet: Fleet) -> None:
    for server in (private, private_fleet, *private_fleet.servers):
        secret = server.token
        assert len(secret) >= TOKEN_BYTES
        assert server.headers_file is not None and secret in server.headers_file.read_text()
        for path in (server.headers_file, server.headers_file.parent / "state.json", server.headers_file.parent / "front.yaml"):
            assert secret not in stranger("import pathlib, sys; print(pathlib.Path(sys.argv[1]).read_text())", path).stdout
        # repr and html go into notebooks that people share.
        assert secret not in repr(server) + server._repr_html_()
        for process in psutil.process_iter(["cmdline"]):
            assert secret not in " ".join(process.info["cmdline"] or ()), process


def test_health_metadata_and_metrics_answer_everybody(private: Server) -> None:
    base = f"http://{private.http}"
    for url in (*(f"{base}/v2{path}" for path in ("", "/health/ready", "/models/add_sub", "/models/add_sub/config")), private.metrics_url):
        done = stranger(
            "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1].replace('localhost', '127.0.0.1')).status)", url
        )
        assert done.stdout == "200\n", (url, done.stderr)
    assert scrape(private)


def test_a_neighbour_who_connects_reads_why_he_may_not_infer(private: Server, tmp_path: Path) -> None:
    code = """
import sys
import numpy as np
from helpers import Client, connect
for server in (connect(sys.argv[1]), sys.argv[2]):
    x = np.ones(16, np.float32)
    try:
        with Client(server) as client:
            client.infer("add_sub", INPUT0=x, INPUT1=x)
    except Exception as error:
        print(type(error).__name__, error)
"""
    command = [*as_user(STRANGER), sys.executable, "-c", code, private.http_url, private.grpc_url]
    environment = {**python_path(), "HOME": str(tmp_path), "COURSE_RUN_DIR": f"/tmp/course-{STRANGER}"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", env=environment, timeout=120)
    lines = done.stdout.splitlines()
    assert len(lines) == 2 and all(line.startswith("AccessError") and "wants a token" in line for line in lines), done
    shutil.rmtree(f"/tmp/course-{STRANGER}")
