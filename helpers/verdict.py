"""Is it faster? Two measurements and their spreads, and an answer that may be "cannot tell: measure longer".

Typical use::

    verdict(before, after)                            # rows of measure(...) or of a sweep; by their throughput
    verdict(before, after, "latency")                 # by the latency percentile that they were measured for
    verdict([before, again], [after, once_more])      # repeats count more than longer runs: they see the machine at different times
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from helpers import settings
from helpers.course.judge import box
from helpers.errors import InputError
from helpers.perf_results import half_width
from helpers.plot_rows import THROUGHPUT, THROUGHPUT_SPREAD, Row, hardware, is_recorded, latency_column, rows_of

FASTER, SLOWER, SAME, CANNOT_TELL = "faster", "slower", "the same", "cannot tell"
_COLOURS = {FASTER: "#2e9e44", SLOWER: "#c96f14", SAME: "#7a8699", CANNOT_TELL: "#3b7dd8"}
# What may differ between two measurements, and should be named: a change that one did not mean is the usual mistake.
_NAMED = ("model", "variant", "batch", "concurrency", "request_rate_per_s", "protocol", "inputs", "instances", "config")
# A measurement that must be this many times longer is better given up: the difference is too small to matter.
_LONGEST = 30


@dataclass(frozen=True)
class Verdict:
    """What two measurements say about each other.

    Attributes:
        answer: ``faster``, ``slower``, ``the same`` or ``cannot tell``: the second, seen from the first.
        gain: how many times as fast the second is: the ratio of throughputs, or the inverse ratio of latencies.
        half_width: of the gain's 95 % interval; None when a measurement came without its spread.
        text: the whole sentence, with the numbers.
    """

    answer: str
    gain: float
    half_width: float | None
    text: str

    def __str__(self) -> str:
        return f"{self.answer[0].upper()}{self.answer[1:]}: {self.text}"

    def _repr_html_(self) -> str:
        return box(f"<strong>{self.answer[0].upper()}{self.answer[1:]}.</strong> {self.text}", _COLOURS[self.answer])

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/plain": str(self), "text/html": self._repr_html_()}


@dataclass(frozen=True)
class _Side:
    value: float
    half: float | None
    rows: tuple[Row, ...]

    def words(self, unit: str) -> str:
        spread = "" if self.half is None else f" ± {_short(self.half)}"
        repeats = f", mean of {len(self.rows)}" if len(self.rows) > 1 else ""
        return f"{_short(self.value)}{spread} {unit}{repeats}"


def verdict(first: Any, second: Any, quantity: str = "throughput", *, least: float = settings.VERDICT_LEAST) -> Verdict:
    """Compare two measurements: is the second faster than the first?

    The gain has a 95 % interval, made of the spreads of both. When all of it lies above ``1 + least`` the second is faster; all below
    ``1 − least``: slower; all between: the same, for all practical purposes. When it reaches over such a limit nobody can tell.

    Args:
        first: the baseline, a row or several rows of the same measurement.
        second: what is compared with it.
        quantity: ``throughput``, or ``latency`` for the percentile that the rows were measured for.
        least: differences below this fraction do not count. The windows of one run do not know what else the machine will do a minute
            later, so their spread alone would promise too much.

    Raises:
        InputError: no rows, rows of one side that are no repeats of each other, or without the quantity.
    """
    if quantity not in ("throughput", "latency"):
        raise InputError(f"The quantity {quantity!r} cannot be compared.", 'Expected "throughput" or "latency".')
    column, unit = THROUGHPUT, "inferences/s"
    rows = [rows_of(side, what="a verdict") for side in (first, second)]
    if quantity == "latency":
        column, unit = _latency(rows[0] + rows[1]), "ms"
    before, after = (_side(side, column) for side in rows)
    gain = after.value / before.value if quantity == "throughput" else before.value / after.value
    half = None if before.half is None or after.half is None else gain * math.hypot(before.half / before.value, after.half / after.value)
    answer = _answer(gain, half, least)
    facts = f"{_fine(gain)}{'' if half is None else f' ± {_fine(half)}'} times as fast ({before.words(unit)} → {after.words(unit)})."
    return Verdict(answer, gain, half, " ".join(filter(None, [facts, _why(answer, gain, half, least), *_remarks(before, after)])))


def _latency(rows: Sequence[Row]) -> str:
    asked = {row.get("percentile") for row in rows}
    if len(asked) > 1:
        raise InputError(
            f"The rows were measured for different percentiles: {', '.join(sorted(map(str, asked)))}.",
            "The spread is known for that percentile only, so both must have the same one.",
        )
    return latency_column(asked.pop())


def _side(rows: Sequence[Row], column: str) -> _Side:
    """Mean and half width of repeats: what they say of themselves, or what they differ by, whichever is larger."""
    for name in _NAMED:
        values = list(dict.fromkeys(row.get(name) for row in rows))
        if len(values) > 1:
            raise InputError(
                f"The rows of one side differ in {name}: {', '.join(map(str, values))}.",
                "One side of a verdict is one row, or repeats of the same measurement.",
                "Pick the rows first, for example with [row for row in rows if row['batch'] == 8].",
            )
    values = [row.get(column) for row in rows]
    if any(value is None or value <= 0 for value in values):
        raise InputError(f"A row of {rows[0].get('model')!r} has no {column}, so there is nothing to compare.")
    known = [_own_half(row, column) for row in rows]
    own = None if None in known else math.sqrt(sum(each**2 for each in known)) / len(rows)
    halves = [each for each in (own, half_width(values)) if each is not None]
    unit = 1.0 if column == THROUGHPUT else 1e-3
    return _Side(unit * statistics.fmean(values), unit * max(halves) if halves else None, tuple(rows))


def _own_half(row: Row, column: str) -> float | None:
    """The half width that a row states, but not less than one request: windows that held equally many seem to agree perfectly."""
    stated = row.get(THROUGHPUT_SPREAD if column == THROUGHPUT else "latency_spread_us")
    if stated is None or column != THROUGHPUT or not row.get("requests"):
        return stated
    return max(stated, row[THROUGHPUT] / row["requests"])


def _answer(gain: float, half: float | None, least: float) -> str:
    if half is None:
        return CANNOT_TELL
    low, high = gain - half, gain + half
    if low > 1 + least:
        return FASTER
    if high < 1 - least:
        return SLOWER
    return SAME if low > 1 - least and high < 1 + least else CANNOT_TELL


def _why(answer: str, gain: float, half: float | None, least: float) -> str:
    if answer == SAME:
        return f"Differences below {100 * least:g} % do not count."
    if answer != CANNOT_TELL:
        return ""
    if half is None:
        return "There is no spread, so nobody knows how much of this is chance."
    # The interval shrinks with the root of the time, and has to fit between the gain and the nearest limit.
    room = min(abs(gain - 1 - least), abs(gain - 1 + least))
    longer = (half / room) ** 2 if room else math.inf
    if longer > _LONGEST:
        return f"The difference is too close to {100 * least:g} %, below which none counts: more time would hardly settle it."
    return f"The spread is too large: measure longer, about {max(2, math.ceil(longer))} times as long, or repeat both in turn."


def _remarks(before: _Side, after: _Side) -> list[str]:
    """What else differs, and what did not settle."""
    differing = [name for name in _NAMED if before.rows[0].get(name) != after.rows[0].get(name)]
    if "model" in differing and "config" in differing:
        differing.remove("config")  # of course: it holds the name
    said = [f"{name.replace('_', ' ')} {_value(before.rows[0], name)} → {_value(after.rows[0], name)}" for name in differing]
    where = [hardware(side.rows[0]) + (" (recorded)" if is_recorded(side.rows[0]) else "") for side in (before, after)]
    if where[0] != where[1]:
        said.append(f"device {where[0]} → {where[1]}")
    unsettled = [name for name, side in (("first", before), ("second", after)) if any(row.get("stable") is False for row in side.rows)]
    return [
        f"What differs: {'; '.join(said)}." if said else "",
        f"The {' and the '.join(unsettled)} did not settle; the spread says how much." if unsettled else "",
    ]


def _value(row: Row, name: str) -> str:
    return "not known" if row.get(name) is None else str(row[name])


def _short(value: float) -> str:
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


def _fine(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"
