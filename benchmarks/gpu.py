"""``make test-gpu``: the check list of a machine with a GPU, and a table of what it measured for the course's plots.

    python -m benchmarks.gpu                       # on a GPU; without one it says so and measures nothing
    python -m benchmarks.gpu --runtime apptainer   # NVIDIA's image in place of the embedded server: some ten minutes
    python -m benchmarks.gpu --device cpu --quick --output /tmp/dry.jsonl      # the same steps on a processor: a rehearsal, no record

The table has the columns of ``notebooks/data/recorded_sweep.jsonl``, with device and date in each row. It goes to ``work/gpu``, where
``helpers.recorded("name of the GPU")`` finds it; copied to ``notebooks/data`` it is for everybody.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import run
from helpers import Client, jets, launch_server, machine, paths, sweep
from helpers.errors import CourseError, SetupError
from helpers.measuring.table import THROUGHPUT, rows_of
from helpers.metrics.gpu import placed_on
from helpers.metrics.load import BackgroundLoad
from helpers.server import Server
from helpers.server.containers import image_version
from helpers.server.server import RUNTIMES
from helpers.setup.environments import EMBEDDED_TRITON

# Away from the ports of a course that runs on the same machine.
BASE_PORT = 13200
GPU_SOURCE = "recorded: this course, the check list of make test-gpu"
DRY_SOURCE = "rehearsal on a processor, no record"
# The model of the course text, and the taggers whose answers on both devices are compared.
MODEL = "particlenet_PT"
TAGGERS = (MODEL, "particlenet_AK4_PT", "particlenet", "particlenet_AK4")
# A model in Python, for which NumPy of the server's side must be one that its Triton takes.
PYTHON_MODEL = "add_sub"
# Model -> batch sizes; then single jets from many clients, which the server puts together.
BATCHES = {MODEL: (1, 2, 4, 8, 16, 32, 64, 128), "particlenet_AK4_PT": (1, 8, 32, 128)}
CLIENTS = (4, 16, 64)
# Seconds for a point: a GPU's clock follows its load, so that short windows differ by a tenth.
POINT_S = 12.0
# Probabilities on GPU and CPU may differ by this much: other kernels add in another order, and TF32 rounds.
TOLERANCE = 1e-3
_PROBE = """
import json, onnxruntime
found = {"torch": None, "gpu": None, "onnx": onnxruntime.get_available_providers()}
try:
    import torch
    found["torch"] = torch.__version__
    found["gpu"] = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
except ImportError:
    pass
print(json.dumps(found))
"""


@dataclass
class Trial:
    """The list under way; ``quick`` are tiny sizes, for a rehearsal, ``providers`` what the server's ONNX Runtime can use."""

    server: Server
    device: str
    quick: bool
    providers: Sequence[str]
    rows: list[dict[str, Any]] = field(default_factory=list)


# Whether it is as it should be (None: not looked at), and the figures or the reason.
Finding = tuple[bool | None, str]
_NOT_HERE: Finding = None, "not part of this rehearsal"


def release(trial: Trial) -> Finding:
    """The server says the version that belongs to its runtime: the embedded one's, or a newer one of an image."""
    version, embedded = trial.server.metadata()["version"], trial.server.spec.runtime == "embedded"
    return (version == EMBEDDED_TRITON) == embedded, f"tritonserver {version}" + ("" if embedded else f", image of {image_version()}")


def python_model(trial: Trial) -> Finding:
    """A Python model answers with numbers, which the NumPy of the image decides."""
    given = np.arange(16, dtype=np.float32)
    with Client(trial.server) as client:
        total = client.infer(PYTHON_MODEL, INPUT0=given, INPUT1=given)["OUTPUT0"]
    return np.array_equal(total, 2 * given), f"{PYTHON_MODEL} adds: {total!r}"


