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
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from helpers.client.client import RETRIES, Connection
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
    summary,
)
from helpers.measuring.perf_analyzer import PERCENTILE, Result, Window, run_for
from helpers.measuring.program import Program, find_perf_analyzer
from helpers.measuring.statistics import CANNOT_TELL, FASTER, SLOWER, Verdict, verdict
from helpers.measuring.table import COLUMNS, THROUGHPUT, THROUGHPUT_SPREAD, append_row, folder_of, latency_column, read_rows, with_spread
from helpers.paths import make_folder, shown, writing
from helpers.paths import replace as replace_file
from helpers.server import Server
from helpers.tables import as_html, as_text, box
from helpers.tuning.space import (
    FAILED,
    MEASURED,
    OK,
    OVER_BUDGET,
    OVER_MEMORY,
    REFUSED,
    UNSURE,
    Axes,
    Candidate,
    Found,
    Goal,
    Row,
    Traffic,
    accelerators_here,
    axes_for,
    beside,
    fitting,
    on_gpu,
    place_of,
    reachable,
    simplicity,
    winner_text,
)
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
# What the server's counters and processes say, for the guidance.
_SEEN = ("memory_mb", "executed_batch", "reachable_batch", "cpu_cores", "wanted_cores", "queue_share")
_COMPUTE = ("compute_input_us", "compute_infer_us", "compute_output_us")


# --- the search ------------------------------------------------------------------------------------------------------------


