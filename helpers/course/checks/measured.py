"""What checkers of measurements share: rows, the knee of a curve, verdicts, and a gain inside a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from helpers.course import judge
from helpers.course.judge import CannotTell, NotYet, Outcome, correct, not_yet
from helpers.errors import InputError
from helpers.measuring import statistics
from helpers.measuring.table import INPUT_DATA, LATENCY_ENDS, THROUGHPUT, is_recorded, is_row, latency_words, plain, rows_of, shapes_of
from helpers.tables import Row

VERDICTS = (statistics.FASTER, statistics.SLOWER, statistics.SAME.removeprefix("the "), statistics.CANNOT_TELL)
# A curve has its knee where this fraction of the highest throughput is reached, and a spread excuses no more than this.
KNEE, _KNEE_MARGIN = 0.9, 0.1


def rows(given: Any, needs: Sequence[str], name: str, cell: str) -> list[Row]:
    """Rows that have what a check needs, or "cannot tell"."""
    try:
        found: list[Row] = [*rows_of(given, ("batch", THROUGHPUT, *needs), "the check")]
    except InputError as error:
        raise CannotTell(f"The check needs your rows in `{name}`. {error.happened} Run the cell with `{cell}` again.") from error
    if any(row.get(column) is None for row in found for column in (THROUGHPUT, *needs)):
        raise CannotTell(f"A row of `{name}` lacks a figure. Run the cell with `{cell}` again, with `again=True`.")
    return found


def must_be_row(name: str, given: Any, expected: str) -> Row:
    """A measured row with throughput and latency, or "not yet"."""
    if not is_row(given) or any(given.get(column) is None for column in (THROUGHPUT, "latency_p95_us")):
        raise NotYet(f"`{name}` is {judge.kind(given)}, or has no figures. Expected {expected}.")
    return plain(given)


def must_be_pair(pair: Any) -> tuple[Row, Row]:
    """What ``measure_in_turn(...)`` returns for two loads, or "not yet"."""
    expected = "the two rows that `measure_in_turn(...)` returns for two loads"
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise NotYet(f"`pair` is {judge.kind(pair)}. Expected {expected}.")
    return must_be_row("pair[0]", pair[0], expected), must_be_row("pair[1]", pair[1], expected)


def must_be_knee(name: str, given: Any, found: Sequence[Row], column: str) -> Row:
    """The row that a student chose as the first that reaches 90 % of the highest throughput, or "not yet".

    A row whose spread reaches over the 90 % is accepted, too, unless the spread is so large that it excuses anything.
    """
    best = max(found, key=lambda row: row[THROUGHPUT])
    right = next(row for row in found if row[THROUGHPUT] >= KNEE * best[THROUGHPUT])
    chosen = next((row for row in found if row[column] == judge.number(given)), None)
    if chosen is None:
        raise NotYet(f"`{name}` should be one of {', '.join(str(row[column]) for row in found)}, and it is `{given!r}`.")
    if chosen is right or on_the_line(chosen, best):
        return chosen
    share = f"`{name}` is {chosen[column]}, which reaches {100 * chosen[THROUGHPUT] / best[THROUGHPUT]:.0f} % of the highest throughput"
    if chosen[column] > right[column]:
        raise NotYet(f"{share}. A smaller one, {right[column]}, is at 90 % or more already.")
    raise NotYet(f"{share}; 90 % was asked.")


def on_the_line(row: Row, best: Row) -> bool:
    """True if a row's spread reaches over the 90 %: then it cannot be said on which side it is."""
    share, half = statistics.ratio(row, best)
    return row is not best and half is not None and abs(share - KNEE) < min(half, _KNEE_MARGIN)


def faster_within(baseline: Row, best: Row, budget_ms: float, name: str, again: str, done: str = "") -> Outcome:
    """Judge an entry: faster than the baseline beyond doubt, with the same inputs, and its 95th percentile inside the budget."""
    _must_have_same_inputs(baseline, best)
    ends = [best[end] for end in LATENCY_ENDS if best.get(end) is not None]
    if len(ends) < len(LATENCY_ENDS):
        raise CannotTell(f"{name}: its 95th percentile is not known, of {best.get('requests')} requests. {again}")
    waits, (low, high) = f"95th percentile {latency_words(best, 95)} ms", (end / 1e3 for end in ends)
    if low > budget_ms:
        return not_yet(f"{name}: {waits}, over the budget of {budget_ms:g} ms. Take fewer jets, or fewer requests at once.")
    seen = statistics.verdict(baseline, best)
    if seen.answer in (statistics.SLOWER, statistics.SAME):
        return not_yet(f"{name} is not faster than the baseline. {seen}")
    if seen.answer == statistics.CANNOT_TELL:
        raise CannotTell(f"{name}: {seen.text} {again} Or choose settings with a larger gain.")
    if high > budget_ms:
        raise CannotTell(f"{name}: {waits}. That may be over {budget_ms:g} ms or not. Stay further away from it.")
    return correct(f"{name} is {seen.factor} times as fast as the baseline, with a {waits}.{done}")


def must_be_measured_here(server: Any, counted: Any, best: Row) -> None:
    """Raise "cannot tell" unless this server answered as many requests since ``counted`` as the row is made of."""
    if is_recorded(best):
        return
    risen, needed = judge.rise(server, counted, str(best.get("model"))), best.get("requests") or 1
    if risen < needed:
        seen = f"Your server has seen {judge.plain(risen)} requests since `counted`, and `best` is made of {needed}."
        raise CannotTell(f"{seen} Run your cell again from its first line, then this one.")


def _must_have_same_inputs(baseline: Mapping[str, Any], best: Mapping[str, Any]) -> None:
    """Raise "not yet" unless both rows sent the same: shorter jets are answered sooner."""
    kinds = [row.get("inputs") if row.get("inputs") in INPUT_DATA else "real" for row in (baseline, best)]
    before, after = shapes_of(baseline), shapes_of(best)
    sent = [row.get("inputs_digest") for row in (baseline, best)]
    other = next((name for name, shape in before.items() if after.get(name, shape) != shape), None)
    if kinds[0] != kinds[1]:
        differs = f"{kinds[1]} inputs, and the baseline with {kinds[0]} ones"
    elif other is not None:
        differs = f"a `{other}` of {list(after[other])}, and the baseline with {list(before[other])}"
    elif kinds[0] != "real" or (sent[0] == sent[1] and sent[0]):
        return
    elif None in sent:
        raise CannotTell("A row does not say which jets it sent. Measure both again, with one file.")
    else:
        differs = f"the jets of `{best.get('inputs')}`, and the baseline with those of `{baseline.get('inputs')}`"
    raise NotYet(f"`best` was measured with {differs}. A gain counts with the same inputs.")
