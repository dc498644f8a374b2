"""Find the configuration that serves a given traffic best within a latency budget.

First short measurements, one axis at a time, from the configuration that serves now. What the server says decides what is worth a look:
the time that requests wait, and the cores that it uses. Then the finals: the best few and the configuration as found are measured in turn,
round by round, and compared pair by pair.
"""

from __future__ import annotations

import html
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from helpers.errors import ConfigError, InputError, ModelError, RequestError
from helpers.measuring.measure import TURN_WINDOW_S, TURNS, Measurement, can_measure, config_kept, must_own, turns_now
from helpers.measuring.perf_analyzer import PERCENTILE
from helpers.measuring.statistics import CANNOT_TELL, SLOWER, Verdict, verdict
from helpers.measuring.table import COLUMNS, THROUGHPUT, THROUGHPUT_SPREAD, folder_of, latency_words, with_spread
from helpers.paths import make_folder, shown, writing
from helpers.paths import replace as replace_file
from helpers.server.server import Server
from helpers.tables import Table, box
from helpers.terminal import Progress
from helpers.tuning.space import FAILED, HALVES, MEASURED, OFF, OK, ON, REFUSED, UNSURE, Candidate, Found, Goal, Row, words

# Share of a request's time in the server above which it counts as waiting in the queue, so that instances or batches may help.
WAITING = 0.05
# Share of the cores that the server uses above which more instances than cores are no use.
CPU_BUSY = 0.75
# Combinations that are measured again in the finals, beside the configuration as found.
FINALISTS = 2
# Rounds of the finals: with fewer, no spread is known.
ROUNDS = TURNS
SEARCH, FINAL = "search", "final"


# --- the search ------------------------------------------------------------------------------------------------------------


@dataclass
class Search:
    """The cheap part: one combination after the other, from the one that was found, along one axis at a time.

    ``measure`` gives a short measurement; ``rows`` has what was measured, in order, and ``steps`` what was left out and why, in sentences.
    """

    found: Found
    goal: Goal
    cores: int
    measure: Callable[[Candidate], Row]
    rows: dict[Candidate, Row] = field(default_factory=dict)
    steps: list[str] = field(default_factory=list)

    def run(self, start: Candidate) -> Candidate:
        """Go from ``start`` to the best that can be found, and return it; a ModelError when not even the start can be measured."""
        if (row := self._try(start))["outcome"] not in MEASURED:
            raise ModelError(f"The configuration as it was found cannot be measured: {row['reason']}")
        before = self._instances(start)
        best = self._batching(before)
        return best if best.batching == before.batching else self._instances(best)

    def finalists(self, best: Candidate, start: Candidate) -> tuple[list[Candidate], list[Candidate]]:
        """Return the best and those that its spread does not rule out, with the start; and who is next if all are rejected.

        Of both there are at most :data:`FINALISTS`. The next were inside the budget, and better than the start.
        """
        ranked = sorted(self.rows, key=lambda each: self.goal.rank(self.rows[each]), reverse=True)
        near = [each for each in ranked if self.rows[each]["outcome"] in (OK, UNSURE) and self.goal.within(self.rows[best])]
        near = [each for each in near if each != best and verdict(self.rows[best], self.rows[each]).answer != SLOWER]
        finalists = list(dict.fromkeys([*[best, *near][:FINALISTS], start]))
        least = max(self.goal.rank(self.rows[start]), (1.0,))
        return finalists, [each for each in ranked if each not in finalists and self.goal.rank(self.rows[each]) > least][:FINALISTS]

    def _try(self, candidate: Candidate) -> Row:
        if candidate not in self.rows:
            self.rows[candidate] = self.measure(candidate)
        return self.rows[candidate]

    def _best_of(self, best: Candidate, others: Sequence[Candidate]) -> Candidate:
        for other in others:
            if self.goal.rank(self._try(other)) > self.goal.rank(self.rows[best]):
                best = other
        return best

    def _instances(self, best: Candidate) -> Candidate:
        """More instances while requests wait, fewer with more threads each while they do not; one way, and the other if that is no gain."""
        begin = best
        for step in (1, -1) if self._waits(best) else (-1, 1):
            while (following := self.found.beside(best, self.cores, step)) and self._worth(best, following, step):
                if self._best_of(best, [following]) == best:
                    break
                best = following
            if best != begin:
                break
        return self._threads(best)

    def _threads(self, best: Candidate) -> Candidate:
        """As many threads as the cores allow, and a step fewer, with which they get in each other's way less."""
        now = best.threads
        if now is None:
            return best
        fitting = self.found.threads_for(best.instances, self.cores)
        fewer = max((number for number in self.found.threads if number and number < now), default=now)
        return self._best_of(best, [replace(best, threads=number) for number in ([fitting, fewer] if self._waits(best) else [fitting])])

    def _worth(self, now: Candidate, following: Candidate, step: int) -> bool:
        waits, used = self._waits(now), self.rows[now]["cpu_cores"] or 0.0
        if following in self.rows:
            return True
        if step > 0 and not waits:
            return self._skip(f"More than {now.instances} instances: hardly any request waits for one.")
        if step > 0 and following.instances * (following.threads or 1) > self.cores and used > CPU_BUSY * self.cores:
            return self._skip(f"{following.instances} instances: {now} uses {used:.1f} of {self.cores} cores already.")
        if step < 0 and following.threads == now.threads and waits:
            return self._skip(f"Fewer than {now.instances} instances: requests wait for one as it is.")
        return True

    def _batching(self, best: Candidate) -> Candidate:
        """Off and on; and half batches, where two requests fit into one, since an instance need not wait for the clients then."""
        if not self.found.batches:
            return best
        if not self._waits(best) and best.batching in (OFF, ON):
            self._skip("Dynamic batching: hardly any request waits, so none can be put together.")
            return best
        best = self._best_of(best, [replace(best, batching=batching) for batching in (OFF, ON)])
        if best.batching == OFF or self.found.reachable(best, self.goal) < 4 * self.goal.batch:
            return best
        return self._best_of(best, [replace(best, batching=HALVES)])

    def _waits(self, candidate: Candidate) -> bool:
        share = self.rows[candidate]["queue_share"]
        return share is None or share > WAITING

    def _skip(self, sentence: str) -> bool:
        if sentence not in self.steps:
            self.steps.append(sentence)
        return False


