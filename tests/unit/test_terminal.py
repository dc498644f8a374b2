"""What commands print, on terminals and in pipes of every encoding."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from helpers.measuring.table import Rows
from helpers.paths import read_lines
from helpers.tables import as_text
from helpers.terminal import MARK
from tests.course.running import run

_ROOT = Path(__file__).parents[2]
_SAY = (
    "import sys\nfrom helpers.terminal import write_whatever_the_terminal\nwrite_whatever_the_terminal()\n"
    "text = '● running ✔ ✖ … – → ≤ ± µ é ß Ж 漢 \\U0001f600 \\udcff end'\n"
    "print(text)\nprint(text, file=sys.stderr)"
)
_ENCODINGS = ["ascii", "latin-1", "iso8859-15", "cp1252", "koi8-r", "euc-jp", "utf-8", "ascii:strict", "latin-1:strict"]


def _run(code: list[str], encoding: str) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    return subprocess.run([sys.executable, *code], cwd=_ROOT, env=environment, capture_output=True, check=False, timeout=120)


@pytest.mark.parametrize("encoding", _ENCODINGS)
def test_every_text_can_be_printed(encoding: str) -> None:
    done = _run(["-c", _SAY], encoding)
    assert done.returncode == 0, done.stderr
    for said in (done.stdout, done.stderr):
        text = said.decode(encoding.partition(":")[0])
        assert text.rstrip().endswith("end")
        assert " running " in text
        if encoding == "utf-8":
            assert text.startswith("● running ✔ ✖ … – → ≤ ± µ é ß Ж 漢 \U0001f600 ? end")


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["serve", "--dry-run"],
        ["serve", "--models", "no such – folder"],
        ["serve", "--runtime", "✖"],
        ["métrics"],
    ],
)
def test_commands_say_what_they_have_to_say(words: list[str]) -> None:
    """What other encodings lack is above; a command only has to ask for it."""
    done = _run(["-m", "helpers", *words], "ascii")
    assert done.returncode in (0, 1, 2)
    assert b"Traceback" not in done.stderr
    assert done.stdout or done.stderr


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")


def _widest(text: str) -> int:
    return max(map(len, text.splitlines()))


def test_a_sweep_fits_into_80_columns(narrow: None) -> None:
    rows = read_lines(_ROOT / "notebooks" / "data" / "recorded_sweep.jsonl")
    one_model = [row for row in rows if row["model"] == "particlenet_AK4" and row["inputs"] == "random" and row["concurrency"] == 1]
    text = repr(Rows.of(one_model))
    assert len(one_model) >= 6 and _widest(text) <= 80 and "1067 ± 19" in text
    with_concurrency = repr(Rows.of(rows[:6] + [row for row in rows[:20] if row["concurrency"] > 1]))
    assert "concurrency" in with_concurrency and _widest(with_concurrency) <= 100


def test_a_reason_of_several_lines_stays_in_its_row() -> None:
    lines = as_text([{"model": "a", "n": 1, "why": "first\n  second"}, {"model": "longer", "n": None, "why": ""}]).splitlines()
    assert lines == ["model   n  why", "------  -  ------------", "a       1  first second", "longer"]


CELLS = """
import time
from helpers import terminal
from helpers.terminal import Progress
terminal.SHOWN_AFTER_S = terminal.EVERY_S = 0.05
###
with Progress("counting", 3, "sheep") as outer:
    for _ in range(3):
        with Progress("within") as inner:
            time.sleep(0.2)
        outer.add()
###
terminal.SHOWN_AFTER_S = 60
with Progress("a moment"):
    pass
###
terminal.SHOWN_AFTER_S = 0.0
with Progress(lambda: "half a step"):
    time.sleep(0.2)
    raise KeyError("stop")
###
with Progress("again"):
    time.sleep(0.2)
"""


def test_a_long_step_is_one_line_in_a_cell_that_says_how_far_it_is(tmp_path: Path) -> None:
    cells = [nbformat.v4.new_code_cell(code.strip()) for code in CELLS.split("###")]
    cells[3].metadata.tags = ["raises-exception"]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "steps.ipynb")
    done = run(tmp_path / "steps.ipynb", tmp_path).notebook
    shown = [[output.data for output in cell.outputs if output.get("metadata", {}).get(MARK)] for cell in done.cells]
    assert list(map(len, shown)) == [0, 1, 0, 1, 1]
    assert re.fullmatch(r"counting, 3 of 3 sheep: \d+ s", shown[1][0]["text/plain"])
    assert re.fullmatch(r"half a step: \d+ s", shown[3][0]["text/plain"])
    assert re.fullmatch(r"<small>again: \d+ s</small>", shown[4][0]["text/html"])