@dataclass
class Search:
    """The cheap part: one combination after the other, from the one that was found, along one axis at a time.

    Args:
        axes: the values of each model, the one that serves now first.
        goal: what is best.
        cores: of the server.
        measure: measures a combination shortly; the row has ``outcome`` and what the guidance needs.

    Attributes:
        rows: what was measured, in order.
        steps: what was done and left out, and why, in sentences.
    """

    axes: Mapping[str, Axes]
    goal: Goal
    cores: int
    measure: Callable[[Candidate], Row]
    rows: dict[Candidate, Row] = field(default_factory=dict)
    steps: list[str] = field(default_factory=list)

    def run(self, start: Candidate) -> Candidate:
        """Go from ``start`` to the best that can be found; returns it.

        Raises:
            ModelError: not even the start can be measured.
        """
        if (row := self._try(start))["outcome"] in (REFUSED, FAILED):
            raise ModelError(f"The configuration as it was found cannot be measured: {row['reason']}")
        best = self._models(start)
        best = self._instances(best)
        before, best = best, self._batching(best)
        best = self._accelerators(best)
        if best.batching != before.batching or best.accelerator != before.accelerator:
            best = self._instances(best)
        return best

    def finalists(self, best: Candidate, start: Candidate) -> list[Candidate]:
        """The best and those that its spread does not rule out, at most :data:`FINALISTS`; always the start."""
        ranked = sorted(self.rows, key=lambda each: self.goal.rank(self.rows[each]), reverse=True)
        near = [each for each in ranked if self._near(self.rows[each], self.rows[best])]
        chosen = list(dict.fromkeys([best, *near]))[:FINALISTS]
        usable = self.rows[start]["outcome"] in MEASURED
        return list(dict.fromkeys([*chosen, *([start] if usable else [])]))

    def reserve(self, finalists: Sequence[Candidate], start: Candidate) -> list[Candidate]:
        """Who is next when the finals reject all finalists: the best others that were inside the budget and better than the start."""
        least = self.goal.rank(self.rows[start])
        others = [each for each in self.rows if each not in finalists and self.goal.rank(self.rows[each]) > max(least, (1.0,))]
        return sorted(others, key=lambda each: self.goal.rank(self.rows[each]), reverse=True)[:FINALISTS]

    def _near(self, row: Row, best: Row) -> bool:
        if row["outcome"] not in MEASURED:
            return False
        if not self.goal.within(best):
            return False
        return not self.goal.over(row) and verdict(best, row, self.goal.quantity).answer != SLOWER

    def _try(self, candidate: Candidate) -> Row:
        if candidate not in self.rows:
            self.rows[candidate] = self.measure(candidate)
        return self.rows[candidate]

    def _better(self, one: Candidate, other: Candidate) -> bool:
        return self.goal.rank(self._try(one)) > self.goal.rank(self.rows[other])

    def _best_of(self, best: Candidate, others: Sequence[Candidate]) -> Candidate:
        for other in others:
            if self._better(other, best):
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
            while (following := beside(best, self.axes[best.model], self.cores, step)) and self._worth(best, following, step):
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
        others = dict.fromkeys([fitting, fewer] if self._waits(best) else [fitting])
        return self._best_of(best, [replace(best, threads=number) for number in others if number != now])

    def _worth(self, now: Candidate, following: Candidate, step: int) -> bool:
        row = self.rows[now]
        if following in self.rows:
            return True
        if step > 0 and not self._waits(now):
            return self._skip(f"More than {now.instances} instances: hardly any request waits for one ({_percent(row['queue_share'])}).")
        wanted, all_of_it = row.get("wanted_cores"), following.instances * (following.threads or 1)
        if step > 0 and all_of_it > self.cores and wanted and wanted > CPU_BUSY * self.cores:
            return self._skip(f"{following.instances} instances: {now} has work for {wanted:.1f} of {self.cores} cores already.")
        if step < 0 and following.threads == now.threads and self._waits(now):
            return self._skip(f"Fewer than {now.instances} instances: requests wait for one as it is ({_percent(row['queue_share'])}).")
        return True

    def _batching(self, best: Candidate) -> Candidate:
        """Off and on; and waits, from the shortest, while they make larger batches and it gets better."""
        axes = self.axes[best.model]
        if len(axes.delays_ms) == 1:
            return best
        if not self._waits(best) and not best.delay_ms:
            self._skip(
                f"Dynamic batching: hardly any request waits ({_percent(self.rows[best]['queue_share'])}), so none can be put together."
            )
            return best
        begin = best
        plain: list[float | None] = [delay for delay in axes.delays_ms if not delay and delay != begin.delay_ms]
        best = self._best_of(best, [replace(best, delay_ms=delay) for delay in plain])
        for delay in sorted(delay for delay in axes.delays_ms if delay):
            at_once = self.rows.get(replace(best, delay_ms=0.0)) or self.rows[best]
            if self._full(best, at_once):
                break
            longer = replace(best, delay_ms=delay)
            if not self._better(longer, best):
                break
            best = longer
        return self._halves(best)

    def _halves(self, best: Candidate) -> Candidate:
        """Batches of half of what an instance has under way, where two requests fit into one: it need not wait for the clients then."""
        halves = replace(best, delay_ms=0.0, halves=True)
        if (
            best.delay_ms is None
            or not self.axes[best.model].halves
            or (self.rows[best].get("reachable_batch") or 0) < 4 * self.goal.traffic.batch
        ):
            return best
        return self._best_of(best, [halves])

    def _full(self, best: Candidate, row: Row) -> bool:
        """Whether the batches are about as large as this traffic can make them, so that nothing is left to wait for."""
        batch, possible = row.get("executed_batch"), row.get("reachable_batch")
        if not batch or not possible or batch < FULL * possible:
            return False
        self._skip(f"Waiting for larger batches: they hold {batch:.3g} of {possible} possible without waiting.")
        return True

    def _accelerators(self, best: Candidate) -> Candidate:
        others = [name for name in self.axes[best.model].accelerators if name != best.accelerator]
        return self._best_of(best, [replace(best, accelerator=name) for name in others])

    def _waits(self, candidate: Candidate) -> bool:
        share = self.rows[candidate].get("queue_share")
        return share is None or share > WAITING

    def _skip(self, sentence: str) -> bool:
        if sentence not in self.steps:
            self.steps.append(sentence)
        return False


def _percent(share: float | None) -> str:
    return "not known" if share is None else f"{share:.0%} of its time"


# --- the finals ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Standing:
    """One combination with all its measurements of the finals.

    Attributes:
        candidate: the combination.
        rows: its measurements.
        goal: what was looked for.
    """

    candidate: Candidate
    rows: tuple[Row, ...]
    goal: Goal

    def row(self) -> Row:
        """Return one row of everything that was measured."""
        results = [
            Result({name: row[name] for name in _FIGURES}, tuple(Window(*each) for each in row["raw"]), row["requests"], "")
            for row in self.rows
        ]
        means = {name: _mean([row.get(name) for row in self.rows]) for name in _SEEN}
        turns = {turn: seen for row in self.rows for turn, seen in (row.get("turns") or {}).items()}
        return {**self.rows[0], **means, **summary(results, self.goal.percentile), "raw": None, "turns": turns, "repeats": len(self.rows)}

    def within(self) -> bool | None:
        """Return whether the latency is inside the budget; None when its interval reaches over it, or is not known."""
        if self.goal.budget_ms is None:
            return True
        row = self.row()
        half, room_us = row["latency_spread_us"], 1000 * self.goal.budget_ms - row[latency_column(self.goal.percentile)]
        return None if half is None or abs(room_us) < half else room_us >= 0

    def words(self) -> str:
        """Return throughput and latency with their spreads."""
        row = self.row()
        return f"{with_spread(row[THROUGHPUT], row[THROUGHPUT_SPREAD])} inferences/s, {self.latency_words()}"

    def latency_words(self) -> str:
        """Return the latency percentile with its spread."""
        row = self.row()
        half = row["latency_spread_us"]
        words = with_spread(row[latency_column(self.goal.percentile)], half, 1e-3)
        return f"p{self.goal.percentile} {words} ms" + ("" if half is not None else " (interval not known)")


