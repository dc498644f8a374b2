"""What is measured. Each case is a function that takes the number of rounds and whether it is a trial in seconds, and yields results.

The docstring of a case is its paragraph in the report, and ``WHY`` says what was seen about goals that are missed.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.compare import Result, Yardstick, figure, in_turn, ratio
from helpers import Client, jets, launch_fleet, launch_server, paths, repository, taus
from helpers.measuring.inputs import write_inputs
from helpers.measuring.perf_analyzer import Run, execute, result_of
from helpers.measuring.program import find_perf_analyzer
from helpers.server import Server

# Away from the ports of a course that runs on the same machine.
BASE_PORT = 12000
AK4, AK4_PT, AK8 = "particlenet_AK4", "particlenet_AK4_PT", "particlenet"
# Candidates and vertices of every jet that perf_analyzer sends, as in the course text.
LENGTHS = {"candidates": 50, "vertices": 4}
# Seconds of each slice of a yardstick, and perf_analyzer's windows, of which three are one measurement; they need not agree.
SLICE_S, WINDOW_MS = 0.7, 500
ANY_THREE: dict[str, Any] = {"max_trials": 3, "stability_percent": 1e6}
# One instance with one thread and no batching, as the process without a server.
_THREADS = ("intra_op_thread_count", "inter_op_thread_count", "INTRA_OP_THREAD_COUNT", "INTER_OP_THREAD_COUNT")
ALONE = "instance_group { kind: KIND_CPU count: 1 }\n"
ALONE += "".join(f'parameters {{ key: "{name}" value {{ string_value: "1" }} }}\n' for name in _THREADS)

Results = Iterator[Result]
Case = Callable[[int, bool], Results]


def embedded(rounds: int, trial: bool) -> Results:
    """One instance with one thread over the same network in one process.

    The process works on one thread, with the same real jets. perf_analyzer keeps four requests under way over gRPC.
    """
    models = {"ONNX": AK4} if trial else {"ONNX": AK4, "TorchScript": AK4_PT}
    with tempfile.TemporaryDirectory() as name:
        folder = _repository(Path(name) / "models", *models.values())
        with launch_server(folder, load=[*models.values()], base_port=BASE_PORT, name="bench-embedded") as server:
            for kind, model in models.items():
                inputs, arrays = real_jets(server, model, Path(name))
                with Yardstick("network", _file(model), arrays) as alone:
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
        sticks = [stack.enter_context(Yardstick("network", _file(AK4), arrays)) for _ in range(cores)]

        def alone(batch: int) -> float:
            for stick in sticks:
                stick.begin(batch=batch, seconds=SLICE_S)
            return float(sum(stick.answer()["per_s"] for stick in sticks))

        for batch, goal in ((1, 0.75), (8, 0.9)):
            ours, theirs = in_turn(
                rounds, lambda batch=batch: load(server.grpc_url, AK4, batch, 4 * cores, inputs)[0], lambda batch=batch: alone(batch)
            )
            yield ratio("whole machine", f"ONNX, batch {batch}, {cores} cores", ours, theirs, f"≥ {goal}", " jets/s")


def large(rounds: int, trial: bool) -> Results:
    """DeepTau, whose inputs are 423 kB for a tau: one instance with one thread over the same network in one process.

    The process works on one thread, with the same real taus. perf_analyzer keeps four requests under way over gRPC, or puts the tensors
    into shared memory once and names them in each request. The memory is the most that the server had meanwhile.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = _repository(Path(name) / "models", taus.MODEL)
        tensors = taus.tensors(taus.read().take(range(20 if trial else 100)))
        inputs, arrays = _as_files(Path(name), taus.MODEL, tensors)
        with (
            launch_server(folder, load=[taus.MODEL], base_port=BASE_PORT, name="bench-large") as server,
            Yardstick("network", _file(taus.MODEL), arrays) as alone,
        ):
            for batch in (10,) if trial else (1, 10, 100):
                # A request of a hundred waits for three others, each of which takes half a second.
                window_ms = WINDOW_MS + 30 * batch
                run = Run(taus.MODEL, server.grpc_url, batch=batch, concurrency=4, input_data=inputs, window_ms=window_ms, **ANY_THREE)

                def in_process(batch: int = batch, seconds: float = 1e-3 * window_ms) -> float:
                    return float(alone.ask(batch=batch, seconds=seconds)["per_s"])

                with _Memory(server) as memory:
                    ways = [lambda run=run: _rate(run), lambda run=run: _rate(run, server), in_process]
                    grpc, shared, theirs = in_turn(rounds, *ways)
                goals = ("≥ 0.9", "≥ 0.97") if batch >= 10 else ("", "")
                yield ratio("large", f"gRPC, batch {batch}", grpc, theirs, goals[0], " taus/s")
                yield ratio("large", f"shared memory, batch {batch}", shared, theirs, goals[1], " taus/s")
                yield Result("large", f"memory of the server, batch {batch}", memory.most_mb, unit="MB")


