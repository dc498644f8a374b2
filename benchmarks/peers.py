"""``python -m benchmarks.peers``: the same ONNX models through the embedded server, PyTriton, MLServer, and without a server.

Every server has one instance with one thread and gets the same requests from the same client: threads in Python that each wait for
their answer, over gRPC. All are measured in turn, round after round. The peers live in an environment of their own, which
``make -C benchmarks peers`` makes. ``--write`` puts the table into benchmarks/PEERS.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

from benchmarks import peers_model, report
from benchmarks.peers_load import CONCURRENCY, SLICE_S, InProcess, Load
from helpers.measuring.statistics import half_width
from helpers.server import launch_server

HERE = Path(__file__).parent
# Away from the ports of a course that runs on the same machine.
BASE_PORT, PYTRITON_PORT, MLSERVER_PORT = 12900, 12960, 12970
BATCHES = (1, 8, 16)
_SERVERS = OURS, PYTRITON, MLSERVER = "embedded", "PyTriton", "MLServer"
# Seconds until a peer must answer.
START_S = 90.0
# Goals: of the limit by the smallest batch for which they hold (ParticleNet only), and over each peer at batch 1.
OF_LIMIT = {8: 0.97, 1: 0.85}
OVER_PEER = {PYTRITON: 1.8, MLSERVER: 1.4}


@dataclass
class Row:
    """One model at one batch size, one number for each round.

    Attributes:
        rates: inferences per second of each server and of the limit.
        busy: share of the time in which the embedded server's only instance computed.
    """

    model: str
    batch: int
    rates: dict[str, list[float]] = field(default_factory=dict)
    busy: list[float] = field(default_factory=list)

    def median(self, who: str) -> float:
        """Over the rounds."""
        return statistics.median(self.rates[who])

    def ratio(self, over: str) -> float:
        """Ours over another, round by round, so that a busy machine slows both; the median."""
        return statistics.median(self._ratios(over))

    def ratio_half_width(self, over: str) -> float | None:
        """Half of the 95 % interval of that ratio's mean over the rounds; None for one round."""
        return half_width(self._ratios(over))

    def _ratios(self, over: str) -> list[float]:
        return [ours / other for ours, other in zip(self.rates[OURS], self.rates[over], strict=True)]

    def words(self, over: str) -> str:
        """The ratio with its interval."""
        half = self.ratio_half_width(over)
        return f"{self.ratio(over):.2f}" + (f" ± {half:.2f}" if half is not None else "")


@contextlib.contextmanager
def program(command: Sequence[object], folder: Path, **environment: str) -> Iterator[None]:
    """A peer's server, as long as the block lasts; its words go to a file."""
    with (folder / "output.txt").open("w") as output:
        process = subprocess.Popen(
            [str(part) for part in command], cwd=folder, stdout=output, stderr=output, env={**os.environ, **environment}
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)


def until_it_answers(address: str, model: str) -> None:
    """Wait until a peer has the model.

    Raises:
        TimeoutError: it has not, in good time.
    """
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        with contextlib.suppress(InferenceServerException), grpcclient.InferenceServerClient(address) as client:
            if client.is_model_ready(model):
                return
        time.sleep(0.5)
    raise TimeoutError(f"{model} at {address} is not ready after {START_S:.0f} s")


@contextlib.contextmanager
def serving(python: Path, models: dict[str, Path], folder: Path) -> Iterator[dict[str, str]]:
    """All servers at once; gives the gRPC address of each. One that waits for requests costs the others nothing."""
    library = subprocess.check_output([python, "-c", "import sysconfig; print(sysconfig.get_config_var('LIBDIR'))"], text=True).strip()
    mlserver = folder / "mlserver"
    for name, path in models.items():
        (mlserver / name).mkdir(parents=True)
        about = {"name": name, "implementation": "peers_mlserver.OnnxModel", "parameters": {"uri": str(path)}}
        (mlserver / name / "model-settings.json").write_text(json.dumps(about))
    ports = {"http_port": MLSERVER_PORT, "grpc_port": MLSERVER_PORT + 1, "metrics_port": MLSERVER_PORT + 2}
    (mlserver / "settings.json").write_text(json.dumps({**ports, "host": "127.0.0.1", "parallel_workers": 0, "debug": False}))
    (folder / "pytriton").mkdir()
    pairs = [f"{name}={path}" for name, path in models.items()]
    with contextlib.ExitStack() as stack:
        pytriton = [python, HERE / "peers_pytriton.py", PYTRITON_PORT, *pairs]
        stack.enter_context(program(pytriton, folder / "pytriton", LD_LIBRARY_PATH=library, PATH=f"{python.parent}:{os.environ['PATH']}"))
        stack.enter_context(program([python.with_name("mlserver"), "start", mlserver], mlserver, PYTHONPATH=str(HERE)))
        ours = stack.enter_context(launch_server(folder / "models", base_port=BASE_PORT, name="bench-peers"))
        addresses = {OURS: ours.grpc_url, PYTRITON: f"127.0.0.1:{PYTRITON_PORT + 1}", MLSERVER: f"127.0.0.1:{MLSERVER_PORT + 1}"}
        for address in addresses.values():
            for name in models:
                until_it_answers(address, name)
        yield addresses


