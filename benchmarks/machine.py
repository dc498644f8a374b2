"""On what a benchmark was measured and when: the last line of every report."""

from __future__ import annotations

import datetime
import subprocess

from helpers import paths
from helpers.machine import description
from helpers.measuring.program import VERSION
from helpers.setup.environments import EMBEDDED_TRITON

_VERSIONS = (
    "import sys, numpy, onnxruntime, torch; print(sys.version.split()[0], numpy.__version__, onnxruntime.__version__, torch.__version__)"
)


def machine(load_average: float) -> str:
    """Processor, system, versions, date."""
    python = paths.server_env() / "bin" / "python"
    versions = subprocess.run([python, "-c", _VERSIONS], capture_output=True, text=True, check=True).stdout.split()
    names = [f"{name} {version}" for name, version in zip(("Python", "NumPy", "ONNX Runtime", "PyTorch"), versions, strict=True)]
    today = datetime.datetime.now(tz=datetime.UTC).date()
    return (
        f"{today}; {description()}; "
        f"tritonserver {EMBEDDED_TRITON}, {', '.join(names)}, perf_analyzer {VERSION}; "
        f"load average before the measurement {load_average:.1f}."
    )
