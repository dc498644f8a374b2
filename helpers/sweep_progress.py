"""One line that says how far a long measurement is and how long it still takes, in a terminal and in a notebook."""

from __future__ import annotations

import html
import shutil
import sys
import time
from typing import Any


class Progress:
    """The line. In a notebook a bar that changes in place; on a terminal the same in text; elsewhere one line for each point.

    Args:
        weights: how long each point takes, in arbitrary units.
        silent: show nothing.
        noun: what is counted.
    """

    def __init__(self, weights: list[float], silent: bool = False, noun: str = "points") -> None:
        self._weights, self._silent, self._noun = weights, silent, noun
        self._done = 0
        self._measured = 0.0
        self._spent_s = 0.0
        self._begin = time.monotonic()
        self._display: Any = None
        self._notebook = not silent and _in_notebook()
        self._terminal = sys.stdout.isatty()

    def begin(self, what: str) -> None:
        """A point begins."""
        self._begin = time.monotonic()
        self._show(what)

    def done(self, result: str, measured: bool = True) -> None:
        """A point is done; ``measured`` is False when it was there already, which says nothing about the time that others take."""
        if measured:
            self._measured += self._weights[self._done]
            self._spent_s += time.monotonic() - self._begin
        self._done += 1
        if not (self._notebook or self._terminal or self._silent):
            print(f"{self._done} of {len(self._weights)}: {result}", flush=True)
        else:
            self._show(result)

    def close(self, words: str) -> None:
        """The end, or an interruption, in words that stay."""
        self._show(words)
        if not self._silent and not self._notebook:
            print("" if self._terminal else words, flush=True)

    @property
    def left_s(self) -> float | None:
        """Seconds until the end, from the points measured so far; None before the first."""
        return self._spent_s / self._measured * sum(self._weights[self._done :]) if self._measured else None

    def text(self, what: str) -> str:
        """The line as text: how many of how many, the time left, and what is being done."""
        left = self.left_s
        time_left = "" if left is None or self._done == len(self._weights) else f", about {_time(left)} left"
        return f"{self._done} of {len(self._weights)} {self._noun}{time_left}: {what}"

    def _show(self, what: str) -> None:
        if self._notebook:
            self._show_in_notebook(what)
        elif self._terminal and not self._silent:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\x1b[K{self.text(what)[:width]}", end="", flush=True)

    def _show_in_notebook(self, what: str) -> None:
        from IPython.display import HTML, display

        bar = f'<progress value="{self._done}" max="{len(self._weights)}"></progress> {html.escape(self.text(what))}'
        if self._display is None:
            self._display = display(HTML(bar), display_id=True)
        else:
            self._display.update(HTML(bar))


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _in_notebook() -> bool:
    """Whether a Jupyter kernel runs this; a plain IPython is a terminal."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return hasattr(get_ipython(), "kernel")
