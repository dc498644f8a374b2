"""Losing JupyterLab altogether. Last of these tests, by its name too: it ends the JupyterLab that they share."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.course.browser.lab import Lab, Notebook, launch
from tests.support.processes import alive

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes through /proc"),
]

# Seconds in which everything is gone after JupyterLab was killed, by the course's own promise.
GONE_S = 35


def _processes_of(work: Path) -> list[str]:
    """Command lines of the server and its stubs that belong to this work folder (by their environment)."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            mine = f"COURSE_WORK={work}".encode() in (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if mine and ("tritonserver" in command or "triton_python_backend_stub" in command or "supervisor" in command):
            found.append(f"{entry.name}: {command[:120]}")
    return found


def test_killing_jupyterlab_takes_the_server_along(lab: Lab, page: Any) -> None:
    notebook = Notebook(page, lab, "notebooks/00_start_here.ipynb")
    pid = launch(notebook)
    assert any(str(pid) in process for process in _processes_of(lab.work))
    lab.kill()
    killed = time.monotonic()
    while _processes_of(lab.work) and time.monotonic() < killed + GONE_S:
        time.sleep(0.1)
    assert not alive(pid), f"the server outlived JupyterLab by {GONE_S} s"
    assert _processes_of(lab.work) == [], "no stub and no supervisor is left, of this notebook or of any before"
    assert (lab.work / "notebooks").is_dir()
