"""Find the configuration that serves a given traffic best within a latency budget.

Typical use::

    result = tune(server, "particlenet_AK4", batch=8, concurrency=4, budget_ms=50, variants=["particlenet_AK4_PT"])
    result                          # what was tried, why it stopped, how sure it is
    result.best["instances"], result.config_path

First short measurements, one axis at a time, from the configuration that serves now. What the server says decides what is worth a look:
the time that requests wait, the batches that it runs, the cores that it uses. Then the finals: the best few and the configuration as
found are measured in turn, round by round, and compared pair by pair.
"""

from __future__ import annotations

import html
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from helpers.client.client import Client
from helpers.client.endpoint import QUERY_TIMEOUT_S
from helpers.errors import ConfigError, CourseError, InputError, ModelError, RequestError
from helpers.measuring.measure import (
    TURN_WINDOW_S,
    TURNS,
    Measurement,
    about,
    can_measure,
    config_name,
    measured_before,
    measured_key,
    must_own,
    now,
    quick,
)
from helpers.measuring.perf_analyzer import PERCENTILE, InputData, run_for
from helpers.measuring.program import Program, find_perf_analyzer
from helpers.measuring.statistics import CANNOT_TELL, FASTER, SLOWER, Verdict, verdict
from helpers.measuring.table import COLUMNS, THROUGHPUT, THROUGHPUT_SPREAD, append_row, folder_of, latency_column, read_rows
from helpers.paths import make_folder, shown, writing
from helpers.paths import replace as replace_file
from helpers.server.server import Server
from helpers.tables import as_html, as_text, box
from helpers.terminal import Progress
from helpers.tuning import space
from helpers.tuning.space import FAILED, MEASURED, OK, OVER_BUDGET, REFUSED, UNSURE, Axes, Candidate, Found, Goal, Row, Traffic
from helpers.tuning.usage import Usage, cpu_between, of_model, usage

# Share of a request's time in the server above which it counts as waiting in the queue, so that instances or batches may help.
WAITING = 0.05
# Share of the cores that a model and its server use, or wait for, above which more instances than cores are no use.
CPU_BUSY = 0.75
# Batches that hold this part of what the traffic allows count as full: waiting for more would cost time and give nothing.
FULL = 0.8
# Combinations that are measured again in the finals, beside the configuration as found.
FINALISTS = 2
# Rounds of the finals: with fewer, no spread is known.
ROUNDS, QUICK_ROUNDS = TURNS, 1
# The file of all measurements in the folder of a search.
ROWS = "rows.jsonl"
SEARCH, FINAL = "search", "final"
_COMPUTE = ("compute_input_us", "compute_infer_us", "compute_output_us")


# --- the search ------------------------------------------------------------------------------------------------------------