def start(rounds: int, trial: bool) -> Results:
    """What a start takes, and the memory of a server with one instance each of two taggers.

    READY is from the call of `launch_server`. Pages of memory that processes share are counted once.
    """
    for what, code in {"import helpers": ["-c", "import helpers"], "python -m helpers --help": ["-m", "helpers", "--help"]}.items():
        command = [sys.executable, *code]
        yield figure("start", what, [_seconds(lambda command=command: _run(command)) for _ in range(rounds)], "s")
    for what, names, goal in (("add_sub READY", ["add_sub"], "≤ 3"), ("all models READY", None, "")):
        if names or not trial:
            yield figure("start", what, [_ready_s(names) for _ in range(rounds if names else min(rounds, 2))], "s", goal)
    if not trial:
        with tempfile.TemporaryDirectory() as name:
            folder = _repository(Path(name), AK4, AK4_PT)
            with launch_server(folder, load=[AK4, AK4_PT], base_port=BASE_PORT, name="bench-memory") as server:
                yield figure("start", "memory with two taggers", [_memory_mb(server)], "MB")


def client(rounds: int, trial: bool) -> Results:
    """Requests of the course's `Client` to `add_sub`, one after the other."""
    arrays = {name: np.ones(16, np.float32) for name in ("INPUT0", "INPUT1")}
    number = 20 if trial else 300
    with launch_server("models", load=["add_sub"], base_port=BASE_PORT, name="bench-client") as server:
        for protocol in ("grpc", "http"):
            with Client(server, protocol) as one:
                rates = [number / _seconds(lambda one=one: [one.infer("add_sub", arrays) for _ in range(number)]) for _ in range(rounds)]
            yield figure("client", f"add_sub over {protocol}", rates, "requests/s")


