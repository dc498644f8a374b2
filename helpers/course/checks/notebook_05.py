"""Checkers of notebook 05, Find tracks."""

from __future__ import annotations

from typing import Any

import pandas as pd

from helpers.course import judge
from helpers.course.judge import CannotTell, Outcome, checker, correct, not_attempted, not_yet
from helpers.physics.tracks import STAGES, EventRate, Quality
from helpers.server import Server

_TRACKS = "ExaTrk_tracks"
# A part of the total time counts as right within this: people round.
_PART_TOLERANCE = 0.02


@checker("5.1")
def cut_moved(server: Any, scan: Any) -> Outcome:
    """The cut was changed on the server, and efficiency fell while purity rose."""
    judge.must_be_server(server)
    if not isinstance(scan, dict) or len(scan) < 2 or not all(isinstance(result, Quality) for result in scan.values()):
        return not_yet("Expected `scan` with the result of `quality` for at least two cuts. Run the whole cell.")
    cuts = sorted(scan)
    efficiency, purity = ([getattr(scan[cut], name).value for cut in cuts] for name in ("efficiency", "purity"))
    now = _cut_of(server)
    if len(set(efficiency)) == 1 and len(set(purity)) == 1:
        if now != list(scan)[-1]:
            return not_attempted()
        return not_yet(f"The server has the cut {now:g}, but all results are the same. Load the model before `quality` is measured.")
    if now != list(scan)[-1]:
        return not_yet(
            f"The results differ, but the server's cut is {now:g} now, and your last one was {list(scan)[-1]:g}. "
            "Load the model with the changed `config` for each cut, and run the whole cell."
        )
    if not (efficiency[0] > efficiency[-1] and purity[0] < purity[-1]):
        return not_yet(
            f"From cut {cuts[0]:g} to {cuts[-1]:g} the efficiency goes from {efficiency[0]:.3f} to {efficiency[-1]:.3f} and the purity "
            f"from {purity[0]:.4f} to {purity[-1]:.4f}. Expected the first to fall and the second to rise: do the results belong to "
            "their cuts?"
        )
    return correct(
        f"From cut {cuts[0]:g} to {cuts[-1]:g} the efficiency falls from {efficiency[0]:.3f} to {efficiency[-1]:.3f}, and the hit purity "
        f"rises from {purity[0]:.4f} to {purity[-1]:.4f}. You changed one model of a running server {len(cuts)} times."
    )


def _cut_of(server: Server) -> float:
    return float(server.config(_TRACKS)["parameters"]["cut"]["string_value"])


@checker("5.2")
def slowest_stage(server: Any, times: Any, slowest: Any, part: Any) -> Outcome:
    """The stage with the longest bar, and its part of the whole."""
    judge.must_be_server(server)
    if not isinstance(times, pd.DataFrame) or "total_ms" not in times:
        raise CannotTell(f"The check needs `times` from above, and got {judge.kind(times)}. Run that cell again.")
    total = dict(zip(times["stage"], times["total_ms"], strict=True))
    right = max(total, key=lambda stage: total[stage])
    share = total[right] / sum(total.values())
    name = str(slowest).strip()
    if name not in STAGES and f"ExaTrk_{name}" in STAGES:
        name = f"ExaTrk_{name}"
    if name not in STAGES:
        return not_yet(f"`slowest` is `{slowest!r}`. Expected the name of a stage, such as `{STAGES[0]}`.")
    if name != right:
        return not_yet(f"`{name}` takes {total[name]:.1f} ms for an event, and another stage takes {total[right]:.1f} ms.")
    given = judge.number(part)
    if given is None:
        return not_yet(f"`part` should be a number from 0 to 1, and it is {judge.kind(part)}.")
    if 1 < given <= 100 and abs(given / 100 - share) < _PART_TOLERANCE:
        return not_yet(f"`part` is {given:.4g}. That looks like per cent; expected a number from 0 to 1.")
    if abs(given - total[right]) < 0.1:
        return not_yet(f"`part` is {given:.4g}. That is the time in milliseconds; divide it by the sum of all stages.")
    if abs(given - share) > _PART_TOLERANCE:
        return not_yet(
            f"The stage is right. `part` is {given:.4g}, and {total[right]:.1f} ms of {sum(total.values()):.1f} ms is something else."
        )
    return correct(f"`{right}` takes {total[right]:.1f} ms of {sum(total.values()):.1f} ms, {share:.0%} of the time in all stages.")


@checker("5.3")
def second_instance(server: Any, slowest: Any, one: Any, two: Any, verdict: Any) -> Outcome:
    """Two instances of the slowest stage are served, and the verdict fits the student's own numbers."""
    judge.must_be_server(server)
    if slowest not in STAGES:
        raise CannotTell(f"`slowest` is {slowest!r}, no stage of the chain. Solve exercise 5.2 first.")
    if not isinstance(one, EventRate) or not isinstance(two, EventRate):
        return not_yet("Keep `one` and `two` as `events_per_second(...)` returns them.")
    count = sum(group["count"] for group in server.config(slowest)["instance_group"])
    if count != 2:
        return not_yet(
            f"The server reports {count} instance{'' if count == 1 else 's'} of `{slowest}`; expected 2. Set `count`, then reload it."
        )
    gain = two / one
    seen = f"{one} with one instance and {two} with two: a gain of {gain}"
    word = str(verdict).strip().lower()
    if word not in ("faster", "slower", "cannot tell"):
        return not_yet(f"`verdict` is `{verdict!r}`. Expected `faster`, `slower` or `cannot tell`.")
    right = "faster" if gain.low > 1 else "slower" if gain.high < 1 else "cannot tell"
    if word != right:
        return not_yet(f"You measured {seen}. Its interval goes from {gain.low:.2f} to {gain.high:.2f}, so that is not `{word}`.")
    why = {
        "faster": "A core was free for it",
        "slower": "The cores were busy already, and copies that take turns cost time",
        "cannot tell": "The cores were busy already, or with something else",
    }[right]
    return correct(f"{seen[0].upper()}{seen[1:]}. {why}. With another number of cores the answer may differ, so measure again there.")
