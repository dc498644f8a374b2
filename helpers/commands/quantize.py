"""``python -m helpers quantize``: variants of a model in lower precision, served beside it, and what they gain and cost."""

from __future__ import annotations

import argparse
from pathlib import Path

from helpers.files import make_folder, shown, writing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.add_argument("model", help="a model of the course or of work/models, such as particlenet_AK4")
    parser.add_argument("--methods", nargs="+", default=(), help="fp16, int8, int8_static; frozen for TorchScript (default all that fit)")
    parser.add_argument("--report", action="store_true", help="serve and measure them, and draw speed beside the change of AUC")
    parser.add_argument("--batch", type=int, default=10, help="jets in a request of the report (default 10)")


def run(args: argparse.Namespace) -> int:
    """Make the variants, and report on them if asked to.

    Returns:
        0.

    Raises:
        CourseError: a variant cannot be made or measured.
    """
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
    from helpers import precision, settings
    from helpers.launch import launch_server
    from helpers.load_inputs import write_jets
    from helpers.perf import measure
    from helpers.precision_cost import cost
    from helpers.precision_plots import precision_figure

    names = precision.family(args.model)
    with launch_server("work/models", load=names, name="quantize") as server:
        file = write_jets(server, args.model)
        rows = [measure(server, name, batch=args.batch, input_data=file) for name in names]
        costs = cost(server, names, reference=args.model)
    print(costs)
    path = settings.work_dir() / "precision" / f"{args.model}.png"
    with writing(path):
        make_folder(path.parent)
        precision_figure(rows, costs).savefig(path)
    print(f"Figure: {shown(path)}")
