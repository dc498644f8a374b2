"""What each command takes, as a table, and the options by which commands reach a server that wants a token or is encrypted."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

from helpers.errors import InputError

if TYPE_CHECKING:
    from helpers.client.endpoint import Access

# Ports of a server that was launched with nothing else said.
HTTP, GRPC, METRICS = 9000, 9001, 9002
# Seconds that the server of a command outlives that command when it is killed: nobody comes back to it, as a restarted notebook does.
COMMAND_GRACE_S = 2.0
# Requests under way where nobody says how many: enough for a queue, so that instances and batches have something to win, as in notebook 09.
UNDER_WAY = 8
_TOKEN_VARIABLE = "COURSE_TOKEN"

# Names, help, and what else argparse wants to know.
Option = tuple[str, str, dict[str, Any]]
_NUMBER, _NUMBERS, _MANY, _FLAG = {"type": int}, {"type": int, "nargs": "+"}, {"nargs": "+"}, {"action": "store_true"}
_FILE: dict[str, Any] = {"metavar": "FILE"}
_MS: dict[str, Any] = {"type": float, "metavar": "MS"}

_ACCESS: tuple[Option, ...] = (
    (
        "--token",
        "what the server's owner gave out. Others on this machine can see what you type here, and cannot see the variable "
        f"{_TOKEN_VARIABLE}, which is taken when the option is left out",
        {},
    ),
    ("--header", "a further header for every request", {"action": "append", "default": [], "metavar": "NAME:VALUE"}),
    ("--ca", "certificate of the authority that signed the server's, for grpcs:// and https://", _FILE),
)
_LOAD: tuple[Option, ...] = (
    ("--length", "candidates and vertices of a jet (default 50 4)", {"type": int, "nargs": 2, "metavar": ("PF", "SV")}),
    (
        "--input-data",
        "random (bits), zero, real (what the course has for the model: jets, hits, taus), or a JSON file (default random)",
        {"default": "random"},
    ),
    ("--percentile", "the latency that is looked at (default 95)", {"type": int, "default": 95}),
)
_MODELS: Option = ("--models", "the model repository (default models)", {"default": "models"})
_RUNTIME: Option = ("--runtime", "embedded (the default), apptainer, docker or podman", {"default": "embedded"})
_PORT: Option = ("--base-port", f"HTTP port; gRPC and metrics get the next two (default {HTTP})", {"type": int, "default": HTTP})

OPTIONS: dict[str, tuple[Option, ...]] = {
    "doctor": (("--full", "launch a server and send it a request, too (ten seconds)", _FLAG),),
    "install-server": (("--without-torch", "its models stay UNAVAILABLE, little disk is needed", _FLAG),),
    "lab": (),
    "hand-out": (),
    "reset": (("notebook", "number or name of the notebook, such as 03", {"nargs": "?", "default": ""}),),
    "serve": (
        ("--models", "the model repository: a path, or models or work/models of the course (default models)", {"default": "models"}),
        _RUNTIME,
        _PORT,
        (
            "--servers",
            "so many servers behind one address, with Envoy before them (default 1: no Envoy)",
            {"type": int, "default": 1, "metavar": "N"},
        ),
        (
            "--listen",
            "all, or the address or name of a network interface: others may use the server, with a token (default: this machine alone)",
            {"default": "", "metavar": "WHERE"},
        ),
        (
            "--private",
            "inference needs the server's own secret on this machine, too (default: where other people use it; the variable "
            "COURSE_PRIVATE=yes or no decides for all)",
            {"action": "store_true", "default": None},
        ),
        ("--open", "everybody on this machine may send inference requests", {"dest": "private", "action": "store_false"}),
        (
            "--gpu",
            "whether a container gets the NVIDIA GPUs (default: where this machine has some); with --dry-run, what to type on a GPU node",
            {"action": argparse.BooleanOptionalAction},
        ),
        ("--keep-alive", "start the server again when it crashes or hangs, as those of a fleet always are", _FLAG),
        ("--dry-run", "print the command and start nothing", _FLAG),
    ),
    "infer": (
        ("-m --model", "name of the model, such as add_sub", {"required": True}),
        ("-u --url", f"address, by default localhost:{GRPC} for grpc, localhost:{HTTP} for http", {}),
        ("-p --protocol", "grpc (the default), or http", {"choices": ("grpc", "http")}),
        (
            "-i --input",
            "an input from a NumPy file; made-up ones by default, for ExaTrk an event of the course, for deeptau_nosplit its taus",
            {"action": "append", "default": [], "metavar": "NAME=FILE.npy"},
        ),
        ("-b --batch", "entries in the batch of inputs that come from no file (default 1)", {"type": int, "default": 1}),
        ("-t --timeout", "seconds to wait for the answer (default 60)", {"type": float, "default": 60.0, "metavar": "S"}),
        *_ACCESS,
    ),
    "metrics": (
        ("-u --url", f"address of the metrics port (default localhost:{METRICS})", {"default": f"localhost:{METRICS}"}),
        ("-m --model", "only this model", {}),
        ("-w --watch", "every S seconds, print what happened since the last time; end with Ctrl-C", {"type": float, "metavar": "S"}),
        *_ACCESS,
    ),
    # These two are the tool's own; they are looked at, because the other options depend on them, and passed on.
    "perf_analyzer": (("-u", argparse.SUPPRESS, {"dest": "url"}), ("-i", argparse.SUPPRESS, {"dest": "protocol"}), *_ACCESS),
    "sweep": (
        ("-m --model", "one model or several, such as particlenet_PT", {"nargs": "+", "required": True}),
        ("-u --url", f"address of the server (default localhost:{GRPC})", {}),
        ("-i --protocol", "grpc (the default), or http", {"choices": ("grpc", "http")}),
        ("-b --batch", "batch sizes (default 1 4 8 16 32 64 128, as far as the model goes)", _NUMBERS),
        ("-c --concurrency", "requests under way at any time (default 1)", {**_NUMBERS, "default": [1]}),
        ("-o --output", "folder for the results (default work/sweeps)", {"default": "work/sweeps"}),
        *_LOAD,
        ("--again", "measure also what was measured before", _FLAG),
        ("--precision", "spread of the throughput at which a point is done (default 0.05)", {"type": float, "default": 0.05}),
        ("--seconds", "seconds that the windows of a point may take, beyond six of them (default 5)", {"type": float, "default": 5.0}),
        ("--budget", "draw a latency budget into the figure, in milliseconds", _MS),
        *_ACCESS,
        ("--instances", "numbers of model instances, on a server that is launched for it in place of -u", {**_NUMBERS, "default": []}),
        ("--models", "with --instances: the model repository (default models)", {"default": "models"}),
        ("--base-port", f"with --instances: HTTP port (default {HTTP})", {"type": int, "default": HTTP}),
    ),
    "tune": (
        ("-m --model", "name of the model, such as particlenet_AK4", {"required": True}),
        ("--variants", "other models with the same inputs and outputs", {"nargs": "*", "default": []}),
        ("-b --batch", "entries in each request (default 1)", {"type": int, "default": 1}),
        ("-c --concurrency", f"requests under way at any time (default {UNDER_WAY})", {**_NUMBER, "default": UNDER_WAY}),
        ("--budget", "what the latency percentile may be at most, in milliseconds", _MS),
        ("--max-instances", "instances at most", _NUMBER),
        ("--max-batch", "entries that the server may put into one batch at most", _NUMBER),
        ("-o --output", "folder for the results (default work/tune)", {"default": "work/tune"}),
        *_LOAD,
        _MODELS,
        _RUNTIME,
        _PORT,
    ),
    "quantize": (
        ("model", "a model of the course or of work/models, such as particlenet_AK4", {}),
        ("--methods", "fp16, int8_static (default both)", {**_MANY, "default": ()}),
    ),
    "scoreboard": (
        ("files", "scoreboards, such as /class/scoreboard/*.json (default your own)", {"nargs": "*"}),
        ("--figure", "draw all entries into this file, such as class.png", _FILE),
    ),
}
# Of these one alone may be given.
_EITHER = {"serve": ("--private", "--open")}


def add(parser: argparse.ArgumentParser, command: str) -> None:
    """Describe what a command takes."""
    either = parser.add_mutually_exclusive_group() if command in _EITHER else parser
    for names, text, more in OPTIONS[command]:
        (either if names in _EITHER.get(command, ()) else parser).add_argument(*names.split(), help=text, **more)


def access(args: argparse.Namespace) -> Access:
    """Return the access that the options give.

    Raises:
        InputError: a header or the CA file cannot be used.
    """
    from helpers.client.endpoint import access_for

    headers = {}
    for text in args.header:
        name, colon, value = text.partition(":")
        if not colon:
            todo = 'Type for example: --header "authorization:…"'
            raise InputError("A --header without a colon was given.", "Expected NAME:VALUE.", todo)
        headers[name.strip()] = value.strip()
    token = os.environ.get(_TOKEN_VARIABLE, "") if args.token is None else args.token
    return access_for(token, headers, args.ca)


def lengths(args: argparse.Namespace) -> dict[str, int] | None:
    """Return the lengths of a jet, where they are given."""
    return dict(zip(("pf", "sv"), args.length, strict=True)) if args.length else None
