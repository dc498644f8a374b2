"""Find the configuration that serves a given traffic best within a latency budget.

First short measurements, one axis at a time, from the configuration that serves now. The time that requests wait, by the server's counters,
decides what is worth a look. Then the finals: the best few and the configuration as found are measured in turn, round by round, and
compared pair by pair.
"""

from __future__ import annotations

import html
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from helpers.errors import ConfigError, ModelError, RequestError
from helpers.measuring.measure import TURNS, Measurement, config_kept, in_turn
from helpers.measuring.statistics import CANNOT_TELL, SLOWER, Verdict, verdict
from helpers.measuring.table import COLUMNS, LATENCY, LATENCY_ENDS, THROUGHPUT, THROUGHPUT_SPREAD, latency_words, with_spread
from helpers.paths import in_work, make_folder, shown, writing
from helpers.paths import replace as replace_file
from helpers.repository.configs import instances_of
from helpers.repository.syntax import render
from helpers.server.server import Server
from helpers.tables import Table, box
from helpers.terminal import Progress

Row = dict[str, Any]
# What may become of a combination; the latency of one that is perhaps over the budget has an interval that reaches across.
OK, OVER_BUDGET, UNSURE, FAILED = "ok", "over the budget", "perhaps over the budget", "failed"
# Outcomes that have figures, and may win.
MEASURED = (OK, UNSURE, OVER_BUDGET)
# Dynamic batching; without a delay it takes the requests that wait anyway.
OFF, ON = "off", "on"
# Instances that a search tries at most: each costs memory, and beyond the cores they only help models that wait.
MAX_INSTANCES = 8
# Parameter that sets the threads of an instance, by backend. Other backends have none.
THREADS = {"onnxruntime": "intra_op_thread_count", "pytorch": "INTRA_OP_THREAD_COUNT"}
# Share of a request's time in the server above which it counts as waiting in the queue, so that instances or batches may help.
WAITING = 0.05
# Combinations that are measured again in the finals, beside the configuration as found.
FINALISTS = 2
# Rounds of the finals: with fewer, no spread is known.
ROUNDS = TURNS


# --- what is searched ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Candidate:
    """One combination; ``threads`` are those of each instance, None where the backend has no such number.

    ``batching`` is :data:`OFF`, :data:`ON`, or in words what a model had before the search.
    """

    instances: int
    threads: int | None
    batching: str = OFF

    def __str__(self) -> str:
        threads = "" if self.threads is None else f" × {self.threads} thread{'s' * (self.threads != 1)}"
        return f"{self.instances} instance{'s' * (self.instances != 1)}{threads}, batching {self.batching}"

    def simplicity(self, start: Candidate) -> tuple[Any, ...]:
        """Return what orders combinations from the simplest: what there is already, then less batching, fewer instances and threads."""
        return (self != start, len(self.batching.split(",")), self.batching != OFF, self.instances * (self.threads or 1), str(self))


@dataclass(frozen=True)
class Goal:
    """The highest throughput whose latency, 95th percentile, is within the budget, for clients with so many requests under way."""

    batch: int
    concurrency: int
    budget_ms: float = math.inf

    def __str__(self) -> str:
        budget = "" if self.budget_ms == math.inf else f", p95 ≤ {self.budget_ms:g} ms"
        return f"requests of batch {self.batch}, {self.concurrency} under way{budget}"

    def within(self, row: Mapping[str, Any]) -> bool:
        """True if a row's value is inside the budget."""
        return (row.get(LATENCY) or math.inf) <= 1000 * self.budget_ms

    def kept(self, row: Mapping[str, Any]) -> bool | None:
        """True if the whole interval of the latency is inside the budget, False if all of it is outside; None where neither is known."""
        low, high = row.get(LATENCY_ENDS[0]) or 0.0, row.get(LATENCY_ENDS[1]) or math.inf
        return True if high <= 1000 * self.budget_ms else False if low > 1000 * self.budget_ms else None

    def outcome(self, row: Mapping[str, Any]) -> tuple[str, str]:
        """Return what becomes of a row, and why. Over the budget is what is so beyond its spread; a short look may know none."""
        if not row[THROUGHPUT]:
            return FAILED, "no request was answered within a window"
        if self.within(row):
            return OK, ""
        return UNSURE if self.kept(row) is None else OVER_BUDGET, f"{row[LATENCY] / 1000:.3g} ms"

    def rank(self, row: Mapping[str, Any]) -> tuple[float, float]:
        """Return a rank, larger is better: first whatever is inside the budget, and outside of it whatever is closer to it."""
        if row["outcome"] not in MEASURED:
            return (-1.0, 0.0)
        return (1.0, row[THROUGHPUT]) if self.within(row) else (0.0, -row[LATENCY])


