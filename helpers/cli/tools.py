"""All commands but ``serve``. What they need is imported where it is used: the first ones work before anything is installed."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from helpers.paths import shown
from helpers.setup import environments, notebook_copies

# Numbers of a tensor that are printed before it is cut short.
_SHOWN = 6


def _access() -> Any:
    """What a server beyond this machine wants: a token, in a variable, because others can see what is typed."""
    from helpers.client.endpoint import access_for

    return access_for(os.environ.get("COURSE_TOKEN", ""))


def _server(args: argparse.Namespace) -> Any:
    """The server at the address of one of its ports."""
    from helpers.server import connect

    return connect(args.url or "localhost", token=os.environ.get("COURSE_TOKEN", ""))


def doctor(args: argparse.Namespace) -> int:
    """Print the report, fit to be pasted into a chat; 0 ready, 1 not yet."""
    from helpers.setup import doctor

    report = doctor.report()
    print(report)
    return int(bool(report.wrong()))


def install_server(args: argparse.Namespace) -> int:
    """Make ``.server`` if it is not ready."""
    environments.install_server(False if args.without_torch else None)
    return 0


def lab(args: argparse.Namespace) -> int:
    """Hand out the notebooks, then become JupyterLab."""
    from helpers.setup import lab

    return lab.start(args.others)


def hand_out(args: argparse.Namespace) -> int:
    """Copy the notebooks, never over one that a student changed."""
    for sentence in notebook_copies.hand_out():
        print(sentence)
    print(f"The notebooks are in {shown(notebook_copies.folder())}.")
    return 0


def reset(args: argparse.Namespace) -> int:
    """Bring the notebook back."""
    print(notebook_copies.reset(args.notebook))
    return 0


def infer(args: argparse.Namespace) -> int:
    """Send one request to a model, and print inputs and outputs."""
    from helpers.client import Client
    from helpers.tables import as_text

    protocol = args.protocol or ("http" if (args.url or "").startswith("http") else None)
    with Client(_server(args), protocol) as client:
        inputs = client.signature(args.model).check(_example(client, args.model, args.batch))
        outputs = client.infer(args.model, inputs)
        print(f"Model {args.model} at {client.address} over {'gRPC' if client.protocol == 'grpc' else 'HTTP'}")
        print(as_text([_row("input", *item) for item in inputs.items()] + [_row("output", *item) for item in outputs.items()]))
    return 0


def _example(client: Any, model: str, batch: int) -> dict[str, Any]:
    """Made-up inputs; for DeepTau taus of the course, and for the track finder an event, since it refuses hits that lie where none can."""
    if model == "add_sub":
        return {"INPUT0": list(range(16)), "INPUT1": [1] * 16}  # can be checked by eye
    inputs: dict[str, Any] = client.example(model, batch)
    if "FEATURES" in inputs:
        from helpers.physics.tracks import load_events  # half a second, which no other model needs

        return {"FEATURES": load_events()[0].features}
    if "input_tau" in inputs:
        from helpers.physics import taus

        return taus.tensors(taus.read().take(range(batch)))
    return inputs


def _row(kind: str, name: str, array: Any) -> dict[str, Any]:
    words = [f"{each:.4g}" if isinstance(each, float) else str(each) for each in array.reshape(-1)[:_SHOWN].tolist()]
    values = ", ".join(words) + (", …" if array.size > _SHOWN else "")
    return {"": kind, "name": name, "dtype": array.dtype.name, "shape": str(array.shape), "values": values}


def metrics(args: argparse.Namespace) -> int:
    """Print the page as a table."""
    from helpers.client.endpoint import parse_address
    from helpers.metrics import scrape
    from helpers.tables import as_text

    page = scrape(parse_address(args.url, 9002).http("/metrics"), access=_access())
    # One line for each reason of failure that never happened would bury the rest.
    print(as_text([row for row in page.rows if row["value"] or not row["metric"].endswith("_failure")]))
    return 0


def perf_analyzer(args: argparse.Namespace) -> int:
    """Run it; the exit status is the program's: 0 done, 2 its windows did not agree, 99 it failed."""
    from helpers.measuring.perf_analyzer import show

    return show(args.others, _access())


def sweep(args: argparse.Namespace) -> int:
    """Measure, write, draw, and print the table; every point that was measured is kept, also when it cannot go on."""
    from helpers import plots
    from helpers.measuring.input_files import write_real
    from helpers.measuring.measure import sweep

    server = _server(args)
    data = {model: write_real(server, model) for model in args.model} if args.input_data == "real" else args.input_data
    result = sweep(server, args.model, args.batch, args.concurrency, output=args.output, input_data=data)
    print(result)
    path = Path(result.attrs["path"]).with_name(f"{'_and_'.join(dict.fromkeys(args.model))}.png")
    plots.sweep_figure(result).savefig(path)
    print(f"Figure: {shown(path)}")
    return 0


def tune(args: argparse.Namespace) -> int:
    """Launch, search, print, stop; 0 when a configuration meets the budget, else 3."""
    from helpers.cli.serve import GRACE_S
    from helpers.measuring.input_files import write_real
    from helpers.server import launch_server
    from helpers.tuning.search import tune

    with launch_server(args.models, name="tune", load=[args.model], grace_s=GRACE_S) as server:
        data = write_real(server, args.model) if args.input_data == "real" else args.input_data
        traffic = {"concurrency": args.concurrency, "budget_ms": args.budget}
        result = tune(server, args.model, args.batch, output=args.output, input_data=data, **traffic)
    print(result)
    return 0 if result.best else 3


def quantize(args: argparse.Namespace) -> int:
    """Make the variants."""
    from helpers import precision

    print(*map(shown, precision.make(args.model)), sep="\n")
    return 0


def scoreboard(args: argparse.Namespace) -> int:
    """Print the table."""
    from helpers.course import scoreboard

    print(scoreboard.read(*(args.files or [scoreboard.path()])))
    return 0
