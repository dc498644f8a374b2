"""The commands that measure: ``sweep``, ``tune`` and ``quantize``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.cli import access_options
from helpers.cli.access_options import COMMAND_GRACE_S
from helpers.client.endpoint import BASE_PORT
from helpers.errors import InputError
from helpers.paths import make_folder, shown, work_dir, writing

if TYPE_CHECKING:
    from helpers.measuring.table import Rows

# Requests under way where nobody says how many: enough for a queue, so that instances and batches have something to win, as in notebook 09.
_UNDER_WAY = 8


def sweep_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    port = BASE_PORT + 1
    parser.add_argument("-m", "--model", nargs="+", required=True, help="one model or several, such as particlenet_PT")
    parser.add_argument("-u", "--url", help=f"address of the server (default localhost:{port})")
    parser.add_argument("-i", "--protocol", choices=("grpc", "http"), help="grpc (the default), or http")
    parser.add_argument("-b", "--batch", type=int, nargs="+", help="batch sizes (default 1 4 8 16 32 64 128, as far as the model goes)")
    parser.add_argument("-c", "--concurrency", type=int, nargs="+", default=[1], help="requests under way at any time (default 1)")
    parser.add_argument("-o", "--output", default="work/sweeps", help="folder for the results (default work/sweeps)")
    parser.add_argument("--length", type=int, nargs=2, metavar=("PF", "SV"), help="candidates and vertices of a jet (default 50 4)")
    parser.add_argument("--input-data", default="random", help="random, zero, or a JSON file (default random)")
    parser.add_argument("--percentile", type=int, default=95, help="the latency that is looked at (default 95)")
    parser.add_argument("--precision", type=float, default=0.05, help="spread of the throughput at which a point is done (default 0.05)")
    parser.add_argument(
        "--seconds",
        type=float,
        default=5.0,
        help="seconds that the windows of a point may take, beyond six of them (default 5)",
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
    parser.add_argument("--base-port", type=int, default=BASE_PORT, help=f"with --instances: HTTP port (default {BASE_PORT})")
    parser.add_argument("--again", action="store_true", help="measure also what was measured before")


def sweep(args: argparse.Namespace) -> int:
    """Measure, write, draw, and print the table; every point that was measured is kept, also when it cannot go on."""
    from helpers.server.remote import at

    if not args.instances:
        url = args.url or f"localhost:{BASE_PORT + 1}"
        return _sweep(at(url, args.protocol, access_options.access(args)), args)
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
        program=find_perf_analyzer(),
        again=args.again,
    )
    print(result)
    print(f"Figure: {_draw(result, args)}")
    return 0


def _draw(result: Rows, args: argparse.Namespace) -> str:
    import matplotlib as mpl

    # A terminal on another machine has no screen to draw on.
    mpl.use("agg")
    from helpers.plots import sweep_figure

    path = Path(result.attrs["path"]).with_name(f"{'_and_'.join(dict.fromkeys(args.model))}.png")
    with writing(path):
        sweep_figure(result, percentile=args.percentile, budget_ms=args.budget).savefig(path)
    return shown(path)


def tune_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.add_argument("-m", "--model", required=True, help="name of the model, such as particlenet_AK4")
    parser.add_argument("--variants", nargs="*", default=[], help="other models with the same inputs and outputs")
    parser.add_argument("-b", "--batch", type=int, default=1, help="entries in each request (default 1)")
    traffic = parser.add_mutually_exclusive_group()
    traffic.add_argument("-c", "--concurrency", type=int, help=f"requests under way at any time (default {_UNDER_WAY})")
    traffic.add_argument("--request-rate", type=float, metavar="PER_S", help="requests each second, in place of a concurrency")
    parser.add_argument("--budget", type=float, metavar="MS", help="what the latency percentile may be at most, in milliseconds")
    parser.add_argument("--percentile", type=int, default=95, help="which one (default 95)")
    parser.add_argument("--max-instances", type=int, help="instances at most")
    parser.add_argument("--max-batch", type=int, help="entries that the server may put into one batch at most")
    parser.add_argument("--length", type=int, nargs=2, metavar=("PF", "SV"), help="candidates and vertices of a jet (default 50 4)")
    parser.add_argument("--input-data", default="random", help="random, zero, or a JSON file (default random)")
    parser.add_argument("-o", "--output", default="work/tune", help="folder for the results (default work/tune)")
    parser.add_argument("--again", action="store_true", help="measure also what was measured before")
    parser.add_argument("--models", default="models", help="the model repository (default models)")
    parser.add_argument("--runtime", default="embedded", help="embedded (the default), apptainer, docker or podman")
    parser.add_argument("--base-port", type=int, default=BASE_PORT, help=f"HTTP port (default {BASE_PORT})")


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
            concurrency=_UNDER_WAY if args.concurrency is None and args.request_rate is None else args.concurrency,
            request_rate_per_s=args.request_rate,
            budget_ms=args.budget,
            max_instances=args.max_instances,
            max_batch=args.max_batch,
            variants=args.variants,
            output=args.output,
            percentile=args.percentile,
            input_data=args.input_data,
            lengths=dict(zip(("pf", "sv"), args.length, strict=True)) if args.length else None,
            again=args.again,
        )
    print(result)
    return 0 if result.best else 3


def quantize_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.add_argument("model", help="a model of the course or of work/models, such as particlenet_AK4")
    parser.add_argument("--methods", nargs="+", default=(), help="fp16, int8, int8_static; frozen for TorchScript (default all that fit)")
    parser.add_argument("--report", action="store_true", help="serve and measure them, and draw speed beside the change of AUC")
    parser.add_argument("--batch", type=int, default=10, help="jets in a request of the report (default 10)")


def quantize(args: argparse.Namespace) -> int:
    """Make the variants, and report on them if asked to."""
    from helpers import precision  # loads gRPC

    for folder in precision.make(args.model, args.methods):
        print(f"{shown(folder)}: {_size(folder):.0f} kB")
    if args.report:
        _report(args)
    return 0


def _size(folder: Path) -> float:
    return sum(path.stat().st_size for path in (folder / "1").iterdir()) / 1000


def _report(args: argparse.Namespace) -> None:
    import matplotlib as mpl

    # A terminal on another machine has no screen to draw on.
    mpl.use("agg")
    from helpers import precision
    from helpers.measuring.inputs import write_jets
    from helpers.measuring.measure import measure_in_turn
    from helpers.plots import precision_figure
    from helpers.server import launch_server

    names = precision.family(args.model)
    with launch_server("work/models", load=names, name="quantize") as server:
        file = write_jets(server, args.model)
        rows = measure_in_turn(server, args.model, *({"model": name} for name in names), batch=args.batch, input_data=file)
        costs = precision.cost(server, names, reference=args.model)
    print(costs)
    path = work_dir() / "precision" / f"{args.model}.png"
    with writing(path):
        make_folder(path.parent)
        precision_figure(rows, costs).savefig(path)
    print(f"Figure: {shown(path)}")