def words(row: Mapping[str, Any]) -> str:
    """Return throughput and latency of a row with their intervals."""
    rate = with_spread(row[THROUGHPUT], row[THROUGHPUT_SPREAD])
    return f"{rate} inferences/s, p95 {latency_words(row)} ms"


@dataclass(frozen=True)
class Found:
    """A model as a search begins with it: its configuration as the server reports it, and which combination that is.

    Beside them what limits the search: instances that are worth a look, ascending; cores to share out among them as threads, None where
    the backend has no such number; and whether the server may put requests together.
    """

    config: Mapping[str, Any]
    place: Candidate
    instances: tuple[int, ...]
    cores: int | None
    batches: bool

    @classmethod
    def of(cls, config: Mapping[str, Any], goal: Goal, cores: int, *, embedded: bool = True) -> Found:
        """Return it, on a server of so many cores.

        The embedded server's backends share them out among instances when a configuration names no threads; a container's give all to each.
        """
        instances = instances_of(config)
        on_gpu = any("GPU" in str(group.get("kind", "")) for group in config.get("instance_group", []))
        key = None if on_gpu else THREADS.get(str(config.get("backend")))
        given = int(config.get("parameters", {}).get(key, {}).get("string_value", "0"))
        threads = given or (max(1, cores // instances) if embedded else cores)
        delay_ms = int(config.get("dynamic_batching", {}).get("max_queue_delay_microseconds", 0)) / 1000
        batching = OFF if "dynamic_batching" not in config else f"{ON}, waits {delay_ms:g} ms" if delay_ms else ON
        # An instance more than there are requests under way never has anything to do.
        most = min(MAX_INSTANCES, max(2, cores), goal.concurrency)
        return cls(
            config,
            Candidate(instances, threads if key else None, batching),
            tuple(sorted({number for number in (*(2**power for power in range(10)), cores, most) if number <= most})),
            cores if key else None,
            # Room for two requests in a batch, and more than one under way.
            int(config.get("max_batch_size", 0)) >= 2 * goal.batch and goal.concurrency > 1 and "sequence_batching" not in config,
        )

    def beside(self, candidate: Candidate, step: int) -> Candidate | None:
        """Return the next larger (``step`` 1) or smaller (-1) number of instances, the cores shared out among them; None at the end."""
        numbers = [number for number in self.instances if (number - candidate.instances) * step > 0]
        return self.shared_out(replace(candidate, instances=numbers[0 if step > 0 else -1])) if numbers else None

    def shared_out(self, candidate: Candidate) -> Candidate:
        """Return the combination in which the instances have as many threads as there are cores, and each has one at least."""
        return replace(candidate, threads=max(1, self.cores // candidate.instances)) if self.cores else candidate

    def config_for(self, candidate: Candidate) -> dict[str, Any]:
        """Return the configuration of a combination: what was found, and the parts of it that the search varies."""
        config = dict(self.config)
        if candidate == self.place:
            return config
        kinds = [{"kind": group["kind"]} for group in config.get("instance_group", []) if group.get("kind")]
        config["instance_group"] = [{**(kinds or [{}])[0], "count": candidate.instances}]
        if candidate.threads is not None:
            threads = {THREADS[str(config["backend"])]: {"string_value": str(candidate.threads)}}
            config["parameters"] = config.get("parameters", {}) | threads
        if candidate.batching != self.place.batching:
            kept = config.pop("dynamic_batching", {})
            if candidate.batching != OFF:
                timing = ("preferred_batch_size", "max_queue_delay_microseconds")
                config["dynamic_batching"] = {name: each for name, each in kept.items() if name not in timing}
        return config

    def written(self, candidate: Candidate) -> str:
        """Return the configuration of a combination as the text of a ``config.pbtxt``."""
        return render(json_format.ParseDict(self.config_for(candidate), ModelConfig(), ignore_unknown_fields=True))


# --- the search ------------------------------------------------------------------------------------------------------------


@dataclass
class Search:
    """The cheap part: one combination after the other, from the one that was found, along one axis at a time.

    ``measure`` gives a short measurement; ``rows`` has what was measured, in order, and ``steps`` what was left out and why, in sentences.
    """

    found: Found
    goal: Goal
    measure: Callable[[Candidate], Row]
    rows: dict[Candidate, Row] = field(default_factory=dict)
    steps: list[str] = field(default_factory=list)

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

    def _better(self, best: Candidate, other: Candidate) -> Candidate:
        return other if self.goal.rank(self._try(other)) > self.goal.rank(self.rows[best]) else best

    def _instances(self, best: Candidate) -> Candidate:
        """More instances while requests wait, fewer with more threads each while they do not; one way, and the other if that is no gain."""
        begin = best
        for step in (1, -1) if self._waits(best) else (-1, 1):
            while following := self.found.beside(best, step):
                if step > 0 and not self._waits(best) and following not in self.rows:
                    self.steps.append(f"More than {best.instances} instances: hardly any request waits for one.")
                    break
                if self._better(best, following) == best:
                    break
                best = following
            if best != begin:
                break
        return self._better(best, self.found.shared_out(best))

    def _batching(self, best: Candidate) -> Candidate:
        if not self.found.batches:
            return best
        if not self._waits(best) and best.batching in (OFF, ON):
            self.steps.append("Dynamic batching: hardly any request waits, so none can be put together.")
            return best
        for batching in (OFF, ON):
            best = self._better(best, replace(best, batching=batching))
        return best

    def _waits(self, candidate: Candidate) -> bool:
        share = self.rows[candidate]["queue_share"]
        return share is None or share > WAITING


def confirm(finalists: Sequence[Candidate], measure: Callable[[Candidate, str], Row]) -> dict[Candidate, Row]:
    """Measure the finalists in turn, so that the machine's moods hit all alike; return a row of all turns for each."""
    rows: dict[Candidate, Row] = {}
    # Every other turn is backwards: the last in one is the first in the next, and needs no loading.
    for each, turn in in_turn(finalists, ROUNDS):
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
    """The server under a search: loads combinations, and measures them with what counters say meanwhile."""

    server: Server
    goal: Goal
    found: Found
    options: Mapping[str, Any]
    progress: Progress
    serves: Candidate
    finals: dict[Candidate, Measurement] = field(default_factory=dict)

    def measure(self, candidate: Candidate, turn: str = "") -> Row:
        """Return a row of three windows, enough to choose where to go next; with the name of a turn, of all rounds of the finals."""
        stage, model, new = "final" if turn else "search", str(self.found.config["name"]), self.serves != candidate
        self.progress.what = f"{model}: {candidate} (the {stage})"
        self.progress.add()
        row: Row = dict.fromkeys((*COLUMNS, "queue_share")) | {"model": model, "stage": stage, "rounds": 0, "outcome": FAILED, "reason": ""}
        try:
            # What the server refuses leaves the other one serving.
            if new:
                self.server.load(model, config=self.found.config_for(candidate))
                self.serves = candidate
            made = self.finals.get(candidate)
            if made is None:
                load = {"batch": self.goal.batch, "concurrency": self.goal.concurrency, **self.options}
                made, new = Measurement(self.server, model, **load, in_turn=True), True
            if turn:
                self.finals[candidate] = made
            if new:
                made.warm_up()
            made.measure(turn)
            row |= made.row()
            row["outcome"], row["reason"] = self.goal.outcome(row)
            parts = [row[f"{name}_us"] for name in ("queue", "compute_input", "compute_infer", "compute_output")]
            row |= {"rounds": len(made.results), "queue_share": parts[0] / sum(parts) if None not in parts and sum(parts) else None}
        except (ModelError, ConfigError, RequestError) as error:
            if not self.server.is_alive():
                raise
            row["reason"] = str(error)
        return row | {"instances": candidate.instances, "candidate": str(candidate), "as_found": candidate == self.found.place}


# --- the report ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class Tuned:
    """The result of a search: all that was tried, the winner, None when nothing meets the budget, and in sentences how sure that is."""

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
        "stage": row["stage"] + (f", {row['rounds']} rounds" if row["stage"] == "final" else ""),
        "inferences/s": with_spread(row[THROUGHPUT], row[THROUGHPUT_SPREAD]),
        "p95 (ms)": latency_words(row),
        "queue (ms)": None if row["queue_us"] is None else row["queue_us"] / 1000,
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


def tune(
    server: Server,
    model: str,
    batch: int = 1,
    *,
    concurrency: int,
    budget_ms: float | None = None,
    output: str | Path = "work/tune",
    **options: Any,
) -> Tuned:
    """Search for the configuration with the highest throughput, on a server of one's own.

    While it runs the server serves one configuration after the other; at the end, or when something stops it, the one before.

    ``concurrency`` requests of ``batch`` entries are under way at any time, with ``input_data`` and ``lengths`` of
    :func:`helpers.measuring.measure.measure`; the latency's 95th percentile may be ``budget_ms`` at most. As many instances are tried as
    there are cores, up to :data:`MAX_INSTANCES`. The winner's configuration goes to the folder ``output``.
    """
    if not server.owned:
        raise ModelError("Only the owner of a server can search for a configuration, because models are loaded again for it.")
    goal, cores, begin = Goal(batch, concurrency, budget_ms or math.inf), len(os.sched_getaffinity(0)), time.monotonic()
    progress = Progress(f"searching for {model}", unit="measurements")
    with progress, config_kept(server, model) as configs:
        found = Found.of(configs[model], goal, cores, embedded=server.runtime == "embedded")
        start = found.place
        bench = Bench(server, goal, found, options, progress, start)
        search = Search(found, goal, bench.measure)
        finals = confirm(search.run(start), bench.measure)
    winner, first = winner_of(finals, start, goal)
    best, path, rows = finals[winner], None, [*search.rows.values(), *finals.values()]
    text = judged(best, goal, finals[start], finals[first])
    if goal.kept(best) is not False and goal.within(best):
        path = in_work(output) / model / "config.pbtxt"
        with writing(path):
            make_folder(path.parent)
            remark = f"# Found by a search for {goal}:\n# {winner}: {words(best)}, on {best['cpu']}.\n"
            replace_file(path, remark + found.written(winner))
        text.append(f"Its configuration is in {shown(path)}, to copy into its folder.")
    bad = dict.fromkeys(f"{row['candidate']} ({row['outcome']}: {row['reason']})" for row in rows if row["outcome"] != OK)
    text.append(f"Tried {len(search.rows)} combinations of {model}, in {time.monotonic() - begin:.0f} s.")
    text += [f"Left out: {' '.join(dict.fromkeys(search.steps))}"] if search.steps else []
    text += [f"Out of the race: {'; '.join(bad)}."] if bad else []
    return Tuned(Table(rows, f"{len(rows)} measurements.", _line), best if path else None, path, tuple(text))
