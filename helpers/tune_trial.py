"""One combination on the server: load it, measure it, keep the row on disk; and the server as it was, at the end."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from helpers import perf_results, settings
from helpers.errors import ConfigError, ModelError, RequestError
from helpers.machine import cpu
from helpers.perf import measure
from helpers.perf_facts import config_name
from helpers.perf_program import Program
from helpers.server import Server
from helpers.tune_candidate import FAILED, OK, OVER_BUDGET, OVER_MEMORY, REFUSED, Candidate, Goal, Row
from helpers.tune_config import Found, place_of, reachable
from helpers.tune_files import append_row, model_files, read_rows
from helpers.tune_usage import Usage, cpu_between, of_model, usage

ROWS = "rows.jsonl"
SEARCH, FINAL = "search", "final"
# What the server's counters and processes say, for the guidance.
_SEEN = ("memory_mb", "executed_batch", "reachable_batch", "cpu_cores", "wanted_cores", "queue_share")
_COMPUTE = ("compute_input_us", "compute_infer_us", "compute_output_us")


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
        config = self.server.config(model)
        place = place_of(model, config, cores, self.server.runtime == "embedded")
        self.found[model] = found = Found(model, config, loaded, place, self.max_batch)
        if not found.limited:
            self._serves[model] = place
        return self.found[model]

    def look(self, candidate: Candidate) -> Row:
        """A short measurement, enough to choose where to go next."""
        return self._row(candidate, SEARCH, 0)

    def measure_well(self, candidate: Candidate, number: int) -> Row:
        """A long one, for the finals."""
        return self._row(candidate, FINAL, number)

    def _row(self, candidate: Candidate, stage: str, number: int) -> Row:
        self.at = f"{candidate} ({'the finals' if stage == FINAL else 'the search'})"
        found = self.found[candidate.model]
        config = found.config_for(candidate, self.goal.traffic)
        key = self._key(candidate, config, stage, number)
        row = None if self.again else next((row for row in reversed(self._known) if row["key"] == key), None)
        self.told(str(candidate), None)
        if row is not None:
            self.before += 1
            row = {**row, **self._judged(row)}
        else:
            begin = time.monotonic()
            row = {**self._measured(candidate, config, stage), "stage": stage, "round": number, "key": key}
            row["seconds"] = round(time.monotonic() - begin, 2)
            row |= self._judged(row)
            # First of all: whatever happens next, this one is not lost.
            append_row(self.path, row)
        self.rows.append(row)
        self.told(str(candidate), row)
        return row

    def _key(self, candidate: Candidate, config: Mapping[str, Any], stage: str, number: int) -> str:
        """What makes a measurement the same as an earlier one: model and file, configuration, traffic, inputs, machine, stage and round."""
        what = [candidate.model, config_name(dict(config)), asdict(self.goal.traffic), self.goal.percentile, stage, number]
        what += [str(self.options[name]) for name in sorted(self.options)]
        what += [self.program.version, cpu(), model_files(self.server.repository, candidate.model)]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]

    def _measured(self, candidate: Candidate, config: dict[str, Any], stage: str) -> Row:
        row = {**perf_results.empty_row(), **dict.fromkeys(_SEEN), **self._described(candidate)}
        try:
            self.load(candidate, config)
        except (ModelError, ConfigError) as error:
            if not self.server.is_alive():
                raise
            return {**row, "outcome": REFUSED, "reason": str(error)}
        before, count_before = self._usage(candidate), self._counts(candidate.model)
        try:
            measured = self._measured_twice(candidate, stage)
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

    def _measured_twice(self, candidate: Candidate, stage: str) -> Row:
        """A measurement; a second one where the first had no answer in time, which on a busy machine says nothing about the model."""
        try:
            return self._measure(candidate, stage)
        except RequestError:
            if not self.server.is_alive():
                raise
            return self._measure(candidate, stage)

    def _measure(self, candidate: Candidate, stage: str) -> Row:
        traffic, options = self.goal.traffic, dict(self.options)
        data = options.get("input_data", "random")
        options["input_data"] = data.get(candidate.model, "random") if isinstance(data, Mapping) else data
        # One run of three windows is a short look; the finals go on until the precision is reached.
        precision, seconds = (settings.PERF_PRECISION, settings.TUNE_FINAL_S) if stage == FINAL else (settings.TUNE_LOOK_PRECISION, 1e-3)
        return measure(
            self.server,
            candidate.model,
            traffic.batch,
            traffic.concurrency or 1,
            request_rate_per_s=traffic.request_rate_per_s,
            percentile=self.goal.percentile,
            precision=precision,
            max_seconds=seconds,
            program=self.program,
            **options,
        )

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
        if self.goal.over(row):
            latency = self.goal.latency_ms(row)
            return {"outcome": OVER_BUDGET, "reason": "no latency is known" if latency is None else f"{latency:.3g} ms"}
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