@dataclass
class Search:
    """The cheap part: one combination after the other, from the one that was found, along one axis at a time.

    ``axes`` has the values of each model, the one that serves now first; ``measure`` gives a short measurement, a row with ``outcome`` and
    what the guidance needs. ``rows`` has what was measured, in order, and ``steps`` what was left out and why, in sentences.
    """

    axes: Mapping[str, Axes]
    goal: Goal
    cores: int
    measure: Callable[[Candidate], Row]
    rows: dict[Candidate, Row] = field(default_factory=dict)
    steps: list[str] = field(default_factory=list)

    def run(self, start: Candidate) -> Candidate:
        """Go from ``start`` to the best that can be found, and return it; a ModelError when not even the start can be measured."""
        if (row := self._try(start))["outcome"] in (REFUSED, FAILED):
            raise ModelError(f"The configuration as it was found cannot be measured: {row['reason']}")
        before = best = self._instances(self._models(start))
        best = self._batching(best)
        best = self._best_of(best, [replace(best, accelerator=name) for name in self.axes[best.model].accelerators])
        if (best.batching, best.accelerator) != (before.batching, before.accelerator):
            best = self._instances(best)
        return best

    def finalists(self, best: Candidate, start: Candidate) -> tuple[list[Candidate], list[Candidate]]:
        """Return the best and those that its spread does not rule out, with the start; and who is next if all are rejected.

        Of both there are at most :data:`FINALISTS`. The next were inside the budget, and better than the start.
        """
        ranked = sorted(self.rows, key=lambda each: self.goal.rank(self.rows[each]), reverse=True)
        near = [each for each in ranked if self._near(self.rows[each], self.rows[best])]
        chosen = list(dict.fromkeys([best, *near]))[:FINALISTS]
        finalists = list(dict.fromkeys([*chosen, *([start] if self.rows[start]["outcome"] in MEASURED else [])]))
        least = max(self.goal.rank(self.rows[start]), (1.0,))
        return finalists, [each for each in ranked if each not in finalists and self.goal.rank(self.rows[each]) > least][:FINALISTS]

    def _near(self, row: Row, best: Row) -> bool:
        known = row["outcome"] in MEASURED and self.goal.within(best) and not self.goal.over(row)
        return known and verdict(best, row, self.goal.quantity).answer != SLOWER

    def _try(self, candidate: Candidate) -> Row:
        if candidate not in self.rows:
            self.rows[candidate] = self.measure(candidate)
        return self.rows[candidate]

    def _better(self, one: Candidate, other: Candidate) -> bool:
        return self.goal.rank(self._try(one)) > self.goal.rank(self.rows[other])

    def _best_of(self, best: Candidate, others: Sequence[Candidate]) -> Candidate:
        for other in others:
            if other != best and self._better(other, best):
                best = other
        return best

    def _models(self, start: Candidate) -> Candidate:
        """Every model under the same configuration, as far as it has the same parameters."""
        others = []
        for model, axes in self.axes.items():
            threads = start.threads if axes.threads != (None,) and start.threads else axes.threads_for(start.instances, self.cores)
            delay = start.delay_ms if start.delay_ms in axes.delays_ms else axes.delays_ms[0]
            accelerator = start.accelerator if start.accelerator in axes.accelerators else ""
            if model != start.model:
                others.append(Candidate(model, start.instances, threads, delay, accelerator))
        return self._best_of(start, others)

    def _instances(self, best: Candidate) -> Candidate:
        """More instances while requests wait, fewer with more threads each while they do not; one way, and the other if that is no gain."""
        begin = best
        for step in (1, -1) if self._waits(best) else (-1, 1):
            while (following := self.axes[best.model].beside(best, self.cores, step)) and self._worth(best, following, step):
                if not self._better(following, best):
                    break
                best = following
            if best != begin:
                break
        return self._threads(best)

    def _threads(self, best: Candidate) -> Candidate:
        """As many threads as the cores allow, and a step fewer, with which they get in each other's way less."""
        axes, now = self.axes[best.model], best.threads
        if now is None:
            return best
        fitting = axes.threads_for(best.instances, self.cores)
        fewer = max((number for number in axes.threads if number and number < now), default=now)
        return self._best_of(best, [replace(best, threads=number) for number in ([fitting, fewer] if self._waits(best) else [fitting])])

    def _worth(self, now: Candidate, following: Candidate, step: int) -> bool:
        row = self.rows[now]
        if following in self.rows:
            return True
        share = "not known" if row["queue_share"] is None else f"{row['queue_share']:.0%} of its time"
        if step > 0 and not self._waits(now):
            return self._skip(f"More than {now.instances} instances: hardly any request waits for one ({share}).")
        wanted, all_of_it = row.get("wanted_cores"), following.instances * (following.threads or 1)
        if step > 0 and all_of_it > self.cores and wanted and wanted > CPU_BUSY * self.cores:
            return self._skip(f"{following.instances} instances: {now} has work for {wanted:.1f} of {self.cores} cores already.")
        if step < 0 and following.threads == now.threads and self._waits(now):
            return self._skip(f"Fewer than {now.instances} instances: requests wait for one as it is ({share}).")
        return True

    def _batching(self, best: Candidate) -> Candidate:
        """Off and on; waits, from the shortest, while they make larger batches and it gets better; and half batches."""
        axes = self.axes[best.model]
        if len(axes.delays_ms) == 1:
            return best
        if not self._waits(best) and not best.delay_ms:
            self._skip("Dynamic batching: hardly any request waits, so none can be put together.")
            return best
        best = self._best_of(best, [replace(best, delay_ms=delay) for delay in axes.delays_ms if not delay])
        for delay in sorted(delay for delay in axes.delays_ms if delay):
            if self._full(self.rows.get(replace(best, delay_ms=0.0)) or self.rows[best]):
                break
            longer = replace(best, delay_ms=delay)
            if not self._better(longer, best):
                break
            best = longer
        # Half of what an instance has under way, where two requests fit into it: it need not wait for the clients then.
        if best.delay_ms is None or not axes.halves or (self.rows[best].get("reachable_batch") or 0) < 4 * self.goal.traffic.batch:
            return best
        return self._best_of(best, [replace(best, delay_ms=0.0, halves=True)])

    def _full(self, row: Row) -> bool:
        """True if the batches are about as large as this traffic can make them, so that nothing is left to wait for."""
        batch, possible = row.get("executed_batch"), row.get("reachable_batch")
        if not batch or not possible or batch < FULL * possible:
            return False
        self._skip(f"Waiting for larger batches: they hold {batch:.3g} of {possible} possible without waiting.")
        return True

    def _waits(self, candidate: Candidate) -> bool:
        share = self.rows[candidate].get("queue_share")
        return share is None or share > WAITING

    def _skip(self, sentence: str) -> bool:
        if sentence not in self.steps:
            self.steps.append(sentence)
        return False


