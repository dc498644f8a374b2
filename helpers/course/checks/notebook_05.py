"""Checkers of notebook 05, Find tracks."""

from __future__ import annotations

from typing import Any

from helpers.course import judge
from helpers.course.judge import CannotTell, Outcome, checker, correct, must_be_right, not_yet
from helpers.physics.tracks import STAGES, EventRate, Quality

_TRACKS = "ExaTrk_tracks"
# What exercise 5.1 asks for.
_EFFICIENCY, _PURITY = 0.98, 0.995
# A part of the total time counts as right within this: people round.
_PART_TOLERANCE = 0.02


@checker("5.1")
def cut_chosen(server: Any, chosen: Any, best: Any) -> Outcome:
    """The server has a cut that is good for efficiency and for purity."""
    now = float(judge.must_be_server(server).config(_TRACKS)["parameters"]["cut"]["string_value"])
    cut = judge.must_be_number("chosen", chosen)
    judge.must_be("best", best, Quality, "what `with_cut(chosen)` returns")
    if now != cut:
        return not_yet(f"The server's cut is {now:g} now, and yours is {cut:g}. Run `best = with_cut(chosen)`.")
    seen = f"With the cut {cut:g} the efficiency is {best.efficiency.value:.4f} and the hit purity {best.purity.value:.4f}."
    if best.efficiency.value < _EFFICIENCY and best.purity.value < _PURITY:
        return not_yet(f"{seen} Neither is enough: is `best` the result of this cut? Run the cell again.")
    if best.purity.value < _PURITY:
        return not_yet(f"{seen} Too many wrong hits: cut higher.")
    if best.efficiency.value < _EFFICIENCY:
        return not_yet(f"{seen} Too many tracks are lost: cut lower.")
    return correct(f"{seen} Every client of this server has your cut now.")


@checker("5.2")
def slowest_stage(server: Any, times: Any, slowest: Any, part: Any) -> Outcome:
    """The stage with the longest bar, and its part of the whole, by the table of times."""
    total = dict(zip(times["stage"], times["total_ms"], strict=True))
    right, whole = max(total, key=lambda stage: total[stage]), sum(total.values())
    name = str(slowest).strip()
    name = name if name in STAGES else f"ExaTrk_{name}"
    if name not in STAGES:
        return not_yet(f"`slowest` is `{slowest!r}`. Expected the name of a stage, such as `{STAGES[0]}`.")
    if name != right:
        return not_yet(f"`{name}` takes {total[name]:.1f} ms for an event, and another stage takes {total[right]:.1f} ms.")
    slips = {"That is the time in milliseconds; divide it by the sum of all stages": total[right]}
    otherwise, first = f"Divide {total[right]:.1f} ms by {whole:.1f} ms", "The stage is right. "
    share = must_be_right("part", part, total[right] / whole, slips, otherwise, unit="fraction", absolute=_PART_TOLERANCE, first=first)
    return correct(f"`{right}` takes {total[right]:.1f} ms of {whole:.1f} ms, {share:.0%} of the time in all stages.")


@checker("5.3")
def second_instance(server: Any, slowest: Any, one: Any, two: Any, verdict: Any) -> Outcome:
    """Two instances of the slowest stage are served, and the verdict fits the student's own numbers."""
    judge.must_be_server(server)
    if slowest not in STAGES:
        raise CannotTell(f"`slowest` is {slowest!r}, no stage of the chain. Solve exercise 5.2 first.")
    for name, rate in (("one", one), ("two", two)):
        judge.must_be(name, rate, EventRate, "what `events_per_second(...)` returns")
    count = sum(group["count"] for group in server.config(slowest)["instance_group"])
    if count != 2:
        return not_yet(
            f"The server reports {count} instance{'' if count == 1 else 's'} of `{slowest}`; expected 2. Set `count`, then reload it."
        )
    gain = two / one
    seen = f"{one} with one instance and {two} with two: a gain of {gain}"
    right = "faster" if gain.low > 1 else "slower" if gain.high < 1 else "cannot tell"
    why = {
        "faster": "A core was free for it",
        "slower": "The cores were busy already, and copies that take turns cost time",
        "cannot tell": "The cores were busy already, or with something else",
    }
    word = judge.must_be_verdict("verdict", verdict, list(why))
    if word != right:
        return not_yet(f"You measured {seen}. Its interval goes from {gain.low:.2f} to {gain.high:.2f}, so that is not `{word}`.")
    return correct(f"{seen[0].upper()}{seen[1:]}. {why[right]}. With other cores the answer may differ: measure again there.")
