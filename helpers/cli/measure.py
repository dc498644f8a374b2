"""The commands that measure: ``sweep`` and ``tune``; and ``quantize``, which makes what is then measured."""

from __future__ import annotations

import argparse
from pathlib import Path

from helpers.cli.serve import GRACE_S
from helpers.cli.tools import access, save
from helpers.measuring.inputs import write_real
from helpers.paths import shown
from helpers.server import launch_server
from helpers.server.connection import at


def sweep(args: argparse.Namespace) -> int:
    """Measure, write, draw, and print the table; every point that was measured is kept, also when it cannot go on."""
    from helpers import plots
    from helpers.measuring.measure import sweep
    from helpers.measuring.perf_analyzer import find_perf_analyzer

    # Who types a command wants to measure: no recorded rows in its place.
    find_perf_analyzer()
    server = at(args.url or "localhost:9001", None, access(args))
    data = {model: write_real(server, model) for model in args.model} if args.input_data == "real" else args.input_data
    result = sweep(server, args.model, args.batch, args.concurrency, output=args.output, input_data=data)
    print(result)
    path = Path(result.attrs["path"]).with_name(f"{'_and_'.join(dict.fromkeys(args.model))}.png")
    print(f"Figure: {save(path, lambda: plots.sweep_figure(result))}")
    return 0


def tune(args: argparse.Namespace) -> int:
    """Launch, search, print, stop; 0 when a configuration meets the budget, else 3."""
    from helpers.tuning.search import tune

    with launch_server(args.models, name="tune", load=[args.model], grace_s=GRACE_S) as server:
        result = tune(
            server,
            args.model,
            args.batch,
            concurrency=args.concurrency,
            budget_ms=args.budget,
            max_instances=args.max_instances,
            output=args.output,
            input_data=write_real(server, args.model) if args.input_data == "real" else args.input_data,
        )
    print(result)
    return 0 if result is not None and result.best else 3


def quantize(args: argparse.Namespace) -> int:
    """Make the variants."""
    from helpers import precision

    print(*map(shown, precision.make(args.model)), sep="\n")
    return 0