# --- the finals ------------------------------------------------------------------------------------------------------------


def confirm(
    finalists: Sequence[Candidate], reserve: Sequence[Candidate], goal: Goal, measure: Callable[[Candidate, str], Row]
) -> tuple[dict[Candidate, Row], str]:
    """Measure the finalists in turn, round by round, so that the machine's moods hit all alike; those that clearly lose drop out.

    A finalist whose latency turns out to be over the budget, with its whole interval, cannot win. When none but the configuration as
    found is left, the next of the reserve takes its place. ``measure`` measures one once more, given the name of the round, and its row is
    of all rounds. Returns the row of each, and in a sentence why no more were measured.
    """
    rows, why = _rounds(finalists, goal, measure)
    for each in reserve:
        if any(not row.get("as_found") and goal.kept(row) is not False for row in rows.values() if row["outcome"] in MEASURED):
            break
        more, why = _rounds([each], goal, measure)
        rows |= more
    return rows, why


def _rounds(finalists: Sequence[Candidate], goal: Goal, measure: Callable[[Candidate, str], Row]) -> tuple[dict[Candidate, Row], str]:
    rounds, begun = QUICK_ROUNDS if quick() else ROUNDS, f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}"
    rows: dict[Candidate, Row] = {}
    alive = list(finalists)
    for number in range(1, rounds + 1):
        # Every other round backwards: the last in one is the first in the next, and needs no loading.
        for each in alive if number % 2 else alive[::-1]:
            rows[each] = measure(each, f"{begun}-{number}")
        alive = [each for each in alive if rows[each]["outcome"] in MEASURED]
        if not alive:
            return rows, "no finalist could be measured again"
        # One run says nothing about how much the next one will differ.
        if number == 1:
            continue
        if all(goal.kept(rows[each]) is False for each in alive):
            return rows, f"after {number} rounds of the finals all were over the budget for certain"
        best = max(alive, key=lambda each: goal.rank(rows[each]))
        alive = [each for each in alive if each == best or not _lost(rows[each], rows[best], goal)]
        # One that is alone goes on until it is known whether it keeps the budget.
        if len(alive) == 1 and len(finalists) > 1 and goal.kept(rows[best]) is not None:
            return rows, f"after {number} rounds of the finals the others were clearly behind"
    return rows, f"{rounds} rounds of the finals were measured"


def _lost(row: Row, best: Row, goal: Goal) -> bool:
    return (goal.kept(best) is True and goal.kept(row) is False) or compared(best, row, goal).answer == SLOWER


def compared(first: Row, second: Row, goal: Goal) -> Verdict:
    """Return the verdict on the second, seen from the first; what differs is named by the combination."""
    one, other = ({**row, "variant": row.get("candidate"), "config": None, "instances": None, "model": None} for row in (first, second))
    return verdict(one, other, goal.quantity)


def winner_of(finals: Mapping[Candidate, Row], start: Candidate, goal: Goal) -> tuple[Candidate, list[Candidate]]:
    """Return the best, or the simplest of those that cannot be told from it; and all that were measured, the best first."""
    ranked = sorted(
        (each for each in finals if finals[each]["outcome"] in MEASURED), key=lambda each: goal.rank(finals[each]), reverse=True
    )
    if not ranked:
        raise RequestError("No finalist could be measured a second time.", "", "Look at server.log(), and try again.")
    best = finals[ranked[0]]
    alike = [each for each in ranked[1:] if goal.fits(best) <= goal.fits(finals[each])]
    alike = [each for each in alike if compared(best, finals[each], goal).answer != SLOWER]
    return min([ranked[0], *alike], key=lambda each: each.simplicity(start)), ranked


# --- the server ------------------------------------------------------------------------------------------------------------


