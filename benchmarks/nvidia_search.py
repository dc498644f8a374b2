"""NVIDIA's Model Analyzer as a yardstick: its quick search in remote mode, on the very server that the course's own search uses."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from helpers import paths
from helpers.errors import SetupError
from helpers.measuring.program import find_perf_analyzer
from helpers.server import Server

_COMPLETE = "Profile complete."
# Each measurement has such a line.
_MEASURES = re.compile(r"Profiling \S+: concurrency=")
# By default it measures until windows of 50 requests agree within 10 %. On a busy machine they never do, and it then tries up to ten times,
# with longer ones; there it can be given windows of a second that may differ by more, which makes it quicker.
SHORT_WINDOWS = {"measurement-mode": "time_windows", "measurement-interval": 1000, "stability-percentage": 30}
# Column of its table, by what it is here.
_COLUMNS = {
    "config": "Model Config Path",
    "instances": "Instance Group",
    "max_batch_size": "Max Batch Size",
    "concurrency": "Concurrency",
    "satisfies": "Satisfies Constraints",
    "throughput": "Throughput (infer/sec)",
    "p95_ms": "p95 Latency (ms)",
}


@dataclass(frozen=True)
class Limits:
    """What both searches keep to.

    Attributes:
        instances: at most.
        batch: that the server may make, at most.
        concurrency: requests under way, at most.
        p95_ms: the latency budget.
    """

    instances: int
    batch: int
    concurrency: int
    p95_ms: float


@dataclass(frozen=True)
class Found:
    """What it found.

    Attributes:
        seconds: until its profiling was complete, without its reports.
        measurements: how many there were, of fewer configurations.
        rows: its table, by our names.
        said: the end of what it wrote.
    """

    seconds: float
    measurements: int
    rows: list[dict[str, str]] = field(repr=False)
    said: str = field(repr=False)

    def best(self) -> dict[str, str] | None:
        """Its best row within the budget; None when none is."""
        fitting = [row for row in self.rows if row["satisfies"].strip().lower() in ("yes", "true")]
        return max(fitting, key=lambda row: float(row["throughput"]), default=None)


def python() -> Path:
    """The Python of its own environment.

    Raises:
        SetupError: it is not installed.
    """
    path = paths.work_dir() / "model-analyzer" / "env" / "bin" / "python"
    if not path.exists():
        raise SetupError("Model Analyzer is not installed.", "It needs an environment of its own.", "Type: make -C benchmarks tune")
    return path


def search(server: Server, model: str, limits: Limits, windows: Mapping[str, object]) -> Found:
    """Run its quick search and read its table.

    Args:
        server: where the model is loaded.
        model: its name.
        limits: of the search.
        windows: options of perf_analyzer in place of Model Analyzer's own; :data:`SHORT_WINDOWS` or none.

    Raises:
        RuntimeError: it failed; holds the end of what it wrote.
    """
    folder = paths.work_dir() / "model-analyzer" / "run"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    profile = folder / "profile.yaml"
    # JSON is YAML, too.
    profile.write_text(json.dumps(_profile(server, model, limits, windows, folder), indent=1))
    program = find_perf_analyzer()
    headers = json.dumps(server.admin_headers("grpc"))
    environment = {
        **os.environ,
        **program.environment,
        "MODEL_ANALYZER_HEADERS": headers,
        "PYTHONUNBUFFERED": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [python(), Path(__file__).with_name("nvidia_search_with_key.py"), "profile", "-f", profile]
    begin, complete, lines = time.monotonic(), 0.0, []
    with (
        (folder / "log.txt").open("w", buffering=1) as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=folder) as process,
    ):
        try:
            for line in process.stdout or ():
                lines.append(line)
                log.write(f"{time.monotonic() - begin:6.1f} s  {line}")
                if _COMPLETE in line:
                    complete = time.monotonic() - begin
        except BaseException:
            process.terminate()
            raise
    said = "".join(lines)
    tables = list(folder.glob("**/metrics-model-inference.csv"))
    if not complete or not tables:
        raise RuntimeError(f"Model Analyzer did not find anything:\n{said[-3000:]}")
    with tables[0].open(newline="") as file:
        rows = [{ours: row[theirs] for ours, theirs in _COLUMNS.items()} for row in csv.DictReader(file)]
    return Found(complete, len(_MEASURES.findall(said)), rows, said[-3000:])


def _profile(server: Server, model: str, limits: Limits, windows: Mapping[str, object], folder: Path) -> dict[str, object]:
    constraints = {"perf_latency_p95": {"max": limits.p95_ms}}
    return {
        "triton_launch_mode": "remote",
        "client_protocol": "grpc",
        "triton_grpc_endpoint": server.grpc_url,
        "triton_http_endpoint": server.http_url,
        "triton_metrics_url": server.metrics_url,
        "model_repository": str(server.repository),
        "output_model_repository_path": str(folder / "models"),
        "override_output_model_repository": True,
        "checkpoint_directory": str(folder / "checkpoints"),
        "export_path": str(folder / "export"),
        "perf_analyzer_path": find_perf_analyzer().command[0],
        "skip_detailed_reports": True,
        "inference_output_fields": [
            *("model_name", "batch_size", "concurrency", "model_config_path", "instance_group", "max_batch_size"),
            *("satisfies_constraints", "perf_throughput", "perf_latency_p95", "perf_latency_p99"),
        ],
        "run_config_search_mode": "quick",
        "run_config_search_max_instance_count": limits.instances,
        "run_config_search_max_model_batch_size": limits.batch,
        "run_config_search_max_concurrency": limits.concurrency,
        "profile_models": {
            model: {
                "cpu_only": True,
                "objectives": ["perf_throughput"],
                "constraints": constraints,
                "perf_analyzer_flags": {"percentile": 95, **windows},
            }
        },
    }
