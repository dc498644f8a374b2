"""``python -m helpers COMMAND``: the course for people in a terminal.

A command is a function in one of the modules beside this one; :mod:`helpers.cli.options` says what it takes. A module is imported only
when one of its commands runs, and this one needs the standard library alone: ``doctor`` and ``install-server`` work before anything is
installed.
"""

from __future__ import annotations

import argparse
import importlib
import sys

from helpers.cli import options
from helpers.errors import CourseError
from helpers.terminal import write_whatever_the_terminal

# Command -> its module, one line of help, an example.
COMMANDS = {
    "doctor": ("tools", "is this machine ready, and if not, what to type", "doctor --full"),
    "install-server": ("tools", "make the embedded server's environment", "install-server --without-torch"),
    "lab": ("tools", "open the course in JupyterLab", "lab --no-browser --port=8899"),
    "hand-out": ("tools", "your copies of the notebooks, as lab makes them", "hand-out"),
    "reset": ("tools", "bring back a pristine notebook, yours stays beside it", "reset 03"),
    "serve": ("serve", "launch a server and keep it until Ctrl-C", "serve --base-port 9300"),
    "infer": ("infer", "send one request to a model and print the answer", "infer -m add_sub -u localhost:9001"),
    "metrics": ("tools", "print a server's counters, or what changed in a while", "metrics -u localhost:9002 --watch 2"),
    "perf_analyzer": ("tools", "NVIDIA's load generator, with its own arguments", "perf_analyzer -m add_sub -u localhost:9001 -i grpc"),
    "sweep": ("measure", "measure models over batch sizes and concurrencies", "sweep -m particlenet_PT --batch 1 8 --concurrency 1 4"),
    "tune": ("measure", "find the best configuration within a latency budget", "tune -m particlenet_AK4 --budget 20"),
    "quantize": ("measure", "make variants of a model in lower precision", "quantize particlenet_AK4"),
    "scoreboard": ("tools", "the challenge's scoreboard, your own or a class's", "scoreboard work/scoreboard.json"),
}
# They get the arguments that they do not know in ``args.others``, for the program that they start; what their help says of that.
PASS_ON = {"lab": " Other options go to JupyterLab.", "perf_analyzer": " They are passed on."}


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help of at most 80 columns, with the example on a line of its own."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26, width=79)


def parser(command: str | None) -> argparse.ArgumentParser:
    """Return the parser, with the arguments of one command."""
    main_parser = argparse.ArgumentParser(
        prog="python -m helpers",
        description="Serve machine-learning models with Triton: the course's tools.",
        epilog="More on one of them, with an example: python -m helpers COMMAND --help",
        formatter_class=_Help,
    )
    commands = main_parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, line, example) in COMMANDS.items():
        text = f"{line[0].upper()}{line[1:]}.{PASS_ON.get(name, '')}"
        one = commands.add_parser(
            name, help=line, description=text, epilog=f"Example:\n  python -m helpers {example}", formatter_class=_Help
        )
        if name == command:
            options.add(one, name)
    return main_parser


def _run(given: argparse.Namespace) -> int:
    module = importlib.import_module(f"helpers.cli.{COMMANDS[given.command][0]}")
    return int(getattr(module, given.command.replace("-", "_"))(given))


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status: 0 done, 1 a :class:`~helpers.errors.CourseError` (its paragraph was printed), 2 wrong arguments (or
        what the command itself says), 130 interrupted.
    """
    if not (3, 11) <= sys.version_info < (3, 13):
        from helpers.setup import bootstrap

        version = ".".join(map(str, sys.version_info[:3]))
        print(f"This is Python {version}, and the course needs 3.11 or 3.12. {bootstrap.advice()}", file=sys.stderr)
        return 1
    write_whatever_the_terminal()
    arguments = sys.argv[1:] if arguments is None else arguments
    command = next((argument for argument in arguments if not argument.startswith("-")), None)
    try:
        known = parser(command)
        given, others = known.parse_known_args(arguments)
        given.others = others
        if given.others and given.command not in PASS_ON:
            known.error(f"unrecognized arguments: {' '.join(given.others)}")
        return _run(given)
    except CourseError as error:
        from helpers.cli.advice import in_a_terminal

        print(in_a_terminal(error, command or ""), file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("helpers"):
            raise
        todo = "Type: make setup   (then .venv/bin/python -m helpers)"
        print(f"The package {error.name} is not installed in {sys.executable}. {todo}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader of a pipe, such as head, has seen enough.
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
