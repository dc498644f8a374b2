"""``python -m helpers doctor``: exit status 0 ready, 1 you can mend it, 2 ask the administrator."""

from __future__ import annotations

import argparse

from helpers import doctor


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.add_argument("--full", action="store_true", help="launch a server and send it a request, too (some ten seconds)")


def run(args: argparse.Namespace) -> int:
    """Print the report, fit to be pasted into a chat."""
    report = doctor.report(full=args.full)
    print(report)
    return report.status