_FIGURES = tuple(name for name in COLUMNS if name == THROUGHPUT or (name.endswith("_us") and name != "latency_spread_us"))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


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
        measure: measures one; takes the number of the round.
        rounds: at most; :data:`ROUNDS` by default.
        reserve: what is measured when all finalists are rejected, in order.

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
    """Return whether a finalist cannot win: nothing of it was measured, or the whole interval of its latency is over the budget."""
    measured = tuple(row for row in rows if row["outcome"] in MEASURED)
    return not measured or Standing(candidate, measured, goal).within() is False


def _rounds(
    finalists: Sequence[Candidate], goal: Goal, measure: Callable[[Candidate, int], Row], rounds: int | None
) -> tuple[dict[Candidate, list[Row]], str]:
    rounds = rounds or (QUICK_ROUNDS if quick() else ROUNDS)
    rows: dict[Candidate, list[Row]] = {each: [] for each in finalists}
    alive = list(finalists)
    for number in range(rounds):
        # Every other round backwards: the last in one is the first in the next, and needs no loading.
        for each in alive if number % 2 == 0 else alive[::-1]:
            rows[each].append(measure(each, number))
        alive = [each for each in alive if rows[each][-1]["outcome"] in MEASURED]
        if not alive:
            return rows, "no finalist could be measured again"
        if number > 0 and all(rejected(each, rows[each], goal) for each in alive):
            return rows, f"after {number + 1} rounds of the finals all were over the budget for certain"
        best = max(alive, key=lambda each: goal.rank(Standing(each, tuple(rows[each]), goal).row()))
        # One run says nothing about how much the next one will differ.
        alive = [each for each in alive if each == best or number == 0 or not _lost(rows[each], rows[best], goal)]
        if len(alive) == 1 and number > 0 and len(finalists) > 1:
            return rows, f"after {number + 1} rounds of the finals the others were clearly behind"
    return rows, f"{rounds} rounds of the finals were measured"


def _lost(rows: Sequence[Row], best: Sequence[Row], goal: Goal) -> bool:
    if all(goal.within(row) for row in best) and all(goal.over(row) for row in rows):
        return True
    return verdict(list(best), list(rows), goal.quantity).answer == SLOWER


def standings(finals: Mapping[Candidate, Sequence[Row]], goal: Goal) -> list[Standing]:
    """Return the finalists that were measured, the best first."""
    measured = {each: tuple(row for row in rows if row["outcome"] in MEASURED) for each, rows in finals.items()}
    ranked = [Standing(each, rows, goal) for each, rows in measured.items() if rows]
    return sorted(ranked, key=lambda each: goal.rank(each.row()), reverse=True)


def winner_of(ranked: Sequence[Standing], start: Candidate) -> Standing:
    """Return the best, or the simplest of those that cannot be told from it."""
    best = ranked[0]
    alike = [each for each in ranked if each is best or (best.goal.fits(best) <= best.goal.fits(each) and not _behind(best, each))]
    return min(alike, key=lambda each: simplicity(each.candidate, start))


def _behind(best: Standing, other: Standing) -> bool:
    seen = compared(best, other)
    return seen is not None and seen.answer == SLOWER


def compared(first: Standing | None, second: Standing | None) -> Verdict | None:
    """Return the verdict on the second, seen from the first."""
    if first is None or second is None or first.candidate == second.candidate:
        return None
    # Named by the combination instead of the short name of a configuration.
    rows = [
        [{**row, "variant": str(each.candidate), "config": None, "instances": None, "model": None} for row in each.rows]
        for each in (first, second)
    ]
    return verdict(*rows, first.goal.quantity)


# --- the server ------------------------------------------------------------------------------------------------------------


