"""NVIDIA's own load generator: the perf_analyzer 2.51.0 that an old wheel of tritonclient carries, and one measurement with it."""

from __future__ import annotations

import csv
import hashlib
import os
import stat
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

VERSION = "2.51.0"
WHEEL = f"tritonclient-{VERSION}-py3-none-manylinux1_x86_64.whl"
WHEEL_SHA256 = "c485bb0123bdf310f90bc8b03d3489b28df2ffed55b30c7eee0b795b48113d52"
# Libraries that the program needs and that the server's wheel brings under names with a hash in them.
LIBRARIES = {"libb64.so.0d": "libb64-*.so.0d", "libcudart.so.12": "libcudart-*.so.12*"}
# Three windows are one measurement; they need not agree, since the rounds of the benchmark show the spread.
WINDOW_MS, WINDOWS, STABILITY_PERCENT = 500, 3, 999
TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Load:
    """What perf_analyzer measured.

    Attributes:
        infer_per_s: inferences per second, a batch of 8 counting 8.
        p50_us: median latency of a request in µs.
        p95_us: 95th percentile of the latency in µs.
    """

    infer_per_s: float
    p50_us: float
    p95_us: float


def cache_folder() -> Path:
    """Where downloads stay between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "triton-course" / f"perf_analyzer-{VERSION}"


def install(server_packages: Path) -> Path:
    """Make the program ready; downloads 14 MB the first time.

    Args:
        server_packages: the site-packages folder of the server's environment.

    Returns:
        The folder that holds the program and its two libraries.
    """
    folder = cache_folder()
    program = folder / "perf_analyzer"
    if not program.exists():
        folder.mkdir(parents=True, exist_ok=True)
        requirement = [f"tritonclient=={VERSION}", "--platform", "manylinux1_x86_64", "--only-binary=:all:"]
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *requirement, "-d", folder], check=True)
        content = (folder / WHEEL).read_bytes()
        if hashlib.sha256(content).hexdigest() != WHEEL_SHA256:
            raise RuntimeError(f"{folder / WHEEL} is not the wheel that this benchmark expects")
        with zipfile.ZipFile(folder / WHEEL) as wheel:
            partial = folder / "perf_analyzer.part"
            partial.write_bytes(wheel.read(f"tritonclient-{VERSION}.data/data/bin/perf_analyzer"))
        partial.chmod(partial.stat().st_mode | stat.S_IXUSR)
        partial.rename(program)
    for plain, pattern in LIBRARIES.items():
        (library,) = (server_packages / "nvidia_pytriton.libs").glob(pattern)
        link = folder / plain
        link.unlink(missing_ok=True)
        link.symlink_to(library)
    return folder


def measure(folder: Path, grpc_url: str, model: str, batch: int, concurrency: int) -> Load:
    """Send requests for about two seconds.

    Args:
        folder: where the program is.
        grpc_url: the server's gRPC port.
        model: the model's name.
        batch: batch size of each request.
        concurrency: requests under way at any time.
    """
    table = folder / f"{os.getpid()}.csv"
    command = [folder / "perf_analyzer", "-m", model, "-u", grpc_url, "-i", "grpc", "-b", str(batch)]
    command += ["--concurrency-range", str(concurrency), "--measurement-interval", str(WINDOW_MS), "--max-trials", str(WINDOWS)]
    command += ["--stability-percentage", str(STABILITY_PERCENT), "-f", table]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    if done.returncode or not table.exists():
        raise RuntimeError(f"perf_analyzer failed on {model}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    with table.open() as file:
        (row,) = csv.DictReader(file)
    table.unlink()
    return Load(float(row["Inferences/Second"]), float(row["p50 latency"]), float(row["p95 latency"]))