class Trial(Measurement):
    """A combination that is measured on the server, with what the server's counters and processes say meanwhile."""

    def __init__(self, bench: Workbench, candidate: Candidate) -> None:
        self.bench, self.candidate = bench, candidate
        self.counts, self.cpu_s = [0, 0], [0.0, 0.0]
        self.memory_mb: float | None = None
        bench.load(candidate)
        super().__init__(bench.server, candidate.model, **bench.load_of_goal(), program=bench.program, window_s=TURN_WINDOW_S)

    def measure(self, turn: str = "") -> None:
        """Measure three windows; once more where there was no answer in time, which on a busy machine says nothing about the model."""
        try:
            self._once(turn)
        except RequestError:
            if not self.server.is_alive():
                raise
            self._once(turn)

    def _once(self, turn: str) -> None:
        if self.bench.load(self.candidate) or not self.results:
            self.warm_up()
        before, counted = self.bench.look_at(self.candidate)
        super().measure(turn)
        after, counts = self.bench.look_at(self.candidate)
        self.memory_mb = sum(each.pss_mb for each in after) or None
        self.counts = [old + new - then for old, new, then in zip(self.counts, counts, counted, strict=True)]
        self.cpu_s = [old + new for old, new in zip(self.cpu_s, cpu_between(before, after), strict=True)]

    def row(self) -> Row:
        """Return what was measured so far as a row, with what guides the search."""
        row, (inferences, executions) = super().row(), self.counts
        # By inference, since between the windows, while the client starts, nothing is done.
        each = row[THROUGHPUT] / inferences if self.memory_mb and inferences and row[THROUGHPUT] else None
        compute, queue = [row[name] for name in _COMPUTE], row["queue_us"]
        known = queue is not None and None not in compute and queue + sum(compute) > 0
        return row | {
            "memory_mb": self.memory_mb,
            "executed_batch": inferences / executions if executions else None,
            "cpu_cores": each and self.cpu_s[0] * each,
            "wanted_cores": each and self.cpu_s[1] * each,
            "queue_share": queue / (queue + sum(compute)) if known else None,
            "reachable_batch": space.reachable(self.bench.found[self.model].base, self.candidate, self.bench.goal.traffic),
            "rounds": len(self.results),
        }


_SEEN = ("memory_mb", "executed_batch", "cpu_cores", "wanted_cores", "queue_share", "reachable_batch", "rounds")