@dataclass
class Workbench:
    """The server under a search.

    Args:
        server: one's own.
        goal: what is measured and looked for.
        max_memory_mb: limit for the server and the model's instances; None for none.
        folder: of the results.
        options: of each measurement: input data, lengths, protocol.
        program: which perf_analyzer.
        again: measure also what an earlier call measured.
        told: called with what is about to be measured, and with the row.
        max_batch: entries that the server may put into one batch; None for each model's own limit.

    Attributes:
        found: by name, the models as they were.
        rows: of this search, in order.
        before: how many of them an earlier call had measured.
        at: what was under way last.
    """

    server: Server
    goal: Goal
    max_memory_mb: float | None
    folder: Path
    options: Mapping[str, Any]
    program: Program
    again: bool = False
    told: Callable[[str, Row | None], None] = lambda what, row: None
    max_batch: int | None = None
    found: dict[str, Found] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    before: int = 0
    at: str = "its beginning"

    def __post_init__(self) -> None:
        self.path = self.folder / ROWS
        self._known = read_rows(self.path)
        self._serves: dict[str, Candidate] = {}
        self._about: dict[str, dict[str, Any]] = {}

    def find(self, model: str, cores: int) -> Found:
        """Note how a model is, to put it back later; load it if it is not.

        Raises:
            ModelError: there is no such model, or it cannot be loaded.
        """
        loaded = any(state.name == model and state.state == "READY" for state in self.server.models())
        if not loaded:
            # Noted first: an interrupt in the middle of the loading has to find it.
            self.found[model] = Found(model, {}, False, Candidate(model, 1, None, None))
            self.server.load(model)
        self._about[model], config = about(self.server, model, self.options.get("protocol"))
        place = place_of(model, config, cores, self.server.runtime == "embedded")
        self.found[model] = found = Found(model, config, loaded, place, self.max_batch)
        if not found.limited:
            self._serves[model] = place
        return self.found[model]

    def check(self, model: str) -> None:
        """Raise what a measurement of this traffic would raise before it begins."""
        run_for(self.server, model, **self._run(model))

    def look(self, candidate: Candidate) -> Row:
        """A short measurement, enough to choose where to go next."""
        return self._row(candidate, SEARCH, 0)

    def measure_well(self, candidate: Candidate, number: int) -> Row:
        """A long one, for the finals."""
        return self._row(candidate, FINAL, number)

    def _row(self, candidate: Candidate, stage: str, number: int) -> Row:
        self.at = f"{candidate} ({'the finals' if stage == FINAL else 'the search'})"
        config = self.found[candidate.model].config_for(candidate, self.goal.traffic)
        key = self._key(candidate, config, stage, number)
        row = None if self.again else measured_before(self._known, key, self.server, candidate.model)
        self.told(str(candidate), None)
        if row is not None:
            self.before += 1
            row = {**row, **self._judged(row)}
        else:
            begin = time.monotonic()
            row = {**self._measured(candidate, config, number), "stage": stage, "round": number, "key": key}
            row["seconds"] = round(time.monotonic() - begin, 2)
            row |= self._judged(row)
            # First of all: whatever happens next, this one is not lost.
            append_row(self.path, row)
        self.rows.append(row)
        self.told(str(candidate), row)
        return row

    def _run(self, model: str) -> dict[str, Any]:
        """The load on a model, as arguments of a measurement."""
        traffic, data = self.goal.traffic, self.options.get("input_data", "random")
        own = data.get(model, "random") if isinstance(data, Mapping) else data
        load = {"batch": traffic.batch, "request_rate_per_s": traffic.request_rate_per_s, "percentile": self.goal.percentile}
        return {**self.options, **load, "concurrency": traffic.concurrency or 1, "input_data": own}

    def _key(self, candidate: Candidate, config: Mapping[str, Any], stage: str, number: int) -> str:
        run = run_for(self.server, candidate.model, **self._run(candidate.model))
        known = {**self._about[candidate.model], "config": config_name(config)}
        return measured_key(run, known, self.program, stage, number)

    def _measured(self, candidate: Candidate, config: dict[str, Any], number: int) -> Row:
        row = {**dict.fromkeys((*COLUMNS, *_SEEN)), "raw": [], "time": now(), **self._described(candidate)}
        try:
            self.load(candidate, config)
        except (ModelError, ConfigError) as error:
            if not self.server.is_alive():
                raise
            return {**row, "outcome": REFUSED, "reason": str(error)}
        before, count_before = self._usage(candidate), self._counts(candidate.model)
        try:
            measured = self._measure(candidate, number)
        except (ModelError, RequestError) as error:
            if not self.server.is_alive():
                raise
            return {**row, "outcome": FAILED, "reason": str(error)}
        after, count_after = self._usage(candidate), self._counts(candidate.model)
        inferences, executions = (new - old for new, old in zip(count_after, count_before, strict=True))
        memory = sum(each.pss_mb for each in after) or None
        own = {"memory_mb": memory, "executed_batch": inferences / executions if executions else None}
        rate = measured["throughput_infer_per_s"]
        # By inference, since between the windows, while the client starts, nothing is done.
        each = rate / inferences if after and inferences and rate else None
        own["cpu_cores"], own["wanted_cores"] = (each and seconds * each for seconds in cpu_between(before, after))
        compute, queue = [measured[name] for name in _COMPUTE], measured["queue_us"]
        known = queue is not None and None not in compute and queue + sum(compute) > 0
        own["queue_share"] = queue / (queue + sum(compute)) if known else None
        own["reachable_batch"] = reachable(config, candidate, self.goal.traffic)
        return {**row, **measured, **own}

    def _measure(self, candidate: Candidate, number: int) -> Row:
        """Three windows; once more where there was no answer in time, which on a busy machine says nothing about the model."""
        try:
            return self._once(candidate, number)
        except RequestError:
            if not self.server.is_alive():
                raise
            return self._once(candidate, number)

    def _once(self, candidate: Candidate, number: int) -> Row:
        made = Measurement(self.server, candidate.model, program=self.program, window_s=TURN_WINDOW_S, **self._run(candidate.model))
        made.warm_up()
        made.measure(f"round {number}")
        raw = [[window.throughput_infer_per_s, window.latency_us] for result in made.results for window in result.windows]
        return made.row() | {"raw": raw}

    def _described(self, candidate: Candidate) -> Row:
        traffic = self.goal.traffic
        return {
            "model": candidate.model,
            "batch": traffic.batch,
            "concurrency": traffic.concurrency,
            "request_rate_per_s": traffic.request_rate_per_s,
            "percentile": self.goal.percentile,
            "candidate": str(candidate),
            "as_found": candidate == self.found[candidate.model].place,
            "instances": candidate.instances,
            "threads": candidate.threads,
            "batching": candidate.batching,
            "delay_ms": candidate.delay_ms,
            "half_batches": candidate.halves,
            "accelerator": candidate.accelerator,
            "outcome": OK,
            "reason": "",
        }

    def _judged(self, row: Row) -> Row:
        """What the limits of this search say; limits may differ from those of the call that measured."""
        if row["outcome"] in (REFUSED, FAILED):
            return {}
        if row["throughput_infer_per_s"] is None:
            return {"outcome": FAILED, "reason": "no request was answered within a window"}
        if self.max_memory_mb is not None and (row["memory_mb"] or 0) > self.max_memory_mb:
            return {"outcome": OVER_MEMORY, "reason": f"{row['memory_mb']:.0f} MB"}
        if not self.goal.within(row):
            latency = self.goal.latency_ms(row)
            reason = "no latency is known" if latency is None else f"{latency:.3g} ms"
            return {"outcome": OVER_BUDGET if self.goal.over(row) else UNSURE, "reason": reason}
        return {"outcome": OK, "reason": ""}

    def load(self, candidate: Candidate, config: Mapping[str, Any]) -> None:
        """Load a combination, unless it is the one that serves.

        Raises:
            ModelError: the server refused it; what was loaded keeps serving.
        """
        if self._serves.get(candidate.model) == candidate:
            return
        # Not known until the server has said yes: after an interrupt the model is loaded again in any case.
        self._serves.pop(candidate.model, None)
        self.server.load(candidate.model, config=dict(config))
        self._serves[candidate.model] = candidate

    def restore(self, keep: Candidate | None = None) -> None:
        """The server as it was, but for the combination to keep."""
        for model, found in self.found.items():
            if keep is not None and model == keep.model:
                self.load(keep, found.config_for(keep, self.goal.traffic))
            elif not found.loaded:
                self.server.unload(model)
                self._serves.pop(model, None)
            elif found.limited or self._serves.get(model) != found.place:
                self.server.load(model, config=dict(found.config))
                if not found.limited:
                    self._serves[model] = found.place

    def _usage(self, candidate: Candidate) -> list[Usage]:
        known = self.server.runtime == "embedded" and self.server.pid is not None
        return of_model(usage(self.server.pid), candidate.model) if known else []  # type: ignore[arg-type]

    def _counts(self, model: str) -> tuple[int, int]:
        told = self.server.statistics(model)
        return int(told.get("inference_count", 0)), int(told.get("execution_count", 0))


