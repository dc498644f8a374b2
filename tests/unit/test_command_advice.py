"""What goes wrong with a typed command is answered with something to type there, never with a call in Python."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

import pytest

from helpers import cli
from helpers.__main__ import main
from helpers.cli.advice import in_a_terminal
from helpers.errors import InputError, ModelError, ServerError
from tests.support import ROOT

MISTAKES = (
    ("serve --models /nowhere", "Type: python -m helpers serve$"),
    ("serve --base-port 99999", "Type: python -m helpers serve --base-port 9000"),
    ("serve --runtime slurm", "The runtimes are embedded, .* Type: python -m helpers serve$"),
    ("serve --servers 0", "Type: python -m helpers serve --servers 2"),
    ("serve --listen nowhere", "python -m helpers serve --listen all"),
    ("infer -m add_sub -u localhost:1", "To start a server, type: python -m helpers serve$"),
    ("infer -m add_sub -u here:there", 'Type for example "localhost:9001"'),
    ("infer -m add_sub -u grpcs://localhost:1 --ca nowhere.pem", "type: --ca ca.pem"),
    ("metrics -u localhost:1", "Type: python -m helpers serve$"),
    ("sweep -m add_sub -u localhost:1", "To start a server, type: python -m helpers serve$"),
    ("quantize nowhere", "Type: python -m helpers quantize --help"),
    ("reset 77", "Type for example: make reset NB=03"),
    ("scoreboard nowhere.json", "Expected a file that the challenge wrote"),
)


@pytest.mark.parametrize(("command", "words"), MISTAKES, ids=lambda text: text if text[0].islower() else "")
def test_a_mistake_is_answered_in_the_terminal_s_language(command: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command.split()) == 1
    said = capsys.readouterr().err
    assert re.search(words, said.strip()), said
    assert not re.search(r"\w\((?!s\))|\w\[\w", re.sub(r"\[Errno \d+\]|ipv4:\S+", "", said)), f"Python in a terminal: {said}"


HELP = "Type: python -m helpers infer --help"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ModelError("Not loaded.", 'To load it, type: server.load("x")'), "Not loaded. To load it, type: python -m helpers serve"),
        (ServerError("It died.", "", "Type: server = server.restart()"), f"It died. {HELP}"),
        (InputError("No float.", "Expected FP32.", "Type: x.astype(np.float32)"), f"No float. Expected FP32. {HELP}"),
        (InputError("No port.", "", "Type: make doctor   (or ask)"), "No port. Type: make doctor   (or ask)"),
    ],
)
def test_what_has_no_command_of_its_own_leads_to_the_help(error: ServerError, words: str) -> None:
    assert in_a_terminal(error, "infer") == words


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
