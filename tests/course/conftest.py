"""One Chromium and one JupyterLab for all browser tests of a worker; skipped, with the reason, where there is no browser."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.course.chromium import chromium
from tests.course.lab import GONE_S, Lab, processes_of
from tests.support.processes import wait_until


@pytest.fixture(scope="session")
def artefacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots stay: ``COURSE_ARTEFACTS``, else a folder of this run."""
    named = os.environ.get("COURSE_ARTEFACTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """The system's Chromium, driven by Playwright."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    program = chromium()
    if program is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        # A root user (containers, CI) has no sandbox; /dev/shm is small there, too.
        running = driver.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield running
        running.close()


@pytest.fixture(scope="session")
def lab(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab as ``make lab`` starts it, with private inference on; at its end no server is left of any notebook."""
    running = Lab(tmp_path_factory.mktemp("lab"))
    yield running
    running.stop()
    wait_until(lambda: processes_of(running.work) == [], GONE_S)


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A fresh page, as wide as a projector."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    yield context.new_page()
    context.close()
