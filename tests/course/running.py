"""Run a notebook as JupyterLab would, cell by cell, with the time of each cell."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from helpers.terminal import MARK

# Seconds against hanging: for a cell, and for a kernel to start.
CELL_TIMEOUT_S = 600
KERNEL_TIMEOUT_S = 300


class Run:
    """An executed notebook.

    Attributes:
        notebook: with outputs.
        seconds: time of each code cell, by its index.
    """

    def __init__(self, notebook: NotebookNode, seconds: dict[int, float]) -> None:
        self.notebook = notebook
        self.seconds = seconds

    def tagged(self, tag: str) -> list[NotebookNode]:
        """The cells with a tag."""
        return [cell for cell in self.notebook.cells if tag in cell.metadata.get("tags", [])]

    def stray_stderr(self) -> list[str]:
        """What went to stderr: a notebook of the course writes nothing there."""
        return [f"cell {i}: {text}" for i, kind, text in self._outputs() if kind == "stderr"]

    def stray_errors(self) -> list[str]:
        """Errors in cells that are not meant to fail."""
        meant = {i for i, cell in enumerate(self.notebook.cells) if "raises-exception" in cell.metadata.get("tags", [])}
        return [f"cell {i}: {text}" for i, kind, text in self._outputs() if kind == "error" and i not in meant]

    def _outputs(self) -> list[tuple[int, str, str]]:
        found = []
        for i, cell in enumerate(self.notebook.cells):
            for output in cell.get("outputs", []):
                if output.output_type == "stream":
                    found.append((i, output.name, output.text))
                elif output.output_type == "error":
                    found.append((i, "error", f"{output.ename}: {output.evalue}"))
        return found


def text_of(cell: NotebookNode) -> str:
    """All that a cell shows, as plain text; without the line that says how far a long step is."""
    outputs = [output for output in cell.outputs if not output.get("metadata", {}).get(MARK)]
    return "\n".join(output.get("text") or output.get("data", {}).get("text/plain") or output.get("evalue", "") for output in outputs)


def run(path: Path, folder: Path, *, then: str = "") -> Run:
    """Execute a notebook from top to bottom.

    Args:
        path: the notebook.
        folder: the current folder of its kernel; the executed notebook and its timings are written there.
        then: Python to run in the same kernel afterwards; an error there is an error of the run.
    """
    notebook = nbformat.read(path, as_version=4)
    if then:
        notebook.cells.append(nbformat.v4.new_code_cell(then))
    started: dict[int, float] = {}
    seconds: dict[int, float] = {}

    def begin(cell: NotebookNode, cell_index: int, **_: Any) -> None:
        started[cell_index] = time.monotonic()

    def end(cell: NotebookNode, cell_index: int, **_: Any) -> None:
        seconds[cell_index] = round(time.monotonic() - started[cell_index], 3)

    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT_S,
        startup_timeout=KERNEL_TIMEOUT_S,
        resources={"metadata": {"path": str(folder)}},
        on_cell_execute=begin,
        on_cell_executed=end,
    )
    try:
        client.execute()
    finally:
        nbformat.write(notebook, folder / f"{path.parent.name}-{path.name}")
        (folder / f"{path.parent.name}-{path.stem}-seconds.json").write_text(json.dumps(seconds, indent=1))
    return Run(notebook, seconds)
