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


class Progress:
    """A line that says what a long step does, how many of its parts are done and how long it takes: in a notebook's cell, or on a terminal.

    It appears when the step takes longer than ``SHOWN_AFTER_S``. Of steps within one another, or side by side, the first one is shown.
    """

    def __init__(self, what: str | Callable[[], str], total: int | None = None, unit: str = "") -> None:
        self.what, self.total, self.unit = what, total, unit
        self.done = 0
        self._failed = False
        self._thread: threading.Thread | None = None

    def add(self, number: int = 1) -> None:
        """Count what is done."""
        self.done += number

    def __enter__(self) -> Progress:
        if _one_at_a_time.acquire(blocking=False):
            self._ended = threading.Event()
            # A copy of the context: what a thread shows belongs to the cell that started it.
            run = contextvars.copy_context().run
            self._thread = threading.Thread(target=run, args=(self._look, _publisher()), daemon=True, name="course-progress")
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._thread is not None:
            self._failed = kind is not None
            self._ended.set()
            self._thread.join()
            self._thread = None
            _one_at_a_time.release()

    def _look(self, publish: Callable[[str, bool], None]) -> None:
        begun, seen = time.monotonic(), False
        while not self._ended.wait(EVERY_S if seen else SHOWN_AFTER_S):
            publish(f"{self._words()} … {time.monotonic() - begun:.0f} s", False)
            seen = True
        if seen:
            publish(f"{self._words()}: {'stopped after' if self._failed else 'done in'} {time.monotonic() - begun:.0f} s", True)

    def _words(self) -> str:
        """What is done and how much of it."""
        what = self.what() if callable(self.what) else self.what
        number = f"{self.done:,}" if self.total is None else f"{self.done:,} of {self.total:,}"
        return f"{what}, {number} {self.unit}" if self.total is not None or self.done else what


def _publisher() -> Callable[[str, bool], None]:
    """Return what shows one line, and changes it: in a notebook's cell, on a terminal, or nowhere."""
    interactive = sys.modules.get("IPython")
    shell = interactive.get_ipython() if interactive else None
    if shell is not None and hasattr(shell, "kernel"):
        # This very one: what captures the outputs of other cells may take its place meanwhile.
        publish, name, shown = shell.display_pub.publish, uuid.uuid4().hex, threading.Event()

        def in_cell(text: str, last: bool) -> None:
            data = {"text/plain": text, "text/html": f"<small>{html.escape(text)}</small>"}
            publish(data, {MARK: True}, transient={"display_id": name}, update=shown.is_set())
            shown.set()

        return in_cell

    def on_terminal(text: str, last: bool) -> None:
        if sys.stderr is not None and sys.stderr.isatty():
            print(f"\r\033[K{'' if last else text[: shutil.get_terminal_size().columns - 1]}", end="", file=sys.stderr, flush=True)

    return on_terminal
