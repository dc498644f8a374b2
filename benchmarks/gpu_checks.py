"""What the check list of a machine with a GPU looks at, step by step; :mod:`benchmarks.gpu` goes through it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from helpers import jets
from helpers.client import Client
from helpers.errors import CourseError
from helpers.measuring import measure
from helpers.measuring.measure import about, row_of, sweep
from helpers.measuring.perf_analyzer import execute, run_for
from helpers.measuring.program import find_perf_analyzer
from helpers.measuring.table import rows_of
from helpers.metrics.gpu import gpu_figures, placed_on
from helpers.metrics.load import BackgroundLoad
from helpers.server import Server
from helpers.tables import as_text

# The model of the course text, and the taggers whose answers on both devices are compared.
MODEL = "particlenet_PT"
TAGGERS = (MODEL, "particlenet_AK4_PT", "particlenet", "particlenet_AK4")
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
# The other PyTorch tagger, with fewer points; and single jets from many clients, which the server puts together.
OTHER, OTHER_BATCHES = "particlenet_AK4_PT", (1, 8, 32, 128)
CLIENTS = (4, 16, 64)
# Seconds for a point of the first table: a GPU's clock follows its load, so that short windows differ by a tenth.
POINT_S = 12.0
# Probabilities on GPU and CPU may differ by this much: other kernels add in another order, and TF32 rounds.
TOLERANCE = 1e-3
# The command of the course text: ten jets in a request, windows of nine seconds.
TEXT_BATCH, TEXT_WINDOW_MS = 10, 9000
MARKS = {True: "✔", False: "✖", None: "–"}


@dataclass(frozen=True)
class Check:
    """One line of the list: what was looked at, whether it is as it should be (None: not looked at), and the figures or the reason."""

    name: str
    good: bool | None
    words: str

    def __str__(self) -> str:
        return f"{MARKS[self.good]} {self.name}: {self.words}"


@dataclass
class Trial:
    """The list under way.

    Attributes:
        server: serves the taggers.
        device: ``gpu`` or ``cpu``.
        name: of the device, as the rows have it.
        quick: tiny sizes, for a rehearsal.
        folder: for what the sweep writes.
        providers: what the server's ONNX Runtime can use.
        rows: what was measured.
    """

    server: Server
    device: str
    name: str
    quick: bool
    folder: Path
    providers: Sequence[str]
    rows: list[dict[str, Any]] = field(default_factory=list)


def placement(trial: Trial) -> Check:
    """Every model runs where it should: PyTorch's on the GPU, ONNX Runtime's too if it was built for that."""
    log, places, wrong = trial.server.log(lines=0), [], []
    for state in trial.server.models():
        if state.state != "READY":
            continue
        place = placed_on(log, state.name)
        torch = state.name.endswith("_PT")
        expected = "GPU" if trial.device == "gpu" and (torch or "CUDAExecutionProvider" in trial.providers) else "CPU"
        places.append(f"{state.name} {place}")
        wrong += [state.name] if place != expected else []
    words = ", ".join(places)
    if trial.device == "gpu" and "CUDAExecutionProvider" not in trial.providers:
        words += " (this ONNX Runtime was built without CUDA)"
    return Check("models run on the device", bool(places) and not wrong, words)


def equal_answers(trial: Trial, model: str) -> Check:
    """The same jets on the device and on the processor: the model is loaded again with instances there, and put back."""
    config, name = trial.server.config(model), f"{model} equals itself on the CPU"
    with Client(trial.server) as client:
        tagger = jets.Tagger(client, model)
        sample = jets.read(jets.sample_for(tagger))[: 4 if trial.quick else 200]
        ours = tagger.tag(sample).probabilities
        trial.server.load(model, config={**config, "instance_group": [{"count": 1, "kind": "KIND_CPU"}]})
        try:
            if placed_on(trial.server.log(lines=0), model) != "CPU":
                return Check(name, False, "it did not move to the CPU")
            theirs = tagger.tag(sample).probabilities
        finally:
            trial.server.load(model, config=config)
    largest = float(np.abs(ours - theirs).max())
    return Check(name, largest <= TOLERANCE, f"{len(sample)} jets, largest difference of a probability {largest:.1e} (limit {TOLERANCE:g})")


def throughput(trial: Trial, model: str, batches: Sequence[int]) -> Check:
    """A tagger over batch sizes."""
    rows = _swept(trial, model, batches[:2] if trial.quick else batches, (1,), POINT_S if model == MODEL else measure.POINT_S)
    return Check(f"throughput of {model}", all(row["throughput_infer_per_s"] for row in rows), f"{len(rows)} batch sizes\n{_shown(rows)}")


def many_clients(trial: Trial) -> Check:
    """Single jets, more and more requests at once: the course text's model is configured to put them together."""
    rows = _swept(trial, MODEL, (1,), CLIENTS[:1] if trial.quick else CLIENTS, measure.POINT_S)
    return Check("single jets from many clients", all(row["throughput_infer_per_s"] for row in rows), f"{MODEL}\n{_shown(rows)}")