# --- the finals ------------------------------------------------------------------------------------------------------------


def confirm(
    finalists: Sequence[Candidate], reserve: Sequence[Candidate], goal: Goal, measure: Callable[[Candidate, str], Row]
) -> dict[Candidate, Row]:
    """Measure the finalists in turn, round by round, so that the machine's moods hit all alike; return a row of all rounds for each.

    When none but the configuration as found may keep the budget, the next of the reserve takes its place.
    """
    rows = _rounds(finalists, measure)
    for each in reserve:
        if any(not row["as_found"] and goal.kept(row) is not False for row in rows.values() if row["outcome"] in MEASURED):
            break
        rows |= _rounds([each], measure)
    return rows


def _rounds(finalists: Sequence[Candidate], measure: Callable[[Candidate, str], Row]) -> dict[Candidate, Row]:
    rows: dict[Candidate, Row] = {}
    begun, alive = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}", list(finalists)
    for number in range(turns_now(ROUNDS)):
        # Every other round backwards: the last in one is the first in the next, and needs no loading.
        for each in alive[::-1] if number % 2 else alive:
            rows[each] = measure(each, f"{begun}-{number}")
        alive = [each for each in alive if rows[each]["outcome"] in MEASURED]
    return rows


def compared(first: Row, second: Row) -> Verdict:
    """Return the verdict on the second, seen from the first; what differs is named by the combination."""
    one, other = ({**row, "variant": row["candidate"], "config": None, "instances": None, "model": None} for row in (first, second))
    return verdict(one, other)


def winner_of(finals: Mapping[Candidate, Row], start: Candidate, goal: Goal) -> tuple[Candidate, Candidate]:
    """Return the best, or the simplest of those that cannot be told from it; and the one that was best in numbers."""
    measured = [each for each in finals if finals[each]["outcome"] in MEASURED]
    if not measured:
        raise RequestError("No finalist could be measured a second time.", "", "Look at server.log(), and try again.")
    first = max(measured, key=lambda each: goal.rank(finals[each]))
    alike = [each for each in measured if goal.within(finals[first]) <= goal.within(finals[each])]
    alike = [each for each in alike if each == first or compared(finals[first], finals[each]).answer != SLOWER]
    return min(alike, key=lambda each: each.simplicity(start)), first


# --- the server ------------------------------------------------------------------------------------------------------------


