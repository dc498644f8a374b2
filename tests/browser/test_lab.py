"""What a student does in JupyterLab: run, answer, reload, restart, interrupt, and lose JupyterLab altogether."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from helpers import settings
from tests.browser.lab import Lab, Notebook

pytestmark = [pytest.mark.browser, pytest.mark.slow]

FIRST = "notebooks/00_start_here.ipynb"
# Seconds in which everything is gone after JupyterLab was killed, by the course's own promise.
GONE_S = 35


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


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


def _launch(notebook: Notebook) -> int:
    """Run the imports and the launch cell; the pid of the server, as its card says."""
    notebook.run(notebook.find("from helpers import Client"))
    text = notebook.run(notebook.find("launch_server("))
    pid = re.search(r"pid\s+(\d+)", text)
    assert pid, text
    return int(pid[1])


def test_make_lab_is_what_is_started_here() -> None:
    recipe = re.search(r"^lab:\n\t(.+)$", (settings.root() / "Makefile").read_text(), re.MULTILINE)
    assert recipe and "-m helpers lab" in recipe[1]


def test_run_all_on_the_first_notebook(lab: Lab, page: Any, artefacts: Path) -> None:
    page.goto(f"{lab.url}?token={lab.token}")
    page.wait_for_function("() => window.jupyterapp?.shell?.currentWidget?.context?.path", timeout=90_000)
    assert page.evaluate("() => window.jupyterapp.shell.currentWidget.context.path") == FIRST, "make lab opens the first notebook"
    notebook = Notebook(page, lab, FIRST)
    assert notebook.run_all() is True
    cells = notebook.cells()
    assert not [output for cell in cells for output in cell.get("outputs", []) if output["output_type"] == "error"]
    assert all(cell["execution_count"] for cell in cells if cell["cell_type"] == "code")
    assert page.locator("[role=status]:has-text('Not attempted yet')").count() == 2, "two boxes that can be read"
    assert page.locator("img[alt^='Clients on the left']").evaluate("image => image.naturalWidth") > 100, "the picture is shown"
    page.screenshot(path=artefacts / "run-all.png")
    page.locator("a:has-text('Launch a server')").first.click()
    page.wait_for_function("() => window.jupyterapp.shell.currentWidget.context?.path === 'notebooks/01_launch_a_server.ipynb'")


def test_an_exercise_answered_wrong_then_right(lab: Lab, page: Any, artefacts: Path) -> None:
    notebook = Notebook(page, lab, FIRST)
    notebook.run(notebook.find("from helpers import Client"))
    answer, check = notebook.find("z_mass = ____"), notebook.find('exercise("0.1").check')
    notebook.write(answer, "z_mass = 80")
    notebook.run(answer)
    assert "Not yet: 80 GeV is the W boson" in notebook.run(check)
    page.locator("[role=status]:has-text('W boson')").scroll_into_view_if_needed()
    page.screenshot(path=artefacts / "wrong.png")
    notebook.write(answer, "z_mass = 91")
    notebook.run(answer)
    assert "Correct: 91 GeV" in notebook.run(check)
    page.locator("[role=status]:has-text('91.19 GeV')").scroll_into_view_if_needed()
    page.screenshot(path=artefacts / "right.png")
    notebook.write(check, 'exercise("0.1").hint(1)')
    assert 'exercise("0.1").hint(2)' in notebook.run(check)
    page.locator(".jp-RenderedMarkdown:has-text('heavier than the W boson')").wait_for()
    assert '"0.1"' in (lab.work / "progress.json").read_text()


def test_reload_restart_and_interrupt_keep_the_server(lab: Lab, page: Any) -> None:
    notebook = Notebook(page, lab, FIRST)
    pid = _launch(notebook)
    notebook.reload()
    assert _runs(pid), "after a page reload"
    assert _launch(notebook) == pid
    notebook.restart_kernel()
    assert _runs(pid), "after a kernel restart"
    assert _launch(notebook) == pid, "the restarted kernel finds the same server"
    busy = notebook.add("import time\ntime.sleep(120)")
    notebook.begin(busy)
    page.wait_for_function("() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'busy'")
    notebook.command("notebook:interrupt-kernel")
    notebook.wait_until_idle()
    assert any(output.get("ename") == "KeyboardInterrupt" for output in notebook.cells()[busy]["outputs"])
    assert _runs(pid), "after an interrupt"
    notebook.run(notebook.find("client = Client(server)"))
    assert "OUTPUT0" in notebook.run(notebook.find("client.infer(")), "and it still answers"


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes through /proc")
def test_killing_jupyterlab_takes_the_server_along(lab: Lab, page: Any) -> None:
    """Last of all: it ends the JupyterLab that the other tests of this file share."""
    notebook = Notebook(page, lab, FIRST)
    pid = _launch(notebook)
    assert any(str(pid) in process for process in _processes_of(lab.work))
    lab.kill()
    killed = time.monotonic()
    while _processes_of(lab.work) and time.monotonic() < killed + GONE_S:
        time.sleep(0.5)
    assert not _runs(pid), f"the server outlived JupyterLab by {GONE_S} s"
    assert _processes_of(lab.work) == [], "no stub and no supervisor is left"
    os.stat(lab.work / "notebooks")