@dataclass
class Workbench:
    """The server under a search: what is looked for, where results go, and the options of each measurement.

    ``found`` has the models as they were, ``rows`` what was measured, ``before`` how many of them an earlier call had measured, and ``at``
    what was under way last.
    """

    server: Server
    goal: Goal
    folder: Path
    options: Mapping[str, Any]
    max_batch: int | None = None
    again: bool = False
    progress: Progress = field(default_factory=lambda: Progress("", silent=True))
    program: Program = field(default_factory=find_perf_analyzer)
    found: dict[str, Found] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    before: int = 0
    at: str = "its beginning"

    def __post_init__(self) -> None:
        self.path = self.folder / ROWS
        self._known = [] if self.again else read_rows(self.path)
        self._serves: dict[str, Candidate] = {}
        self._about: dict[str, dict[str, Any]] = {}
        self._finals: dict[Candidate, Trial] = {}

    def find(self, model: str, cores: int) -> Found:
        """Note how a model is, to put it back later; load it if it is not loaded."""
        loaded = any(state.name == model and state.state == "READY" for state in self.server.models())
        if not loaded:
            # Noted first: an interrupt in the middle of the loading has to find it.
            self.found[model] = Found(model, {}, False, Candidate(model, 1, None, None))
            self.server.load(model)
        self._about[model], config = about(self.server, model, self.options.get("protocol"))
        place = space.place_of(model, config, cores, self.server.runtime == "embedded")
        self.found[model] = found = Found(model, config, loaded, place, self.max_batch)
        if not found.limited:
            self._serves[model] = place
        return found

    def look(self, candidate: Candidate) -> Row:
        """Return a short measurement, enough to choose where to go next."""
        self._tell(candidate, "the search")
        config = self.found[candidate.model].config_for(candidate, self.goal.traffic)
        run = run_for(self.server, candidate.model, **self.load_of_goal())
        key = measured_key(run, self._about[candidate.model] | {"config": config_name(config)}, self.program, SEARCH)
        row = measured_before(self._known, key, self.server, candidate.model)
        if row is not None:
            self.before += 1
            row = self._judged(row)
        else:
            row = self._row(candidate, SEARCH) | {"key": key}
            # First of all: whatever happens next, this one is not lost.
            append_row(self.path, row)
        self.rows.append(row)
        return row

    def measure_again(self, candidate: Candidate, turn: str) -> Row:
        """Measure a finalist once more, and return a row of all its rounds. These are never those of an earlier call."""
        self._tell(candidate, "the finals")
        return self._row(candidate, FINAL, turn)

    def _tell(self, candidate: Candidate, stage: str) -> None:
        self.at = f"{candidate} ({stage})"
        self.progress.what = self.at
        self.progress.add()

    def _row(self, candidate: Candidate, stage: str, turn: str = "") -> Row:
        """A row of one more run of three windows; in the finals with those before."""
        traffic = self.goal.traffic
        row = dict.fromkeys((*COLUMNS, *_SEEN)) | {
            **{"model": candidate.model, "batch": traffic.batch, "concurrency": traffic.concurrency},
            **{"request_rate_per_s": traffic.request_rate_per_s, "percentile": self.goal.percentile, "time": now(), "stage": stage},
            **{"candidate": str(candidate), "as_found": candidate == self.found[candidate.model].place, "threads": candidate.threads},
            **{"batching": candidate.batching, "delay_ms": candidate.delay_ms, "half_batches": candidate.halves},
            **{"accelerator": candidate.accelerator, "outcome": OK, "reason": ""},
        }
        outcome = REFUSED
        try:
            made = self._finals.get(candidate) or Trial(self, candidate)
            if stage == FINAL:
                self._finals[candidate] = made
            outcome = FAILED
            made.measure(turn)
            row |= made.row()
        except (ModelError, ConfigError, RequestError) as error:
            if not self.server.is_alive() or (outcome == REFUSED and isinstance(error, RequestError)):
                raise
            row |= {"outcome": outcome, "reason": str(error)}
        return self._judged(row | {"instances": candidate.instances})

    def _judged(self, row: Row) -> Row:
        """The row with what the limits of this search say; they may differ from those of the call that measured."""
        outcome, reason = OK, ""
        if row["outcome"] in (REFUSED, FAILED):
            return row
        if row[THROUGHPUT] is None:
            outcome, reason = FAILED, "no request was answered within a window"
        elif not self.goal.within(row):
            latency = self.goal.latency_ms(row)
            reason = "no latency is known" if latency is None else f"{latency:.3g} ms"
            outcome = OVER_BUDGET if self.goal.over(row) else UNSURE
        return row | {"outcome": outcome, "reason": reason}

    def load_of_goal(self) -> dict[str, Any]:
        """Return the load, as arguments of a measurement."""
        traffic = self.goal.traffic
        load = {"batch": traffic.batch, "request_rate_per_s": traffic.request_rate_per_s, "percentile": self.goal.percentile}
        return {**self.options, **load, "concurrency": traffic.concurrency or 1}

    def load(self, candidate: Candidate) -> bool:
        """Load a combination, unless it is the one that serves; True if it was loaded. What the server refuses leaves the other serving."""
        if self._serves.get(candidate.model) == candidate:
            return False
        # Not known until the server has said yes: after an interrupt the model is loaded again in any case.
        self._serves.pop(candidate.model, None)
        self.server.load(candidate.model, config=self.found[candidate.model].config_for(candidate, self.goal.traffic))
        self._serves[candidate.model] = candidate
        return True

    def restore(self) -> None:
        """Leave the server as it was, also after an interrupt; one that has died has nothing to put back."""
        try:
            self._restore()
        except KeyboardInterrupt:
            self._restore()
            raise
        except CourseError:
            if self.server.is_alive():
                raise

    def _restore(self) -> None:
        for model, found in self.found.items():
            if not found.loaded:
                self.server.unload(model)
                self._serves.pop(model, None)
            elif found.limited or self._serves.get(model) != found.place:
                self.server.load(model, config=dict(found.config))
                self._serves |= {} if found.limited else {model: found.place}

    def look_at(self, candidate: Candidate) -> tuple[list[Usage], tuple[int, int]]:
        """Return what the model's processes use, and how many inferences and runs it has counted."""
        pid = self.server.pid if self.server.runtime == "embedded" else None
        told = self.server.statistics(candidate.model)
        seen = of_model(usage(pid), candidate.model) if pid is not None else []
        return seen, (int(told.get("inference_count", 0)), int(told.get("execution_count", 0)))

    def kept(self) -> str:
        """Return what there is, in words."""
        searched = sum(row["stage"] == SEARCH for row in self.rows)
        is_in = "1 measurement is" if searched == 1 else f"{searched} measurements are"
        return f"{is_in} in {shown(self.path)}; typed again, it goes on from there"