# --- the report ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tuned:
    """The result of a search.

    Attributes:
        rows: everything that was tried, in order, one row for each measurement.
        best: the winner as one row, means of its measurements; None when nothing meets the budget.
        closest: the same for the combination that comes closest to the budget, where nothing meets it; else None.
        config_path: the winner's ``config.pbtxt``; None when there is none.
        against_found: verdict on the winner, seen from the configuration that was found; None when that could not be measured.
        against_next: verdict on the winner, seen from the runner-up; None when there is none.
        text: what was done and how sure the result is, in sentences.
        path: the file with the rows of this search and of others.
        seconds: how long it took, without what an earlier call had measured.
        before: how many rows an earlier call had measured.
    """

    rows: list[Row] = field(repr=False)
    best: Row | None
    closest: Row | None
    config_path: Path | None
    against_found: Verdict | None
    against_next: Verdict | None
    text: tuple[str, ...]
    path: Path
    seconds: float
    before: int = 0

    def __repr__(self) -> str:
        return "\n".join([*self.text, "", as_text(self._table())])

    def _repr_html_(self) -> str:
        colour = "#2e9e44" if self.best else "#c96f14"
        sentences = "".join(f"<p style='margin:0.2em 0'>{html.escape(sentence)}</p>" for sentence in self.text)
        winner = (self.best or self.closest or {}).get("candidate")
        return box(sentences, colour) + as_html(
            self._table(), caption=f"{len(self.rows)} measurements.", bold=lambda row: row["what"] == winner
        )

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/plain": repr(self), "text/html": self._repr_html_()}

    def _table(self) -> list[dict[str, Any]]:
        return [
            {
                "what": row["candidate"] + (" (as found)" if row["as_found"] else ""),
                "stage": row["stage"] + (f" {row['round'] + 1}" if row["stage"] == "final" else ""),
                "infer/s": row["throughput_infer_per_s"],
                "±": row["throughput_spread_infer_per_s"],
                f"p{row['percentile']} (ms)": _ms(row.get(latency_column(row["percentile"]))),
                "queue (ms)": _ms(row["queue_us"]),
                "batch run": row.get("executed_batch"),
                "CPU cores": row.get("cpu_cores"),
                "memory (MB)": row.get("memory_mb") and round(row["memory_mb"]),
                "outcome": row["outcome"],
            }
            for row in self.rows
        ]


