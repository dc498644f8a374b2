"""A table of experiments on one deployment: a row for each change, measured in turn with what was changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from helpers.errors import InputError, quoted
from helpers.measuring.measure import TURN_WINDOW_S, Measurement, config_kept, in_turn, turns_now
from helpers.measuring.perf_analyzer import find_perf_analyzer
from helpers.measuring.statistics import Verdict, verdict
from helpers.measuring.table import THROUGHPUT, THROUGHPUT_SPREAD, Row, hardware, latency_words, rows_of, with_spread
from helpers.tables import Table, without_empty
from helpers.terminal import Progress


class Elsewhere(NamedTuple):
    """What the same kind of change did on other hardware: throughput after over before, where, and all of it with its source in words."""

    gain: float
    where: str
    words: str


def _elsewhere(rows: Any) -> Elsewhere:
    """What a recorded change did, from a row without it and one with it."""
    before, after = rows_of(rows, (THROUGHPUT,), "a recorded gain")
    names = [name for name in ("variant", "batch", "instances", "concurrency") if before.get(name) != after.get(name)]
    changed = "; ".join(f"{name} {before[name]} → {after[name]}" for name in names)
    gain, where = after[THROUGHPUT] / before[THROUGHPUT], hardware(before)
    return Elsewhere(gain, where, f"×{gain:.2f} on {where}: {before['model']}, {changed} ({before['source']})")


class Experiments:
    """One load, and what each configuration makes of it. At the end of a cell it shows its table.

    A change is measured in turn with what was changed: the server loads one configuration after the other, and keeps the last one.
    The ``budget`` is what the 95th percentile should stay under, as a multiple of that of the first experiment: machines differ. Options
    are those of :func:`helpers.measuring.measure.measure`, such as ``input_data``.
    """

    def __init__(
        self, server: Any, model: str, *, batch: int = 1, concurrency: int = 1, budget: float | None = None, **options: Any
    ) -> None:
        self.server, self.model, self.budget = server, model, budget
        self._load = {"batch": batch, "concurrency": concurrency, **options}
        # Both by the experiment's name.
        self._rows: dict[str, dict[str, Any]] = {}
        self._made: dict[str, Measurement] = {}

    def measure(self, name: str, model: str | None = None, *, over: str | None = None, beside: Any = None, **load: Any) -> Experiments:
        """Measure what the server now serves, and add it to the table, which is returned; an experiment of the same name is replaced.

        Args:
            name: what was changed, in a few words.
            model: another model in place of the table's, such as its variant in lower precision.
            over: name of the experiment that was changed, which the gain refers to; the first by default.
            beside: what the same kind of change did elsewhere: two recorded rows, without it and with it; or why there is no such figure.
            **load: what differs from the table's load, such as ``batch=4``.
        """
        find_perf_analyzer()
        over = over or next(iter(self._rows), name)
        others = [] if over == name else [self[over]["experiment"]]
        elsewhere = beside if beside is None or isinstance(beside, str) else _elsewhere(beside)
        made = Measurement(self.server, model or self.model, **self._load | load, window_s=TURN_WINDOW_S)
        jets_per_run = self._measured(name, made, [self._made[each] for each in others])
        self._made[name] = made
        self._add(name, made.row(), over=next(iter(others), None), beside=elsewhere, executed_batch=jets_per_run)
        for each in others:
            self._rows[each] |= self._made[each].row()  # with these turns
        return self

    def _add(self, name: str, row: Mapping[str, Any], **added: Any) -> None:
        self._rows[name] = {"over": None, "beside": None, "executed_batch": None, **row, **added, "experiment": name}

    def _measured(self, name: str, made: Measurement, others: list[Measurement]) -> float | None:
        """Measure in turn with others, and return the mean batch that the model ran; the configurations are kept."""
        group, turns, counts = [made, *others], turns_now(), np.zeros(2)
        with (
            Progress(f"measuring {name!r}", turns * len(group), "runs") as progress,
            config_kept(self.server, *{each.model for each in group}),
        ):
            made.warm_up()
            for each, turn in in_turn(group, turns):
                if self.server.config(each.model) != each.config:
                    self.server.load(each.model, config=each.config)
                    each.warm_up()
                before = self._counts(made.model)
                each.measure(turn)
                counts += (self._counts(made.model) - before) * (each is made)
                progress.add()
        return counts[0] / counts[1] if counts[1] else None

    def _counts(self, model: str) -> NDArray[np.float64]:
        """Inferences and runs of a model; what comes from the response cache is in neither."""
        told = self.server.statistics(model)
        return np.array([float(told.get(name, 0)) for name in ("inference_count", "execution_count")])

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows, in order."""
        return list(self._rows.values())

    def __getitem__(self, name: str) -> Row:
        """Return the row of an experiment; an InputError when there is none of this name."""
        if name not in self._rows:
            raise InputError(f"There is no experiment {name!r}.", f"There are: {quoted(self._rows)}.")
        return Row.of(self._rows[name])

    def __len__(self) -> int:
        return len(self._rows)

    def reference(self, name: str) -> Row | None:
        """Return the row that an experiment changed, so that its gain is that of one change; None for the first."""
        first = next(iter(self._rows))
        return None if name == first else self[self[name]["over"] or first]

    def judged(self, name: str) -> Verdict | None:
        """Return the verdict on an experiment, seen from the one that it changed; None for the first."""
        reference = self.reference(name)
        return None if reference is None else verdict(reference, self[name])

    def elsewhere(self, name: str) -> Elsewhere | None:
        """Return what the same kind of change did elsewhere, where somebody recorded it."""
        known = self[name]["beside"]
        return known if isinstance(known, Elsewhere) else None

    @property
    def budget_ms(self) -> float | None:
        """What the 95th percentile should stay under, in ms; None without a budget, and before the first experiment."""
        return self.budget_for(self.budget) if self.budget else None

    def budget_for(self, multiple: float) -> float | None:
        """Return so many times the 95th percentile of the first experiment, in ms; None before it."""
        first = self.rows[0]["latency_p95_us"] if self.rows else None
        return None if first is None else round(multiple * first / 1000, 1)

    def _line(self, row: Mapping[str, Any]) -> dict[str, Any]:
        name = row["experiment"]
        seen, reference, other = self.judged(name), self.reference(name), self.elsewhere(name)
        return {
            "experiment": name,
            "instances": row.get("instances"),
            "inferences/s": with_spread(row[THROUGHPUT], row.get(THROUGHPUT_SPREAD)),
            "p95 (ms)": latency_words(row, 95),
            "queue (ms)": row["queue_us"] / 1000 if row.get("queue_us") is not None else None,
            "jets per run": row["executed_batch"],
            "gain": f"×{seen.factor}" if seen else "",
            "over": "" if reference is None else reference["experiment"],
            "verdict": seen.answer if seen else "the first",
            "recorded elsewhere": f"×{other.gain:.2f} on {other.where}" if other else row["beside"],
        }

    def _table(self) -> Table:
        budget = f", budget p95 ≤ {self.budget_ms:g} ms" if self.budget_ms else ""
        words = f"{self.model}: requests of {self._load['batch']}, {self._load['concurrency']} under way{budget}."
        return Table(without_empty(map(self._line, self.rows)), words)

    def __repr__(self) -> str:
        return repr(self._table())

    def _repr_html_(self) -> str:
        return self._table()._repr_html_()
