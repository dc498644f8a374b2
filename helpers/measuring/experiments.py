"""A table of experiments on one deployment: a row for each change, measured in turn with what was changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from helpers.errors import InputError, quoted
from helpers.measuring.measure import Measurement, config_kept, in_turn
from helpers.measuring.statistics import Verdict, verdict
from helpers.measuring.table import LATENCY, THROUGHPUT, THROUGHPUT_SPREAD, Row, latency_words, with_spread
from helpers.tables import Table, without_empty
from helpers.terminal import Progress


class Experiments:
    """One load, and what each configuration makes of it. At the end of a cell it shows its table.

    A change is measured in turn with what was changed: the server loads one configuration after the other, and keeps the last one.
    The ``budget`` is what the 95th percentile should stay under, as a multiple of that of the first experiment: machines differ. The load
    has the arguments of :func:`helpers.measuring.measure.measure`, such as ``batch`` and ``input_data``.
    """

    def __init__(self, server: Any, model: str, *, budget: float | None = None, **load: Any) -> None:
        self.server, self.model, self.budget = server, model, budget
        self._load = {"batch": 1, "concurrency": 1, **load}
        # Both by the experiment's name.
        self._rows: dict[str, dict[str, Any]] = {}
        self._made: dict[str, Measurement] = {}

    def measure(self, name: str, model: str | None = None, *, over: str | None = None, **load: Any) -> Experiments:
        """Measure what the server now serves, and add it to the table, which is returned; an experiment of the same name is replaced.

        The name says in a few words what was changed, ``over`` in which experiment: the first by default, to which the gain refers. Another
        ``model`` takes the place of the table's, such as a variant in lower precision, and ``load`` what differs, such as ``batch=4``.
        """
        reference = next(iter(self._rows), name) if over is None or over == name else self[over]["experiment"]
        others = [] if reference == name else [self._made[reference]]
        made = Measurement(self.server, model or self.model, **self._load | load, in_turn=True)
        runs, counts = list(in_turn([made, *others])), np.zeros(2)
        with Progress(f"measuring {name!r}", len(runs), "runs") as progress, config_kept(self.server, *{each.model for each, _ in runs}):
            made.warm_up()
            for each, turn in runs:
                if self.server.config(each.model) != each.config:
                    self.server.load(each.model, config=each.config)
                    each.warm_up()
                before = self._counts(made.model)
                each.measure(turn)
                counts += (self._counts(made.model) - before) * (each is made)
                progress.add()
        self._made[name] = made
        self._add(name, made.row(), over=reference if others else None, executed_batch=counts[0] / counts[1] if counts[1] else None)
        for each in others:
            self._rows[reference] |= each.row()  # with these turns
        return self

    def _add(self, name: str, row: Mapping[str, Any], **added: Any) -> None:
        self._rows[name] = {"over": next(iter(self._rows), None), "executed_batch": None, **row, **added, "experiment": name}

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

    def judged(self, name: str) -> Verdict | None:
        """Return the verdict on an experiment, seen from the one that it changed, so that it is that of one change; None for the first."""
        row = self[name]
        return verdict(self[row["over"]], row) if row["over"] else None

    @property
    def budget_ms(self) -> float | None:
        """What the 95th percentile should stay under, in ms; None without a budget, and before the first experiment."""
        first = self.rows[0][LATENCY] if self.rows else None
        return round(self.budget * first / 1000, 1) if self.budget and first else None

    def _line(self, row: Mapping[str, Any]) -> dict[str, Any]:
        seen = self.judged(row["experiment"])
        return {
            "experiment": row["experiment"],
            "instances": row.get("instances"),
            "inferences/s": with_spread(row[THROUGHPUT], row.get(THROUGHPUT_SPREAD)),
            "p95 (ms)": latency_words(row),
            "queue (ms)": row["queue_us"] / 1000 if row.get("queue_us") is not None else None,
            "jets per run": row["executed_batch"],
            "gain": f"×{seen.factor}" if seen else "",
            "over": row["over"] or "",
            "verdict": seen.answer if seen else "the first",
        }

    def _table(self) -> Table:
        budget = f", budget p95 ≤ {self.budget_ms:g} ms" if self.budget_ms else ""
        words = f"{self.model}: requests of {self._load['batch']}, {self._load['concurrency']} under way{budget}."
        return Table(without_empty(map(self._line, self.rows)), words)

    def __repr__(self) -> str:
        return repr(self._table())

    def _repr_html_(self) -> str:
        return self._table()._repr_html_()
