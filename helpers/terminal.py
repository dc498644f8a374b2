"""Writing to terminals, pipes and batch logs of any encoding, and how far a long step is. Standard library only."""

from __future__ import annotations

import contextvars
import html
import io
import shutil
import sys
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

# Seconds after which a step says that it runs, and between two looks at it.
SHOWN_AFTER_S, EVERY_S = 2.0, 1.0
# What marks the line among a cell's outputs.
MARK = "course_progress"
_one_at_a_time = threading.Lock()


def write_whatever_the_terminal() -> None:
    """Standard output and errors take every text, in a terminal, a pipe or a batch log of any encoding: no text of ours ends a command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # none under pythonw, another kind in notebooks and tests
            stream.reconfigure(errors="replace")


def notebook() -> Any:
    """Return the IPython of the kernel that runs this notebook; None elsewhere."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return shell if hasattr(shell, "kernel") else None


class Progress:
    """A line that says what a long step does, how many of its parts are done and how long it takes: in a notebook's cell, or on a terminal.

    It appears when the step takes longer than ``SHOWN_AFTER_S``. Of steps within one another, or side by side, the first one is shown.
    """

    def __init__(self, what: str | Callable[[], str], total: int | None = None, unit: str = "") -> None:
        self.what, self.total, self.unit = what, total, unit
        self.done = 0
        self._thread: threading.Thread | None = None

    def add(self, number: int = 1) -> None:
        """Count what is done."""
        self.done += number

    def __enter__(self) -> Progress:
        if _one_at_a_time.acquire(blocking=False):
            self._ended, self._name = threading.Event(), uuid.uuid4().hex
            # A copy of the context: what a thread shows belongs to the cell that started it.
            self._thread = threading.Thread(target=contextvars.copy_context().run, args=(self._look,), daemon=True, name="course-progress")
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is not None:
            self._ended.set()
            self._thread.join()
            self._thread = None
            _one_at_a_time.release()

    def _look(self) -> None:
        begun, seen = time.monotonic(), False
        while not self._ended.wait(EVERY_S if seen else SHOWN_AFTER_S):
            self._show(f"{self._words()} … {time.monotonic() - begun:.0f} s", update=seen)
            seen = True
        if seen:
            self._show(f"{self._words()}: {time.monotonic() - begun:.0f} s", update=True, last=True)

    def _words(self) -> str:
        """What is done and how much of it."""
        what = self.what() if callable(self.what) else self.what
        number = f"{self.done:,}" if self.total is None else f"{self.done:,} of {self.total:,}"
        return f"{what}, {number} {self.unit}" if self.total is not None or self.done else what

    def _show(self, text: str, *, update: bool, last: bool = False) -> None:
        """Show a line, or change it; a terminal does not keep the last one."""
        if notebook() is not None:
            from IPython.display import display

            data = {"text/plain": text, "text/html": f"<small>{html.escape(text)}</small>"}
            display(data, raw=True, metadata={MARK: True}, display_id=self._name, update=update)
        elif sys.stderr is not None and sys.stderr.isatty():
            print(f"\r\033[K{'' if last else text[: shutil.get_terminal_size().columns - 1]}", end="", file=sys.stderr, flush=True)
