"""``python -m helpers hand-out``: the students' copies of the notebooks, as ``make lab`` makes them, without JupyterLab."""

from __future__ import annotations

import argparse

from helpers import workspace
from helpers.files import shown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments."""


def run(args: argparse.Namespace) -> int:
    """Copy the notebooks, never over one that a student changed.

    Returns:
        0.

    Raises:
        SetupError: ``work/`` cannot be written.
    """
    for sentence in workspace.hand_out():
        print(sentence)
    print(f"The notebooks are in {shown(workspace.folder())}.")
    return 0
