"""What a measurement allows to say: intervals that hold, and verdicts that may be "cannot tell".

Rows that were measured in turn (A, B, B, A) are compared pair by pair, because what the machine does meanwhile hits both alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from helpers.errors import InputError
from helpers.measuring.table import THROUGHPUT, THROUGHPUT_SPREAD, hardware, is_recorded, rows_of, with_spread
from helpers.tables import box, cell

FASTER, SLOWER, SAME, CANNOT_TELL = "faster", "slower", "the same", "cannot tell"
# Confidence of every interval.
LEVEL = 0.95
# Windows of a measurement at least: with fewer, Student's factor makes every interval useless.
LEAST_WINDOWS = 6
# Correlation of neighbouring windows, at least and at most: a slow moment is longer than a window, and six cannot show independence.
CORRELATION = (0.2, 0.8)
# Differences of throughput below this fraction do not count.
LEAST = 0.05
# Relative standard deviation between runs of the same work, some minutes apart, that no run knows of itself: ten fresh runs of one
# notebook on a quiet machine of two cores. ``python -m benchmarks.again`` measures it. Rows that were measured in turn do not need it.
BETWEEN_RUNS = 0.04
# Pairs from which on they are compared as pairs: two have one degree of freedom, and say nothing.
_LEAST_PAIRS = 3
_COLOURS = {FASTER: "#2e9e44", SLOWER: "#c96f14", SAME: "#7a8699", CANNOT_TELL: "#3b7dd8"}
# What may differ between two measurements, and should be named: a change that one did not mean is the usual mistake.
_NAMED = ("model", "variant", "batch", "concurrency", "request_rate_per_s", "protocol", "inputs", "instances", "config")

Row = Mapping[str, Any]


def student(degrees: float) -> float:
    """Return the factor of a 95 % interval by Student's distribution."""
    from scipy import special  # a quarter of a second that `from helpers import measure` need not wait for

    # From a million on it is the normal one.
    return float(special.stdtrit(min(degrees, 1e6), (1 + LEVEL) / 2))


def half_width(values: Sequence[float]) -> float | None:
    """Return the half width of the mean's 95 % interval for independent values; None for fewer than two."""
    return student(len(values) - 1) * float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None


def inflation(values: Sequence[float] | NDArray[np.float64]) -> float:
    """Return by how much correlation of neighbours widens an interval: the root of (1 + r) / (1 − r)."""
    apart = np.asarray(values, dtype=float) - np.mean(values)
    scatter, size = float(apart @ apart), len(apart)
    shown = float(apart[1:] @ apart[:-1]) / scatter if scatter and size > 2 else 0.0
    # What few values show is too small on average by (1 + 4r)/n.
    correlation = float(np.clip(shown + (1 + 4 * shown) / size, *CORRELATION))
    return math.sqrt((1 + correlation) / (1 - correlation))


def interval(windows: Sequence[float]) -> float | None:
    """Return the half width of the mean's 95 % interval for windows that follow one another; None for fewer than two."""
    half = half_width(windows)
    return half and half * inflation(windows)


def windows_needed(pilot: Sequence[float], precision: float, most: int) -> int:
    """Return how many windows will likely reach a precision (a half width, as a fraction), from those of a warm-up.

    An interval holds only where the number of windows does not depend on their values, so it is decided before.
    """
    if len(pilot) < 3 or not np.mean(pilot):
        return max(most, LEAST_WINDOWS)
    scatter = float(np.std(pilot, ddof=1) / np.mean(pilot)) * math.sqrt((1 + CORRELATION[0]) / (1 - CORRELATION[0]))
    enough = (number for number in range(LEAST_WINDOWS, most) if student(number - 1) * scatter / math.sqrt(number) <= precision)
    return next(enough, max(most, LEAST_WINDOWS))


def percentile_interval(
    windows: Sequence[tuple[float, int]], runs: Sequence[tuple[Mapping[str, Any], int]]
) -> tuple[float | None, float | None]:
    """Return a 95 % interval of the 95th percentile that assumes no shape of the distribution; None for an end that is not known.

    A reported percentile of n requests is one of them in order. So one knows how probable it is that it lies below the true one, and
    with several ``windows`` (value, requests) how many of them do. Where these cannot give an end, other percentiles of whole ``runs``
    (figures, requests) may: the 99th of fewer than 51 requests is the slowest of all. For the upper end that takes 72 requests.
    """
    ends = []
    for upper, others in ((False, (90, 50)), (True, (99,))):
        seen = [(95, windows), *((each, [(figures[f"latency_p{each}_us"], size) for figures, size in runs]) for each in others)]
        known = (_end(values, reported, upper) for reported, values in seen)
        ends.append(next((end for end in known if end is not None), None))
    return ends[0], ends[1]


def _end(seen: Sequence[tuple[float, int]], reported: int, upper: bool) -> float | None:
    """One end: the innermost of the values, in order, that is beyond the true 95th percentile with 97.5 %."""
    from scipy import special

    # How many of the values lie below the true one: a sum of unequal coins.
    below = np.ones(1)
    for _, size in seen:
        # perf_analyzer reports the request at this place, from the fastest.
        place = int(reported / 100 * (size - 1) + 0.5)
        chance = float(special.bdtrc(place, size, 0.95)) if size else 0.5
        below = np.convolve(below, [1 - chance, chance])
    values, miss = sorted(value for value, _ in seen), (1 - LEVEL) / 2
    if upper:
        # The value in place k is too low when k or more lie below.
        return next((value for place, value in enumerate(values, 1) if below[place:].sum() <= miss), None)
    return next((values[place - 1] for place in range(len(values), 0, -1) if below[:place].sum() <= miss), None)


