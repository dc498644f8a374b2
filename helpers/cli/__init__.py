"""``python -m helpers COMMAND``: the course for people in a terminal.

A command is a function in one of the modules beside this one, which is imported only when it runs; this one needs the standard library
alone: ``doctor`` and ``install-server`` work before anything is installed.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import Any

from helpers.errors import CourseError
from helpers.terminal import write_whatever_the_terminal

# Command -> its module, one line of help, an example.
COMMANDS = {
    "doctor": ("tools", "is this machine ready, and if not, what to type", "doctor"),
    "install-server": ("tools", "make the embedded server's environment", "install-server --without-torch"),
    "lab": ("tools", "open the course in JupyterLab", "lab --no-browser --port=8899"),
    "hand-out": ("tools", "your copies of the notebooks, as lab makes them", "hand-out"),
    "reset": ("tools", "bring back a pristine notebook, yours stays beside it", "reset 03"),
    "serve": ("serve", "launch a server and keep it until Ctrl-C", "serve --base-port 9300"),
    "infer": ("tools", "send one request to a model and print the answer", "infer -m add_sub -u localhost:9001"),
    "metrics": ("tools", "print a server's counters", "metrics -u localhost:9002"),
    "perf_analyzer": ("tools", "NVIDIA's load generator, with its own arguments", "perf_analyzer -m add_sub -u localhost:9001 -i grpc"),
    "sweep": ("tools", "measure models over batch sizes and concurrencies", "sweep -m particlenet_PT --batch 1 8 --concurrency 1 4"),
    "tune": ("tools", "find the best configuration within a latency budget", "tune -m particlenet_AK4 --budget 20"),
    "quantize": ("tools", "make variants of a model in lower precision", "quantize particlenet_AK4"),
    "scoreboard": ("tools", "the challenge's scoreboard, your own or a class's", "scoreboard work/scoreboard.json"),
}
# Names, help, and what else argparse wants to know.
Option = tuple[str, str, dict[str, Any]]
_FLAG: dict[str, Any] = {"action": "store_true"}
_FLAG_OR_NEITHER: dict[str, Any] = {"action": "store_true", "default": None}
_YES_OR_NO: dict[str, Any] = {"action": argparse.BooleanOptionalAction}
_NUMBERS: dict[str, Any] = {"type": int, "nargs": "+", "default": [1]}
_MODEL: Option = ("-m --model", "name of the model, such as particlenet_AK4", {"required": True})
_MODELS: Option = ("--models", "the model repository, such as work/models (default models)", {"default": "models"})
_DATA = "random (bits), real (what the course has for the model: jets, hits, taus), or a JSON file (default random)"
_INPUT_DATA: Option = ("--input-data", _DATA, {"default": "random"})
OPTIONS: dict[str, tuple[Option, ...]] = {
    "install-server": (("--without-torch", "its models stay UNAVAILABLE, little disk is needed", _FLAG),),
    "reset": (("notebook", "number or name of the notebook, such as 03", {"nargs": "?", "default": ""}),),
    "serve": (
        _MODELS,
        ("--runtime", "embedded (the default), apptainer, docker or podman", {"default": "embedded"}),
        ("--base-port", "HTTP port; gRPC and metrics get the next two (default 9000)", {"type": int, "default": 9000}),
        ("--servers", "so many servers behind one address, with Envoy before them", {"type": int, "default": 1, "metavar": "N"}),
        ("--listen", "all, or a network interface: others may use the server, with a token", {"default": "", "metavar": "WHERE"}),
        ("--private", "inference needs the server's own secret here, too (default: where other people use this machine)", _FLAG_OR_NEITHER),
        ("--open", "inference needs no secret on this machine", {"action": "store_false", "dest": "private"}),
        ("--gpu", "whether a container gets the NVIDIA GPUs (default: where this machine has some)", _YES_OR_NO),
        ("--dry-run", "print the command and start nothing", _FLAG),
    ),
    "infer": (
        _MODEL,
        ("-u --url", "address, by default localhost:9001 for grpc, localhost:9000 for http", {}),
        ("-p --protocol", "grpc (the default), or http", {"choices": ("grpc", "http")}),
        ("-b --batch", "entries in the batch of inputs (default 1)", {"type": int, "default": 1}),
    ),
    "metrics": (("-u --url", "address of the metrics port (default localhost:9002)", {"default": "localhost:9002"}),),
    "sweep": (
        ("-m --model", "one model or several, such as particlenet_PT", {"nargs": "+", "required": True}),
        ("-u --url", "address of the server (default localhost:9001)", {"default": "localhost:9001"}),
        ("-b --batch", "batch sizes (default 1)", _NUMBERS),
        ("-c --concurrency", "requests under way at any time (default 1)", _NUMBERS),
        ("-o --output", "folder for the results (default work/sweeps)", {"default": "work/sweeps"}),
        _INPUT_DATA,
    ),
    "tune": (
        _MODEL,
        ("-b --batch", "entries in each request (default 1)", {"type": int, "default": 1}),
        # Enough for a queue, so that instances and batches have something to win, as in notebook 09.
        ("-c --concurrency", "requests under way at any time (default 8)", {"type": int, "default": 8}),
        ("--budget", "what the latency's 95th percentile may be at most, in milliseconds", {"type": float, "metavar": "MS"}),
        ("-o --output", "folder for the results (default work/tune)", {"default": "work/tune"}),
        *(_INPUT_DATA, _MODELS),
    ),
    "quantize": (("model", "a model of the course or of work/models, such as particlenet_AK4", {}),),
    "scoreboard": (("files", "scoreboards, such as /class/scoreboard/*.json (default your own)", {"nargs": "*"}),),
}
# They get the arguments that they do not know in ``args.others``, for the program that they start; what their help says of that.
PASS_ON = {"lab": " Other options go to JupyterLab.", "perf_analyzer": " They are passed on."}


def parser(command: str | None) -> argparse.ArgumentParser:
    """Return the parser, with the arguments of one command."""
    main_parser = argparse.ArgumentParser(
        prog="python -m helpers",
        description="Serve machine-learning models with Triton: the course's tools.",
        epilog="More on one of them, with an example: python -m helpers COMMAND --help",
    )
    commands = main_parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, line, example) in COMMANDS.items():
        text = f"{line[0].upper()}{line[1:]}.{PASS_ON.get(name, '')}"
        epilog = f"Example:\n  python -m helpers {example}"
        one = commands.add_parser(name, help=line, description=text, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter)
        for names, words, more in OPTIONS.get(name, ()) if name == command else ():
            one.add_argument(*names.split(), help=words, **more)
    return main_parser


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return the exit status: 0 done, 1 a CourseError, 2 wrong arguments, 130 interrupted, or the command's own."""
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
        if others and given.command not in PASS_ON:
            known.error(f"unrecognized arguments: {' '.join(others)}")
        module = importlib.import_module(f"helpers.cli.{COMMANDS[given.command][0]}")
        return int(getattr(module, given.command.replace("-", "_"))(given))
    except CourseError as error:
        # Its advice is for notebooks, where a server is launched by a call.
        serve = "   (in a terminal: python -m helpers serve)" if "launch_" in str(error) else ""
        print(f"{error}{serve}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("helpers"):
            raise
        print(f"{error.name} is not installed in {sys.executable}. Type: make setup, then .venv/bin/python -m helpers", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader of a pipe, such as head, has seen enough.
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
