"""The dashboard of notebook 06: it moves while cells run, its sliders change what it shows, and it ends with the server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tests.course import examine
from tests.course.lab import POLLING_MS, Notebook
from tests.support.processes import PATIENCE_S, wait_until

ROW = ".course-table tr[data-model='particlenet_AK4']"
# Milliseconds against hanging, within which the dashboard must have reacted.
REACT_MS = 1000 * PATIENCE_S


def _wait(page: Any, quantity: str, condition: str) -> None:
    """Wait until a JavaScript condition on ``value`` holds for one of the row's numbers; ``number(quantity)`` is another of them."""
    page.wait_for_function(
        f"""([row, quantity]) => {{
          const number = (name) => Number(document.querySelector(`${{row}} td[data-quantity='${{name}}'] b`)?.textContent);
          const value = number(quantity);
          return {condition};
        }}""",
        arg=[ROW, quantity],
        timeout=REACT_MS,
        polling=POLLING_MS,
    )


def _curve(page: Any, quantity: str) -> str:
    return page.locator(f"{ROW} td[data-quantity='{quantity}'] svg").inner_html()


def _press(page: Any, slider: str, key: str, times: int, readout: str) -> None:
    handle = page.locator(f".course-{slider} .noUi-handle")
    handle.focus()
    for _ in range(times):
        handle.press(key)
    page.locator(f".course-{slider} .widget-readout:has-text('{readout}')").wait_for(timeout=REACT_MS)


def _scroll(page: Any, selector: str) -> None:
    page.locator(selector).first.scroll_into_view_if_needed()


def look_and_touch(notebook: Notebook, artefacts: Path) -> None:
    """Start the dashboard of the running server, move its sliders, disturb it, and take the server away.

    Args:
        notebook: notebook 06, with a server that runs.
        artefacts: where screenshots go.
    """
    page = notebook.page
    notebook.run(notebook.find("board = dashboard("))
    _wait(page, "requests_per_s", "value > 20")
    _wait(page, "inferences_per_execution", "value === 1")
    before = {quantity: _curve(page, quantity) for quantity in ("requests_per_s", "inferences_per_execution", "queue_us")}
    _scroll(page, ".course-table")
    page.screenshot(path=artefacts / "dashboard-one-at-a-time.png")

    _press(page, "concurrency", "ArrowRight", 11, "12")
    _wait(page, "inferences_per_execution", "value > 1.3")
    _wait(page, "queue_us", "value > 0.1")
    _wait(page, "throughput_infer_per_s", "Math.abs(value / number('requests_per_s') - 1) < 0.05")
    for quantity, curve in before.items():
        assert _curve(page, quantity) != curve, f"the curve of {quantity} has moved"

    _press(page, "batch", "ArrowRight", 7, "8")
    _wait(page, "inferences_per_execution", "value >= 8")
    # Rates are means over a while: for a moment both batch sizes are among them.
    _wait(page, "throughput_infer_per_s", "Math.abs(value / number('requests_per_s') - 8) < 0.4")
    _scroll(page, ".course-table")
    page.screenshot(path=artefacts / "dashboard-twelve-at-once.png")
    # Nothing is sent any more: what follows looks at the page.
    _press(page, "concurrency", "Home", 1, "0")

    page.evaluate("() => window.jupyterapp.shell.expandLeft()")
    assert _all_columns_seen(page), "no column is out of sight, with the file browser open"
    page.evaluate("() => window.jupyterapp.shell.collapseLeft()")
    _fits_a_projector(page, artefacts)
    for theme in examine.THEMES:
        examine.use_theme(page, theme)
        assert examine.texts(page)[1] == [], theme
        page.screenshot(path=artefacts / f"dashboard-{theme[11:].lower()}.png")

    _while_a_cell_is_busy(notebook, page)
    _stop_and_start(notebook, page)
    _stop_the_server(notebook, page, artefacts)


def _all_columns_seen(page: Any) -> bool:
    return bool(page.locator(".course-table .course-dashboard").evaluate("shown => shown.scrollWidth <= shown.clientWidth"))


def _fits_a_projector(page: Any, artefacts: Path) -> None:
    """At 1280×720 and 125 % zoom, which are 1024×576 CSS pixels: the controls in one row, all columns seen."""
    before = page.viewport_size
    page.set_viewport_size(examine.PROJECTOR)
    _scroll(page, ".course-table")
    middles = page.evaluate(
        """() => ['stop', 'batch', 'concurrency'].map(name => {
          const box = document.querySelector(`.course-${name}`).getBoundingClientRect();
          return box.top + box.height / 2;
        })"""
    )
    page.screenshot(path=artefacts / "dashboard-projector.png")
    assert max(middles) - min(middles) < 5, middles
    assert _all_columns_seen(page)
    page.set_viewport_size(before)


def _while_a_cell_is_busy(notebook: Notebook, page: Any) -> None:
    """A student's own computation does not stop the dashboard."""
    status = "() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status"
    notebook.begin(notebook.add("try:\n    while True:\n        sum(range(1000))\nexcept KeyboardInterrupt:\n    pass"))
    page.wait_for_function(f"{status} === 'busy'")
    seen: set[str] = set()

    def moved() -> bool:
        seen.add(page.locator(".course-table caption").inner_text())
        return len(seen) >= 3

    wait_until(moved)
    assert page.evaluate(status) == "busy"
    notebook.command("notebook:interrupt-kernel")
    notebook.wait_until_idle()


def _stop_and_start(notebook: Notebook, page: Any) -> None:
    page.locator("button.course-stop").click()
    page.locator(".course-state:has-text('Stopped')").wait_for(timeout=REACT_MS)
    caption = page.locator(".course-table caption").inner_text()
    sent = page.locator(".course-load-state").inner_text()
    page.wait_for_timeout(1500)
    assert page.locator(".course-table caption").inner_text() == caption, "nothing moves any more"
    assert page.locator(".course-load-state").inner_text() == sent and re.search(r"[1-9]\d* requests sent, 0 failed", sent), sent
    notebook.run(notebook.find("board = dashboard("))
    page.locator(".course-state:has-text('Running')").wait_for(timeout=REACT_MS)
    _wait(page, "requests_per_s", "value > 0")


def _stop_the_server(notebook: Notebook, page: Any, artefacts: Path) -> None:
    """The last cell would stop the dashboard first; here the server goes away under it."""
    notebook.run(notebook.add("server.stop()"))
    page.locator(".course-state:has-text('The server was stopped')").wait_for(timeout=REACT_MS)
    _scroll(page, ".course-state")
    page.screenshot(path=artefacts / "dashboard-server-gone.png")
    notebook.run(notebook.find("board.stop()"))
    assert not [output for cell in notebook.cells() for output in cell.get("outputs", []) if output["output_type"] == "error"]
