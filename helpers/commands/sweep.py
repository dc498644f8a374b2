"""``python -m helpers sweep``: measure models over batch sizes and concurrencies, write the tables and draw the figure."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from helpers import settings
from helpers.commands import access_options
from helpers.errors import InputError
from helpers.files import shown, writing

if TYPE_CHECKING:
    from helpers.sweep import Sweep


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    port = settings.BASE_PORT + 1
    parser.add_argument("-m", "--model", nargs="+", required=True, help="one model or several, such as particlenet_PT")
    parser.add_argument("-u", "--url", help=f"address of the server (default localhost:{port})")
    parser.add_argument("-i", "--protocol", choices=("grpc", "http"), help="grpc (the default), or http")
    parser.add_argument("-b", "--batch", type=int, nargs="+", help="batch sizes (default 1 4 8 16 32 64 128, as far as the model goes)")
    parser.add_argument("-c", "--concurrency", type=int, nargs="+", default=[1], help="requests under way at any time (default 1)")
    parser.add_argument("-o", "--output", default="work/sweeps", help="folder for the results (default work/sweeps)")
    parser.add_argument("--length", type=int, nargs=2, metavar=("PF", "SV"), help="candidates and vertices of a jet (default 50 4)")
    parser.add_argument("--input-data", default="random", help="random, zero, or a JSON file (default random)")
    parser.add_argument("--percentile", type=int, default=settings.PERF_PERCENTILE, help="the latency that is looked at (default 95)")
    parser.add_argument(
        "--precision", type=float, default=settings.PERF_PRECISION, help="spread of the throughput at which a point is done (default 0.05)"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=settings.PERF_POINT_S,
        help=f"leave a point as it is after so long (default {settings.PERF_POINT_S:g})",
    )
    parser.add_argument("--budget", type=float, metavar="MS", help="draw a latency budget into the figure, in milliseconds")
    access_options.add_arguments(parser)
    parser.add_argument(
        "--instances",
        type=int,
        nargs="+",
        default=[],
        help="numbers of model instances, on a server that is launched for it in place of -u",
    )
    parser.add_argument("--models", default="models", help="with --instances: the model repository (default models)")
    parser.add_argument(
        "--base-port", type=int, default=settings.BASE_PORT, help=f"with --instances: HTTP port (default {settings.BASE_PORT})"
    )
    parser.add_argument("--again", action="store_true", help="measure also what was measured before")


def run(args: argparse.Namespace) -> int:
    """Measure, write, draw, and print the table.

    Returns:
        0.

    Raises:
        CourseError: it cannot begin, or cannot go on; every point that was measured is kept.
    """
    from helpers.remote import at

    if not args.instances:
        url = args.url or f"localhost:{settings.BASE_PORT + 1}"
        return _sweep(at(url, args.protocol, access_options.access(args)), args)
    if args.url:
        raise InputError(
            "--instances and --url were given.",
            "Models are loaded anew for each number of instances, which only the owner of a server may: one is launched for it.",
            "Leave out --url.",
        )
    from helpers.launch import launch_server

    with launch_server(args.models, base_port=args.base_port, name="sweep", load=args.model, grace_s=settings.COMMAND_GRACE_S) as server:
        return _sweep(server, args)


def _sweep(server: Any, args: argparse.Namespace) -> int:
    from helpers.sweep import sweep  # loads gRPC

    result = sweep(
        server,
        args.model,
        args.batch,
        args.concurrency,
        instances=args.instances,
        output=args.output,
        precision=args.precision,
        percentile=args.percentile,
        input_data=args.input_data,
        lengths=dict(zip(("pf", "sv"), args.length, strict=True)) if args.length else None,
        protocol=args.protocol,
        max_seconds=args.seconds,
        again=args.again,
    )
    print(result)
    print(f"Figure: {_draw(result, args)}")
    return 0


def _draw(result: Sweep, args: argparse.Namespace) -> str:
    import matplotlib as mpl

    # A terminal on another machine has no screen to draw on.
    mpl.use("agg")
    from helpers.plots.performance import sweep_figure

    path = result.path.with_name(f"{'_and_'.join(dict.fromkeys(args.model))}.png")
    with writing(path):
        sweep_figure(result, percentile=args.percentile, budget_ms=args.budget).savefig(path)
    return shown(path)
