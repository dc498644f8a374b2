"""``python -m helpers metrics``: the server's counters, once or again and again."""

from __future__ import annotations

import argparse
import time
from typing import Any

from helpers import settings
from helpers.address import parse_address
from helpers.commands import access_options
from helpers.errors import InputError
from helpers.metrics import Snapshot, scrape
from helpers.tables import as_text
from helpers.wording import quoted, suggestion


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    port = settings.BASE_PORT + 2
    parser.add_argument("-u", "--url", default=f"localhost:{port}", help=f"address of the metrics port (default localhost:{port})")
    parser.add_argument("-m", "--model", help="only this model")
    parser.add_argument(
        "-w", "--watch", type=float, metavar="S", help="every S seconds, print what happened since the last time; end with Ctrl-C"
    )
    access_options.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print the page as a table, or differences until Ctrl-C.

    Returns:
        0.

    Raises:
        CourseError: there is no metrics page at this address, or no such model on it.
    """
    address = parse_address(args.url, settings.BASE_PORT + 2)
    path = args.url.split("://")[-1].partition("/")[2]
    url = address.http(f"/{path}" if path else "/metrics")
    if args.watch is not None and args.watch <= 0:
        raise InputError(f"--watch {args.watch:g} was given.", "Expected seconds above 0.")
    access = access_options.access(args)
    before = scrape(url, access=access)
    if args.model and args.model not in before.models:
        raise InputError(
            f"The page has no metrics of {args.model!r}.",
            f"It tells about {quoted(before.models)}: the models that are loaded.",
            suggestion(args.model, before.models),
        )
    if args.watch is None:
        print(as_text(_rows(before, args.model)))
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


def _rows(snapshot: Snapshot, model: str | None) -> list[dict[str, Any]]:
    rows = [row for row in snapshot.rows if model in (None, row["model"])]
    # One line for each reason of failure that never happened would bury the rest.
    return [row for row in rows if row["value"] or not row["metric"].endswith("_failure")]
