"""Find the configuration that serves a given traffic best within a latency budget.

First short measurements, one axis at a time, from the configuration that serves now. What the server says decides what is worth a look:
the time that requests wait, the batches that it runs, the cores that it uses. Then the finals: the best few and the configuration as
found are measured in turn, round by round, and compared pair by pair.
"""

from __future__ import annotations

import html
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from helpers.client.client import Client
from helpers.errors import ConfigError, CourseError, InputError, ModelError, RequestError
from helpers.measuring.measure import TURN_WINDOW_S, TURNS, Measurement, can_measure, config_kept, must_own, quick
from helpers.measuring.perf_analyzer import PERCENTILE
from helpers.measuring.statistics import CANNOT_TELL, FASTER, SLOWER, Verdict, verdict
from helpers.measuring.table import COLUMNS, THROUGHPUT, THROUGHPUT_SPREAD, folder_of, latency_column
from helpers.paths import make_folder, shown, writing
from helpers.paths import replace as replace_file
from helpers.server.server import Server
from helpers.tables import as_html, as_text, box
from helpers.terminal import Progress
from helpers.tuning.space import (
    FAILED,
    MEASURED,
    OK,
    OVER_BUDGET,
    REFUSED,
    UNSURE,
    Axes,
    Candidate,
    Found,
    Goal,
    Row,
    Traffic,
    axes_for,
)

# Share of a request's time in the server above which it counts as waiting in the queue, so that instances or batches may help.
WAITING = 0.05
# Share of the cores that the server uses above which more instances than cores are no use.
CPU_BUSY = 0.75
# Batches that hold this part of what the traffic allows count as full: waiting for more would cost time and give nothing.
FULL = 0.8
# Combinations that are measured again in the finals, beside the configuration as found.
FINALISTS = 2
# Rounds of the finals: with fewer, no spread is known.
ROUNDS, QUICK_ROUNDS = TURNS, 1
SEARCH, FINAL = "search", "final"
_COMPUTE = ("compute_input_us", "compute_infer_us", "compute_output_us")


# --- the search ------------------------------------------------------------------------------------------------------------


@dataclass
class Search:
    """The cheap part: one combination after the other, from the one that was found, along one axis at a time.

    ``measure`` gives a short measurement; ``rows`` has what was measured, in order, and ``steps`` what was left out and why, in sentences.
    """

    axes: Mapping[str, Axes]
    goal: Goal
    cores: int
    measure: Callable[[Candidate], Row]
    rows: dict[Candidate, Row] = field(default_factory=dict)
    steps: list[str] = field(default_factory=list)

    def run(self, start: Candidate) -> Candidate:
        """Go from ``start`` to the best that can be found, and return it; a ModelError when not even the start can be measured."""
        if (row := self._try(start))["outcome"] not in MEASURED:
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
        finalists = list(dict.fromkeys([*list(dict.fromkeys([best, *near]))[:FINALISTS], start]))
        least = max(self.goal.rank(self.rows[start]), (1.0,))
        return finalists, [each for each in ranked if each not in finalists and self.goal.rank(self.rows[each]) > least][:FINALISTS]

    def _near(self, row: Row, best: Row) -> bool:
        known = row["outcome"] in MEASURED and self.goal.within(best) and not self.goal.over(row)
        return known and verdict(best, row).answer != SLOWER

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
        row, waits = self.rows[now], self._waits(now)
        share = "not known" if row["queue_share"] is None else f"{row['queue_share']:.0%} of its time"
        used, all_of_it = row["cpu_cores"], following.instances * (following.threads or 1)
        if following in self.rows:
            return True
        if step > 0 and not waits:
            return self._skip(f"More than {now.instances} instances: hardly any request waits for one ({share}).")
        if step > 0 and all_of_it > self.cores and used and used > CPU_BUSY * self.cores:
            return self._skip(f"{following.instances} instances: {now} uses {used:.1f} of {self.cores} cores already.")
        if step < 0 and following.threads == now.threads and waits:
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
        if best.delay_ms is None or not axes.halves or self.rows[best]["reachable_batch"] < 4 * self.goal.traffic.batch:
            return best
        return self._best_of(best, [replace(best, delay_ms=0.0, halves=True)])

    def _full(self, row: Row) -> bool:
        """True if the batches are about as large as this traffic can make them, so that nothing is left to wait for."""
        batch, possible = row["executed_batch"], row["reachable_batch"]
        if not batch or batch < FULL * possible:
            return False
        self._skip(f"Waiting for larger batches: they hold {batch:.3g} of {possible} possible without waiting.")
        return True

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
) -> tuple[dict[Candidate, Row], str]:
    """Measure the finalists in turn, round by round, so that the machine's moods hit all alike; those that clearly lose drop out.

    When none but the configuration as found may keep the budget, the next of the reserve takes its place. Returns a row of all rounds for
    each, and in a sentence why no more were measured.
    """
    rows, why = _rounds(finalists, goal, measure)
    for each in reserve:
        if any(not row["as_found"] and goal.kept(row) is not False for row in rows.values() if row["outcome"] in MEASURED):
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
    return (goal.kept(best) is True and goal.kept(row) is False) or compared(best, row).answer == SLOWER