@dataclass
class Bench:
    """The server under a search: loads combinations, and measures them with what counters and processes say meanwhile."""

    server: Server
    goal: Goal
    found: Found
    options: Mapping[str, Any]
    progress: Progress

    def __post_init__(self) -> None:
        self._model, self._serves = str(self.found.config["name"]), self.found.place
        self._finals: dict[Candidate, Measurement] = {}

    def measure(self, candidate: Candidate, turn: str = "") -> Row:
        """Return a row of three windows, enough to choose where to go next; with the name of a turn, of all rounds of the finals."""
        stage = FINAL if turn else SEARCH
        self.progress.what = f"{candidate} (the {stage})"
        self.progress.add()
        row = dict.fromkeys((*COLUMNS, "executed_batch", "cpu_cores", "queue_share")) | {
            **{"model": self._model, "stage": stage, "candidate": str(candidate), "as_found": candidate == self.found.place},
            **{"rounds": 0, "outcome": REFUSED, "reason": ""},
        }
        try:
            # What the server refuses leaves the other one serving.
            if new := self._serves != candidate:
                self.server.load(self._model, config=self.found.config_for(candidate, self.goal))
                self._serves = candidate
            row["outcome"] = FAILED
            row |= self._measured(candidate, turn, new)
        except (ModelError, ConfigError, RequestError) as error:
            if not self.server.is_alive():
                raise
            row["reason"] = str(error)
        return row | {"instances": candidate.instances}

    def _measured(self, candidate: Candidate, turn: str, new: bool) -> Row:
        made, load = self._finals.get(candidate), {"batch": self.goal.batch, "concurrency": self.goal.concurrency}
        if made is None:
            made, new = Measurement(self.server, self._model, **load, **self.options, window_s=TURN_WINDOW_S), True
        if turn:
            self._finals[candidate] = made
        if new:
            made.warm_up()
        before, used = self.server.statistics(self._model), self._cpu_s()
        made.measure(turn)
        after = self.server.statistics(self._model)
        inferences, executions = (int(after.get(each, 0)) - int(before.get(each, 0)) for each in ("inference_count", "execution_count"))
        cpu_s = sum(now - used[pid] for pid, now in self._cpu_s().items() if pid in used)
        row = made.row()
        parts = [row[f"{name}_us"] for name in ("queue", "compute_input", "compute_infer", "compute_output")]
        outcome, reason = self.goal.outcome(row)
        return row | {
            "executed_batch": inferences / executions if executions else None,
            # By inference, since between the windows, while the client starts, nothing is done.
            "cpu_cores": cpu_s / inferences * row[THROUGHPUT] if cpu_s and inferences and row[THROUGHPUT] else None,
            "queue_share": parts[0] / sum(parts) if None not in parts and sum(parts) else None,
            **{"rounds": len(made.results), "outcome": outcome, "reason": reason},
        }

    def _cpu_s(self) -> dict[int, float]:
        """CPU time of the embedded server's processes by their ids: each instance is one. One that has just ended is left out."""
        used = {}
        if self.server.runtime == "embedded":
            for process in psutil.Process(self.server.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    times = process.cpu_times()
                    used[process.pid] = times.user + times.system
        return used


# --- the report ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class Tuned:
    """The result of a search: everything that was tried, the winner's row and configuration, and in sentences how sure that is.

    There is no winner when nothing meets the budget. A finalist has one row of all its rounds.
    """

    rows: list[Row]
    best: Row | None
    config_path: Path | None
    text: tuple[str, ...]

    def __repr__(self) -> str:
        return "\n".join([*self.text, "", repr(self._table())])

    def _repr_html_(self) -> str:
        return box("<br>".join(map(html.escape, self.text)), "#2e9e44" if self.best else "#c96f14") + self._table()._repr_html_()

    def _table(self) -> Table:
        return Table(self.rows, f"{len(self.rows)} measurements.", _line)


def _line(row: Row) -> dict[str, Any]:
    return {
        "what": row["candidate"] + (" (as found)" if row["as_found"] else ""),
        "stage": row["stage"] + (f", {row['rounds']} rounds" if row["stage"] == FINAL else ""),
        "inferences/s": with_spread(row[THROUGHPUT], row[THROUGHPUT_SPREAD]),
        f"p{PERCENTILE} (ms)": latency_words(row, PERCENTILE),
        "queue (ms)": None if row["queue_us"] is None else row["queue_us"] / 1000,
        "batch run": row["executed_batch"],
        "CPU cores": row["cpu_cores"],
        "outcome": row["outcome"],
    }


def praise(best: Row, goal: Goal, found: Row | None, first: Row) -> list[str]:
    """Say how good the winner is and how sure that is, beside the configuration as found and the first in numbers."""
    said = [f"Best: {best['candidate']}: {words(best)}."]
    if first["candidate"] != best["candidate"]:
        said.append(f"It cannot be told from {first['candidate']}, so the simpler one was taken. Seen from it: {compared(best, first)}")
    if goal.budget_ms < math.inf:
        sure = "for certain" if goal.kept(best) else "on average, but its spread reaches over the budget: cannot tell"
        said.append(f"It meets the budget of {goal.budget_ms:g} ms {sure}.")
    if best["as_found"]:
        said.append("That is the configuration as it was found: nothing that was tried is better beyond doubt.")
    elif found is not None:
        seen = compared(found, best)
        unsure = " There is no proof yet that a change is worth it." if seen.answer == CANNOT_TELL else ""
        said.append(f"Seen from the configuration as found: {seen}{unsure}")
    return said


def regret(closest: Row, goal: Goal) -> list[str]:
    """Say what there is to say when no combination meets the budget."""
    said = [f"Nothing that was tried meets the goal: {goal}."]
    said.append(f"The closest is {closest['candidate']}: {words(closest)}.")
    if goal.kept(closest) is None:
        said.append("Its spread reaches over the budget, so more time may show that it meets it: cannot tell.")
    return [*said, "Send less at a time (a smaller batch, fewer requests under way), allow more time, or find a faster network or machine."]


# --- the whole -------------------------------------------------------------------------------------------------------------


def tune(
    server: Server,
    model: str,
    batch: int = 1,
    *,
    concurrency: int,
    budget_ms: float | None = None,
    max_instances: int | None = None,
    output: str | Path = "work/tune",
    **options: Any,
) -> Tuned | None:
    """Search for the configuration with the highest throughput.

    While it runs the server serves one configuration after the other; at the end, or when something stops it, the one before.

    Args:
        server: one's own, since models are loaded again.
        model: name of the model.
        batch: entries in each request.
        concurrency: requests under way at any time.
        budget_ms: what the latency's 95th percentile may be at most, in ms.
        max_instances: instances at most; by default as many as there are cores, up to :data:`helpers.tuning.space.MAX_INSTANCES`.
        output: folder for the winner's configuration.
        **options: ``input_data`` and ``lengths`` of :func:`helpers.measuring.measure.measure`.

    Returns:
        The result; ``best`` is None when nothing meets the budget. Where perf_analyzer does not run, None.
    """
    if not can_measure():
        print("Nothing was searched, because a search measures. What searches found on another machine is in benchmarks/README.md.")
        return None
    must_own(server, "search for a configuration")
    goal, cores, begin = Goal(batch, concurrency, budget_ms or math.inf), len(os.sched_getaffinity(0)), time.monotonic()
    progress = Progress(f"searching for {model}", unit="measurements")
    with progress, config_kept(server, model) as configs:
        if steps := configs[model].get("ensemble_scheduling", {}).get("step"):
            parts = ", ".join(step["model_name"] for step in steps)
            raise InputError(f"{model!r} is an ensemble: it has no instances of its own.", "", f"Search for each of its parts: {parts}.")
        found = Found.of(configs[model], goal, cores, max_instances, embedded=server.runtime == "embedded")
        bench, start = Bench(server, goal, found, options, progress), found.place
        search = Search(found, goal, cores, bench.measure)
        finals = confirm(*search.finalists(search.run(start), start), goal, bench.measure)
    winner, first = winner_of(finals, start, goal)
    best, path, rows = finals[winner], None, [*search.rows.values(), *finals.values()]
    if goal.kept(best) is not False and goal.within(best):
        measured = finals[start] if finals[start]["outcome"] in MEASURED else None
        path = folder_of(output) / model / "config.pbtxt"
        remark = f"Found by a search for {goal}:\n{winner}: {words(best)}, on {best['cpu']}."
        with writing(path):
            make_folder(path.parent)
            replace_file(path, found.written(winner, goal, server.repository, remark))
        text = [*praise(best, goal, measured, finals[first]), f"Its configuration is in {shown(path)}, to copy into its folder."]
    else:
        text = regret(best, goal)
    bad = dict.fromkeys(f"{row['candidate']} ({row['outcome']}: {row['reason']})" for row in rows if row["outcome"] != OK)
    text += [
        f"Tried {len(search.rows)} of {found.combinations} combinations of {model}, in {time.monotonic() - begin:.0f} s: "
        "no step from the best one was left that promised anything.",
        *([f"Left out: {' '.join(search.steps)}"] if search.steps else []),
        *([f"Out of the race: {'; '.join(bad)}."] if bad else []),
    ]
    return Tuned(rows, best if path else None, path, tuple(text))