# --- the report ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class Tuned:
    """The result of a search.

    Attributes:
        rows: everything that was tried, in order; a finalist has one row of all its rounds.
        best: the winner's row; None when nothing meets the budget.
        closest: the row of the combination that comes closest to the budget, where nothing meets it; else None.
        config_path: the winner's ``config.pbtxt``; None when there is none.
        against_found: verdict on the winner, seen from the configuration that was found; None where there are not these two.
        text: what was done and how sure the result is, in sentences.
        path: the file with the rows of this search and of others.
        before: how many rows an earlier call had measured.
    """

    rows: list[Row]
    best: Row | None
    closest: Row | None
    config_path: Path | None
    against_found: Verdict | None
    text: tuple[str, ...]
    path: Path
    before: int = 0

    def __repr__(self) -> str:
        return "\n".join([*self.text, "", as_text(self._table())])

    def _repr_html_(self) -> str:
        sentences = "".join(f"<p style='margin:0.2em 0'>{html.escape(sentence)}</p>" for sentence in self.text)
        winner = (self.best or self.closest or {}).get("candidate")
        table = as_html(self._table(), caption=f"{len(self.rows)} measurements.", bold=lambda row: row["what"] == winner)
        return box(sentences, "#2e9e44" if self.best else "#c96f14") + table

    def _table(self) -> list[dict[str, Any]]:
        return [
            {
                "what": row["candidate"] + (" (as found)" if row["as_found"] else ""),
                "stage": row["stage"] + (f", {row['rounds'] or 0} rounds" if row["stage"] == FINAL else ""),
                "infer/s": row[THROUGHPUT],
                "±": row[THROUGHPUT_SPREAD],
                f"p{row['percentile']} (ms)": _ms(row.get(latency_column(row["percentile"]))),
                "queue (ms)": _ms(row["queue_us"]),
                "batch run": row["executed_batch"],
                "CPU cores": row["cpu_cores"],
                "memory (MB)": row["memory_mb"] and round(row["memory_mb"]),
                "outcome": row["outcome"],
            }
            for row in self.rows
        ]


def _ms(value_us: float | None) -> float | None:
    return None if value_us is None else value_us / 1000


def praise(best: Row, goal: Goal, found: Row | None, following: Row | None, told_apart: bool) -> list[str]:
    """Say how good the winner is and how sure that is; ``following`` is the runner-up, or a faster one that it was not told apart from."""
    said = [f"Best: {best['candidate']}: {goal.words(best)}."]
    if following is not None and not told_apart:
        seen = compared(best, following, goal)
        said.append(f"It cannot be told from {following['candidate']}, so the simpler one was taken. Seen from it: {seen}")
    if best["half_batches"]:
        said.append(
            "Half batches hold half of the requests that an instance has under way (preferred_batch_size): while it works on one half, the "
            "other one waits, complete."
        )
    if goal.budget_ms is not None:
        sure = "for certain" if goal.kept(best) else "on average, but its spread reaches over the budget: cannot tell"
        said.append(f"It meets the budget of {goal.budget_ms:g} ms {sure}.")
    if best["as_found"]:
        said.append("That is the configuration as it was found: nothing that was tried is better beyond doubt.")
    elif found is not None:
        seen = compared(found, best, goal)
        hint = {CANNOT_TELL: " There is no proof yet that a change is worth it.", FASTER: ""}
        said.append(f"Seen from the configuration as found: {seen}{hint.get(seen.answer, ' So nothing is won by it.')}")
    if following is not None and told_apart and not following["as_found"]:
        said.append(f"Seen from the runner-up: {compared(following, best, goal)}")
    return said


def regret(closest: Row, goal: Goal) -> list[str]:
    """Say what there is to say when no combination meets the budget."""
    budget = f"meets the budget of p{goal.percentile} ≤ {goal.budget_ms:g} ms with" if goal.budget_ms else "keeps up with"
    said = [f"Nothing that was tried {budget} {goal.traffic}.", f"The closest is {closest['candidate']}: {goal.words(closest)}."]
    if goal.kept(closest) is None:
        said.append("Its spread reaches over the budget, so more time may show that it meets it: cannot tell.")
    return [*said, "Send less at a time (a smaller batch, fewer requests under way), allow more time, or find a faster network or machine."]


