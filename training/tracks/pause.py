"""Let long loops wait while somebody measures on the same machine."""

from __future__ import annotations

import time
from pathlib import Path

from . import settings


def wait_while_paused() -> None:
    """Return at once, or when the pause file is gone."""
    while settings.PAUSE_FILE and Path(settings.PAUSE_FILE).exists():
        time.sleep(2)
