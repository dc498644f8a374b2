"""Measure models over batch sizes and concurrencies, and keep every point that was measured.

Typical use::

    from helpers.sweep import sweep
    result = sweep(server, ["particlenet_AK4", "particlenet_AK4_PT"], batches=(1, 4, 16, 64))
    result                                       # a table
    result.rows                                  # dictionaries; pandas.DataFrame(result.rows) takes them
    sweep(server, "particlenet_AK4", batches=(1, 8), instances=(1, 2))

Killed or interrupted and typed again, a sweep goes on where it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helpers import settings, sweep_files
from helpers.errors import CourseError, RequestError
from helpers.files import shown
from helpers.perf import measure
from helpers.perf_program import Program, find_perf_analyzer
from helpers.perf_table import Rows
from helpers.sweep_plan import Point, Setup, about, last_change, measured_before, plan
from helpers.sweep_progress import Progress


@dataclass(frozen=True)
class Sweep:
    """The rows of a sweep.

    Attributes:
        rows: one for each point, with the columns :data:`helpers.perf_results.COLUMNS`.
        path: the tidy table that holds them, among others.
        before: how many of them were measured by an earlier call.
        rougher: how many of those are less precise than what was asked for now.
    """

    rows: list[dict[str, Any]] = field(repr=False)
    path: Path
    before: int = 0
    rougher: int = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def _words(self) -> str:
        noisy = sum(row["stable"] is False for row in self.rows)
        parts = [f"{len(self.rows)} points in {shown(self.path)}"]
        parts += [f"{self.before} of them measured before"] if self.before else []
        parts += [f"{self.rougher} of these less precisely than asked for now (again=True measures all anew)"] if self.rougher else []
        parts += [f"{noisy} of them did not reach the precision (see note)"] if noisy else []
        return "; ".join(parts) + "."

    def __repr__(self) -> str:
        return repr(Rows(self.rows, self._words))

    def _repr_html_(self) -> str:
        return Rows(self.rows, self._words)._repr_html_()


def read_sweep(path: str | Path = "work/sweeps") -> Sweep:
    """Everything that was ever measured into a folder.

    Args:
        path: the folder of a sweep, or its ``sweep.csv``.

    Raises:
        InputError: there is no such table.
    """
    folder = sweep_files.folder_of(path)
    file = folder if folder.suffix == ".csv" else folder / sweep_files.TABLE
    return Sweep(sweep_files.read_rows(file), file)


def sweep(
    server: Any,
    models: str | Sequence[str],
    batches: Iterable[int] | None = None,
    concurrencies: Iterable[int] = (1,),
    *,
    instances: Iterable[int] = (),
    configs: Mapping[str, str | dict[str, Any]] | None = None,
    output: str | Path | None = None,
    precision: float = settings.PERF_PRECISION,
    percentile: int = settings.PERF_PERCENTILE,
    input_data: str | Path = "random",
    lengths: int | Mapping[str, int] | None = None,
    protocol: str | None = None,
    max_seconds: float = settings.PERF_POINT_S,
    again: bool = False,
    silent: bool = False,
) -> Sweep:
    """Measure every combination.

    Args:
        server: a :class:`~helpers.server.Server`, or an address such as ``localhost:9001``.
        models: one name or several.
        batches: batch sizes; by default 1 to 128 as in the course text, as far as the model goes.
        concurrencies: requests under way at any time.
        instances: numbers of model instances to load, on a server of one's own; what was loaded before is loaded again afterwards.
        configs: by name, whole configurations to load, as ``config.pbtxt`` text or as a dictionary; likewise.
        output: folder for the results, by default ``work/sweeps``: ``sweep.csv`` with all of them, and for each model and batch
            ``<model>/<model>_batch<b>.csv`` as perf_analyzer writes it.
        precision: half width of the throughput's 95 % interval at which a point is done, as a fraction.
        percentile: the latency that is looked at, in percent.
        input_data: ``random``, ``zero``, or a file of :mod:`helpers.load_inputs`.
        lengths: length of the axes that may have any, by the beginning of the input's name, or one for all.
        protocol: ``grpc`` (the default) or ``http``.
        max_seconds: seconds after which a point is left as it is, whatever its precision.
        again: measure also what is in ``sweep.csv`` already.
        silent: show no progress.

    Returns:
        The rows, in the order of the combinations, with those that an earlier call had measured.

    Raises:
        InputError: a batch size is above a model's limit, or something else does not fit; nothing was measured.
        CourseError: the sweep cannot go on; every point so far is in ``sweep.csv``, and the text says how to go on.
        KeyboardInterrupt: it was interrupted; likewise.
    """
    points = plan(server, models, batches, concurrencies, tuple(instances), configs, protocol, lengths, input_data)
    folder = sweep_files.folder_of(output)
    options = {"precision": precision, "percentile": percentile, "input_data": input_data, "lengths": lengths, "protocol": protocol}
    options["max_seconds"] = max_seconds
    work = _Work(server, folder, options, again, find_perf_analyzer())
    progress = Progress([point.weight for point in points], silent)
    try:
        for setup in dict.fromkeys(point.setup.model for point in points):
            work.measure([point for point in points if point.setup.model == setup], progress)
    except KeyboardInterrupt:
        progress.close(f"interrupted; {work.kept(len(points))}")
        raise
    except CourseError as error:
        progress.close("stopped")
        raise RequestError(
            f"The sweep stopped at {work.at}: {error.happened}", f"{work.kept(len(points))}.", error.todo or error.expected
        ) from error
    progress.close(f"{len(points)} points in {shown(work.table)}")
    return Sweep(work.rows, work.table, work.before, work.rougher)


class _Work:
    """A sweep under way.

    Args:
        server: which.
        folder: of the results.
        options: of every measurement.
        again: measure also what was measured before.
        program: which perf_analyzer.
    """

    def __init__(self, server: Any, folder: Path, options: dict[str, Any], again: bool, program: Program) -> None:
        self.server, self.folder, self.options, self.program = server, folder, options, program
        self.table = folder / sweep_files.TABLE
        self.rows: list[dict[str, Any]] = []
        self.before = self.rougher = 0
        self.at: Point | str = "its beginning"
        self._again = again
        self._known = sweep_files.read_rows(self.table) if self.table.exists() else []

    def kept(self, total: int) -> str:
        """What there is, in words."""
        return f"{len(self.rows)} of {total} points are in {shown(self.table)}; typed again, it goes on from there"

    def measure(self, points: list[Point], progress: Progress) -> None:
        """The points of one model; configurations that were changed on the way are put back, whatever happens."""
        changes = any(point.setup.config is not None for point in points)
        original = self.server.config(points[0].setup.model) if changes else None
        loaded: Setup | None = None
        try:
            for point in points:
                self.at = point
                if point.setup != loaded:
                    loaded = point.setup
                    if loaded.config is not None:
                        self.server.load(loaded.model, config=loaded.config)
                    known = self._about(loaded)
                self._one(point, known, progress)
        finally:
            if original is not None:
                self._restore(points[0].setup.model, original)

    def _about(self, setup: Setup) -> dict[str, Any]:
        known, config = about(self.server, setup.model, self.options["protocol"])
        sweep_files.write_config(self.folder, setup.model, known["config"], config)
        data = str(self.options["input_data"])
        return {
            **known,
            "percentile": self.options["percentile"],
            "inputs": Path(data).name,
            "perf_analyzer_version": self.program.version,
            "changed": last_change(self.server, setup.model, data),
        }

    def _one(self, point: Point, known: Mapping[str, Any], progress: Progress) -> None:
        progress.begin(str(point))
        row = None if self._again else measured_before(point, self._known, known)
        if there := row is not None:
            self.before += 1
            self.rougher += (row["throughput_spread_infer_per_s"] or 0) > self.options["precision"] * (row["throughput_infer_per_s"] or 0)
        else:
            row = measure(self.server, point.setup.model, point.batch, point.concurrency, program=self.program, **self.options)
            # First of all: whatever happens next, this point is not lost.
            sweep_files.append(self.table, row)
        self.rows.append(row)
        own = (row["model"], row["batch"], row["config"])
        sweep_files.write_tool_table(
            self.folder, point.setup.label, (r for r in (*self._known, *self.rows) if (r["model"], r["batch"], r["config"]) == own)
        )
        spread = row["throughput_spread_infer_per_s"]
        progress.done(
            f"{point}: {row['throughput_infer_per_s'] or 0:.4g} infer/s{f' ± {spread:.2g}' if spread else ''}", measured=not there
        )

    def _restore(self, model: str, config: dict[str, Any]) -> None:
        try:
            self.server.load(model, config=config)
        except KeyboardInterrupt:  # somebody has no patience; what was changed is put back all the same
            self.server.load(model, config=config)
            raise
        except CourseError:
            # A server that has died has nothing to restore; what stopped the sweep is reported.
            if self.server.is_alive():
                raise
