"""Find the configuration that serves a given traffic best within a latency budget.

Typical use::

    from helpers.tune import tune
    result = tune(server, "particlenet_AK4", batch=8, concurrency=4, budget_ms=50, variants=["particlenet_AK4_PT"])
    result                          # what was tried, why it stopped, how sure it is
    result.best["instances"], result.config_path

First short measurements, one axis at a time, from the configuration that serves now: other models with the same inputs and outputs,
instances and the threads of each, dynamic batching, accelerators. What the server says decides what is worth a look: the time that
requests wait, the batches that it runs, the cores that it uses. Then the finals: the best few and the configuration as found are
measured in turn, round by round.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from helpers import settings, sweep_files, tune_report
from helpers.client.client import Connection
from helpers.errors import CourseError, InputError, ModelError, RequestError
from helpers.files import shown
from helpers.perf_command import run_for
from helpers.perf_program import find_perf_analyzer
from helpers.server import Server
from helpers.tune_candidate import Candidate, Goal, Traffic
from helpers.tune_config import Found, on_gpu
from helpers.tune_files import winner_text, write_winner
from helpers.tune_finals import confirm
from helpers.tune_progress import Progress
from helpers.tune_report import Tuned
from helpers.tune_search import Search
from helpers.tune_space import Axes, accelerators_here, axes_for, fitting
from helpers.tune_trial import Workbench

__all__ = ["Axes", "Candidate", "Tuned", "tune"]


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
    percentile: int = settings.PERF_PERCENTILE,
    input_data: str | Path | Mapping[str, str | Path] = "random",
    lengths: int | Mapping[str, int] | None = None,
    protocol: str | None = None,
    again: bool = False,
    silent: bool = False,
) -> Tuned:
    """Search. While it runs the server serves one configuration after the other; at the end, or when something stops it, the one before.

    Args:
        server: one's own, since models are loaded anew.
        model: name of the model.
        batch: entries in each request.
        concurrency: requests under way at any time; the highest throughput wins.
        request_rate_per_s: requests sent each second, in place of a concurrency; the lowest latency wins.
        budget_ms: what the latency percentile may be at most, in ms.
        max_instances: instances at most; by default as many as there are cores, up to :data:`helpers.settings.TUNE_MAX_INSTANCES`.
        max_batch: entries that the server may put into one batch at most; by default each model's ``max_batch_size``.
        max_memory_mb: for the server and the model's instances, shared pages counted once.
        variants: other models with the same inputs and outputs, names of tensors aside: another format, another precision.
        output: folder for the rows and the winner's configuration.
        keep: leave the server with the winner.
        axes: values to choose from, in place of those that fit this machine and traffic.
        percentile: the latency that the budget is for, in percent.
        input_data: ``random``, ``zero`` or a file of :mod:`helpers.load_inputs`; for variants with other names of tensors, by model.
        lengths: length of the axes that may have any, by the beginning of the input's name, or one for all.
        protocol: ``grpc`` (the default) or ``http``.
        again: measure also what an earlier call measured; else a search that was killed goes on where it was.
        silent: show no progress.

    Returns:
        The result; ``best`` is None when nothing meets the budget.

    Raises:
        InputError: the traffic or a limit makes no sense, or a variant has other inputs or outputs; nothing was changed.
        ModelError: the server is not one's own, or the model cannot be measured as it is.
        CourseError: the search cannot go on; every measurement so far is kept, and the text says how to go on.
        KeyboardInterrupt: it was interrupted; likewise.
    """
    _check(server, batch, concurrency, request_rate_per_s, budget_ms, max_instances, max_batch, max_memory_mb)
    goal = Goal(Traffic(batch, None if request_rate_per_s else concurrency, request_rate_per_s), budget_ms, percentile)
    progress = Progress(silent)
    options = {"input_data": input_data, "lengths": lengths, "protocol": protocol}
    folder = sweep_files.folder_of(output)
    bench = Workbench(server, goal, max_memory_mb, folder, options, find_perf_analyzer(), again, progress.told, max_batch)
    winner: Candidate | None = None
    begin = time.monotonic()
    try:
        spaces = _spaces(bench, [model, *variants], max_instances, axes)
        result, chosen = _search(bench, bench.found[model].place, spaces, begin, keep)
        winner = chosen if keep and result.best else None
    except KeyboardInterrupt:
        progress.close(f"interrupted; {_kept(bench)}")
        raise
    except CourseError as error:
        progress.close("stopped")
        if isinstance(error, InputError) or not bench.rows:
            raise
        raise RequestError(
            f"The search stopped at {bench.at}: {error.happened}", f"{_kept(bench)}.", error.todo or error.expected
        ) from error
    finally:
        _put_back(bench, winner)
    progress.close(f"{len(bench.rows)} measurements in {shown(bench.path)}")
    return result


def _check(server: Any, batch: int, concurrency: int | None, rate: float | None, budget: float | None, *limits: float | None) -> None:
    if not getattr(server, "admin_headers", lambda _: {})("http"):
        raise ModelError(
            "Only the owner of a server can search for a configuration, because models are loaded anew for it.",
            "You are connected to it, but you did not launch it.",
            'Type: server = launch_server("models")',
        )
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
        data = bench.options["input_data"]
        own = data.get(name, "random") if isinstance(data, Mapping) else data
        # Asks for the shapes as well: better now than in the middle of the search.
        run_for(
            bench.server, name, batch=traffic.batch, lengths=bench.options["lengths"], input_data=own, protocol=bench.options["protocol"]
        )
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
    connection = Connection(bench.server, bench.options["protocol"], settings.QUERY_TIMEOUT_S, settings.RETRIES)
    try:
        one, other = connection.signature(first), connection.signature(name)
    finally:
        connection.close()
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
    ranked = tune_report.standings(finals, goal)
    if not ranked:
        raise tune_report.nobody_left(bench.rows)
    winner, found = ranked[0], next((each for each in ranked if each.candidate == start), None)
    row, meets = winner.row(), winner.within() is not False and goal.within(winner.row()) and goal.served(winner.row())
    against = (tune_report.compared(found, winner), tune_report.compared(ranked[1], winner) if len(ranked) > 1 else None)
    config_path, text = None, []
    if meets:
        next_is_found = len(ranked) > 1 and ranked[1].candidate == start
        text = tune_report.sentences(winner, against[0], None if next_is_found else against[1], winner.candidate == start)
        config_path = _write(bench, winner)
        text.append(f"Its configuration is in {shown(config_path)}{', and the server runs it' if keep else ', to copy into its folder'}.")
    else:
        text = tune_report.nothing_meets(winner, goal)
    combinations = sum(len({*axes.candidates(model)}) for model, axes in spaces.items())
    seconds = time.monotonic() - begin
    tried = f"Tried: {len(search.rows)} combinations of {combinations}, with {goal.traffic}"
    earlier = f" ({bench.before} of them by an earlier call)" if bench.before else ""
    text.append(f"{tried}; {len(bench.rows)} measurements{earlier} in {seconds:.0f} s.")
    text.append(f"It stopped because no step from the best one was left that promised anything, and {reason}.")
    text += [f"Left out: {' '.join(search.steps)}"] if search.steps else []
    text += tune_report.rejected(ranked) + tune_report.out_of_the_race(bench.rows)
    result = Tuned(
        bench.rows, row if meets else None, None if meets else row, config_path, *against, tuple(text), bench.path, seconds, bench.before
    )
    return result, winner.candidate


def _write(bench: Workbench, winner: tune_report.Standing) -> Path:
    found: Found = bench.found[winner.candidate.model]
    path = bench.folder / found.model / "config.pbtxt"
    budget = f", p{bench.goal.percentile} ≤ {bench.goal.budget_ms:g} ms" if bench.goal.budget_ms else ""
    remark = f"Found by a search for {bench.goal.traffic}{budget}:\n{winner.candidate}: {winner.words()}, on {winner.rows[0]['cpu']}."
    config = found.config_for(winner.candidate, bench.goal.traffic)
    write_winner(path, winner_text(config, bench.server.repository, found.model, remark))
    return path


def _put_back(bench: Workbench, winner: Candidate | None) -> None:
    """The server as it was, also when somebody has no patience; a server that has died has nothing to put back."""
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
