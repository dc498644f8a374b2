"""``make test-gpu``: the check list of a machine with a GPU, and a table of what it measured for the course's plots.

    python -m benchmarks.gpu                       # on a GPU; without one it says so and measures nothing
    python -m benchmarks.gpu --device cpu --quick --output /tmp/dry.csv      # the same steps on a processor: a rehearsal, no record

The table has the columns of ``notebooks/data/recorded_sweep.jsonl``, with device and date in each row. It goes to ``work/gpu``, where
``helpers.measuring.recorded.recorded("name of the GPU")`` finds it; copied to ``notebooks/data`` it is for everybody.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu_checks import MODEL, TAGGERS, Check, Trial, go_through, steps
from helpers import machine, paths
from helpers.errors import CourseError
from helpers.measuring import recorded
from helpers.measuring.table import append_row
from helpers.server import launch_server

# Away from the ports of a course that runs on the same machine.
BASE_PORT = 13200
GPU_SOURCE = "recorded: this course, the check list of make test-gpu"
DRY_SOURCE = "rehearsal on a processor, no record"
_PROBE = """
import json
found = {"torch": None, "gpu": None, "onnx": []}
try:
    import torch
    found["torch"] = torch.__version__
    found["gpu"] = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
except ImportError:
    pass
try:
    import onnxruntime
    found["onnx"] = onnxruntime.get_available_providers()
except ImportError:
    pass
print(json.dumps(found))
"""


def seen_by_server() -> dict[str, Any]:
    """What PyTorch and ONNX Runtime of the server's environment see: ``torch``, ``gpu`` (its name, or None), ``onnx`` (providers)."""
    python = paths.server_env() / "bin" / "python"
    answer = subprocess.run([python, "-I", "-c", _PROBE], capture_output=True, text=True, check=False)
    if answer.returncode:
        raise CourseError(f"The server's environment does not start: {answer.stderr.strip()[-200:]}.", "", "Type: make setup")
    return json.loads(answer.stdout)


def why_no_gpu(seen: dict[str, Any]) -> tuple[str, bool]:
    """Why nothing can be checked here, and whether that is a fault that can be mended."""
    device = machine.device()
    if not device.startswith("CPU"):
        words = f"this machine has a GPU ({device}), but PyTorch {seen['torch'] or '(none)'} of the server's environment cannot use it."
        return f"{words} Type: rm -r .server && make setup TORCH=yes", True
    return f"There is no GPU here that PyTorch {seen['torch'] or '(none)'} or nvidia-smi sees, so nothing was measured.", False


def write(trial: Trial, path: Path) -> None:
    """Write the table anew: each row with its device, when it was measured, and whether it is a record at all."""
    path.unlink(missing_ok=True)
    for row in trial.rows:
        where = {"source": GPU_SOURCE, "device": trial.name} if trial.device == "gpu" else {"source": DRY_SOURCE}
        append_row(path, {**row, **where})


def main(arguments: Sequence[str] | None = None) -> int:
    """Go through the list.

    Returns:
        0 when nothing is wrong, also when there is no GPU; 1 else.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu", help="cpu: a rehearsal of all steps without a GPU")
    parser.add_argument("--quick", action="store_true", help="tiny sizes and the course text's model alone")
    parser.add_argument("--output", type=Path, help="where to write the table (default: work/gpu, named after the GPU)")
    parser.add_argument("--base-port", type=int, default=BASE_PORT, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    seen = seen_by_server()
    if args.device == "cpu" and not args.output:
        parser.error("--device cpu needs --output: what a processor gives is no record of a GPU")
    if args.device == "gpu" and not seen["gpu"]:
        words, mendable = why_no_gpu(seen)
        print(words)
        for name, _ in steps():
            print(Check(name, None, "skipped"))
        return 1 if mendable else 0
    name = seen["gpu"] if args.device == "gpu" else machine.device()
    output = args.output or recorded.gpu_file(name)
    models = [MODEL] if args.quick else list(TAGGERS)
    print(f"Device: {name}; PyTorch {seen['torch']}; ONNX Runtime with {', '.join(seen['onnx'])}", flush=True)
    checks = []
    with launch_server("models", load=models, base_port=args.base_port, name="gpu-check") as server:
        trial = Trial(server, args.device, name, args.quick, paths.work_dir() / "gpu" / "sweep", seen["onnx"])
        for check in go_through(trial):
            checks.append(check)
            print(check, flush=True)
    write(trial, output)
    wrong = sum(check.good is False for check in checks)
    print(f"{len(trial.rows)} rows in {output}. {wrong or 'None'} of {len(checks)} checks failed.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
