"""``python -m helpers scoreboard``: the challenge's scoreboard, one's own or that of a class, as a table and as a figure."""

from __future__ import annotations

import argparse
from pathlib import Path

from helpers.files import shown, writing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.add_argument("files", nargs="*", help="scoreboards, such as /class/scoreboard/*.json (default one's own)")
    parser.add_argument("--figure", metavar="FILE", help="draw all entries into this file, such as class.png")


def run(args: argparse.Namespace) -> int:
    """Print the table and draw the figure.

    Returns:
        0.

    Raises:
        CourseError: a file is no scoreboard, or the figure cannot be written.
    """
    import matplotlib as mpl

    # A terminal on another machine has no screen to draw on.
    mpl.use("agg")
    from helpers import scoreboard

    board = scoreboard.read(*(args.files or [scoreboard.path()]))
    print(board)
    if args.figure:
        target = Path(args.figure).expanduser()
        with writing(target):
            scoreboard.scoreboard_figure(board).savefig(target)
        print(f"Figure: {shown(target)}")
    return 0