def sentences(
    best: Standing, found: Verdict | None, following: Verdict | None, is_found: bool, faster: Standing | None = None
) -> list[str]:
    """How good the winner is and how sure that is."""
    said = [f"Best: {best.candidate}: {best.words()}."]
    if faster is not None:
        seen = compared(best, faster)
        said.append(f"It cannot be told from {faster.candidate}, so the simpler one was taken. Seen from it: {seen}")
    if best.candidate.halves:
        said.append(
            "Half batches hold half of the requests that an instance has under way (preferred_batch_size): while it works on one half, the "
            "other one waits, complete."
        )
    if best.goal.budget_ms is not None:
        inside = best.within()
        sure = "for certain" if inside else "on average, but its spread reaches over the budget: cannot tell"
        said.append(f"It meets the budget of {best.goal.budget_ms:g} ms {sure}.")
    if is_found:
        said.append("That is the configuration as it was found: nothing that was tried is better beyond doubt.")
    elif found is not None:
        hint = {CANNOT_TELL: " There is no proof yet that a change is worth it.", FASTER: ""}
        said.append(f"Seen from the configuration as found: {found}{hint.get(found.answer, ' So nothing is won by it.')}")
    if following is not None:
        said.append(f"Seen from the runner-up: {following}")
    return said


def nothing_meets(closest: Standing | None, goal: Goal) -> list[str]:
    """What there is to say when no combination meets the budget."""
    budget = f"meets the budget of p{goal.percentile} ≤ {goal.budget_ms:g} ms with" if goal.budget_ms else "keeps up with"
    said = [f"Nothing that was tried {budget} {goal.traffic}."]
    if closest is not None:
        said.append(f"The closest is {closest.candidate}: {closest.words()}.")
        if closest.within() is None:
            said.append("Its spread reaches over the budget, so more time may show that it meets it: cannot tell.")
    return [*said, "Send less at a time (a smaller batch, fewer requests under way), allow more time, or find a faster network or machine."]


def out_of_budget(standings: Sequence[Standing]) -> list[str]:
    """A sentence on the finalists whose whole latency interval lies above the budget; none when there is no such one."""
    names = [f"{each.candidate} ({each.latency_words()})" for each in standings if each.within() is False]
    budget = f"{standings[0].goal.budget_ms:g} ms" if names else ""
    return (
        [f"Rejected in the finals, because their latency is over the budget of {budget} for certain: {'; '.join(names)}."] if names else []
    )


