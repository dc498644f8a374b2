"""The course's path without a browser: a server, requests over both protocols, its own counters, a picture.

``make demo`` leaves a page, a picture and a log in ``work/demo/``. Every number in them comes from the server that it
launched, or from a clock beside it.
"""

from __future__ import annotations

import platform
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from helpers import demo_measure, demo_page, machine, settings
from helpers.client import Client
from helpers.client.transport import Refused
from helpers.errors import CourseError
from helpers.files import make_folder, shown, writing
from helpers.launch import ModelWarning, launch_server
from helpers.metrics import Difference, scrape
from helpers.physics import tracks
from helpers.physics.jets import is_tagger
from helpers.server import Server
from helpers.tables import as_text

PROTOCOLS = ("grpc", "http")


@dataclass
class Record:
    """What a demo saw.

    Attributes:
        machine: device, system and versions.
        ready_s: seconds until every model was READY or had failed.
        models: one row for each model: model, state, reason.
        requests: one row for each model and protocol, latencies in µs as the client saw them.
        latencies_us: (model, protocol) -> every latency, in µs.
        counted: what the server counted meanwhile.
        sent: model -> requests that got an answer.
        problems: what went wrong, one sentence each.
        notes: what is worth a word, one sentence each.
        measured: rows of the short measurement with perf_analyzer.
        figure: of them, as PNG.
    """

    machine: str = ""
    ready_s: float = 0.0
    models: list[dict[str, Any]] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    latencies_us: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    counted: Difference | None = None
    sent: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    measured: list[dict[str, Any]] = field(default_factory=list)
    figure: bytes = b""


def run() -> int:
    """Go the whole path.

    Returns:
        0, or 1 when a model did not answer, answered wrongly, or the server counted something else than was sent.

    Raises:
        CourseError: the server did not start, or ``work/demo`` cannot be written.
    """
    began = time.monotonic()
    folder = settings.work_dir() / "demo"
    with writing(folder):
        make_folder(folder)
        log = demo_page.Log(folder / "log.txt")
    record = Record(machine=f"{machine.device()}; {platform.platform()}; Python {platform.python_version()}")
    log.say("1. Launch a server with the course's models")
    with warnings.catch_warnings():
        # The table of models says which failed, and why.
        warnings.simplefilter("ignore", ModelWarning)
        server = launch_server("models", name="demo")
    with server:
        _look(server, record, log, time.monotonic() - began)
        log.say("2. Read its counters, send requests to every model over gRPC and HTTP, read them again")
        before = scrape(server)
        for model in (row["model"] for row in record.models if row["state"] == "READY"):
            _ask(server, model, record, log)
        record.counted = scrape(server) - before
        log.say("", "What the client saw:", as_text(record.requests), "")
        columns = ["model", "requests", "failures", "request_us", "queue_us", "compute_input_us", "compute_infer_us", "compute_output_us"]
        log.say("What the server counted, with means per request:", as_text(record.counted.requests, columns), "")
        _measure(server, record, log, folder)
    _compare(record)
    with writing(folder):
        page = demo_page.write(record, folder)
    log.say(*(f"Note: {note}" for note in record.notes), *(f"PROBLEM: {problem}" for problem in record.problems))
    log.say(f"Done in {time.monotonic() - began:.0f} s. Open {shown(page)}")
    return 1 if record.problems else 0


def _look(server: Server, record: Record, log: demo_page.Log, seconds: float) -> None:
    record.ready_s = seconds
    record.models = [{"model": m.name, "version": m.version, "state": m.state, "reason": m.reason} for m in server.models()]
    log.say(
        f"   ready after {seconds:.1f} s at {server.http_url} (HTTP), {server.grpc_url} (gRPC), {server.metrics_url}",
        as_text(record.models),
        "",
    )
    if not any(row["state"] == "READY" for row in record.models):
        record.problems.append("No model is READY; python -m helpers doctor looks for the reason.")