def rejected(rows: Sequence[Row], goal: Goal) -> list[str]:
    """Say what was rejected in the finals and what counted for nothing, and why."""
    late = [f"{row['candidate']} ({goal.latency_words(row)})" for row in rows if row["stage"] == FINAL and goal.kept(row) is False]
    bad = dict.fromkeys(f"{row['candidate']} ({row['outcome']}: {row['reason']})" for row in rows if row["outcome"] != OK)
    said = (
        [f"Rejected in the finals, because their latency is over the budget of {goal.budget_ms:g} ms for certain: {'; '.join(late)}."]
        if late
        else []
    )
    return said + ([f"Out of the race: {'; '.join(bad)}."] if bad else [])


# --- the whole -------------------------------------------------------------------------------------------------------------


def tune(
    server: Server,
    model: str,
    batch: int = 1,
    *,
    concurrency: int | None = None,
    request_rate_per_s: float | None = None,
    budget_ms: float | None = None,
    max_instances: int | None = None,
    max_batch: int | None = None,
    variants: Sequence[str] = (),
    output: str | Path = "work/tune",
    axes: Axes | None = None,
    percentile: int = PERCENTILE,
    input_data: InputData = "random",
    lengths: int | Mapping[str, int] | None = None,
    protocol: str | None = None,
    again: bool = False,
    silent: bool = False,
) -> Tuned | None:
    """Search. While it runs the server serves one configuration after the other; at the end, or when something stops it, the one before.

    Args:
        server: one's own, since models are loaded again.
        model: name of the model.
        batch: entries in each request.
        concurrency: requests under way at any time; the highest throughput wins.
        request_rate_per_s: requests sent each second, in place of a concurrency; the lowest latency wins.
        budget_ms: what the latency percentile may be at most, in ms.
        max_instances: instances at most; by default as many as there are cores, up to :data:`helpers.tuning.space.MAX_INSTANCES`.
        max_batch: entries that the server may put into one batch at most; by default each model's ``max_batch_size``.
        variants: other models with the same inputs and outputs, names of tensors aside: another format, another precision.
        output: folder for the rows and the winner's configuration.
        axes: values to choose from, in place of those that fit this machine and traffic.
        percentile: the latency that the budget is for, in percent.
        input_data: ``random``, ``zero`` or a file of :mod:`helpers.measuring.inputs`; for variants with other names of tensors, by model.
        lengths: length of the axes that may have any, by the beginning of the input's name, or one for all.
        protocol: ``grpc`` (the default) or ``http``.
        again: measure also what an earlier call measured; else a search that was killed goes on where it was. The finals are always
            measured, since they compare what is measured within the same minutes.
        silent: show no progress.

    Returns:
        The result; ``best`` is None when nothing meets the budget. Where perf_analyzer does not run, None.

    Raises:
        InputError: the traffic or a limit makes no sense, or a variant has other inputs or outputs; nothing was changed.
        ModelError: the server is not one's own, or the model cannot be measured as it is.
        CourseError: the search cannot go on; every measurement so far is kept, and the text says how to go on.
        KeyboardInterrupt: it was interrupted; likewise.
    """
    if not can_measure():
        print("Nothing was searched, because a search measures. What searches found on another machine is in benchmarks/README.md.")
        return None
    must_own(server, "search for a configuration")
    if (concurrency is None) == (request_rate_per_s is None):
        raise InputError(
            "The traffic is given by either concurrency or request_rate_per_s.",
            "The search varies the server, not what its clients send.",
            "Type for example: tune(server, model, batch=8, concurrency=4, budget_ms=50)",
        )
    numbers = (batch, concurrency, request_rate_per_s, budget_ms, max_instances, max_batch)
    if any(number is not None and number <= 0 for number in numbers):
        raise InputError("A number for the traffic or a limit is not above 0.", "Expected batch, concurrency, budget_ms … above 0.")
    goal = Goal(Traffic(batch, concurrency, request_rate_per_s), budget_ms, percentile)
    options = {"input_data": input_data, "lengths": lengths, "protocol": protocol}
    with Progress(f"searching for {model}", unit="measurements", silent=silent) as progress:
        bench = Workbench(server, goal, folder_of(output), options, max_batch, again, progress)
        try:
            spaces = _spaces(bench, [model, *variants], max_instances, axes)
            return _search(bench, spaces, bench.found[model].place)
        except KeyboardInterrupt:
            print(f"interrupted; {bench.kept()}")
            raise
        except CourseError as error:
            if isinstance(error, InputError) or not bench.rows:
                raise
            raise RequestError(
                f"The search stopped at {bench.at}: {error.happened}", f"{bench.kept()}.", error.todo or error.expected
            ) from error
        finally:
            bench.restore()


