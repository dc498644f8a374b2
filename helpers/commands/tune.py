"""``python -m helpers tune``: launch a server, find the configuration that serves a traffic best within a latency budget, stop it."""

from __future__ import annotations

import argparse

from helpers import settings

# Requests under way where nobody says how many: enough for a queue, so that instances and batches have something to win, as in notebook 09.
_UNDER_WAY = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.add_argument("-m", "--model", required=True, help="name of the model, such as particlenet_AK4")
    parser.add_argument("--variants", nargs="*", default=[], help="other models with the same inputs and outputs")
    parser.add_argument("-b", "--batch", type=int, default=1, help="entries in each request (default 1)")
    traffic = parser.add_mutually_exclusive_group()
    traffic.add_argument("-c", "--concurrency", type=int, help=f"requests under way at any time (default {_UNDER_WAY})")
    traffic.add_argument("--request-rate", type=float, metavar="PER_S", help="requests each second, in place of a concurrency")
    parser.add_argument("--budget", type=float, metavar="MS", help="what the latency percentile may be at most, in milliseconds")
    parser.add_argument("--percentile", type=int, default=settings.PERF_PERCENTILE, help="which one (default 95)")
    parser.add_argument("--max-instances", type=int, help="instances at most")
    parser.add_argument("--max-batch", type=int, help="entries that the server may put into one batch at most")
    parser.add_argument("--max-memory", type=float, metavar="MB", help="memory of the server and the model's instances at most")
    parser.add_argument("--length", type=int, nargs=2, metavar=("PF", "SV"), help="candidates and vertices of a jet (default 50 4)")
    parser.add_argument("--input-data", default="random", help="random, zero, or a JSON file (default random)")
    parser.add_argument("-o", "--output", default="work/tune", help="folder for the results (default work/tune)")
    parser.add_argument("--again", action="store_true", help="measure also what was measured before")
    parser.add_argument("--models", default="models", help="the model repository (default models)")
    parser.add_argument("--runtime", default="embedded", help="embedded (the default), apptainer, docker or podman")
    parser.add_argument("--base-port", type=int, default=settings.BASE_PORT, help=f"HTTP port (default {settings.BASE_PORT})")


def run(args: argparse.Namespace) -> int:
    """Launch, search, print, stop.

    Returns:
        0 when a configuration meets the budget, else 3.

    Raises:
        CourseError: it cannot begin, or cannot go on; every measurement is kept.
    """
    from helpers.launch import launch_server
    from helpers.tune import tune  # loads gRPC

    loaded = [args.model, *args.variants]
    with launch_server(
        args.models, runtime=args.runtime, base_port=args.base_port, name="tune", load=loaded, grace_s=settings.COMMAND_GRACE_S
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
            max_memory_mb=args.max_memory,
            variants=args.variants,
            output=args.output,
            percentile=args.percentile,
            input_data=args.input_data,
            lengths=dict(zip(("pf", "sv"), args.length, strict=True)) if args.length else None,
            again=args.again,
        )
    print(result)
    return 0 if result.best else 3
