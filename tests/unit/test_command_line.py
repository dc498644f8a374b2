"""What goes wrong with a typed command, and its help."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

import pytest

from helpers import cli
from helpers.__main__ import main
from tests.support import ROOT

MISTAKES = (
    ("serve --models /nowhere", "no model repository"),
    ("serve --base-port 99999", "base_port=9000"),
    ("serve --runtime slurm", "The runtimes are embedded, "),
    ("serve --servers 0", "servers=2"),
    ("serve --listen nowhere", 'listen="all"'),
    ("infer -m add_sub -u localhost:1", r"\(in a terminal: python -m helpers serve\)$"),
    ("infer -m add_sub -u here:there", 'such as "localhost:9001"'),
    ("metrics -u localhost:1", r"\(in a terminal: python -m helpers serve\)$"),
    ("quantize nowhere", "nowhere"),
    ("reset 77", "Type for example: make reset NB=03"),
    ("scoreboard nowhere.json", "Expected a file that the challenge wrote"),
)


@pytest.mark.parametrize(("command", "words"), MISTAKES, ids=lambda text: text if text[0].islower() else "")
def test_a_mistake_is_answered_in_one_paragraph(command: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command.split()) == 1
    said = capsys.readouterr().err.strip()
    assert len(said.splitlines()) == 1 and re.search(words, said), said


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_fits_a_terminal_and_ends_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main([command, "--help"])
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    example = re.search(r"Example:\n  python -m helpers (.+)\n$", said)
    assert example and example[1].split()[0] == command
    options, others = cli.parser(command).parse_known_args(example[1].split())
    assert options.command == command
    assert not others or command in cli.PASS_ON


def test_help_needs_nothing_that_must_be_installed() -> None:
    """Nor does it wait for what the commands import."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom helpers.cli import main\n"
    code += "try: main(['--help'])\nexcept SystemExit: print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = set(ast.literal_eval(done.stdout.splitlines()[-1]))
    assert not {"numpy", "tritonclient", "subprocess", "difflib", "helpers.paths"} & loaded
