"""What commands print, on terminals and in pipes of every encoding."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
        if encoding.startswith(("ascii", "latin-1")):
            assert text.startswith("* running + x ... - -> <= ")
        if encoding == "utf-8":
            assert text.startswith("● running ✔ ✖ … – → ≤ ± µ é ß Ж 漢 \U0001f600 ? end")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "koi8-r"])
@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["doctor", "--help"],
        ["serve", "--dry-run"],
        ["serve", "--models", "no such – folder"],
        ["serve", "--runtime", "✖"],
        ["métrics"],
    ],
)
def test_commands_say_what_they_have_to_say(words: list[str], encoding: str) -> None:
    done = _run(["-m", "helpers", *words], encoding)
    assert done.returncode in (0, 1, 2)
    assert b"Traceback" not in done.stderr
    assert done.stdout or done.stderr
