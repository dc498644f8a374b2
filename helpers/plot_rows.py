"""From measured rows to the series of a figure: what is checked, what belongs together, and what it is called.

A row is a dictionary with units in its names, as perf_analyzer's results are kept. A figure that mixes rows says in its legend what
differs between them: the model, the batch size, the hardware.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from helpers.errors import InputError
from helpers.measuring.table import LATENCY_ENDS, MEASURED, THROUGHPUT, THROUGHPUT_SPREAD, is_recorded, latency_column

Row = Mapping[str, Any]

# What can set two series of a figure apart beside the model, and how the legend says it.
_APART = {
    "variant": "{}",
    "servers": "servers: {}",
    "batch": "batch {}",
    "concurrency": "concurrency {}",
    "request_rate_per_s": "{:g} requests/s",
    "instances": "instances: {}",
    "protocol": "{}",
    "inputs": "inputs: {}",
    "device": "{}",
    "config": "config {}",
}


@dataclass(frozen=True)
class Series:
    """Rows that one line joins.

    Attributes:
        name: for the legend.
        rows: in the order of ``x``.
        x: (n,) what the line runs along, such as the batch size.
        recorded: whether somebody else, or another machine, measured them.
    """

    name: str
    rows: tuple[Row, ...]
    x: NDArray[np.float64]
    recorded: bool

    def column(self, name: str) -> NDArray[np.float64]:
        """(n,) the numbers of a column, NaN where a figure is missing."""
        return np.array([np.nan if row.get(name) is None else float(row[name]) for row in self.rows], dtype=float)

    @property
    def stable(self) -> NDArray[np.bool_]:
        """(n,) whether the measurement settled; what nobody says counts as settled."""
        return np.array([row.get("stable") is not False for row in self.rows], dtype=bool)


def latency_label(percentile: int | None) -> str:
    """What an axis says about a latency percentile."""
    return "Mean latency (ms)" if percentile is None else f"Latency, {percentile}th percentile (ms)"


def series_of(rows: Sequence[Row], along: str, *, always: Sequence[str] = ()) -> list[Series]:
    """Rows that belong together, in the order of their first appearance.

    Args:
        rows: checked rows.
        along: the column that a line runs along.
        always: what the legend names even where all rows agree.

    Raises:
        InputError: a row has no value there, or two rows of one series have the same.
    """
    apart = [name for name in _APART if name not in (along, "config")]
    varying = [name for name in apart if name in always or len({row.get(name) for row in rows}) > 1]
    without = next((row for row in rows if row.get(along) is None), None)
    if without is not None:
        raise InputError(f"A row of {without.get('model')!r} has no {along}.", f"This figure runs along {along}, so every row needs one.")
    # The short name of a configuration says little: it is there only where nothing else sets two points apart.
    places = [(along, row[along], *_key(row, varying)) for row in rows]
    if len(set(places)) < len(places) and len({row.get("config") for row in rows}) > 1:
        varying.append("config")
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(_key(row, varying), []).append(row)
    return [_series(group, along, varying) for group in groups.values()]


def _key(row: Row, varying: Sequence[str]) -> tuple[Any, ...]:
    return row.get("model"), row.get("source", MEASURED), *(row.get(name) for name in varying)


def _series(rows: list[Row], along: str, varying: Sequence[str]) -> Series:
    rows.sort(key=lambda row: row[along])
    x = np.array([float(row[along]) for row in rows])
    first = rows[0]
    twice = x[:-1][np.diff(x) == 0]
    if twice.size:
        raise InputError(
            f"Two rows of {first.get('model')!r} have {along} {twice[0]:g}, and nothing else sets them apart.",
            "A line has one point there.",
            "Draw them in two figures, or keep the newer row.",
        )
    words = [_APART[name].format(first[name]) for name in varying if first.get(name) not in (None, "")]
    return Series(", ".join([str(first.get("model", "?")), *words]), tuple(rows), x, is_recorded(first))


def half_widths(series: Series, column: str) -> NDArray[np.float64]:
    """(n,) the spread of a column, NaN where it is not known; that of a latency as far as its farther end."""
    if column == THROUGHPUT:
        return series.column(THROUGHPUT_SPREAD)
    known = [latency_column(row.get("percentile")) == column for row in series.rows]
    apart = [np.abs(series.column(end) - series.column(column)) for end in LATENCY_ENDS]
    return np.where(np.array(known, dtype=bool), np.maximum(*apart), np.nan)
