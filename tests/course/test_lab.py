"""What else a student does in JupyterLab: follow a link, reload, restart, interrupt, ask for a hint."""

from __future__ import annotations

import re
from typing import Any

import pytest

from helpers import paths
from tests.course import examine
from tests.course.lab import START_S, Lab, Notebook, launch
from tests.support.processes import alive

pytestmark = [pytest.mark.browser, pytest.mark.slow]

# Each kind of answer that a check can give.
OUTCOMES = """
from helpers.course.judge import Kind, Outcome
for kind in Kind:
    display(Outcome(kind, "why `so` (Attempt 2.)"))
"""
FIRST = "notebooks/00_start_here.ipynb"


def test_make_lab_is_what_is_started_here() -> None:
    recipe = re.search(r"^lab:\n\t(.+)$", (paths.root() / "Makefile").read_text(), re.MULTILINE)
    assert recipe and "-m helpers lab" in recipe[1]


def test_make_lab_opens_the_first_notebook(lab: Lab, page: Any) -> None:
    lab.forget_windows()
    page.goto(f"{lab.url}?token={lab.token}")
    page.wait_for_function("() => window.jupyterapp?.shell?.currentWidget?.context?.path", timeout=1000 * START_S)
    assert page.evaluate("() => window.jupyterapp.shell.currentWidget.context.path") == FIRST
    notebook = Notebook(page, lab, FIRST)
    assert page.locator("img[alt^='Clients on the left']").evaluate("image => image.naturalWidth") > 100, "the picture is shown"
    page.locator("a:has-text('Launch a server')").first.click()
    page.wait_for_function("() => window.jupyterapp.shell.currentWidget.context?.path === 'notebooks/01_launch_a_server.ipynb'")
    notebook.path = "notebooks/01_launch_a_server.ipynb"
    notebook.wait_until_idle()
    notebook.close()


def test_reload_restart_and_interrupt_keep_the_server(lab: Lab, page: Any) -> None:
    notebook = Notebook(page, lab, FIRST)
    pid = launch(notebook)
    notebook.reload()
    assert alive(pid), "after a page reload"
    assert launch(notebook) == pid
    notebook.restart_kernel()
    assert alive(pid), "after a kernel restart"
    assert launch(notebook) == pid, "the restarted kernel finds the same server"
    busy = notebook.add("import time\ntime.sleep(3600)")
    notebook.begin(busy)
    page.wait_for_function("() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'busy'")
    notebook.command("notebook:interrupt-kernel")
    notebook.wait_until_idle()
    assert any(output.get("ename") == "KeyboardInterrupt" for output in notebook.cells()[busy]["outputs"])
    assert alive(pid), "after an interrupt"
    notebook.run(notebook.find("client = Client(server)"))
    assert "OUTPUT0" in notebook.run(notebook.find("client.infer(")), "and it still answers"
    check = notebook.find('exercise("0.1").check')
    notebook.run(notebook.find("from helpers.course import ____"))
    notebook.write(check, 'exercise("0.1").hint(1)')
    assert "Hint 1 of" in notebook.run(check)
    page.locator(".jp-RenderedMarkdown:has-text('heavier than the W boson')").wait_for()
    # What else a check can say than in the notebooks that are solved.
    notebook.run_well(OUTCOMES)
    seen, poor = examine.contrast(page)
    assert seen > 20 and poor == [], poor
    notebook.close()
