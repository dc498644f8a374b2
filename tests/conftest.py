"""Fixtures for every test: a work folder of its own, free ports, the real server."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers import paths
from helpers.fleet import Fleet, launch_fleet
from helpers.server import ModelWarning, Server, launch_server
from helpers.server.listening import PRIVATE_VARIABLE
from tests.support import MODELS_FOR_TESTS
from tests.support.engines import Engines
from tests.support.leftovers import (  # noqa: F401 hooks of pytest
    pytest_configure,
    pytest_sessionfinish,
    pytest_terminal_summary,
    pytest_unconfigure,
)
from tests.support.order import pytest_collection_modifyitems, pytest_xdist_make_scheduler  # noqa: F401 hooks of pytest

# Tests interrupt programs; a run in the background of a shell, or under nohup, would hand down that interrupts and hang-ups are ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# pytest keeps the tests as it has rewritten them, also where the environment says that Python keeps nothing: 3 s of each worker.
sys.dont_write_bytecode = False

# For notebooks' sake jsonschema would compile the grammar of international web addresses, for a second in each worker; none is looked at.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

# Most tests send raw requests as on a machine of one's own; COURSE_PRIVATE=yes makes every server private, for those that should not care.
os.environ.setdefault(PRIVATE_VARIABLE, "no")

# Above the ports of a course that runs beside the tests, below the range from which the system takes clients' ports.
_FIRST_PORT, _LAST_PORT = 16000, 31000


@pytest.fixture(scope="session", autouse=True)
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that stands for ``work/``: no test touches a student's own."""
    folder = tmp_path_factory.mktemp("work")
    before = os.environ.get("COURSE_WORK")
    os.environ["COURSE_WORK"] = str(folder)
    yield folder
    if before is None:
        del os.environ["COURSE_WORK"]
    else:
        os.environ["COURSE_WORK"] = before


@pytest.fixture(autouse=True)
def _no_variable_stays() -> Iterator[None]:
    """A variable of the course that a test leaves changed would change the tests after it."""
    before = _variables()
    yield
    assert _variables() == before


def _variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("COURSE_")}


@pytest.fixture(scope="session")
def free_base_port() -> Callable[[], int]:
    """Calls give base ports far apart, another row in each run: the launcher takes the next triple when one is taken."""
    # Workers that run at the same time have ports of their own.
    worker, workers = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    share = (_LAST_PORT - _FIRST_PORT) // workers
    start = _FIRST_PORT + worker * share + random.randrange(0, share // 2, 3)
    ports = itertools.count(start, 3 * 20)
    return lambda: next(ports)


@pytest.fixture(scope="session")
def server(free_base_port: Callable[[], int]) -> Iterator[Server]:
    """The course's own model repository, served by the embedded server for the whole run."""
    with launch_server(paths.models_dir(), base_port=free_base_port(), name="tests") as running:
        yield running


@pytest.fixture(scope="session")
def models_server(free_base_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Small models with batching, axes of any length, strings, labels and errors, and add_sub, for tests of the client's side."""
    repository = tmp_path_factory.mktemp("models_for_tests") / "models"
    shutil.copytree(MODELS_FOR_TESTS, repository, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(paths.models_dir() / "add_sub", repository / "add_sub", ignore=shutil.ignore_patterns("__pycache__"))
    with launch_server(repository, base_port=free_base_port(), name="models-for-tests") as running:
        yield running


@pytest.fixture(scope="session")
def _workbench(free_base_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    repository = tmp_path_factory.mktemp("workbench") / "models"
    shutil.copytree(paths.models_dir() / "add_sub", repository / "add_sub", ignore=shutil.ignore_patterns("__pycache__"))
    with launch_server(repository, base_port=free_base_port(), name="workbench") as running:
        yield running


@pytest.fixture
def workbench(_workbench: Server, tmp_path: Path) -> Iterator[Server]:
    """A server with a copy of add_sub whose files and configuration a test may change: the next one finds it as it was."""
    folder, kept = _workbench.repository / "add_sub", tmp_path / "add_sub as it was"
    shutil.copytree(folder, kept)
    yield _workbench
    shutil.rmtree(folder)
    shutil.copytree(kept, folder)
    _workbench.load("add_sub")


@pytest.fixture(scope="module")
def fleet(free_base_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two servers behind one Envoy, with double and slow, and a model that cannot be loaded. A test that breaks a server mends it."""
    repository = tmp_path_factory.mktemp("fleet") / "models"
    for name in ("double", "slow"):
        shutil.copytree(MODELS_FOR_TESTS / name, repository / name, ignore=shutil.ignore_patterns("__pycache__"))
    (repository / "broken").mkdir()
    (repository / "broken" / "config.pbtxt").write_text('name: "broken"\nbackend: "fortran"\n')
    with pytest.warns(ModelWarning, match="broken"):
        running = launch_fleet(repository, servers=2, base_port=free_base_port())
    with running:
        yield running


@pytest.fixture
def engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engines:
    """No container engine and no GPU, until a test installs stand-ins."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("COURSE_RUN_DIR", str(tmp_path / "run"))
    return Engines(folder, monkeypatch)