def _spaces(bench: Workbench, models: Sequence[str], max_instances: int | None, axes: Axes | None) -> dict[str, Axes]:
    """The values to choose from, for each model; before anything is changed, what does not fit is refused."""
    cores, traffic = len(os.sched_getaffinity(0)), bench.goal.traffic
    spaces: dict[str, Axes] = {}
    for name in dict.fromkeys(models):
        found = bench.find(name, cores)
        if "ensemble_scheduling" in found.config:
            steps = ", ".join(step["model_name"] for step in found.config["ensemble_scheduling"]["step"])
            raise InputError(
                f"{name!r} is an ensemble: it has no instances of its own.", f"Its parts are {steps}.", "Search for each of them."
            )
        _same_tensors(bench, models[0], name)
        # Asks for the shapes as well: better now than in the middle of the search.
        run_for(bench.server, name, **bench.load_of_goal())
        here = space.accelerators_here(bench.server.runtime, space.on_gpu(found.config))
        spaces[name] = (
            space.axes_for(found, traffic, cores, max_instances, bench.goal.budget_ms, here)
            if axes is None
            else axes.fitting(found, traffic, max_instances)
        )
    if bench.max_batch is not None and bench.max_batch < traffic.batch:
        raise InputError(
            f"The clients send batches of {traffic.batch}, above max_batch={bench.max_batch}.", "The server cannot make them smaller."
        )
    return spaces


def _same_tensors(bench: Workbench, first: str, name: str) -> None:
    with Client(bench.server, bench.options["protocol"], timeout_s=QUERY_TIMEOUT_S) as connection:
        one, other = connection.signature(first), connection.signature(name)
    for what in ("inputs", "outputs"):
        here, there = ([f"{spec.datatype} {spec.shape}" for spec in getattr(each, what).values()] for each in (one, other))
        if here != there:
            raise InputError(
                f"{name!r} is no variant of {first!r}: their {what} differ.",
                f"Expected {', '.join(here)}, and it has {', '.join(there)}.",
                "Only models for the same requests can be compared.",
            )


def _search(bench: Workbench, spaces: Mapping[str, Axes], start: Candidate) -> Tuned:
    goal, begin = bench.goal, time.monotonic()
    search = Search(spaces, goal, len(os.sched_getaffinity(0)), bench.look)
    finalists, reserve = search.finalists(search.run(start), start)
    finals, reason = confirm(finalists, reserve, goal, bench.measure_again)
    bench.rows += finals.values()
    for row in finals.values():
        append_row(bench.path, row)
    winner, ranked = winner_of(finals, start, goal)
    row, found = finals[winner], finals[start] if start in ranked and start != winner else None
    following = next((finals[each] for each in ranked if each != winner), None)
    meets = goal.kept(row) is not False and goal.fits(row)
    path = _write(bench, winner, row) if meets else None
    text = praise(row, goal, found, following, winner == ranked[0]) if meets else regret(row, goal)
    text += [f"Its configuration is in {shown(path)}, to copy into its folder."] if path else []
    combinations = sum(len({*axes.candidates(model)}) for model, axes in spaces.items())
    earlier = f" ({bench.before} of them by an earlier call)" if bench.before else ""
    text += [
        f"Tried: {len(search.rows)} combinations of {combinations}{earlier}, with {goal.traffic}; {time.monotonic() - begin:.0f} s.",
        f"It stopped because no step from the best one was left that promised anything, and {reason}.",
        *([f"Left out: {' '.join(search.steps)}"] if search.steps else []),
        *rejected(bench.rows, goal),
    ]
    against_found = None if found is None else compared(found, row, goal)
    best, closest = (row, None) if meets else (None, row)
    return Tuned(bench.rows, best, closest, path, against_found, tuple(text), bench.path, bench.before)


def _write(bench: Workbench, winner: Candidate, row: Row) -> Path:
    goal, path = bench.goal, bench.folder / winner.model / "config.pbtxt"
    budget = f", p{goal.percentile} ≤ {goal.budget_ms:g} ms" if goal.budget_ms else ""
    remark = f"Found by a search for {goal.traffic}{budget}:\n{winner}: {goal.words(row)}, on {row['cpu']}."
    with writing(path):
        make_folder(path.parent)
        replace_file(path, bench.found[winner.model].written(winner, goal.traffic, bench.server.repository, remark))
    return path