def compared(first: Row, second: Row) -> Verdict:
    """Return the verdict on the second, seen from the first; what differs is named by the combination."""
    one, other = ({**row, "variant": row["candidate"], "config": None, "instances": None, "model": None} for row in (first, second))
    return verdict(one, other)


def winner_of(finals: Mapping[Candidate, Row], start: Candidate, goal: Goal) -> tuple[Candidate, list[Candidate]]:
    """Return the best, or the simplest of those that cannot be told from it; and all that were measured, the best first."""
    measured = [each for each in finals if finals[each]["outcome"] in MEASURED]
    if not measured:
        raise RequestError("No finalist could be measured a second time.", "", "Look at server.log(), and try again.")
    ranked = sorted(measured, key=lambda each: goal.rank(finals[each]), reverse=True)
    best = finals[ranked[0]]
    alike = [each for each in ranked[1:] if goal.within(best) <= goal.within(finals[each])]
    alike = [each for each in alike if compared(best, finals[each]).answer != SLOWER]
    return min([ranked[0], *alike], key=lambda each: each.simplicity(start)), ranked


# --- the server ------------------------------------------------------------------------------------------------------------


@dataclass
class Bench:
    """The server under a search: loads combinations, and measures them with what counters and processes say meanwhile."""

    server: Server
    goal: Goal
    found: Mapping[str, Found]
    options: Mapping[str, Any]
    progress: Progress

    def __post_init__(self) -> None:
        self._serves = {name: found.place for name, found in self.found.items() if found.max_batch is None}
        self._finals: dict[Candidate, Measurement] = {}

    def measure(self, candidate: Candidate, turn: str = "") -> Row:
        """Return a row of three windows, enough to choose where to go next; with the name of a turn, of all rounds of the finals."""
        self.progress.what = f"{candidate} ({f'the {FINAL}s' if turn else f'the {SEARCH}'})"
        self.progress.add()
        place = self.found[candidate.model].place
        row = dict.fromkeys((*COLUMNS, "executed_batch", "cpu_cores", "queue_share")) | {
            **{"model": candidate.model, "percentile": self.goal.percentile, "stage": FINAL if turn else SEARCH},
            **{"candidate": str(candidate), "as_found": candidate == place},
            **{"delay_ms": candidate.delay_ms, "rounds": 0, "outcome": REFUSED, "reason": ""},
            "reachable_batch": self.found[candidate.model].reachable(candidate, self.goal.traffic),
        }
        try:
            loaded = self._load(candidate)
            row["outcome"] = FAILED
            row |= self._measured(candidate, turn, loaded)
        except (ModelError, ConfigError, RequestError) as error:
            if not self.server.is_alive():
                raise
            row["reason"] = str(error)
        return row | {"instances": candidate.instances}

    def _load(self, candidate: Candidate) -> bool:
        """Load a combination, unless it is the one that serves; True if it was loaded. What the server refuses leaves the other serving."""
        if self._serves.get(candidate.model) == candidate:
            return False
        self.server.load(candidate.model, config=self.found[candidate.model].config_for(candidate, self.goal.traffic))
        self._serves[candidate.model] = candidate
        return True

    def _measured(self, candidate: Candidate, turn: str, loaded: bool) -> Row:
        made = self._finals.get(candidate)
        if made is None:
            load = {**vars(self.goal.traffic), "percentile": self.goal.percentile}
            made, loaded = Measurement(self.server, candidate.model, **load, **self.options, window_s=TURN_WINDOW_S), True
        if turn:
            self._finals[candidate] = made
        if loaded:
            made.warm_up()
        before, used = self._counts(candidate.model), self._cpu_s()
        made.measure(turn)
        inferences, executions = (now - then for now, then in zip(self._counts(candidate.model), before, strict=True))
        cpu_s = sum(now - used[pid] for pid, now in self._cpu_s().items() if pid in used)
        row = made.row()
        parts = [row["queue_us"], *(row[name] for name in _COMPUTE)]
        outcome, reason = self._judged(row)
        return row | {
            "executed_batch": inferences / executions if executions else None,
            # By inference, since between the windows, while the client starts, nothing is done.
            "cpu_cores": cpu_s / inferences * row[THROUGHPUT] if cpu_s and inferences and row[THROUGHPUT] else None,
            "queue_share": parts[0] / sum(parts) if None not in parts and sum(parts) else None,
            **{"rounds": len(made.results), "outcome": outcome, "reason": reason},
        }

    def _judged(self, row: Row) -> tuple[str, str]:
        """What becomes of a measured row, and why."""
        if row[THROUGHPUT] is None:
            return FAILED, "no request was answered within a window"
        if self.goal.within(row):
            return OK, ""
        return OVER_BUDGET if self.goal.over(row) else UNSURE, f"{self.goal.latency_ms(row):.3g} ms"

    def _counts(self, model: str) -> tuple[int, int]:
        """How many inferences and runs the server has counted."""
        told = self.server.statistics(model)
        return int(told.get("inference_count", 0)), int(told.get("execution_count", 0))

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
        return "\n".join([*self.text, "", as_text(self._table())])

    def _repr_html_(self) -> str:
        sentences = "".join(f"<p style='margin:0.2em 0'>{html.escape(sentence)}</p>" for sentence in self.text)
        winner = self.best["candidate"] if self.best else None
        table = as_html(self._table(), caption=f"{len(self.rows)} measurements.", bold=lambda row: row["what"] == winner)
        return box(sentences, "#2e9e44" if self.best else "#c96f14") + table

    def _table(self) -> list[dict[str, Any]]:
        return [
            {
                "what": row["candidate"] + (" (as found)" if row["as_found"] else ""),
                "stage": row["stage"] + (f", {row['rounds']} rounds" if row["stage"] == FINAL else ""),
                "infer/s": row[THROUGHPUT],
                "±": row[THROUGHPUT_SPREAD],
                f"p{row['percentile']} (ms)": _ms(row[latency_column(row["percentile"])]),
                "queue (ms)": _ms(row["queue_us"]),
                "batch run": row["executed_batch"],
                "CPU cores": row["cpu_cores"],
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
        seen = compared(best, following)
        said.append(f"It cannot be told from {following['candidate']}, so the simpler one was taken. Seen from it: {seen}")
    if goal.budget_ms < math.inf:
        sure = "for certain" if goal.kept(best) else "on average, but its spread reaches over the budget: cannot tell"
        said.append(f"It meets the budget of {goal.budget_ms:g} ms {sure}.")
    if best["as_found"]:
        said.append("That is the configuration as it was found: nothing that was tried is better beyond doubt.")
    elif found is not None:
        seen = compared(found, best)
        hint = {CANNOT_TELL: " There is no proof yet that a change is worth it.", FASTER: ""}
        said.append(f"Seen from the configuration as found: {seen}{hint.get(seen.answer, ' So nothing is won by it.')}")
    if following is not None and told_apart and not following["as_found"]:
        said.append(f"Seen from the runner-up: {compared(following, best)}")
    return said


def regret(closest: Row, goal: Goal) -> list[str]:
    """Say what there is to say when no combination meets the budget."""
    said = [f"Nothing that was tried meets the budget of p{goal.percentile} ≤ {goal.budget_ms:g} ms with {goal.traffic}."]
    said.append(f"The closest is {closest['candidate']}: {goal.words(closest)}.")
    if goal.kept(closest) is None:
        said.append("Its spread reaches over the budget, so more time may show that it meets it: cannot tell.")
    return [*said, "Send less at a time (a smaller batch, fewer requests under way), allow more time, or find a faster network or machine."]


def rejected(rows: Sequence[Row], goal: Goal) -> list[str]:
    """Say what was rejected in the finals and what counted for nothing, and why."""
    late = [f"{row['candidate']} ({goal.latency_words(row)})" for row in rows if row["stage"] == FINAL and goal.kept(row) is False]
    bad = dict.fromkeys(f"{row['candidate']} ({row['outcome']}: {row['reason']})" for row in rows if row["outcome"] != OK)
    over = f"Rejected in the finals, because their latency is over the budget of {goal.budget_ms:g} ms for certain"
    return [f"{words}: {'; '.join(names)}." for words, names in ((over, late), ("Out of the race", bad)) if names]


# --- the whole -------------------------------------------------------------------------------------------------------------


def tune(
    server: Server,
    model: str,
    batch: int = 1,
    *,
    concurrency: int,
    budget_ms: float | None = None,
    max_instances: int | None = None,
    max_batch: int | None = None,
    variants: Sequence[str] = (),
    output: str | Path = "work/tune",
    percentile: int = PERCENTILE,
    silent: bool = False,
    **options: Any,
) -> Tuned | None:
    """Search for the configuration with the highest throughput.

    While it runs the server serves one configuration after the other; at the end, or when something stops it, the one before.

    Args:
        server: one's own, since models are loaded again.
        model: name of the model.
        batch: entries in each request.
        concurrency: requests under way at any time.
        budget_ms: what the latency percentile may be at most, in ms.
        max_instances: instances at most; by default as many as there are cores, up to :data:`helpers.tuning.space.MAX_INSTANCES`.
        max_batch: entries that the server may put into one batch at most; by default each model's ``max_batch_size``.
        variants: other models with the same inputs and outputs, names of tensors aside: another format, another precision.
        output: folder for the winner's configuration.
        percentile: the latency that the budget is for, in percent.
        silent: show no progress.
        **options: ``input_data`` and ``lengths`` of :func:`helpers.measuring.measure.measure`.

    Returns:
        The result; ``best`` is None when nothing meets the budget. Where perf_analyzer does not run, None.

    Raises:
        InputError: the traffic or a limit makes no sense, or a variant has other inputs or outputs; nothing was changed.
        ModelError: the server is not one's own, or the model cannot be measured as it is.
        CourseError: the search cannot go on.
    """
    if not can_measure():
        print("Nothing was searched, because a search measures. What searches found on another machine is in benchmarks/README.md.")
        return None
    must_own(server, "search for a configuration")
    if any(number is not None and number <= 0 for number in (batch, concurrency, budget_ms, max_instances, max_batch)):
        raise InputError("A number for the traffic or a limit is not above 0.", "Expected batch, concurrency, budget_ms … above 0.")
    goal, cores, begin = (
        Goal(Traffic(batch, concurrency), budget_ms or math.inf, percentile),
        len(os.sched_getaffinity(0)),
        time.monotonic(),
    )
    names, embedded = list(dict.fromkeys([model, *variants])), server.runtime == "embedded"
    with (
        Progress(f"searching for {model}", unit="measurements", silent=silent) as progress,
        _loaded(server, names),
        config_kept(server, *names) as configs,
    ):
        _must_be_alike(server, configs)
        found = {name: Found.of(name, config, cores, embedded, max_batch) for name, config in configs.items()}
        axes = {name: axes_for(each, goal, cores, max_instances, embedded) for name, each in found.items()}
        bench, start = Bench(server, goal, found, options, progress), found[model].place
        search = Search(axes, goal, cores, bench.measure)
        finalists, reserve = search.finalists(search.run(start), start)
        finals, reason = confirm(finalists, reserve, goal, bench.measure)
    winner, ranked = winner_of(finals, start, goal)
    best, path = finals[winner], None
    if goal.kept(best) is not False and goal.within(best):
        following = next((finals[each] for each in ranked if each != winner), None)
        text = praise(best, goal, finals[start] if start in ranked else None, following, winner == ranked[0])
        path = folder_of(output) / winner.model / "config.pbtxt"
        budget = f", p{percentile} ≤ {budget_ms:g} ms" if budget_ms else ""
        remark = f"Found by a search for {goal.traffic}{budget}:\n{winner}: {goal.words(best)}, on {best['cpu']}."
        with writing(path):
            make_folder(path.parent)
            replace_file(path, found[winner.model].written(winner, goal.traffic, server.repository, remark))
        text.append(f"Its configuration is in {shown(path)}, to copy into its folder.")
    else:
        text = regret(best, goal)
    combinations, rows = sum(each.combinations for each in axes.values()), [*search.rows.values(), *finals.values()]
    text += [
        f"Tried: {len(search.rows)} combinations of {combinations}, with {goal.traffic}; {time.monotonic() - begin:.0f} s.",
        f"It stopped because no step from the best one was left that promised anything, and {reason}.",
        *([f"Left out: {' '.join(search.steps)}"] if search.steps else []),
        *rejected(rows, goal),
    ]
    return Tuned(rows, best if path else None, path, tuple(text))


@contextmanager
def _loaded(server: Server, models: Sequence[str]) -> Iterator[None]:
    """Load models that are not loaded, and unload them at the end; a server that has died has nothing to unload."""
    ready = {state.name for state in server.models() if state.state == "READY"}
    new = [model for model in models if model not in ready]
    try:
        for model in new:
            server.load(model)
        yield
    finally:
        try:
            for model in new:
                server.unload(model)
        except CourseError:
            if server.is_alive():
                raise


def _must_be_alike(server: Server, configs: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse ensembles, and variants that are none: only models for the same requests can be compared."""
    first: tuple[str, list[str]] | None = None
    with Client(server) as client:
        for name, config in configs.items():
            if steps := config.get("ensemble_scheduling", {}).get("step"):
                parts = ", ".join(step["model_name"] for step in steps)
                raise InputError(f"{name!r} is an ensemble: it has no instances of its own.", "", f"Search for each of its parts: {parts}.")
            tensors = client.signature(name)
            kinds = [f"{spec.datatype} {spec.shape}" for each in (tensors.inputs, tensors.outputs) for spec in each.values()]
            first = first or (name, kinds)
            if kinds != first[1]:
                here, there = (", ".join(each) for each in (first[1], kinds))
                raise InputError(f"{name!r} is no variant of {first[0]!r}.", f"Expected {here}, and it has {there}.")
