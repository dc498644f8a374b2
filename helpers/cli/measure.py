"""The commands that measure: ``sweep``, ``tune`` and ``quantize``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.cli import options
from helpers.cli.options import COMMAND_GRACE_S
from helpers.errors import InputError
from helpers.paths import make_folder, shown, writing

if TYPE_CHECKING:
    from helpers.measuring.perf_analyzer import InputData
    from helpers.measuring.table import Rows


def sweep(args: argparse.Namespace) -> int:
    """Measure, write, draw, and print the table; every point that was measured is kept, also when it cannot go on."""
    from helpers.server.connection import at

    if not args.instances:
        url = args.url or f"localhost:{options.GRPC}"
        return _sweep(at(url, args.protocol, options.access(args)), args)
    if args.url:
        raise InputError(
            "--instances and --url were given.",
            "Models are loaded anew for each number of instances, which only the owner of a server may: one is launched for it.",
            "Leave out --url.",
        )
    from helpers.server import launch_server

    with launch_server(args.models, base_port=args.base_port, name="sweep", load=args.model, grace_s=COMMAND_GRACE_S) as server:
        return _sweep(server, args)


def _sweep(server: Any, args: argparse.Namespace) -> int:
    from helpers.measuring.measure import sweep  # loads gRPC
    from helpers.measuring.program import find_perf_analyzer

    # Who types a command wants to measure: no recorded rows in its place.
    find_perf_analyzer()
    result = sweep(
        server,
        args.model,
        args.batch,
        args.concurrency,
        instances=args.instances,
        output=args.output,
        precision=args.precision,
        percentile=args.percentile,
        input_data=_input_data(server, args.model, args),
        lengths=options.lengths(args),
        protocol=args.protocol,
        max_seconds=args.seconds,
        again=args.again,
    )
    print(result)
    print(f"Figure: {_draw(result, args)}")
    return 0


def _input_data(server: Any, models: Sequence[str], args: argparse.Namespace) -> InputData:
    """The word or the file that was given; for ``real``, a file of the course's own for each model."""
    if args.input_data != "real":
        return str(args.input_data)
    from helpers.measuring.inputs import write_real

    return {model: write_real(server, model, options.lengths(args)) for model in models}


def _draw(result: Rows, args: argparse.Namespace) -> str:
    path = Path(result.attrs["path"]).with_name(f"{'_and_'.join(dict.fromkeys(args.model))}.png")
    return save(path, "sweep_figure", result, percentile=args.percentile, budget_ms=args.budget)


def save(path: Path, figure: str, *arguments: Any, **more: Any) -> str:
    """Draw one of the course's figures into a file, and return the path as people type it."""
    import matplotlib as mpl

    # A terminal on another machine has no screen to draw on.
    mpl.use("agg")
    from helpers import plots

    with writing(path):
        make_folder(path.parent)
        getattr(plots, figure)(*arguments, **more).savefig(path)
    return shown(path)


def tune(args: argparse.Namespace) -> int:
    """Launch, search, print, stop; 0 when a configuration meets the budget, else 3."""
    from helpers.server import launch_server
    from helpers.tuning.search import tune  # loads gRPC

    loaded = [args.model, *args.variants]
    with launch_server(
        args.models, runtime=args.runtime, base_port=args.base_port, name="tune", load=loaded, grace_s=COMMAND_GRACE_S
    ) as server:
        result = tune(
            server,
            args.model,
            args.batch,
            concurrency=args.concurrency,
            budget_ms=args.budget,
            max_instances=args.max_instances,
            max_batch=args.max_batch,
            variants=args.variants,
            output=args.output,
            percentile=args.percentile,
            input_data=_input_data(server, loaded, args),
            lengths=options.lengths(args),
        )
    print(result)
    return 0 if result is not None and result.best else 3


def quantize(args: argparse.Namespace) -> int:
    """Make the variants."""
    from helpers import precision  # loads gRPC

    for folder in precision.make(args.model, args.methods or tuple(precision.METHODS)):
        size = sum(path.stat().st_size for path in (folder / "1").iterdir()) / 1000
        print(f"{shown(folder)}: {size:.0f} kB")
    return 0
