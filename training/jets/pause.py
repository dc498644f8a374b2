"""Pause long runs from outside: put a file named ``PAUSE`` into the output folder."""

from __future__ import annotations

import time
from pathlib import Path

PAUSE_CHECK_S = 2.0


def wait_while_paused(output: Path) -> None:
    """Sleep while a file named ``PAUSE`` lies in the output folder: frees the machine, loses nothing."""
    while (output / "PAUSE").exists():
        time.sleep(PAUSE_CHECK_S)
