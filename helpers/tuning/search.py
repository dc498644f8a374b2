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
from pathlib import Path
from typing import Any

import psutil

from helpers.errors import ConfigError, ModelError, RequestError
from helpers.measuring.measure import TURN_WINDOW_S, TURNS, Measurement, can_measure, config_kept, in_turn, must_own, turns_now
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
    steps: dict[str, None] = field(default_factory=dict)

    def run(self, start: Candidate) -> list[Candidate]:
        """Go from ``start`` to the best that can be found; return it, those that its spread does not rule out, and the start.

        A ModelError when not even the start can be measured.
        """
        if (row := self._try(start))["outcome"] not in MEASURED:
            raise ModelError(f"The configuration as it was found cannot be measured: {row['reason']}")
        before = self._instances(start)
        best = self._batching(before)
        best = best if best.batching == before.batching else self._instances(best)
        ranked = sorted(self.rows, key=lambda each: self.goal.rank(self.rows[each]), reverse=True)
        near = [each for each in ranked if each != best and self.rows[each]["outcome"] in (OK, UNSURE)]
        near = [each for each in near if verdict(self.rows[best], self.rows[each]).answer != SLOWER]
        return list(dict.fromkeys([*[best, *near][:FINALISTS], start]))

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
            while (following := self.found.beside(best, step)) and self._worth(best, following, step):
                if self._best_of(best, [following]) == best:
                    break
                best = following
            if best != begin:
                break
        return self._best_of(best, [self.found.shared_out(best)])

    def _worth(self, now: Candidate, following: Candidate, step: int) -> bool:
        waits, used = self._waits(now), self.rows[now]["cpu_cores"] or 0.0
        why = ""
        if step > 0 and not waits:
            why = f"More than {now.instances} instances: hardly any request waits for one."
        elif step > 0 and following.instances * (following.threads or 1) > self.cores and used > CPU_BUSY * self.cores:
            why = f"{following.instances} instances: {now} uses {used:.1f} of {self.cores} cores already."
        elif step < 0 and following.threads == now.threads and waits:
            why = f"Fewer than {now.instances} instances: requests wait for one as it is."
        if not why or following in self.rows:
            return True
        self.steps[why] = None
        return False

    def _batching(self, best: Candidate) -> Candidate:
        """Off and on; and half batches, where two requests fit into one, since an instance need not wait for the clients then."""
        if not self.found.batches:
            return best
        if not self._waits(best) and best.batching in (OFF, ON):
            self.steps["Dynamic batching: hardly any request waits, so none can be put together."] = None
            return best
        best = self._best_of(best, [replace(best, batching=batching) for batching in (OFF, ON)])
        if best.batching == OFF or self.found.reachable(best, self.goal) < 4 * self.goal.batch:
            return best
        return self._best_of(best, [replace(best, batching=HALVES)])

    def _waits(self, candidate: Candidate) -> bool:
        share = self.rows[candidate]["queue_share"]
        return share is None or share > WAITING


# --- the finals ------------------------------------------------------------------------------------------------------------


def confirm(finalists: Sequence[Candidate], measure: Callable[[Candidate, str], Row]) -> dict[Candidate, Row]:
    """Measure the finalists in turn, so that the machine's moods hit all alike; return a row of all turns for each."""
    rows: dict[Candidate, Row] = {}
    # Every other turn is backwards: the last in one is the first in the next, and needs no loading.
    for each, turn in in_turn(finalists, turns_now(ROUNDS)):
        if each not in rows or rows[each]["outcome"] in MEASURED:
            rows[each] = measure(each, turn)
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
        made = self._finals.get(candidate)
        if made is None:
            load = {"batch": self.goal.batch, "concurrency": self.goal.concurrency, **self.options}
            made, new = Measurement(self.server, self._model, **load, window_s=TURN_WINDOW_S), True
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
                    used[process.pid] = sum(process.cpu_times()[:2])
        return used