def _swept(trial: Trial, model: str, batches: Sequence[int], concurrencies: Sequence[int], seconds: float) -> list[dict[str, Any]]:
    options: dict[str, Any] = {"windows": 3, "precision": 0.9} if trial.quick else {"max_seconds": seconds}
    rows = rows_of(sweep(trial.server, model, batches, concurrencies, output=trial.folder, again=True, silent=True, **options))
    trial.rows += rows
    return rows


def _shown(rows: Sequence[dict[str, Any]]) -> str:
    columns = ("batch", "concurrency", "throughput_infer_per_s", "throughput_spread_infer_per_s", "latency_p95_us")
    return as_text([{name: row[name] for name in columns} for row in rows])


def text_command(trial: Trial) -> Check:
    """The very command of the course text, with its own rule of when a measurement is stable."""
    run = run_for(trial.server, MODEL, batch=TEXT_BATCH, window_ms=TEXT_WINDOW_MS)
    if trial.quick:
        # Three short windows, whatever they say.
        run = replace(run, window_ms=400, max_trials=3, stability_percent=1e6)
    program = find_perf_analyzer()
    result = execute(run, program, trial.server)
    if not result.figures:
        return Check("the course text's command", None if trial.quick else False, f"its windows did not agree, so it gave no table: {run}")
    # The tool's figures are of its last three windows.
    row = row_of(run, [replace(result, windows=result.windows[-3:])]) | about(trial.server, MODEL)[0]
    row |= {"stable": True, "note": "", "perf_analyzer_version": program.version}
    trial.rows.append(row)
    figures = f"{row['throughput_infer_per_s']:.1f} infer/s, p95 {row['latency_p95_us'] / 1000:.2f} ms"
    return Check("the course text's command", True, f"{figures}: {run}")


def figures_under_load(trial: Trial) -> Check:
    """What the GPU's own figures say while the model works."""
    with BackgroundLoad(trial.server, MODEL, batch=2 if trial.quick else 16, concurrency=2) as load:
        # Triton reads the GPU every two seconds.
        time.sleep(0.5 if trial.quick else 5)
        figures = gpu_figures(trial.server)
    if load.failed:
        return Check("GPU figures under load", False, f"{load.failed} of {load.sent} requests failed: {next(iter(load.errors))}")
    if trial.device == "cpu":
        return Check("GPU figures under load", None, f"not looked at on a processor; {load.sent} requests were answered")
    busy = any((row["utilization"] or 0) > 0 for row in figures)
    return Check("GPU figures under load", busy, f"{load.sent} requests\n{figures!r}")


def steps() -> list[tuple[str, Callable[[Trial], Check]]]:
    """The list, in its order: what each looks at, and how."""
    compare = [(f"{model} equals itself on the CPU", lambda trial, model=model: equal_answers(trial, model)) for model in TAGGERS]
    return [
        ("models run on the device", placement),
        *compare,
        (f"throughput of {MODEL}", lambda trial: throughput(trial, MODEL, BATCHES)),
        (f"throughput of {OTHER}", lambda trial: throughput(trial, OTHER, OTHER_BATCHES)),
        ("single jets from many clients", many_clients),
        ("the course text's command", text_command),
        ("GPU figures under load", figures_under_load),
    ]


def go_through(trial: Trial) -> Iterator[Check]:
    """The lines of the list; one that cannot be done is a fault, and the next is tried all the same."""
    loaded = set(trial.server.spec.load)
    for name, step in steps():
        if set(name.split()) & (set(TAGGERS) - loaded):
            yield Check(name, None, "not part of this rehearsal")
            continue
        try:
            yield step(trial)
        except CourseError as error:
            yield Check(name, False, str(error))
