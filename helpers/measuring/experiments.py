"""A table of experiments on one deployment: a row for each change, measured in turn with what was changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from helpers.errors import InputError, quoted
from helpers.measuring.measure import TURN_WINDOW_S, Measurement, about, config_kept, take_turns, turns_now
from helpers.measuring.program import find_perf_analyzer
from helpers.measuring.statistics import Verdict, verdict
from helpers.measuring.table import THROUGHPUT, THROUGHPUT_SPREAD, Row, hardware, latency_words, rows_of, with_spread
from helpers.tables import as_html, as_text, without_empty
from helpers.terminal import Progress


class Elsewhere(NamedTuple):
    """What the same kind of change did on other hardware: throughput after over before, where, and all of it with its source in words."""

    gain: float
    where: str
    words: str


def _elsewhere(rows: Any) -> Elsewhere:
    """What a recorded change did, from a row without it and one with it."""
    before, after = rows_of(rows, (THROUGHPUT,), "a recorded gain")
    changed = [
        f"{'' if name == 'variant' else name + ' '}{before[name]} → {after[name]}"
        for name in ("variant", "batch", "instances", "concurrency")
        if before.get(name) != after.get(name) and None not in (before.get(name), after.get(name))
    ]
    gain, where = after[THROUGHPUT] / before[THROUGHPUT], hardware(before)
    return Elsewhere(gain, where, f"×{gain:.2f} on {where}: {before['model']}, {'; '.join(changed)} ({before['source']})")


class Experiments:
    """One load, and what each configuration makes of it. At the end of a cell it shows its table.

    A change is measured in turn with what was changed: the server loads one configuration after the other, and keeps the last one.

    Args:
        server: a :class:`~helpers.server.Server`.
        model: the model that is changed.
        batch: entries in each request.
        concurrency: requests under way at any time.
        budget: what the 95th percentile should stay under, as a multiple of that of the first experiment: machines differ.
        **options: as for :func:`helpers.measuring.measure.measure`, such as ``input_data``.
    """

    def __init__(
        self, server: Any, model: str, *, batch: int = 1, concurrency: int = 1, budget: float | None = None, **options: Any
    ) -> None:
        self.server, self.model, self.budget = server, model, budget
        self._load = {"batch": batch, "concurrency": concurrency, **options}
        self.rows: list[dict[str, Any]] = []
        # By the experiment's name: its measurement so far and the configuration it had, the experiment that was changed, and what the
        # change did elsewhere or why that is not known.
        self._made: dict[str, tuple[Measurement, dict[str, Any]]] = {}
        self._over: dict[str, str] = {}
        self._beside: dict[str, Elsewhere | str] = {}

    def measure(self, name: str, model: str | None = None, *, over: str | None = None, beside: Any = None, **load: Any) -> Experiments:
        """Measure what the server now serves, and add it to the table, which is returned; an experiment of the same name is replaced.

        Args:
            name: what was changed, in a few words.
            model: another model in place of the one that is changed, such as its variant in lower precision.
            over: name of the experiment that was changed, which the gain refers to; the first by default.
            beside: what the same kind of change did elsewhere: two recorded rows, without it and with it; or why there is no such figure.
            **load: what differs from the table's load, such as ``batch=4``.
        """
        find_perf_analyzer()
        if over is not None and self[over]["experiment"] == name:
            raise InputError(f"The experiment {name!r} cannot be compared with itself.", "Expected the one that you changed.")
        over = over or next((row["experiment"] for row in self.rows if row["experiment"] != name), None)
        self._set(name, self._measured(name, model or self.model, self._made.get(over or ""), self._load | load))
        if over in self._made:
            self._set(over, self._made[over][0].row())
        # Measured again, it is still the same change.
        if over is not None and name != self.rows[0]["experiment"]:
            self._over[name] = over
        if beside is not None:
            self._beside[name] = beside if isinstance(beside, str) else _elsewhere(beside)
        return self

    def _measured(self, name: str, model: str, other: tuple[Measurement, dict[str, Any]] | None, load: dict[str, Any]) -> dict[str, Any]:
        """Measure in turn with another experiment; at the end the server has the configuration that it had."""
        made, config = Measurement(self.server, model, **load, window_s=TURN_WINDOW_S), about(self.server, model)[1]
        configs = {made: config} | ({other[0]: other[1]} if other else {})
        counts = before = (0, 0)

        def load_own(each: Measurement) -> None:
            nonlocal before
            if self.server.config(each.model) != configs[each]:
                self.server.load(each.model, config=configs[each])
                each.warm_up()
            before = self._counts(model)

        turns = turns_now()
        with (
            Progress(f"measuring {name!r}", turns * len(configs), "runs") as progress,
            config_kept(self.server, *{each.model for each in configs}),
        ):
            made.warm_up()
            for each in take_turns(list(configs), turns, load_own):
                progress.add()
                if each is made:
                    now = self._counts(model)
                    counts = counts[0] + now[0] - before[0], counts[1] + now[1] - before[1]
        self._made[name] = made, config
        return {**made.row(), "executed_batch": counts[0] / counts[1] if counts[1] else None}

    def _counts(self, model: str) -> tuple[int, int]:
        """Inferences and runs of a model; what comes from the response cache is in neither."""
        told = self.server.statistics(model)
        return int(told.get("inference_count", 0)), int(told.get("execution_count", 0))

    def _set(self, name: str, row: Mapping[str, Any]) -> None:
        place = next((number for number, each in enumerate(self.rows) if each["experiment"] == name), len(self.rows))
        before = self.rows[place] if place < len(self.rows) else {}
        self.rows[place : place + 1] = [{"executed_batch": before.get("executed_batch"), **row, "experiment": name}]

    def __getitem__(self, name: str) -> Row:
        """Return the row of an experiment; an InputError when there is none of this name."""
        for row in self.rows:
            if row["experiment"] == name:
                return Row.of(row)
        raise InputError(f"There is no experiment {name!r}.", f"There are: {quoted(row['experiment'] for row in self.rows)}.")

    def __len__(self) -> int:
        return len(self.rows)

    def reference(self, name: str) -> Row | None:
        """Return the row that an experiment changed, so that its gain is that of one change; None for the first."""
        first = self.rows[0]["experiment"]
        return None if name == first else self[self._over.get(name, first)]

    def judged(self, name: str) -> Verdict | None:
        """Return the verdict on an experiment, seen from the one that it changed; None for the first."""
        reference = self.reference(name)
        return None if reference is None else verdict(reference, self[name])

    def elsewhere(self, name: str) -> Elsewhere | None:
        """Return what the same kind of change did elsewhere, where somebody recorded it."""
        known = self._beside.get(name)
        return known if isinstance(known, Elsewhere) else None

    @property
    def budget_ms(self) -> float | None:
        """What the 95th percentile should stay under, in ms; None without a budget, and before the first experiment."""
        return None if self.budget is None else self.budget_for(self.budget)

    def budget_for(self, multiple: float) -> float | None:
        """Return so many times the 95th percentile of the first experiment, in ms; None before it."""
        first = self.rows[0].get("latency_p95_us") if self.rows else None
        return None if first is None else round(multiple * first / 1000, 1)

    def _line(self, name: str, row: Mapping[str, Any]) -> dict[str, Any]:
        seen, reference, other = self.judged(name), self.reference(name), self.elsewhere(name)
        return {
            "experiment": name,
            "instances": row.get("instances"),
            "inferences/s": with_spread(row[THROUGHPUT], row.get(THROUGHPUT_SPREAD)),
            "p95 (ms)": latency_words(row, 95),
            "queue (ms)": row["queue_us"] / 1000 if row.get("queue_us") is not None else None,
            "jets per run": row["executed_batch"],
            "gain": "" if seen is None else f"×{seen.factor}",
            "over": "" if reference is None else reference["experiment"],
            "verdict": "the first" if seen is None else seen.answer,
            "recorded elsewhere": f"×{other.gain:.2f} on {other.where}" if other else self._beside.get(name, ""),
        }

    def _table(self) -> list[dict[str, Any]]:
        return without_empty([self._line(row["experiment"], row) for row in self.rows])

    @property
    def _words(self) -> str:
        budget = f", budget p95 ≤ {self.budget_ms:g} ms" if self.budget_ms else ""
        return f"{self.model}: requests of {self._load['batch']}, {self._load['concurrency']} under way{budget}."

    def __repr__(self) -> str:
        return "\n".join([self._words, as_text(self._table()) if self.rows else "no experiment yet"])

    def _repr_html_(self) -> str:
        return as_html(self._table(), caption=self._words, bold=lambda line: line["experiment"] == self.rows[-1]["experiment"])