# --- the report ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class Tuned:
    """The result of a search: everything that was tried, the winner's row and configuration, and in sentences how sure that is.

    There is no winner when nothing meets the budget. A finalist has one row of all its rounds.
    """

    rows: Table
    best: Row | None
    config_path: Path | None
    text: tuple[str, ...]

    def __repr__(self) -> str:
        return "\n".join([*self.text, "", repr(self.rows)])

    def _repr_html_(self) -> str:
        return box("<br>".join(map(html.escape, self.text)), "#2e9e44" if self.best else "#c96f14") + self.rows._repr_html_()


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


def judged(best: Row, goal: Goal, found: Row, first: Row) -> list[str]:
    """Say how good the winner is and how sure that is, beside the configuration as found and the first in numbers."""
    kept, reaches = goal.kept(best), "its spread reaches over the budget: cannot tell"
    if kept is False or not goal.within(best):
        return [
            f"No finalist meets the goal: {goal}.",
            f"The closest is {best['candidate']}: {words(best)}{f'; {reaches}' if kept is None else ''}.",
            "Send less at a time (a smaller batch, fewer requests under way), allow more time, or find a faster network or machine.",
        ]
    said = [f"Best: {best['candidate']}: {words(best)}."]
    if first["candidate"] != best["candidate"]:
        said.append(f"It cannot be told from {first['candidate']}, so the simpler one was taken. Seen from it: {compared(best, first)}")
    if goal.budget_ms < math.inf:
        said.append(f"It meets the budget of {goal.budget_ms:g} ms {'for certain' if kept else f'on average, but {reaches}'}.")
    if best["as_found"]:
        said.append("That is the configuration as it was found: nothing that was tried is better beyond doubt.")
    elif found["outcome"] in MEASURED:
        seen = compared(found, best)
        unsure = " There is no proof yet that a change is worth it." if seen.answer == CANNOT_TELL else ""
        said.append(f"Seen from the configuration as found: {seen}{unsure}")
    return said


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
    """Search for the configuration with the highest throughput, on a server of one's own; None where perf_analyzer does not run.

    While it runs the server serves one configuration after the other; at the end, or when something stops it, the one before.

    ``concurrency`` requests of ``batch`` entries are under way at any time, with ``input_data`` and ``lengths`` of
    :func:`helpers.measuring.measure.measure`; the latency's 95th percentile may be ``budget_ms`` at most. By default as many instances are
    tried as there are cores, up to :data:`helpers.tuning.space.MAX_INSTANCES`. The winner's configuration goes to the folder ``output``.
    """
    if not can_measure():
        print("Nothing was searched, because a search measures. What searches found on another machine is in benchmarks/README.md.")
        return None
    must_own(server, "search for a configuration")
    goal, cores, begin = Goal(batch, concurrency, budget_ms or math.inf), len(os.sched_getaffinity(0)), time.monotonic()
    progress = Progress(f"searching for {model}", unit="measurements")
    with progress, config_kept(server, model) as configs:
        found = Found.of(configs[model], goal, cores, max_instances, embedded=server.runtime == "embedded")
        bench, start = Bench(server, goal, found, options, progress), found.place
        search = Search(found, goal, cores, bench.measure)
        finals = confirm(search.run(start), bench.measure)
    winner, first = winner_of(finals, start, goal)
    best, path, rows = finals[winner], None, [*search.rows.values(), *finals.values()]
    text = judged(best, goal, finals[start], finals[first])
    if goal.kept(best) is not False and goal.within(best):
        path = folder_of(output) / model / "config.pbtxt"
        with writing(path):
            make_folder(path.parent)
            remark = f"# Found by a search for {goal}:\n# {winner}: {words(best)}, on {best['cpu']}.\n"
            replace_file(path, remark + found.written(winner, goal))
        text.append(f"Its configuration is in {shown(path)}, to copy into its folder.")
    bad = dict.fromkeys(f"{row['candidate']} ({row['outcome']}: {row['reason']})" for row in rows if row["outcome"] != OK)
    text += [
        f"Tried {len(search.rows)} combinations of {model}, in {time.monotonic() - begin:.0f} s: "
        "no step from the best one was left that promised anything.",
        *([f"Left out: {' '.join(search.steps)}"] if search.steps else []),
        *([f"Out of the race: {'; '.join(bad)}."] if bad else []),
    ]
    return Tuned(Table(rows, f"{len(rows)} measurements.", _line), best if path else None, path, tuple(text))
