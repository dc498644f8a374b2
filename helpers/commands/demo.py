"""``python -m helpers demo``, or ``make demo``."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments."""


def run(args: argparse.Namespace) -> int:
    """Go the whole path; see :mod:`helpers.demo`.

    Raises:
        CourseError: the server did not start, or the results cannot be written.
    """
    from helpers import demo

    return demo.run()
