"""``python -m helpers COMMAND``: the course for people in a terminal.

Each command is a module in :mod:`helpers.commands` with ``add_arguments(parser)`` and ``run(args) -> int``; it is imported
only when it is asked for, so that ``doctor`` and ``install-server`` work before anything is installed. A module with
``PASSES_ON = True`` gets the arguments that it does not know in ``args.others``, for the program that it starts.
"""

from __future__ import annotations

import argparse
import importlib
import platform
import sys

from helpers import preflight
from helpers.commands.advice import in_a_terminal
from helpers.errors import CourseError
from helpers.terminal import write_whatever_the_terminal

# Command -> one line of help; its module has the same name with "_" for "-".
COMMANDS = {
    "doctor": "is this machine ready, and if not, what to type",
    "install-server": "make the embedded server's environment",
    "lab": "open the course in JupyterLab",
    "hand-out": "your copies of the notebooks, as lab makes them, without JupyterLab",
    "reset": "bring back a pristine notebook, yours stays beside it",
    "demo": "the course without a browser, in two minutes",
    "serve": "launch a server and keep it until Ctrl-C",
    "infer": "send one request to a model and print the answer",
    "metrics": "print a server's counters, or what changed in a while",
    "perf_analyzer": "NVIDIA's load generator, with its own arguments",
    "sweep": "measure models over batch sizes and concurrencies, and draw the figure",
    "tune": "search the configuration that serves a traffic best within a latency budget",
    "quantize": "make variants of a model in lower precision",
    "scoreboard": "the challenge's scoreboard, one's own or that of a class",
    "lint": "ruff, codespell and clean notebooks, for those who change the course",
}


def parser(command: str | None) -> argparse.ArgumentParser:
    """The parser, with the arguments of one command."""
    main_parser = argparse.ArgumentParser(
        prog="python -m helpers", description="Serve machine-learning models with Triton: the course's tools."
    )
    commands = main_parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, help_line in COMMANDS.items():
        one = commands.add_parser(name, help=help_line, description=f"{help_line[0].upper()}{help_line[1:]}.")
        if name == command:
            importlib.import_module(f"helpers.commands.{name.replace('-', '_')}").add_arguments(one)
    return main_parser


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status: 0 done, 1 a :class:`~helpers.errors.CourseError` (its paragraph was printed), 2 wrong arguments (or
        what the command itself says), 130 interrupted.
    """
    if sys.version_info < min(preflight.VERSIONS):
        print(f"This is Python {platform.python_version()}, and the course needs 3.11 or 3.12. {preflight.advice()}", file=sys.stderr)
        return 1
    write_whatever_the_terminal()
    arguments = sys.argv[1:] if arguments is None else arguments
    command = next((argument for argument in arguments if not argument.startswith("-")), None)
    try:
        known = parser(command)
        options, options.others = known.parse_known_args(arguments)
        module = importlib.import_module(f"helpers.commands.{options.command.replace('-', '_')}")
        if options.others and not getattr(module, "PASSES_ON", False):
            known.error(f"unrecognized arguments: {' '.join(options.others)}")
        return module.run(options)
    except CourseError as error:
        print(in_a_terminal(error, command or ""), file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("helpers"):
            raise
        print(
            f"The package {error.name} is not installed in {sys.executable}. Type: make setup   (then .venv/bin/python -m helpers)",
            file=sys.stderr,
        )
        return 1
    except BrokenPipeError:
        # The reader of a pipe, such as head, has seen enough.
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
