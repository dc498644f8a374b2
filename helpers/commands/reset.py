"""``python -m helpers reset 03``, or ``make reset NB=03``."""

from __future__ import annotations

import argparse

from helpers import workspace


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.add_argument("notebook", nargs="?", default="", help="number or name of the notebook, such as 03")


def run(args: argparse.Namespace) -> int:
    """Bring the notebook back.

    Raises:
        InputError: there is no such notebook.
    """
    print(workspace.reset(args.notebook))
    return 0