@dataclass(frozen=True, repr=False)
class Verdict:
    """What two measurements say about each other: ``faster``, ``slower``, ``the same`` or ``cannot tell``, with its reason as ``text``.

    ``gain`` says how many times as fast the second is, ``factor`` with the ends of its 95 % interval; ``half_width`` is half of its
    length, None where no spread is known; ``pairs`` says how many were measured in turn.
    """

    answer: str
    gain: float
    half_width: float | None
    factor: str
    text: str
    pairs: int

    def __repr__(self) -> str:
        return f"{self.answer.capitalize()}: {self.text}"

    def _repr_html_(self) -> str:
        return box(f"<strong>{self.answer.capitalize()}.</strong> {self.text}", _COLOURS[self.answer])


def verdict(first: Any, second: Any, *, least: float = LEAST) -> Verdict:
    """Compare the throughput of two rows: is the second faster than the first, the baseline?

    The logarithm of the gain has a 95 % interval: from the pairs where both were measured in turn, else by Welch's test from both
    spreads and from what a machine changes between two runs. When all of it lies above ``1 + least`` the second is faster; below
    ``1 / (1 + least)`` slower; between: the same. When it reaches over such a limit, the answer is "cannot tell".
    """
    rows = [row for side in (first, second) for row in rows_of(side, (THROUGHPUT,), "a verdict")]
    if len(rows) != 2:
        happened, todo = f"A verdict compares two rows, and {len(rows)} were given.", 'Pick them first: rows.query("batch == 8").iloc[0]'
        raise InputError(happened, "Expected one on each side.", todo)
    pairs = _pairs(*rows)
    log, half = _paired(pairs, rows) if pairs else _welch(rows)
    gain = math.exp(log)
    factor = f"{gain:.2f}" + ("" if half is None else f" ({math.exp(log - half):.2f}–{math.exp(log + half):.2f})")
    answer, remark = _answer(log, half, least, bool(pairs))
    values, paired = [with_spread(row[THROUGHPUT], row.get(THROUGHPUT_SPREAD)) for row in rows], ""
    if pairs:
        # Of these turns alone: a row may have been measured beside others as well, at another time.
        values = [cell(math.exp(float(np.mean(np.log(side))))) for side in zip(*pairs, strict=True)]
        paired = f"By {len(pairs)} pairs, measured in turn."
    said = f"{factor} times as fast ({' → '.join(f'{value} inferences/s' for value in values)}).", paired, remark, _differing(rows)
    # Half of the interval's length on the scale of the gain itself.
    half_width = None if half is None else gain * math.sinh(half)
    return Verdict(answer, gain, half_width, factor, " ".join(filter(None, said)), len(pairs))


def _pairs(before: Row, after: Row) -> list[tuple[float, float]]:
    """What both gave in the same turns; empty where too few are common."""
    one, other = (row.get("turns") or {} for row in (before, after))
    pairs = [(one[turn], other[turn]) for turn in one if one[turn] and other.get(turn)]
    return pairs if len(pairs) >= _LEAST_PAIRS else []


def _paired(pairs: Sequence[tuple[float, float]], rows: Sequence[Row]) -> tuple[float, float | None]:
    """The mean log-ratio of pairs, and the half width of its interval."""
    logs = [math.log(other / one) for one, other in pairs]
    # No better than the counts are known to one request.
    counted = math.hypot(*(1 / (row.get("requests") or math.inf) for row in rows))
    return float(np.mean(logs)), max(half_width(logs) or 0.0, counted)


def _welch(rows: Sequence[Row]) -> tuple[float, float | None]:
    """The same of rows that were not measured in turn: by what they state, and by what a machine changes between two runs."""
    log, variance, lost = math.log(rows[1][THROUGHPUT] / rows[0][THROUGHPUT]), 0.0, 0.0
    for row in rows:
        if row.get(THROUGHPUT_SPREAD) is None:
            return log, None
        freedom = max((row.get("windows") or LEAST_WINDOWS) - 1, 1)
        # No count is better known than to one request: windows that held equally many seem to agree perfectly.
        stated = max(row[THROUGHPUT_SPREAD] / row[THROUGHPUT], 1 / (row.get("requests") or math.inf))
        own = (stated / student(freedom)) ** 2
        # Welch and Satterthwaite: what is between runs is known from elsewhere, and has no degrees to lose.
        variance, lost = variance + own + BETWEEN_RUNS**2, lost + own**2 / freedom
    return log, student(variance**2 / lost if lost else math.inf) * math.sqrt(variance)


def _answer(log: float, half: float | None, least: float, paired: bool) -> tuple[str, str]:
    """The answer, and what to say of it."""
    if half is None:
        return CANNOT_TELL, "There is no spread, so it is not known how much of this is chance."
    if abs(log) - half > math.log1p(least):
        return FASTER if log > 0 else SLOWER, ""
    if abs(log) + half < math.log1p(least):
        return SAME, f"Differences below {100 * least:g} % do not count."
    in_turn = "measure both in turn, with measure_in_turn(...), because one run does not know what the machine does during the other"
    more = "measure more pairs, such as four times as many for half the spread"
    return CANNOT_TELL, f"The spread is too large: {more if paired else in_turn}."


def _differing(rows: Sequence[Row]) -> str:
    """What else differs."""
    names = [name for name in _NAMED if rows[0].get(name) != rows[1].get(name)]
    changes = {name.replace("_", " "): [str(row.get(name) or "not known") for row in rows] for name in names}
    changes["device"] = [hardware(row) + " (recorded)" * is_recorded(row) for row in rows]
    said = [f"{name} {' → '.join(both)}" for name, both in changes.items() if both[0] != both[1]]
    return f"What differs: {'; '.join(said)}." if said else ""