def measure(addresses: dict[str, str], models: dict[str, Path], batches: Sequence[int], rounds: int) -> list[Row]:
    """All models at all batch sizes, so many rounds; who begins changes from round to round."""
    rows = [Row(model, batch) for model in models for batch in batches]
    shapes = {model: peers_model.shapes(model) for model in models}
    limits = {model: InProcess(path, shapes[model]) for model, path in models.items()}
    try:
        for number in range(rounds):
            for row in rows:
                arrays = peers_model.arrays(shapes[row.model], row.batch)
                loads = {who: Load(address, row.model, arrays) for who, address in addresses.items()}
                if not number:
                    answers = [load.answer() for load in loads.values()]
                    assert all(np.allclose(answer, answers[0], atol=1e-5) for answer in answers), "all must compute the same"
                order = list(loads)[number % len(loads) :] + list(loads)[: number % len(loads)]
                for who in order:
                    loads[who].rate(0.3)
                    before, begin = loads[OURS].compute_s(), time.perf_counter()
                    row.rates.setdefault(who, []).append(loads[who].rate(SLICE_S))
                    if who == OURS:
                        row.busy.append((loads[OURS].compute_s() - before) / (time.perf_counter() - begin))
                row.rates.setdefault("in process", []).append(limits[row.model].rate(row.batch))
    finally:
        for limit in limits.values():
            limit.process.communicate()
    return rows


# With fewer rounds the interval of a ratio says little.
ROUNDS = 7


def missed(rows: Sequence[Row]) -> list[str]:
    """Each goal that is missed, and by how much."""
    found = []
    for row in rows:
        goals = {peer: OVER_PEER[peer] if row.batch == 1 else 1.0 for peer in OVER_PEER}
        if row.model == peers_model.PARTICLENET:
            goals["in process"] = next(share for smallest, share in OF_LIMIT.items() if row.batch >= smallest)
        for other, goal in goals.items():
            if row.ratio(other) < goal:
                half = row.ratio_half_width(other) or 0.0
                unsure = "; its interval reaches over the goal: cannot tell" if row.ratio(other) + half >= goal else ""
                found.append(f"{row.model}, batch {row.batch}: {row.words(other)} of {other}, goal {goal:.2f}{unsure}")
    return found


def document(rows: Sequence[Row], rounds: int, load_average: float) -> str:
    """The table, the goals that are missed, and the machine."""
    heads = ("model", "batch", "in process", *_SERVERS, "of in process", "over PyTriton", "over MLServer", "instance computes")
    lines = [f"| {' | '.join(heads)} |", "|---|" + "--:|" * (len(heads) - 1)]
    for row in rows:
        rates = [f"{row.median(who):.0f}" for who in ("in process", OURS, PYTRITON, MLSERVER)]
        ratios = [row.words(who) for who in ("in process", PYTRITON, MLSERVER)]
        lines.append("| " + " | ".join([row.model, str(row.batch), *rates, *ratios, f"{statistics.median(row.busy):.0%}"]) + " |")
    table, goals = "\n".join(lines), missed(rows)
    said = "All goals are reached." if not goals else "Goals that are missed:\n\n" + "\n".join(f"- {goal}" for goal in goals)
    return f"""# The embedded server beside its peers

Made by `make -C benchmarks peers`; inferences per second, a batch of 8 counting 8: the same ONNX files, one instance with one thread, and
{CONCURRENCY} requests under way from one Python client over gRPC. Medians of {rounds} rounds; each ratio is taken round by round, ± half of
the 95 % interval of its mean.

{table}

{said}

*Instance computes* is the share of the time that the embedded server's only instance spends inside ONNX Runtime, by Triton's own
statistics. The rest goes into moving tensors between processes, and into waiting for a core: client, server and instance share
{len(os.sched_getaffinity(0))} of them, and the limit has one to itself.

{report.machine(load_average)}
"""


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--python", type=Path, default=Path("work/peers/env/bin/python"), help="of the environment of the peers")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"how often everything is measured (default {ROUNDS}, five minutes)")
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES), help="batch sizes (default 1 8 16)")
    parser.add_argument("--write", action="store_true", help="write the report to benchmarks/PEERS.md")
    arguments = parser.parse_args()
    load_average = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        models = peers_model.write_repository(folder / "models")
        with serving(arguments.python.absolute(), models, folder) as addresses:
            rows = measure(addresses, models, arguments.batches, arguments.rounds)
    text = document(rows, arguments.rounds, load_average)
    print(text)
    if arguments.write:
        (HERE / "PEERS.md").write_text(text)


if __name__ == "__main__":
    main()
