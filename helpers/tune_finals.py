"""The finals of a search: the best few measured in turn, until the others are clearly behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from helpers import settings
from helpers.plot_rows import latency_column
from helpers.tune_candidate import OK, OVER_BUDGET, Candidate, Goal, Row
from helpers.tune_standing import Standing
from helpers.verdict import SLOWER, verdict


def confirm(
    finalists: Sequence[Candidate],
    goal: Goal,
    measure: Callable[[Candidate, int], Row],
    rounds: int | None = None,
    reserve: Sequence[Candidate] = (),
) -> tuple[dict[Candidate, list[Row]], str]:
    """Measure the finalists in turn, round by round, so that the machine's moods hit all alike; those that clearly lose drop out.

    A finalist whose latency turns out to be over the budget, with its whole interval, cannot win. When none but the configuration as
    found is left, the next of the reserve takes its place.

    Args:
        finalists: the combinations.
        goal: what is best.
        measure: measures one well; told the number of the round.
        rounds: at most; :data:`helpers.settings.TUNE_ROUNDS` by default.
        reserve: who is measured when all finalists are rejected, in order.

    Returns:
        The rows of each, and in a sentence why no more were measured.
    """
    rows, why = _rounds(finalists, goal, measure, rounds)
    for each in reserve:
        if any(not taken[-1].get("as_found") and not rejected(one, taken, goal) for one, taken in rows.items() if taken):
            break
        more, why = _rounds([each], goal, measure, rounds)
        rows |= more
    return rows, why


def rejected(candidate: Candidate, rows: Sequence[Row], goal: Goal) -> bool:
    """Whether a finalist cannot win: nothing of it was measured, or the whole interval of its latency is over the budget."""
    measured = tuple(row for row in rows if row["outcome"] in (OK, OVER_BUDGET))
    return not measured or Standing(candidate, measured, goal).within() is False


def _rounds(
    finalists: Sequence[Candidate], goal: Goal, measure: Callable[[Candidate, int], Row], rounds: int | None
) -> tuple[dict[Candidate, list[Row]], str]:
    rounds = rounds or (settings.QUICK_TUNE_ROUNDS if settings.quick() else settings.TUNE_ROUNDS)
    rows: dict[Candidate, list[Row]] = {each: [] for each in finalists}
    alive = list(finalists)
    for number in range(rounds):
        # Every other round backwards: whoever is last in one is first in the next, and needs no loading.
        for each in alive if number % 2 == 0 else alive[::-1]:
            rows[each].append(measure(each, number))
        alive = [each for each in alive if rows[each][-1]["outcome"] in (OK, OVER_BUDGET)]
        if not alive:
            return rows, "no finalist could be measured again"
        if number > 0 and all(rejected(each, rows[each], goal) for each in alive):
            return rows, f"after {number + 1} rounds of the finals all were over the budget for certain"
        best = max(alive, key=lambda each: rank_of(rows[each], goal))
        # One run says nothing about how much the next one will differ.
        alive = [each for each in alive if each == best or number == 0 or not _lost(rows[each], rows[best], goal)]
        if len(alive) == 1 and number > 0 and len(finalists) > 1:
            return rows, f"after {number + 1} rounds of the finals the others were clearly behind"
    return rows, f"{rounds} rounds of the finals were measured"


def _lost(rows: Sequence[Row], best: Sequence[Row], goal: Goal) -> bool:
    if all(goal.within(row) for row in best) and all(goal.over(row) for row in rows):
        return True
    return verdict(list(best), list(rows), goal.quantity).answer == SLOWER


def rank_of(rows: Sequence[Row], goal: Goal) -> tuple[float, ...]:
    """The rank of several rows of one combination: that of their means."""
    latency, columns = latency_column(goal.percentile), ("throughput_infer_per_s", "throughput_spread_infer_per_s")
    known = [row for row in rows if row.get(latency) is not None]
    if not known:
        return (-1.0, 0.0)
    return goal.rank({name: sum(row[name] or 0 for row in known) / len(known) for name in (latency, *columns)})
