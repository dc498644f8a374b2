"""The small commands: ``doctor install-server lab hand-out reset metrics perf_analyzer scoreboard``.

What they need is imported where it is used: the first ones work before anything is installed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.cli import options
from helpers.errors import InputError, quoted, suggestion
from helpers.paths import shown, writing

if TYPE_CHECKING:
    from helpers.metrics import Snapshot

# The port that perf_analyzer takes for an address without one.
_TOOLS_PORT = 8000


def doctor(args: argparse.Namespace) -> int:
    """Print the report, fit to be pasted into a chat; 0 ready, 1 you can fix it, 2 ask the administrator."""
    from helpers.setup import doctor

    report = doctor.report(_trial if args.full else None)
    print(report)
    return report.status


def _trial() -> str:
    """A real server with ``add_sub``, a request over each protocol, checked against the sum made here."""
    import numpy as np

    from helpers import Client, launch_server
    from helpers.errors import ServerError

    began = time.monotonic()
    x, y = np.arange(16, dtype=np.float32), np.ones(16, dtype=np.float32)
    with launch_server("models", load=["add_sub"], name="doctor") as server:
        ready_s = time.monotonic() - began
        for protocol in ("grpc", "http"):
            with Client(server, protocol) as client:
                answer = client.infer("add_sub", INPUT0=x, INPUT1=y)
            if not np.array_equal(answer["OUTPUT0"], x + y):
                said = f"Over {protocol} the server said that {x} + {y} = {answer['OUTPUT0']}."
                raise ServerError(said, "", "Type: rm -r .server && python -m helpers install-server")
    return f"a server with add_sub was READY after {ready_s:.1f} s and added right over gRPC and HTTP"


def install_server(args: argparse.Namespace) -> int:
    """Make ``.server`` if it is not ready."""
    from helpers.setup import environments

    environments.install_server(False if args.without_torch else None)
    return 0


def lab(args: argparse.Namespace) -> int:
    """Hand out the notebooks, then become JupyterLab."""
    from helpers.setup import lab

    return lab.start(args.others)


def hand_out(args: argparse.Namespace) -> int:
    """Copy the notebooks, never over one that a student changed."""
    from helpers.setup import notebook_copies

    for sentence in notebook_copies.hand_out():
        print(sentence)
    print(f"The notebooks are in {shown(notebook_copies.folder())}.")
    return 0


def reset(args: argparse.Namespace) -> int:
    """Bring the notebook back."""
    from helpers.setup import notebook_copies

    print(notebook_copies.reset(args.notebook))
    return 0


def metrics(args: argparse.Namespace) -> int:
    """Print the page as a table, or differences until Ctrl-C."""
    from helpers.client.endpoint import parse_address
    from helpers.metrics import scrape
    from helpers.tables import as_text

    address = parse_address(args.url, options.METRICS)
    path = args.url.split("://")[-1].partition("/")[2]
    url = address.http(f"/{path}" if path else "/metrics")
    if args.watch is not None and args.watch <= 0:
        raise InputError(f"--watch {args.watch:g} was given.", "Expected seconds above 0.")
    access = options.access(args)
    before = scrape(url, access=access)
    if args.model and args.model not in before.models:
        raise InputError(
            f"The page has no metrics of {args.model!r}.",
            f"It tells about {quoted(before.models)}: the models that are loaded.",
            suggestion(args.model, before.models),
        )
    if args.watch is None:
        print(as_text(_metric_rows(before, args.model)))
        return 0
    try:
        while True:
            time.sleep(args.watch)
            after = scrape(url, access=access)
            change = after - before
            print(f"{time.strftime('%H:%M:%S')}  in {change.seconds:.3g} s", flush=True)
            rows = [row for row in change.requests if args.model in (None, row["model"])]
            print(as_text(rows) if rows else "no requests", flush=True)
            for note in change.notes:
                print(f"Note: {note}.", flush=True)
            before = after
    except KeyboardInterrupt:
        print()
        return 0


def _metric_rows(snapshot: Snapshot, model: str | None) -> list[dict[str, Any]]:
    rows = [row for row in snapshot.rows if model in (None, row["model"])]
    # One line for each reason of failure that never happened would bury the rest.
    return [row for row in rows if row["value"] or not row["metric"].endswith("_failure")]


def perf_analyzer(args: argparse.Namespace) -> int:
    """Run it; the exit status is the program's: 0 done, 2 its windows did not agree, 99 it failed."""
    from helpers.client.endpoint import parse_address, with_own_secret
    from helpers.measuring.perf_analyzer import header_arguments, tls_arguments
    from helpers.measuring.program import find_perf_analyzer

    access = options.access(args)
    others, protocol = list(args.others), (args.protocol or "").lower()
    if args.url is not None:
        secure = args.url.startswith(("grpcs://", "https://"))
        protocol = protocol or ("grpc" if args.url.startswith("grpc") else "http")
        # The tool takes no scheme but https://.
        url = args.url if args.url.startswith("https://") else args.url.split("://", 1)[-1]
        access = with_own_secret(access, parse_address(args.url, _TOOLS_PORT))
        others += ["-u", url, *tls_arguments(protocol, secure, access)]
    others += ["-i", protocol] if protocol else []
    program = find_perf_analyzer()
    # Not into its output, which may go on into a file.
    print(f"perf_analyzer {program.version}, {program.origin}", file=sys.stderr, flush=True)
    process = program.start(*others, private=header_arguments(protocol or "http", access))
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            # A terminal has sent it the same interrupt: it collects the answers under way, and ends.
            try:
                return process.wait(timeout=10)
            except (KeyboardInterrupt, subprocess.TimeoutExpired):
                process.kill()


def scoreboard(args: argparse.Namespace) -> int:
    """Print the table and draw the figure."""
    import matplotlib as mpl

    # A terminal on another machine has no screen to draw on.
    mpl.use("agg")
    from helpers.course import scoreboard

    board = scoreboard.read(*(args.files or [scoreboard.path()]))
    print(board)
    if args.figure:
        target = Path(args.figure).expanduser()
        with writing(target):
            scoreboard.scoreboard_figure(board).savefig(target)
        print(f"Figure: {shown(target)}")
    return 0
