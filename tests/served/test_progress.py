"""What may take long says in a notebook what it does, and for how long; here from the first moment on, so that no clock decides."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from helpers.terminal import MARK
from tests.course.running import run

# What takes over five seconds in some notebook, on a quiet machine or a busy one: a cell for each, and what its line begins with.
SLOW = {
    'server = launch_server("work/models", base_port={port})': "starting the server",
    'server.load("particlenet_AK4")': "loading particlenet_AK4",
    'server.reload("particlenet_AK4")': "loading particlenet_AK4",
    'scores = jets.Tagger(Client(server), "particlenet_AK4").tag(jets.read("ak4")[:20], batch=10)': "particlenet_AK4 answers, ",
    'measure(server, "add_sub", max_seconds=0.1)': "measuring add_sub, batch 1",
    'measure_in_turn(server, "add_sub", {{}}, {{"concurrency": 2}}, turns=1)': "measuring 2 loads in turn, ",
    'sweep(server, "add_sub", (1,), (1, 2), max_seconds=0.1)': "sweep, ",
    'Experiments(server, "add_sub").measure("baseline")': "measuring 'baseline', ",
    'tune(server, "add_sub", concurrency=1, budget_ms=1e4)': "add_sub: ",
    'precision.make("particlenet_AK4", ["fp16"])': "making particlenet_AK4 compute with fewer bits",
    "server.stop()": "stopping the server",
}
FIRST = """
from helpers import Client, jets, launch_server, measure, measure_in_turn, precision, repository, sweep, terminal, tune
from helpers.measuring.experiments import Experiments
terminal.SHOWN_AFTER_S = 0
for model in ("add_sub", "particlenet_AK4"):
    repository.checkout(model)
repository.change_config("particlenet_AK4", model_warmup=None)
"""


@pytest.mark.nightly
def test_what_takes_long_says_what_it_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_base_port) -> None:
    monkeypatch.setenv("COURSE_WORK", str(tmp_path / "work"))
    monkeypatch.setenv("COURSE_QUICK", "1")
    port = free_base_port()
    cells = [FIRST, *(code.format(port=port) for code in SLOW)]
    notebook = nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, cells)))
    nbformat.write(notebook, tmp_path / "long.ipynb")
    done = run(tmp_path / "long.ipynb", tmp_path)
    for cell, words in zip(done.notebook.cells[1:], SLOW.values(), strict=True):
        lines = [output.data["text/plain"] for output in cell.outputs if output.get("metadata", {}).get(MARK)]
        assert lines and lines[0].startswith(words) and re.search(r": \d+ s$", lines[0]), f"{cell.source}: {lines}"