def nobody_left(rows: Sequence[Row]) -> CourseError:
    """The error when no combination could be a winner."""
    memory = [row["memory_mb"] for row in rows if row["outcome"] == OVER_MEMORY]
    if memory:
        return InputError(
            f"Nothing that was tried stays within the memory limit: the least was {min(memory):.0f} MB.",
            "That is the server with the model's instances.",
            "Ask for a larger max_memory_mb.",
        )
    return RequestError("No finalist could be measured a second time.", "", "Look at server.log(), and try again.")


def out_of_the_race(rows: Sequence[Row]) -> list[str]:
    """A sentence on what counted for nothing, and why; none when everything did."""
    bad = [row for row in rows if row["outcome"] != OK]
    names = list(dict.fromkeys(f"{row['candidate']} ({row['outcome']}: {row['reason']})" for row in bad))
    return [f"Out of the race: {'; '.join(names)}."] if names else []


def _ms(value_us: float | None) -> float | None:
    return None if value_us is None else value_us / 1000


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
    max_memory_mb: float | None = None,
    variants: Sequence[str] = (),
    output: str | Path = "work/tune",
    keep: bool = False,
    axes: Axes | None = None,
    percentile: int = PERCENTILE,
    input_data: str | Path | Mapping[str, str | Path] = "random",
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
        max_memory_mb: for the server and the model's instances, shared pages counted once.
        variants: other models with the same inputs and outputs, names of tensors aside: another format, another precision.
        output: folder for the rows and the winner's configuration.
        keep: leave the server with the winner.
        axes: values to choose from, in place of those that fit this machine and traffic.
        percentile: the latency that the budget is for, in percent.
        input_data: ``random``, ``zero`` or a file of :mod:`helpers.measuring.inputs`; for variants with other names of tensors, by model.
        lengths: length of the axes that may have any, by the beginning of the input's name, or one for all.
        protocol: ``grpc`` (the default) or ``http``.
        again: measure also what an earlier call measured; else a search that was killed goes on where it was.
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
        print("Nothing was searched, because a search measures. What searches found on another machine is in benchmarks/TUNE.md.")
        return None
    _check(server, batch, concurrency, request_rate_per_s, budget_ms, max_instances, max_batch, max_memory_mb)
    goal = Goal(Traffic(batch, None if request_rate_per_s else concurrency, request_rate_per_s), budget_ms, percentile)
    options = {"input_data": input_data, "lengths": lengths, "protocol": protocol}
    folder = folder_of(output)
    with tqdm(unit="measurement", disable=silent) as bar:

        def told(what: str, row: Row | None) -> None:
            bar.set_description_str(what)
            if row is not None:
                bar.update()
                bar.set_postfix_str(row["outcome"] if row[THROUGHPUT] is None else f"{row[THROUGHPUT]:.4g} infer/s")

        bench = Workbench(server, goal, max_memory_mb, folder, options, find_perf_analyzer(), again, told, max_batch)
        winner: Candidate | None = None
        begin = time.monotonic()
        try:
            spaces = _spaces(bench, [model, *variants], max_instances, axes)
            result, chosen = _search(bench, bench.found[model].place, spaces, begin, keep)
            winner = chosen if keep and result.best else None
        except KeyboardInterrupt:
            bar.write(f"interrupted; {_kept(bench)}")
            raise
        except CourseError as error:
            if isinstance(error, InputError) or not bench.rows:
                raise
            raise RequestError(
                f"The search stopped at {bench.at}: {error.happened}", f"{_kept(bench)}.", error.todo or error.expected
            ) from error
        finally:
            _put_back(bench, winner)
    return result


def _check(server: Any, batch: int, concurrency: int | None, rate: float | None, budget: float | None, *limits: float | None) -> None:
    must_own(server, "search for a configuration")
    if (concurrency is None) == (rate is None):
        raise InputError(
            "The traffic is given by either concurrency or request_rate_per_s.",
            "The search varies the server, not what its clients send.",
            "Type for example: tune(server, model, batch=8, concurrency=4, budget_ms=50)",
        )
    numbers = [batch, concurrency, rate, budget, *limits]
    if any(number is not None and number <= 0 for number in numbers):
        raise InputError("A number for the traffic or a limit is not above 0.", "Expected batch, concurrency, budget_ms … above 0.")


def _spaces(bench: Workbench, models: Sequence[str], max_instances: int | None, axes: Axes | None) -> dict[str, Axes]:
    """The values to choose from, for each model; before anything is changed, what does not fit is refused."""
    cores, traffic = _cores(), bench.goal.traffic
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
        bench.check(name)
        here = accelerators_here(bench.server.runtime, on_gpu(found.config))
        spaces[name] = (
            axes_for(found, traffic, cores, max_instances, bench.goal.budget_ms, here)
            if axes is None
            else fitting(axes, found, traffic, max_instances)
        )
    if bench.max_batch is not None and bench.max_batch < traffic.batch:
        raise InputError(
            f"The clients send batches of {traffic.batch}, above max_batch={bench.max_batch}.", "The server cannot make them smaller."
        )
    if bench.max_memory_mb is not None and bench.server.runtime != "embedded":
        raise InputError("The memory of this server is not seen from here.", "Expected the embedded server for max_memory_mb.")
    return spaces