def placement(trial: Trial) -> Finding:
    """Every model runs where it should: PyTorch's on the GPU, ONNX Runtime's too if it was built for that."""
    log, cuda = trial.server.log(lines=0), "CUDAExecutionProvider" in trial.providers
    places = {state.name: placed_on(log, state.name) for state in trial.server.models() if state.state == "READY"}
    expected = {name: "GPU" if trial.device == "gpu" and (cuda or name.endswith("_PT")) else "CPU" for name in places}
    without = " (this ONNX Runtime was built without CUDA)" if trial.device == "gpu" and not cuda else ""
    return bool(places) and places == expected, ", ".join(f"{name} {place}" for name, place in places.items()) + without


def equal_answers(trial: Trial, model: str) -> Finding:
    """The same jets on the device and on the processor: the model is loaded again with instances there, and put back."""
    if model not in trial.server.spec.load:
        return _NOT_HERE
    config = trial.server.config(model)
    with Client(trial.server) as client:
        tagger = jets.Tagger(client, model)
        sample = jets.read(jets.sample_for(tagger))[: 4 if trial.quick else 200]
        ours = tagger.tag(sample).probabilities
        trial.server.load(model, config={**config, "instance_group": [{"count": 1, "kind": "KIND_CPU"}]})
        try:
            if placed_on(trial.server.log(lines=0), model) != "CPU":
                return False, "it did not move to the CPU"
            theirs = tagger.tag(sample).probabilities
        finally:
            trial.server.load(model, config=config)
    largest = float(np.abs(ours - theirs).max())
    return largest <= TOLERANCE, f"{len(sample)} jets, largest difference of a probability {largest:.1e} (limit {TOLERANCE:g})"


def throughput(trial: Trial, model: str, batches: Sequence[int], clients: Sequence[int] = (1,)) -> Finding:
    """A tagger over batch sizes, or over requests under way: the course text's model is configured to put single jets together."""
    if model not in trial.server.spec.load:
        return _NOT_HERE
    options: dict[str, Any] = {"max_seconds": POINT_S}
    if trial.quick:
        batches, clients, options = batches[:2], clients[:1], {"max_seconds": 0.1, "precision": 0.9}
    table = sweep(trial.server, model, batches, clients, output=paths.work_dir() / "gpu" / "sweep", **options)
    trial.rows += rows_of(table)
    return bool((table[THROUGHPUT] > 0).all()), f"{len(table)} point{'s' * (len(table) > 1)} of {model}\n{table!r}"


def figures_under_load(trial: Trial) -> Finding:
    """What the GPU's own figures say while the model works."""
    with BackgroundLoad(trial.server, MODEL, batch=2 if trial.quick else 16, concurrency=2) as load:
        # Triton reads the GPU every two seconds.
        time.sleep(0.5 if trial.quick else 5)
        figures = machine.nvidia_smi("name", "utilization.gpu", "memory.used", "memory.total", "power.draw")
    if load.failed:
        return False, f"{load.failed} of {load.sent} requests failed: {load.error}"
    if trial.device == "cpu":
        return None, f"not looked at on a processor; {load.sent} requests were answered"
    return any(row["utilization.gpu"] not in ("0", "[N/A]") for row in figures), f"{load.sent} requests\n{figures!r}"


STEPS: dict[str, Callable[[Trial], Finding]] = {
    "the server is the one that is meant": release,
    "a Python model answers": python_model,
    "models run on the device": placement,
    **{f"{model} equals itself on the CPU": lambda trial, model=model: equal_answers(trial, model) for model in TAGGERS},  # type: ignore[misc]
    **{f"throughput of {model}": lambda trial, model=model: throughput(trial, model, BATCHES[model]) for model in BATCHES},  # type: ignore[misc]
    "single jets from many clients": lambda trial: throughput(trial, MODEL, (1,), CLIENTS),
    "GPU figures under load": figures_under_load,
}


