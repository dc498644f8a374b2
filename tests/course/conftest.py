"""One Chromium, one page and one JupyterLab for all browser tests of a worker; skipped, with the reason, where there is no browser."""

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
        # And it has no GPU, so that one need not be imitated.
        arguments = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        running = driver.chromium.launch(executable_path=program, args=arguments)
        yield running
        running.close()


@pytest.fixture(scope="session")
def page(browser: Any) -> Iterator[Any]:
    """One page for all tests, as wide as a projector: a new one would have to fetch and compile JupyterLab again."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    yield context.new_page()
    context.close()


@pytest.fixture(scope="session")
def _labs() -> Iterator[list[Lab]]:
    """Those that ran; at the end no server is left of any notebook."""
    labs: list[Lab] = []
    yield labs
    for each in labs:
        each.stop()
        wait_until(lambda each=each: processes_of(each.work) == [], GONE_S)


@pytest.fixture
def lab(browser: Any, _labs: list[Lab], tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """JupyterLab as ``make lab`` starts it, with private inference on: the one that runs, until a test kills it."""
    if not _labs or _labs[-1].process.poll() is not None:
        _labs.append(Lab(tmp_path_factory.mktemp("lab")))
    return _labs[-1]
