"""What checkers of measurements share: rows, the knee of a curve, verdicts, and a gain inside a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from helpers.course import judge
from helpers.course.judge import CannotTell, NotYet, Outcome, correct, not_yet
from helpers.errors import InputError
from helpers.measuring import statistics
from helpers.measuring.table import INPUT_DATA, LATENCY_ENDS, THROUGHPUT, is_recorded, latency_words, rows_of, shapes_of
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
    """Judge an entry: faster than the baseline beyond doubt, with the same inputs, and inside the budget.

    Args:
        baseline: a measured row.
        best: the entry's row.
        budget_ms: of the 95th percentile, ms.
        name: what to call the entry.
        again: what to do when it cannot be told.
        done: a last sentence when it is right.
    """
    if differs := other_inputs(baseline, best):
        return not_yet(f"{differs} A gain counts with the same inputs.")
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
        raise CannotTell(
            f"Your server has seen {judge.plain(risen)} requests since `counted`, and `best` is made of {needed}. Run your cell again from "
            "its first line, then this one."
        )


def other_inputs(baseline: Mapping[str, Any], best: Mapping[str, Any]) -> str:
    """Return what differs between the inputs of two measured rows, in a sentence; empty when they sent the same.

    Shorter jets are answered sooner, so gains count with the same ones.

    Raises:
        CannotTell: a row does not say what its file held.
    """
    kinds = [row.get("inputs") if row.get("inputs") in INPUT_DATA else "real" for row in (baseline, best)]
    if kinds[0] != kinds[1]:
        return f"`best` was measured with {kinds[1]} inputs, and the baseline with {kinds[0]} ones."
    before, after = shapes_of(baseline), shapes_of(best)
    for name, shape in before.items():
        if after.get(name, shape) != shape:
            return f"`best` was measured with a `{name}` of {list(after[name])}, and the baseline with {list(shape)}."
    sent = [row.get("inputs_digest") for row in (baseline, best)]
    if kinds[0] != "real" or (sent[0] == sent[1] and sent[0]):
        return ""
    if None in sent:
        raise CannotTell("A row does not say which jets it sent. Measure both again, with one file.")
    return f"`best` was measured with the jets of `{best.get('inputs')}`, and the baseline with those of `{baseline.get('inputs')}`."