def go_through(trial: Trial) -> Iterator[bool | None]:
    """Print the lines of the list; one that cannot be done is a fault, and the next is tried all the same."""
    for name, step in STEPS.items():
        try:
            good, words = step(trial)
        except CourseError as error:
            good, words = False, str(error)
        print(f"{ {True: '✔', False: '✖', None: '–'}[good] } {name}: {words}", flush=True)
        yield good


def seen_by(runtime: str) -> dict[str, Any]:
    """What PyTorch and ONNX Runtime of the server see: ``torch``, ``gpu`` (its name, or None), ``onnx`` (providers)."""
    if runtime != "embedded":
        gpu = next(iter(machine.gpus()), None)
        return {"torch": "of the image", "gpu": gpu, "onnx": ["CUDAExecutionProvider", "CPUExecutionProvider"]}
    python = paths.server_env() / "bin" / "python"
    if not python.exists():
        happened = f"The environment of the embedded server is not there: {paths.shown(paths.server_env())}."
        raise SetupError(happened, "A container is another way: --runtime apptainer.", "Type: make setup")
    return dict(json.loads(subprocess.check_output([python, "-I", "-c", _PROBE], text=True)))


def written_to(device: str) -> Path:
    """Where the table of a machine with this GPU goes."""
    return paths.work_dir() / "gpu" / f"recorded_gpu_{re.sub(r'[^A-Za-z0-9]+', '_', device).strip('_')}.jsonl"


def main(arguments: Sequence[str] | None = None) -> int:
    """Go through the list; return 0 when nothing is wrong, also when there is no GPU; 1 else."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu", help="cpu: a rehearsal of all steps without a GPU")
    parser.add_argument("--runtime", choices=sorted(RUNTIMES), default="embedded", help="what runs the server")
    parser.add_argument("--quick", action="store_true", help="tiny sizes and the course text's model alone")
    parser.add_argument("--output", type=Path, help="where to write the table (default: work/gpu, named after the GPU)")
    parser.add_argument("--base-port", type=int, default=BASE_PORT, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.device == "cpu" and not args.output:
        parser.error("--device cpu needs --output: what a processor gives is no record of a GPU")
    seen = seen_by(args.runtime)
    if args.device == "gpu" and not seen["gpu"]:
        broken = not machine.device().startswith("CPU")
        todo = f"PyTorch {seen['torch']} of the server cannot use this machine's GPU. Type: rm -r .server && make setup TORCH=yes"
        none = "There is no GPU here that PyTorch or nvidia-smi sees, so nothing was measured."
        rehearse = 'To rehearse the steps on a processor, type: make test-gpu ARGS="--device cpu --quick --output /tmp/dry.jsonl"'
        print(todo if broken else f"{none} {rehearse}")
        return int(broken)
    name = seen["gpu"] if args.device == "gpu" else machine.device()
    output = args.output or written_to(name)
    print(f"Device: {name}; PyTorch {seen['torch']}; ONNX Runtime with {', '.join(seen['onnx'])}", flush=True)
    # A container is given the GPUs unless it is told otherwise; the embedded server looks for itself.
    options = {} if args.runtime == "embedded" else {"runtime": args.runtime, "gpu": args.device == "gpu"}
    load = [PYTHON_MODEL, *([MODEL] if args.quick else TAGGERS)]
    with launch_server("models", load=load, base_port=args.base_port, name="gpu-check", **options) as server:
        trial = Trial(server, args.device, args.quick, seen["onnx"])
        found = list(go_through(trial))
    output.unlink(missing_ok=True)
    for row in trial.rows:
        # Each row with its device, and whether it is a record at all.
        paths.append_line(output, row | ({"source": GPU_SOURCE, "device": name} if args.device == "gpu" else {"source": DRY_SOURCE}))
    wrong = found.count(False)
    print(f"{len(trial.rows)} rows in {output}. {wrong or 'None'} of {len(found)} checks failed.")
    return int(bool(wrong))


if __name__ == "__main__":
    run(main)
