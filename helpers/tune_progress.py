"""One line that says what a search is measuring; nobody knows beforehand how many measurements it will take."""

from __future__ import annotations

import time
from typing import Any

from helpers import sweep_progress


class Progress(sweep_progress.Progress):
    """The line of a sweep, without a number of points to come.

    Args:
        silent: show nothing.
    """

    def __init__(self, silent: bool = False) -> None:
        super().__init__([], silent)
        self._start = time.monotonic()
        self._number = 0

    def told(self, what: str, row: dict[str, Any] | None) -> None:
        """A measurement begins, or is done."""
        if row is None:
            self.begin(what)
            return
        self._number += 1
        rate = row["throughput_infer_per_s"]
        result = f"{what}: {row['outcome'] if rate is None else f'{rate:.4g} infer/s'}"
        self._show(result)
        if not (self._notebook or self._terminal or self._silent):
            print(f"{self._number}: {result}", flush=True)

    def text(self, what: str) -> str:
        """The line as text."""
        return f"{self._number} measured in {time.monotonic() - self._start:.0f} s: {what}"
