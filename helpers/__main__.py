"""Run the course's commands: ``python -m helpers --help``."""

from __future__ import annotations

import os
import signal
import sys
import threading

from helpers.cli import main

# Seconds after which an interrupt that was lost is given once more.
_AGAIN_S = 0.1


def interrupt_again(dropped: sys.UnraisableHookArgs) -> None:
    """Give an interrupt once more that came while an object was being deleted: Python drops it there."""
    if issubclass(dropped.exc_type, KeyboardInterrupt):
        threading.Timer(_AGAIN_S, os.kill, (os.getpid(), signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(dropped)


if __name__ == "__main__":
    sys.unraisablehook = interrupt_again
    sys.exit(main())
