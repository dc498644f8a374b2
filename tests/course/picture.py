"""The picture at the top of the README, made by the course itself: ``python -m tests.course.picture``.

A real JupyterLab, a real server: its card, the dashboard under load, and the sweep of two models in CMS style, put together as one PNG.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from helpers import paths
from tests.course import examine
from tests.course.chromium import chromium
from tests.course.lab import Lab, Notebook

TARGET = "notebooks/source/images/course.png"
# Bytes that the picture may have: pages with it open fast.
MOST_BYTES = 400_000
# Pixels of the picture, and of the rim around its parts.
_WIDTH, _RIM = 1720, 24
# Seconds that the dashboard watches before it is taken: its curves then have a shape.
_WATCH_S = 25

_CELLS = (
    """from helpers import launch_server
from helpers.metrics.dashboard import dashboard
from helpers.measuring.measure import sweep
from helpers.plots import sweep_figure
MODELS = ["particlenet_AK4", "particlenet_AK4_PT"]
server = launch_server("models", load=["add_sub", *MODELS])
by_batch = sweep(server, MODELS, batches=(1, 2, 4, 8, 16, 32), precision=0.05, max_seconds=5)""",
    "server",
    "board = dashboard(server, load='particlenet_AK4')\nboard",
    "sweep_figure(by_batch)",
)


def _part(page: Any, selector: str) -> Image.Image:
    found = page.locator(selector).first
    found.scroll_into_view_if_needed()
    return Image.open(io.BytesIO(found.screenshot())).convert("RGB")


def take(page: Any, lab: Lab) -> tuple[Image.Image, Image.Image, Image.Image]:
    """Run the cells in a new notebook; the card, the dashboard and the figure."""
    # Without a kernel named, JupyterLab would ask for one and wait.
    metadata = {"kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}}
    empty = {"cells": [], "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    (lab.work / "notebooks" / "picture.ipynb").write_text(json.dumps(empty))
    notebook = Notebook(page, lab, "notebooks/picture.ipynb")
    first, card, board, figure = (notebook.add(code) for code in _CELLS)
    for index in (first, card, figure, board):
        notebook.run(index)
    errors = [output for cell in notebook.cells() for output in cell.get("outputs", []) if output["output_type"] == "error"]
    assert errors == [], errors
    for _ in range(3):
        page.locator(".course-concurrency .noUi-handle").press("ArrowRight")
        page.wait_for_timeout(1000 * _WATCH_S / 3)
    cell = "(//div[contains(@class, 'jp-CodeCell')])"
    parts = (
        _part(page, f"xpath={cell}[{card + 1}]//div[contains(@class, 'jp-OutputArea-output')]/div"),
        _part(page, ".jp-OutputArea-output .jupyter-widgets >> nth=0"),
        _part(page, f"xpath={cell}[{figure + 1}]//img"),
    )
    assert examine.texts(page)[1] == []
    notebook.run(notebook.add("board.stop(); server.stop()"))
    notebook.close()
    return parts


def together(card: Image.Image, board: Image.Image, figure: Image.Image) -> Image.Image:
    """Card above dashboard at the left, the figure at the right."""
    half = (_WIDTH - 3 * _RIM) // 2
    card, board, figure = (
        part.resize((half, round(part.height * half / part.width)), Image.Resampling.LANCZOS) for part in (card, board, figure)
    )
    height = max(card.height + _RIM + board.height, figure.height) + 2 * _RIM
    whole = Image.new("RGB", (_WIDTH, height), "white")
    whole.paste(card, (_RIM, _RIM))
    whole.paste(board, (_RIM, 2 * _RIM + card.height))
    whole.paste(figure, (2 * _RIM + half, (height - figure.height) // 2))
    return whole


def main() -> int:
    """Make the picture.

    Returns:
        0, or 1 where there is no Chromium or the picture is too large.
    """
    program = chromium()
    if program is None:
        print("There is no Chromium here. Type: apt-get install chromium", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        lab = Lab(Path(folder), quick=False)
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"])
        try:
            page = browser.new_context(viewport={"width": 1280, "height": 1400}, device_scale_factor=2).new_page()
            picture = together(*take(page, lab))
        finally:
            browser.close()
            lab.stop()
    target = paths.root() / TARGET
    picture.quantize(128, dither=Image.Dither.NONE).save(target, optimize=True)
    print(f"{TARGET}: {picture.width} × {picture.height} pixels, {target.stat().st_size / 1000:.0f} kB")
    return 0 if target.stat().st_size < MOST_BYTES else 1


if __name__ == "__main__":
    sys.exit(main())