def _measure(server: Server, record: Record, log: demo_page.Log, folder: Path) -> None:
    """A short measurement; where no perf_analyzer runs, a note takes its place."""
    log.say("3. Measure: throughput and latency of two taggers at two batch sizes, with perf_analyzer")
    try:
        found = demo_measure.measure(server, [row["model"] for row in record.models if row["state"] == "READY"], folder)
    except CourseError as error:
        record.notes.append(f"Nothing was measured with perf_analyzer: {error}")
        return
    if found is not None:
        record.measured, record.figure = found[0].rows, found[1]
        log.say(repr(found[0]), "")


def _ask(server: Server, model: str, record: Record, log: demo_page.Log) -> None:
    """Requests of one model over both protocols, one after the other: each needs the whole of a small machine."""
    for protocol in PROTOCOLS:
        try:
            with Client(server, protocol) as client:
                inputs = _inputs(client, model)
                # The first request of a shape may compile; it is answered, but no measurement.
                answer, latencies = client.infer(model, inputs), []
                record.sent[model] = record.sent.get(model, 0) + 1
                end = time.monotonic() + settings.DEMO_MODEL_S
                while len(latencies) < settings.DEMO_REQUESTS and time.monotonic() < end:
                    start = time.perf_counter()
                    answer = client.infer(model, inputs)
                    latencies.append((time.perf_counter() - start) * 1e6)
                    record.sent[model] += 1
        except CourseError as error:
            # A model may know that made-up numbers are no event or jet, and say so: that is an answer of its own.
            refused = isinstance(error.__cause__, Refused) and error.__cause__.reason == "inputs"
            if not refused:
                record.problems.append(f"{model} over {protocol}: {error}")
            elif protocol == PROTOCOLS[0]:
                record.notes.append(f"{model} refused made-up inputs: {error}")
            log.say(f"   {model} over {protocol}: {'refused made-up inputs' if refused else 'failed'}")
            continue
        record.problems += _wrong(model, protocol, inputs, answer)
        record.latencies_us[model, protocol] = latencies
        p50, p95 = np.percentile(latencies or [0.0], [50, 95])
        row = {
            "model": model,
            "protocol": protocol,
            "requests": len(latencies) + 1,
            "latency_p50_us": round(p50),
            "latency_p95_us": round(p95),
        }
        record.requests.append(row)
        outputs = ", ".join(f"{name} {list(array.shape)}" for name, array in answer.items())
        log.say(f"   {model} over {protocol}: {len(latencies) + 1} requests, answer {outputs}")


def _inputs(client: Client, model: str) -> dict[str, np.ndarray]:
    """A request for a model: jets or hits from the course's samples where it takes such, made-up numbers for others."""
    if is_tagger(client.metadata(model)):
        # Here, not above: reading jets takes packages that take a second to import.
        from helpers.physics import jets

        tagger = jets.Tagger(client, model)
        return tagger.inputs(jets.read(jets.sample_for(tagger))[: settings.DEMO_JETS])
    if model in tracks.STAGES:
        return tracks.inputs_of_stage(client, model, tracks.load_events()[0].features)
    inputs = client.example(model)
    if "FEATURES" in inputs:
        inputs["FEATURES"] = tracks.load_events()[0].features
    return inputs


def _wrong(model: str, protocol: str, inputs: dict[str, np.ndarray], answer: dict[str, np.ndarray]) -> list[str]:
    """What is wrong with an answer: the sum and the difference can be checked here, others must be finite."""
    if set(inputs) == {"INPUT0", "INPUT1"}:
        expected = {"OUTPUT0": inputs["INPUT0"] + inputs["INPUT1"], "OUTPUT1": inputs["INPUT0"] - inputs["INPUT1"]}
        right = all(np.array_equal(answer[name], array) for name, array in expected.items())
    else:
        right = all(array.size and np.isfinite(array).all() for array in answer.values() if array.dtype.kind == "f")
    return [] if right else [f"{model} over {protocol} gave a wrong answer."]


def _compare(record: Record) -> None:
    """Every request that was answered must stand in the server's own counters; models that others call have more there."""
    for model, sent in record.sent.items():
        seen = int(record.counted.value("nv_inference_request_success", model=model)) if record.counted else 0
        if seen < sent:
            record.problems.append(f"{sent} requests to {model} were answered, and the server counted only {seen}.")
