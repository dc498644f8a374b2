"""What is measured. Each case is a function that takes the number of rounds and whether it is a trial in seconds, and yields results.

The docstring of a case is its paragraph in the report.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.compare import Result, Yardstick, figure, in_turn, ratio
from helpers import Client, jets, launch_fleet, launch_server, paths, repository
from helpers.measuring import input_files
from helpers.measuring.perf_analyzer import Run, execute
from helpers.physics.tracks import load_events
from helpers.server import Server

# Away from the ports of a course that runs on the same machine.
BASE_PORT = 12000
AK4, AK4_PT = "particlenet_AK4", "particlenet_AK4_PT"
# Candidates and vertices of every jet that perf_analyzer sends, as in the course text, and how many jets.
LENGTHS, JETS = {"candidates": 50, "vertices": 4}, 200
# Seconds of each slice of a yardstick, and perf_analyzer's windows, of which three are one measurement; they need not agree.
SLICE_S, WINDOW_MS = 0.7, 500
# One instance with one thread and no batching, as the process without a server.
_THREADS = ("intra_op_thread_count", "inter_op_thread_count", "INTRA_OP_THREAD_COUNT", "INTER_OP_THREAD_COUNT")
ALONE = "instance_group { kind: KIND_CPU count: 1 }\n"
ALONE += "".join(f'parameters {{ key: "{name}" value {{ string_value: "1" }} }}\n' for name in _THREADS)

Results = Iterator[Result]
Case = Callable[[int, bool], Results]


def embedded(rounds: int, trial: bool) -> Results:
    """One instance with one thread over the same network in one process.

    The process works on one thread, with the same real jets. perf_analyzer keeps four requests under way over gRPC. Server, model and
    perf_analyzer share two cores. Of each request about 0.3 ms go, one after the other, to tritonserver's exchange with the process of the
    Python-based backend (seen with `perf`): at batch 1 that is 40 % of a jet's time.
    """
    models = {"ONNX": AK4} if trial else {"ONNX": AK4, "TorchScript": AK4_PT}
    with tempfile.TemporaryDirectory() as name:
        folder = one_thread(Path(name) / "models", *models.values())
        with launch_server(folder, load=[*models.values()], base_port=BASE_PORT, name="bench-embedded") as server:
            for kind, model in models.items():
                inputs, arrays = real_jets(server, model, Path(name))
                with Yardstick("network", file_of(model), arrays) as alone:
                    for batch in (1,) if trial else (1, 8, 32):
                        ours, theirs = in_turn(
                            rounds,
                            lambda model=model, batch=batch, inputs=inputs: load(server.grpc_url, model, batch, 4, inputs)[0],
                            lambda batch=batch, alone=alone: alone.ask(batch=batch, seconds=SLICE_S)["per_s"],
                        )
                        yield ratio("embedded", f"{kind}, batch {batch}", ours, theirs, f"≥ {0.8 if batch == 1 else 0.97}", " jets/s")


def whole_machine(rounds: int, trial: bool) -> Results:
    """The server as the course has it, over the same network in one process for each core, all at once.

    The server has its default instances and batching; both get the same real jets. perf_analyzer keeps four requests for each core under
    way over gRPC.
    """
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        server = stack.enter_context(launch_server("models", load=[AK4], base_port=BASE_PORT, name="bench-machine"))
        inputs, arrays = real_jets(server, AK4, Path(name))
        sticks = [stack.enter_context(Yardstick("network", file_of(AK4), arrays)) for _ in range(cores)]

        def alone(batch: int) -> float:
            for stick in sticks:
                stick.begin(batch=batch, seconds=SLICE_S)
            return float(sum(stick.answer()["per_s"] for stick in sticks))

        for batch, goal in ((1, 0.75),) if trial else ((1, 0.75), (8, 0.9)):
            ours, theirs = in_turn(
                rounds, lambda batch=batch: load(server.grpc_url, AK4, batch, 4 * cores, inputs)[0], lambda batch=batch: alone(batch)
            )
            yield ratio("whole machine", f"ONNX, batch {batch}, {cores} cores", ours, theirs, f"≥ {goal}", " jets/s")


def tracks(rounds: int, trial: bool) -> Results:
    """All five stages of ExaTrk on the shipped events, over the same stages in one process.

    Once as an ensemble, once as a model that calls the others (BLS). Every event goes to all in turn; of each the shortest time of all
    rounds counts.
    """
    with (
        launch_server("models", load=["ExaTrk", "ExaTrk_bls"], base_port=BASE_PORT, name="bench-tracks") as server,
        Client(server) as one,
        tempfile.TemporaryDirectory() as name,
    ):
        given = [
            json.dumps({key: value["string_value"] for key, value in server.config(model)["parameters"].items()})
            for model in ("ExaTrk_graph", "ExaTrk_tracks")
        ]
        with Yardstick("tracks", paths.models_dir(), *given) as stick:
            for sample, pile_up, limit in (("without pile-up", False, 20), ("with pile-up", True, 130)):
                events = load_events(pile_up=pile_up)[: 1 if trial else None]
                times = np.full((3, len(events)), np.inf)
                for number in range(rounds + 1):  # the first round warms
                    for index, event in enumerate(events):
                        file = Path(name) / f"{index}.npy"
                        np.save(file, event.features)
                        answer = stick.ask(file=str(file))
                        took = [answer["ms"], *(_labels_ms(one, model, event.features, answer) for model in ("ExaTrk", "ExaTrk_bls"))]
                        if number:
                            times[:, index] = np.minimum(times[:, index], took)
                alone, ensemble, bls = times
                yield ratio("tracks", f"ensemble, {sample}", ensemble, alone, "≤ 1.15", " ms")
                yield ratio("tracks", f"BLS, {sample}", bls, alone, "", " ms")
                yield Result("tracks", f"an event, {sample}", float(np.median(ensemble)), None, "ms", f"≤ {limit}")


def fleet(rounds: int, trial: bool) -> Results:
    """Two servers behind Envoy, and one behind Envoy, over one without it; one instance with one thread on each server."""
    with tempfile.TemporaryDirectory() as name:
        folder = one_thread(Path(name) / "models", AK4)
        with (
            launch_fleet(folder, servers=1, load=[AK4], base_port=BASE_PORT, name="bench-one") as one,
            launch_fleet(folder, servers=2, load=[AK4], base_port=BASE_PORT, name="bench-two") as two,
        ):
            inputs, _ = real_jets(one.servers[0], AK4, Path(name))
            places = (one.servers[0].grpc_url, one.grpc_url, two.grpc_url)
            for batch, concurrency in ((8, 4),) if trial else ((8, 4), (1, 1)):
                found = in_turn(rounds, *(partial(load, url, AK4, batch, concurrency, inputs) for url in places))
                direct, behind, both = ([rate for rate, _ in way] for way in found)
                words, busy = f"batch {batch}, {concurrency} under way", concurrency > 1
                yield ratio("fleet", f"two servers behind Envoy, {words}", both, direct, "≥ 1.7" if busy else "", " jets/s")
                yield ratio("fleet", f"one server behind Envoy, {words}", behind, direct, "≥ 0.95" if busy else "", " jets/s")
                added = [after - before for (_, before), (_, after) in zip(*found[:2], strict=True)]
                yield figure("fleet", f"Envoy adds to the median latency, {words}", added, "ms", "≤ 0.5")


CASES: dict[str, Case] = {each.__name__: each for each in (embedded, whole_machine, tracks, fleet)}


# --- what cases share ------------------------------------------------------------------------------------------------------


def load(url: str, model: str, batch: int, concurrency: int, inputs: Path) -> tuple[float, float]:
    """Return inferences per second and the median latency in ms that perf_analyzer measures, always over three windows."""
    found = execute(Run(model, url, batch=batch, concurrency=concurrency, input_data=inputs, window_ms=WINDOW_MS)).figures
    rate, p50_us = found.get("throughput_infer_per_s"), found.get("latency_p50_us")
    if not rate or not p50_us:
        raise RuntimeError(f"{model}, batch {batch}: no request ended within {WINDOW_MS} ms")
    return rate, p50_us / 1000


def real_jets(server: Server, model: str, place: Path) -> tuple[Path, Path]:
    """Write jets of the course as perf_analyzer reads them, and the same as arrays for a yardstick; return both files."""
    with Client(server) as one:
        tagger = jets.Tagger(one, model)
        tensors = tagger.inputs(jets.read(jets.sample_for(tagger))[:JETS], **LENGTHS)
    np.savez(place / f"{model}.npz", **tensors)
    return input_files.write(place / f"{model}.json", tensors), place / f"{model}.npz"


def one_thread(folder: Path, *models: str) -> Path:
    """Copies of the course's models, each with one instance and one thread."""
    for model in models:
        copy = shutil.copytree(paths.models_dir() / model, folder / model)
        repository.change_config(copy, ALONE, dynamic_batching=None, model_warmup=None)
    return folder


def file_of(model: str) -> Path:
    """The network's file."""
    return next((paths.models_dir() / model / "1").glob("model.*"))


def _labels_ms(one: Client, model: str, features: np.ndarray, expected: Mapping[str, Any]) -> float:
    began = time.perf_counter()
    labels = one.infer(model, FEATURES=features)["LABELS"]
    took_ms = 1000 * (time.perf_counter() - began)
    assert zlib.crc32(labels.tobytes()) == expected["checksum"], "all ways must give the same labels"
    return took_ms