def tagging(rounds: int, trial: bool) -> Results:
    """Jets from ROOT file to scores, through a server of one instance with one thread, over one process without a server.

    The client of the server reads and pads while the network works; the process does one after the other.
    """
    samples = {AK4: ("ak4", 100)} if trial else {AK4: ("ak4", 2000), AK8: ("ak8", 300)}
    python = paths.server_env() / "bin" / "python"
    packages = subprocess.check_output([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True).strip()
    with tempfile.TemporaryDirectory() as name:
        folder = _repository(Path(name), *samples)
        with launch_server(folder, load=list(samples), base_port=BASE_PORT, name="bench-jets") as server, Client(server) as one:
            for model, (sample, n_jets) in samples.items():
                tagger = jets.Tagger(one, model)
                squares: set[float] = set()

                def served(batch: int, tagger: Any = tagger, sample: str = sample, n_jets: int = n_jets, seen: set = squares) -> float:
                    begin = time.perf_counter()
                    scores = tagger.tag(jets.read(sample)[:n_jets], batch=batch)
                    seconds = time.perf_counter() - begin
                    seen.add(round(float(np.square(scores.probabilities, dtype=np.float64).sum()), 1))
                    return n_jets / seconds

                with Yardstick("jets", packages, paths.models_dir() / model, sample, n_jets, python=sys.executable) as stick:

                    def alone(batch: int, stick: Yardstick = stick, n_jets: int = n_jets, seen: set = squares) -> float:
                        answer = stick.ask(batch=batch)
                        seen.add(round(answer["squares"], 1))
                        return float(n_jets / answer["seconds"])

                    served(50), alone(50)  # warm
                    for batch in (16,) if trial else (1, 16, 50):
                        ours, theirs = in_turn(
                            rounds, lambda batch=batch, way=served: way(batch), lambda batch=batch, way=alone: way(batch)
                        )
                        goal = "≥ 0.85" if batch >= 16 else ""
                        yield ratio("tagging", f"{model}, batch {batch}", ours, theirs, goal, " jets/s")
                assert max(squares) - min(squares) < 1, "both ways must give the same scores"


def tracks(rounds: int, trial: bool) -> Results:
    """All five stages of ExaTrk on the shipped events, over the same stages in one process.

    Once as an ensemble, once as a model that calls the others (BLS). Every event goes to all in turn; of each the shortest time of all
    rounds counts.
    """
    from helpers.physics.tracks import load_events

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
        folder = _repository(Path(name) / "models", AK4)
        with (
            launch_fleet(folder, servers=1, load=[AK4], base_port=BASE_PORT, name="bench-one") as one,
            launch_fleet(folder, servers=2, load=[AK4], base_port=BASE_PORT, name="bench-two") as two,
        ):
            inputs, _ = real_jets(one.servers[0], AK4, Path(name))
            places = (one.servers[0].grpc_url, one.grpc_url, two.grpc_url)
            for batch, concurrency in ((8, 4),) if trial else ((8, 4), (1, 1)):
                delays_ms: dict[str, list[float]] = {url: [] for url in places}

                def way(url: str, batch: int = batch, concurrency: int = concurrency, delays: dict = delays_ms) -> Callable[[], float]:
                    def measure() -> float:
                        rate, p50_ms = load(url, AK4, batch, concurrency, inputs)
                        delays[url].append(p50_ms)
                        return rate

                    return measure

                direct, behind, both = in_turn(rounds, *map(way, places))
                words, busy = f"batch {batch}, {concurrency} under way", concurrency > 1
                yield ratio("fleet", f"two servers behind Envoy, {words}", both, direct, "≥ 1.7" if busy else "", " jets/s")
                yield ratio("fleet", f"one server behind Envoy, {words}", behind, direct, "≥ 0.95" if busy else "", " jets/s")
                added = [after - before for before, after in zip(*(delays_ms[url] for url in places[:2]), strict=True)]
                yield figure("fleet", f"Envoy adds to the median latency, {words}", added, "ms", "≤ 0.5")


CASES: dict[str, Case] = {each.__name__: each for each in (embedded, whole_machine, large, start, client, tagging, tracks, fleet)}
WHY = {
    "embedded": "Server, model and `perf_analyzer` share two cores. Of each request about 0.3 ms go, one after the other, to "
    "tritonserver's exchange with the process of the Python-based backend (seen with `perf`): at batch 1 that is 40 % of a jet's time.",
    "large": "A tau is 423 kB and 1.8 ms of the network. Of each, tritonserver takes 0.8 to 1.0 ms of CPU over gRPC and the client 1.0 ms, "
    "which is copying and parsing; two cores do not hide it. By shared memory two copies are left, into the model's process and inside it.",
    "start": "Of the time until `add_sub` is READY, 1 s is a pause that Triton's Python backend makes whenever one of its processes ends, "
    "here the one that completes the config (seen with `strace`).",
}


# --- what cases share ------------------------------------------------------------------------------------------------------


def load(url: str, model: str, batch: int, concurrency: int, inputs: Path, window_ms: int = WINDOW_MS) -> tuple[float, float]:
    """Return inferences per second and the median latency in ms that perf_analyzer measures, always over three windows."""
    run = Run(model, url, batch=batch, concurrency=concurrency, input_data=inputs, window_ms=window_ms, **ANY_THREE)
    found = execute(run).figures
    rate, p50_us = found.get("throughput_infer_per_s"), found.get("latency_p50_us")
    if not rate or not p50_us:
        raise RuntimeError(f"{model}, batch {batch}: no request ended within {window_ms} ms")
    return rate, p50_us / 1000


def real_jets(server: Server, model: str, place: Path, n_jets: int = 200) -> tuple[Path, Path]:
    """Write jets of the course as perf_analyzer reads them, and the same as arrays for a yardstick; return both files."""
    with Client(server) as one:
        tagger = jets.Tagger(one, model)
        tensors = tagger.inputs(jets.read(jets.sample_for(tagger))[:n_jets], **LENGTHS)
    return _as_files(place, model, tensors)


def _as_files(place: Path, model: str, tensors: Mapping[str, np.ndarray]) -> tuple[Path, Path]:
    np.savez(place / f"{model}.npz", **tensors)
    entries = ({key: tensor[number] for key, tensor in tensors.items()} for number in range(len(next(iter(tensors.values())))))
    return write_inputs(place / f"{model}.json", entries), place / f"{model}.npz"


def _rate(run: Run, shared: Server | None = None) -> float:
    """Inferences per second of a run; with a server of one's own, with tensors in shared memory, for which it asks for its key."""
    words, private = [*run.arguments(), "-v"], []
    if shared is not None:
        words += ["--shared-memory", "system"]
        private = [word for name, value in shared.admin_headers(run.protocol).items() for word in ("-H", f"{name}:{value}")]
    done = find_perf_analyzer().run(*words, private=private)
    rates = [window.throughput_infer_per_s for window in result_of(done.stdout).windows]
    if not rates:
        raise RuntimeError(f"{run}: {done.stdout[-300:]}{done.stderr[-300:]}")
    return statistics.mean(rates)


def _memory_mb(server: Server) -> float:
    """Memory of all its processes, pages that they share counted once."""
    assert server.pid is not None
    owner = psutil.Process(server.pid)
    return sum(each.memory_full_info().pss / 1e6 for each in (owner, *owner.children(recursive=True)))


class _Memory(threading.Thread):
    """The most memory that a server had meanwhile."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self.server, self.done, self.most_mb = server, threading.Event(), 0.0

    def __enter__(self) -> _Memory:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.done.set()
        self.join()

    def run(self) -> None:
        """Look five times a second."""
        while not self.done.wait(0.2):
            self.most_mb = max(self.most_mb, _memory_mb(self.server))


def _repository(folder: Path, *models: str) -> Path:
    """Copies of the course's models, each with one instance and one thread."""
    for model in models:
        repository.change_config(
            shutil.copytree(paths.models_dir() / model, folder / model), ALONE, dynamic_batching=None, model_warmup=None
        )
    return folder


def _file(model: str) -> Path:
    return next((paths.models_dir() / model / "1").glob("model.*"))


def _labels_ms(one: Client, model: str, features: np.ndarray, expected: Mapping[str, Any]) -> float:
    began = time.perf_counter()
    labels = one.infer(model, FEATURES=features)["LABELS"]
    took_ms = 1000 * (time.perf_counter() - began)
    assert zlib.crc32(labels.tobytes()) == expected["checksum"], "all ways must give the same labels"
    return took_ms


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, cwd=paths.root(), stdout=subprocess.DEVNULL, check=True)


def _ready_s(names: list[str] | None) -> float:
    began = time.perf_counter()
    with launch_server("models", load=names, base_port=BASE_PORT, name="bench-start"):
        return time.perf_counter() - began
