"""``python -m benchmarks.dashboard``: what the live dashboard costs a notebook's kernel, in per cent of one core.

A real kernel launches a server and shows the dashboard of three models, one of them under a load; its CPU time is read from outside,
with and without the dashboard. The load and the server are processes of their own and do not count. ``--write`` puts the row into
benchmarks/DASHBOARD.md.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
from jupyter_client import KernelManager

from benchmarks import report
from helpers import paths
from helpers.metrics.dashboard import HISTORY_S, INTERVAL_S
from helpers.server.spec import START_TIMEOUT_S

# Away from the ports of a course that runs on the same machine.
BASE_PORT = 12600
MODELS = ["add_sub", "particlenet_AK4", "particlenet_PT"]
# What the course promises, in per cent of one core.
LIMIT_PERCENT = 2.0
# Seconds of each measurement, and of the one before that fills the curves' history.
SLICE_S, FILL_S = 10.0, HISTORY_S

LAUNCH = f"""
from helpers import launch_server
from helpers.metrics.dashboard import dashboard
server = launch_server("models", load={MODELS!r}, base_port={BASE_PORT}, name="bench-dashboard")
board = dashboard(server, load="particlenet_AK4")
board.controls.concurrency.value = 2
"""


def cpu_percent(process: psutil.Process, seconds: float) -> float:
    """CPU time of this process alone over that many seconds, in per cent of one core."""
    began, before = time.perf_counter(), process.cpu_times()
    time.sleep(seconds)
    after, took = process.cpu_times(), time.perf_counter() - began
    return 100 * (after.user + after.system - before.user - before.system) / took


def measure(rounds: int) -> dict[str, list[float]]:
    """Per cent of a core, with the dashboard and, in the same kernel, while it is stopped."""
    manager = KernelManager()
    # Its usual warning about unencrypted loopback connections has no place in the table.
    manager.start_kernel(cwd=str(paths.root()), stderr=subprocess.DEVNULL)
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(60)
        kernel = psutil.Process(manager.provisioner.process.pid)  # type: ignore[union-attr]

        def run(code: str) -> None:
            answer: dict[str, Any] = client.execute_interactive(code, timeout=START_TIMEOUT_S, output_hook=lambda _: None)
            assert answer["content"]["status"] == "ok", answer["content"]

        run(LAUNCH)
        time.sleep(FILL_S)
        found: dict[str, list[float]] = {"with": [], "without": []}
        for _ in range(rounds):
            found["with"].append(cpu_percent(kernel, SLICE_S))
        run("board.stop()")
        for _ in range(rounds):
            found["without"].append(cpu_percent(kernel, SLICE_S))
        run("server.stop()")
        return found
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def document(found: dict[str, list[float]]) -> str:
    """The row, with what it is measured on."""
    cost = statistics.median(found["with"]) - statistics.median(found["without"])
    each = ", ".join(f"{value:.1f}" for value in found["with"])
    return (
        "# What the live dashboard costs\n\n"
        "Made by `make bench`: CPU time of a notebook's kernel that shows the dashboard of three models under load, two updates a second,\n"
        "less that of the same kernel with the dashboard stopped.\n\n"
        "| models | updates per s | kernel with (% of one core) | without | cost | goal |\n|--:|--:|--:|--:|--:|--:|\n"
        f"| {len(MODELS)} | {1 / INTERVAL_S:.0f} | {statistics.median(found['with']):.1f} | "
        f"{statistics.median(found['without']):.1f} | {cost:.1f} | {LIMIT_PERCENT:.0f} |\n\n"
        f"Medians of {len(found['with'])} × {SLICE_S:.0f} s (with: {each}).\n\n"
    )


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dashboard", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="measurements of 10 s each, with and without (default 3)")
    parser.add_argument("--write", action="store_true", help="write the report to benchmarks/DASHBOARD.md")
    arguments = parser.parse_args()
    load_average = os.getloadavg()[0]
    text = document(measure(arguments.rounds)) + report.machine(load_average) + "\n"
    print(text)
    if arguments.write:
        Path(__file__).with_name("DASHBOARD.md").write_text(text)


if __name__ == "__main__":
    main()