def _same_tensors(bench: Workbench, first: str, name: str) -> None:
    with closing(Connection(bench.server, bench.options["protocol"], QUERY_TIMEOUT_S, RETRIES)) as connection:
        one, other = connection.signature(first), connection.signature(name)
    for what in ("inputs", "outputs"):
        here, there = ([f"{spec.datatype} {spec.shape}" for spec in getattr(each, what).values()] for each in (one, other))
        if here != there:
            raise InputError(
                f"{name!r} is no variant of {first!r}: their {what} differ.",
                f"Expected {', '.join(here)}, and it has {', '.join(there)}.",
                "Only models for the same requests can be compared.",
            )


def _search(bench: Workbench, start: Candidate, spaces: Mapping[str, Axes], begin: float, keep: bool) -> tuple[Tuned, Candidate]:
    goal = bench.goal
    search = Search(spaces, goal, _cores(), bench.look)
    best = search.run(start)
    finalists = search.finalists(best, start)
    finals, reason = confirm(finalists, goal, bench.measure_well, reserve=search.reserve(finalists, start))
    ranked = standings(finals, goal)
    if not ranked:
        raise nobody_left(bench.rows)
    winner, found = winner_of(ranked, start), next((each for each in ranked if each.candidate == start), None)
    row = winner.row()
    meets = winner.within() is not False and goal.within(row) and goal.served(row)
    following = next((each for each in ranked if each is not winner), None)
    against = (compared(found, winner), compared(following, winner))
    config_path, text = None, []
    if meets:
        faster = None if winner is ranked[0] else ranked[0]
        next_is_told = following is not None and (following.candidate == start or following is faster)
        text = sentences(winner, against[0], None if next_is_told else against[1], winner.candidate == start, faster)
        config_path = _write(bench, winner)
        text.append(f"Its configuration is in {shown(config_path)}{', and the server runs it' if keep else ', to copy into its folder'}.")
    else:
        text = nothing_meets(winner, goal)
    combinations = sum(len({*axes.candidates(model)}) for model, axes in spaces.items())
    seconds = time.monotonic() - begin
    tried = f"Tried: {len(search.rows)} combinations of {combinations}, with {goal.traffic}"
    earlier = f" ({bench.before} of them by an earlier call)" if bench.before else ""
    text.append(f"{tried}; {len(bench.rows)} measurements{earlier} in {seconds:.0f} s.")
    text.append(f"It stopped because no step from the best one was left that promised anything, and {reason}.")
    text += [f"Left out: {' '.join(search.steps)}"] if search.steps else []
    text += out_of_budget(ranked) + out_of_the_race(bench.rows)
    result = Tuned(
        bench.rows, row if meets else None, None if meets else row, config_path, *against, tuple(text), bench.path, seconds, bench.before
    )
    return result, winner.candidate


def _write(bench: Workbench, winner: Standing) -> Path:
    found: Found = bench.found[winner.candidate.model]
    path = bench.folder / found.model / "config.pbtxt"
    budget = f", p{bench.goal.percentile} ≤ {bench.goal.budget_ms:g} ms" if bench.goal.budget_ms else ""
    remark = f"Found by a search for {bench.goal.traffic}{budget}:\n{winner.candidate}: {winner.words()}, on {winner.rows[0]['cpu']}."
    config = found.config_for(winner.candidate, bench.goal.traffic)
    with writing(path):
        make_folder(path.parent)
        replace_file(path, winner_text(config, bench.server.repository, found.model, remark))
    return path


def _put_back(bench: Workbench, winner: Candidate | None) -> None:
    """The server as it was, also after an interrupt; a server that has died has nothing to put back."""
    try:
        bench.restore(winner)
    except KeyboardInterrupt:
        bench.restore(winner)
        raise
    except CourseError:
        if bench.server.is_alive():
            raise


def _kept(bench: Workbench) -> str:
    count = len(bench.rows)
    is_in = "1 measurement is" if count == 1 else f"{count} measurements are"
    return f"{is_in} in {shown(bench.path)}; typed again, it goes on from there"


def _cores() -> int:
    return len(os.sched_getaffinity(0))
