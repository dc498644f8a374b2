"""A table of experiments on one deployment: a row for each change, compared with what was changed, and a figure at the end.

Typical use::

    table = Experiments(server, "particlenet_AK4", batch=1, concurrency=8, budget=1.5)
    table.measure("baseline")
    repository.change_config("particlenet_AK4", instance_group=[{"count": 2, "kind": "KIND_CPU"}])
    server.reload("particlenet_AK4")
    table.measure("2 instances", beside=gain(recorded("A100", "ExaTrk")[0], recorded("A100", "ExaTrk")[1]))
    table.measure("2 instances × 2 threads", over="2 instances", beside="no such setting on a GPU")
    table
    table.figure()
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from helpers import settings
from helpers.errors import InputError
from helpers.measuring import measure
from helpers.plot_rows import THROUGHPUT, Row, hardware, is_recorded, rows_of
from helpers.tables import as_html, as_text
from helpers.verdict import Verdict, verdict


@dataclass(frozen=True)
class Elsewhere:
    """What the same kind of change did on other hardware.

    Attributes:
        gain: throughput after over throughput before.
        what: which change of which model, in words.
        where: the hardware.
        source: who recorded it.
    """

    gain: float
    what: str
    where: str
    source: str

    def __str__(self) -> str:
        return f"×{self.gain:.2f} on {self.where}: {self.what} ({self.source})"


def gain(before: Row, after: Row, what: str = "") -> Elsewhere:
    """What a recorded change did: two rows of :func:`helpers.recorded.recorded`.

    Args:
        before: without the change.
        after: with it.
        what: the change in words; by default what differs between the rows.

    Raises:
        InputError: a row is not a recorded one, or they are of different sources or hardware.
    """
    rows = rows_of([before, after], (THROUGHPUT,), "a recorded gain")
    if not all(map(is_recorded, rows)):
        raise InputError("A row was measured here.", "Expected two recorded rows.", "Type: recorded()")
    if len({(row["source"], hardware(row)) for row in rows}) > 1:
        raise InputError("The two rows come from different sources or hardware.", "A gain is that of one change on one machine.")
    words = what or f"{before['model']}, {_difference(before, after)}"
    return Elsewhere(after[THROUGHPUT] / before[THROUGHPUT], words, hardware(before), str(before["source"]))


def _difference(before: Row, after: Row) -> str:
    named = {"variant": "{}", "batch": "{:g}", "instances": "{:g}", "concurrency": "{:g}"}
    changed = [
        f"{'' if name == 'variant' else name + ' '}{shape.format(before[name])} → {shape.format(after[name])}"
        for name, shape in named.items()
        if before.get(name) != after.get(name) and None not in (before.get(name), after.get(name))
    ]
    return "; ".join(changed) or "the same load"


class Experiments:
    """One load, and what each configuration makes of it. At the end of a cell it shows its table.

    Args:
        server: a :class:`~helpers.server.Server`.
        model: the model that is changed.
        batch: entries in each request.
        concurrency: requests under way at any time.
        budget: what the 95th percentile should stay under, as a multiple of that of the first experiment: machines differ.
        input_data: ``random``, ``zero`` or a file of :mod:`helpers.load_inputs`.
        precision: half width of the throughput's 95 % interval at which a measurement is done, as a fraction.
        max_seconds: seconds after which a measurement is done in any case.
    """

    def __init__(
        self,
        server: Any,
        model: str,
        *,
        batch: int = 1,
        concurrency: int = 1,
        budget: float | None = None,
        input_data: str | Path = "random",
        precision: float = settings.EXPERIMENT_PRECISION,
        max_seconds: float = settings.EXPERIMENT_S,
    ) -> None:
        self.server, self.model = server, model
        self.batch, self.concurrency, self.budget = batch, concurrency, budget
        self._options = {"input_data": input_data, "precision": precision, "max_seconds": max_seconds}
        self.rows: list[dict[str, Any]] = []
        # By the experiment's name: what the change did elsewhere or why nobody knows, and the experiment that was changed.
        self._beside: dict[str, Elsewhere | str] = {}
        self._over: dict[str, str] = {}

    def measure(
        self, name: str, model: str | None = None, *, over: str | None = None, beside: Elsewhere | str | None = None
    ) -> Experiments:
        """Measure what the server now serves, and add it to the table; a second experiment of one name takes the place of the first.

        Args:
            name: what was changed, in a few words.
            model: another model in place of the one that is changed, such as its variant in lower precision.
            over: name of the experiment that was changed, which the gain refers to; the first by default.
            beside: what the same kind of change did elsewhere, from :func:`gain`, or in a few words why there is no such figure.

        Returns:
            This table, so that the cell shows it.

        Raises:
            InputError: there is no experiment ``over``, or it is this one.
            CourseError: the measurement could not be made.
        """
        if over is not None and self[over]["experiment"] == name:
            raise InputError(f"The experiment {name!r} cannot be compared with itself.", "Expected the one that you changed.")
        measured = model or self.model
        before = self._counts(measured)
        row = measure(self.server, measured, self.batch, self.concurrency, **self._options)
        inferences, executions = (after - first for after, first in zip(self._counts(measured), before, strict=True))
        executed = row.get("executed_batch") if is_recorded(row) else inferences / executions if executions else None
        row = {**row, "experiment": name, "executed_batch": executed}
        place = next((number for number, each in enumerate(self.rows) if each["experiment"] == name), len(self.rows))
        self.rows[place : place + 1] = [row]
        # Measured again, it is still the same change.
        if over is not None:
            self._over[name] = over
        if beside is not None:
            self._beside[name] = beside
        return self

    def _counts(self, model: str) -> tuple[int, int]:
        told = self.server.statistics(model)
        # What comes from the response cache is in neither: no model has run for it.
        return int(told.get("inference_count", 0)), int(told.get("execution_count", 0))

    def __getitem__(self, name: str) -> dict[str, Any]:
        """The row of an experiment.

        Raises:
            InputError: there is none of this name.
        """
        for row in self.rows:
            if row["experiment"] == name:
                return row
        raise InputError(
            f"There is no experiment {name!r}.", f"There are: {', '.join(row['experiment'] for row in self.rows) or 'none yet'}."
        )

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def reference(self, row: Mapping[str, Any]) -> dict[str, Any] | None:
        """The row that an experiment changed, so that its gain is that of one change; None for the first."""
        if row is self.rows[0]:
            return None
        over = self._over.get(row["experiment"])
        return self.rows[0] if over is None else self[over]

    def judged(self, row: Mapping[str, Any]) -> Verdict | None:
        """The verdict on a row, seen from the one that it changed; None for the first."""
        reference = self.reference(row)
        return None if reference is None else verdict(reference, row)

    def elsewhere(self, row: Mapping[str, Any]) -> Elsewhere | None:
        """What the same kind of change did elsewhere, where somebody recorded it."""
        known = self._beside.get(row["experiment"])
        return known if isinstance(known, Elsewhere) else None

    @property
    def budget_ms(self) -> float | None:
        """What the 95th percentile should stay under, in ms; None without a budget, and before the first experiment."""
        return None if self.budget is None else self.budget_for(self.budget)

    def budget_for(self, multiple: float) -> float | None:
        """So many times the 95th percentile of the first experiment, in ms; None before it."""
        first = self.rows[0].get("latency_p95_us") if self.rows else None
        return None if first is None else round(multiple * first / 1000, 1)

    def _table(self) -> list[dict[str, Any]]:
        return [self._line(row) for row in self.rows]

    def _line(self, row: dict[str, Any]) -> dict[str, Any]:
        seen, reference = self.judged(row), self.reference(row)
        spread = row.get("throughput_spread_infer_per_s")
        return {
            "experiment": row["experiment"],
            "jets/s": f"{row[THROUGHPUT]:.0f}" + (f" ± {spread:.0f}" if spread else ""),
            "p95 (ms)": row["latency_p95_us"] / 1000 if row.get("latency_p95_us") else None,
            "queue (ms)": row["queue_us"] / 1000 if row.get("queue_us") is not None else None,
            "jets per run": row["executed_batch"],
            "gain": "" if seen is None else f"×{seen.gain:.2f}" + (f" ± {seen.half_width:.2f}" if seen.half_width else ""),
            "over": "" if reference is None else reference["experiment"],
            "verdict": "the first" if seen is None else seen.answer,
            "recorded elsewhere": str(self._beside.get(row["experiment"], "")),
        }

    @property
    def _words(self) -> str:
        budget = f", budget p95 ≤ {self.budget_ms:g} ms" if self.budget_ms else ""
        return f"{self.model}: requests of {self.batch}, {self.concurrency} under way{budget}."

    def __repr__(self) -> str:
        return "\n".join([self._words, as_text(self._table()) if self.rows else "no experiment yet"])

    def _repr_html_(self) -> str:
        return as_html(self._table(), caption=self._words, bold=lambda line: line["experiment"] == self.rows[-1]["experiment"])

    def figure(self) -> Figure:
        """All experiments: the gain of each over what it changed, what was recorded elsewhere beside it, and the latency.

        Raises:
            InputError: there is no experiment yet.
        """
        from helpers.experiments_plot import experiments_figure

        return experiments_figure(self)
