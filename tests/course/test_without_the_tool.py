"""Notebooks 07, 08 and 09 where perf_analyzer is hidden: their solutions run to the end, on recorded rows, with servers that are real."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from helpers import settings
from tests.course.notebooks.running import run, text_of

# What must be so when the solutions have run: everything that perf_analyzer would have measured is a recorded row.
RECORDED = {
    "07": """
assert all(row["source"].startswith("recorded: ") for row in [ten, *by_batch.values(), busy, real, shorter, rough])
assert (busy["batch"], busy["concurrency"]) == (10, 8)
assert real["inputs"].endswith("_50_4.json") and shorter["inputs"].endswith("_20_4.json")
assert status == 2 and status.batch == 10
""",
    "08": """
assert all(row["source"].startswith("recorded: ") for row in [*by_batch, *by_load, *alike, baseline, best])
""",
    "09": """
names = ["baseline", "2 instances", "2 instances × 2 threads", "dynamic batching", "TensorRT stanza", "fp16", "int8_static"]
assert [row["experiment"] for row in table] == [*names, "response cache"]
assert len({row["config"] for row in table}) == 8, "each the row of its very configuration"
assert all(row["source"].startswith("recorded: ") for row in [*table, best])
assert table["baseline"]["executed_batch"] == 1 < table["dynamic batching"]["executed_batch"]
assert padded > 1, "the counters are those of the server here"
assert found is None
""",
}
# Cells that the recorded rows do not concern, and that take long: what fewer bits cost in physics, on fewer jets.
_FEWER = ("[256:2256]", "[256:384]")


@pytest.mark.slow
@pytest.mark.parametrize("number", RECORDED)
def test_the_notebook_runs_to_its_end(number: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = os.environ["PATH"].split(os.pathsep)
    monkeypatch.setenv("PATH", os.pathsep.join(folder for folder in folders if not (Path(folder) / "perf_analyzer").exists()))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COURSE_WORK", str(tmp_path / "work"))
    monkeypatch.setenv("COURSE_QUICK", "1")
    for name in ("COURSE_CLIENT_IMAGE", "COURSE_STRICT"):
        monkeypatch.delenv(name, raising=False)
    (solution,) = (settings.root() / "notebooks" / "solutions").glob(f"{number}_*.ipynb")
    notebook = tmp_path / solution.name
    notebook.write_text(solution.read_text(encoding="utf-8").replace(*_FEWER), encoding="utf-8")
    done = run(notebook, tmp_path, then=f"{RECORDED[number]}\nassert server.state() == 'stopped', server")
    assert done.stray_errors() == []
    said = "\n".join(text_of(cell) for cell in done.notebook.cells if cell.cell_type == "code")
    assert said.count("was recorded on another machine") == 1
    if number == "07":
        assert said.count("*** Measurement Settings ***") == 3, "what the tool said, three times"
        assert "Failed to obtain stable measurement" in said
    if number == "09":
        assert "Nothing was searched, because a search measures." in said
    checks = {cell.metadata["exercise"]: text_of(cell) for cell in done.tagged("check")}
    assert all(text.startswith(("✔ Correct", "✘", "?")) or "annot tell" in text for text in checks.values()), checks
