"""Losing JupyterLab altogether: it is killed, and the next test that needs one starts another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.course.lab import GONE_S, Lab, Notebook, launch, processes_of
from tests.support.processes import alive, wait_until

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes through /proc"),
]


def test_killing_jupyterlab_takes_the_server_along(lab: Lab, page: Any) -> None:
    notebook = Notebook(page, lab, "notebooks/00_start_here.ipynb")
    pid = launch(notebook)
    assert any(process.startswith(f"{pid}: ") for process in processes_of(lab.work))
    lab.kill()
    wait_until(lambda: not alive(pid), GONE_S)
    wait_until(lambda: processes_of(lab.work) == [], GONE_S)
    assert (lab.work / "notebooks").is_dir()
