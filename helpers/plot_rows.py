"""From measured rows to the series of a figure: what is checked, what belongs together, and what it is called.

A row is a dictionary with units in its names, as perf_analyzer's results are kept. A figure that mixes rows says in its legend what
differs between them: the model, the batch size, the hardware.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from helpers.errors import InputError
from helpers.wording import quoted

Row = Mapping[str, Any]

MEASURED = "measured"
PERCENTILES = (50, 90, 95, 99)
THROUGHPUT, THROUGHPUT_SPREAD = "throughput_infer_per_s", "throughput_spread_infer_per_s"
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


def rows_of(rows: Any, needs: Sequence[str] = (), what: str = "this figure") -> list[Row]:
    """The rows of a sweep, of one measurement, or of a list of either, checked.

    Args:
        rows: a row, a list of rows, or something with ``.rows``.
        needs: columns that at least one row must have a value in.
        what: what they are for, for the error.

    Raises:
        InputError: no row, something that is none, or a column that is nowhere.
    """
    found = [rows] if isinstance(rows, Mapping) else getattr(rows, "rows", rows)
    if isinstance(found, str) or not isinstance(found, Iterable):
        found = [found]
    listed = [row for item in found for row in ([item] if isinstance(item, Mapping) else getattr(item, "rows", [item]))]
    if not listed:
        raise InputError("There is not one row to draw or to compare.", f"Expected at least one measured row for {what}.")
    strange = [type(row).__name__ for row in listed if not isinstance(row, Mapping)]
    if strange:
        raise InputError(
            f"A row is something of type {strange[0]}.",
            f"Expected measured rows for {what}: what measure(...) or sweep(...) returned, or recorded(...).",
        )
    missing = [name for name in needs if all(row.get(name) is None for row in listed)]
    if missing:
        raise InputError(
            f"No row has a value for {quoted(missing)}, and {what} needs it.",
            f"The rows have: {', '.join(sorted({name for row in listed for name, value in row.items() if value is not None}))}.",
        )
    return listed


def latency_column(percentile: int | None) -> str:
    """The column of a latency percentile; that of the mean for None.

    Raises:
        InputError: perf_analyzer does not report this one.
    """
    if percentile not in (*PERCENTILES, None):
        known = ", ".join(map(str, PERCENTILES))
        raise InputError(f"There is no column for the percentile {percentile!r}.", f"There are: {known}, and None for the mean.")
    return "latency_avg_us" if percentile is None else f"latency_p{percentile}_us"


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


def is_recorded(row: Row) -> bool:
    """Whether a row is somebody else's, or another machine's."""
    return str(row.get("source") or MEASURED) != MEASURED


# What makers write around the name of a processor, and what makes a heading too long.
_AROUND = re.compile(r"\((?:R|TM)\)|\s*@ [\d.]+ ?GHz|\s+(?:CPU|(?:\d+-Core )?Processor)\b")


def hardware(row: Row) -> str:
    """The device of a row, with the processor's name where it is a CPU and the name is not in it already."""
    device, cpu = str(row.get("device") or "").strip(), _AROUND.sub("", str(row.get("cpu") or "")).strip()
    if device.upper().startswith("CPU") and cpu and cpu.casefold() not in device.casefold():
        return f"CPU: {cpu}"
    return device or (f"CPU: {cpu}" if cpu else "device not known")


def half_widths(series: Series, column: str) -> NDArray[np.float64]:
    """(n,) the spread of a column, NaN where it is not known: that of a latency is, only for the percentile that was measured for."""
    if column == THROUGHPUT:
        return series.column(THROUGHPUT_SPREAD)
    known = [latency_column(row.get("percentile")) == column for row in series.rows]
    return np.where(np.array(known, dtype=bool), series.column("latency_spread_us"), np.nan)
