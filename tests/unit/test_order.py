"""A worker gets a whole group of tests: what they share is started once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.order import group, servers

_FILE = """
import os, pathlib, pytest
@pytest.mark.parametrize("number", range(8))
def test_it(number):
    with open(pathlib.Path(__file__).with_suffix(".workers"), "a") as file:
        print(os.environ["PYTEST_XDIST_WORKER"], file=file)
"""


def test_those_that_share_a_server_are_a_group() -> None:
    assert group("tests/served/backends/test_torch.py::test_a[1]") == group("tests/served/backends/test_gpu.py::test_b") == "backends"
    solved = [group(f"tests/course/test_notebooks.py::test_a_student_solves_it[{number:02}_x]") for number in range(11)]
    assert solved == 6 * ["jupyterlab"] + 5 * ["jupyterlab 2"], "two JupyterLabs"
    assert len({group(f"tests/course/test_notebooks.py::test_blanks_x[{number:02}]") for number in range(11)}) == 11
    assert group("tests/unit/test_order.py::test_a[tests/served/backends/]") == "unit/test_order.py"


def test_groups_that_ask_a_server_of_the_whole_run_are_known(request: pytest.FixtureRequest) -> None:
    """Of all that was collected beside this test."""
    fixtures = {"server": "the course's models", "models_server": "models for tests"}
    for item in request.session.items:
        known = item._fixtureinfo.name2fixturedefs
        asked = {server for name, server in fixtures.items() if name in known and known[name][-1].baseid == "tests"}
        assert asked <= servers(group(item.nodeid)), item.nodeid


def test_two_workers_share_no_file(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"test_{name}.py").write_text(_FILE)
    (tmp_path / "conftest.py").write_text("from tests.support.order import pytest_collection_modifyitems, pytest_xdist_make_scheduler\n")
    command = [sys.executable, "-m", "pytest", "-q", "-n2", "-p", "no:cacheprovider", f"--rootdir={tmp_path}"]
    done = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False)
    assert "24 passed" in done.stdout, done.stdout + done.stderr
    workers = [set((tmp_path / f"test_{name}.workers").read_text().split()) for name in "abc"]
    assert all(len(each) == 1 for each in workers), workers
    assert len(set.union(*workers)) == 2
