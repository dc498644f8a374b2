"""``python -m benchmarks``: measure the embedded server and print the table; ``--write`` also puts it into benchmarks/RESULTS.md."""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from benchmarks import measuring, memory, network, perf_analyzer, report
from helpers.server import launch_server

# Away from the ports of a course that runs on the same machine.
BASE_PORT = 12000
BATCHES = (1, 8, 32)


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is measured (default 5, four minutes)")
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES), help="batch sizes (default 1 8 32)")
    parser.add_argument("--kinds", nargs="+", choices=sorted(network.MODELS), default=list(network.MODELS), help="models to measure")
    parser.add_argument("--write", action="store_true", help="write the report to benchmarks/RESULTS.md")
    arguments = parser.parse_args()
    load_average = os.getloadavg()[0]
    tool = perf_analyzer.find_perf_analyzer()
    ready_s = measuring.add_sub_ready_s(BASE_PORT, arguments.rounds)
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder) / "models"
        network.write_repository(repository)
        names = [kind + suffix for kind in arguments.kinds for suffix in network.BATCHING]
        with (
            launch_server(repository, base_port=BASE_PORT, load=names) as server,
            measuring.yardsticks(arguments.kinds) as sticks,
        ):
            rows = measuring.compare(server, tool, sticks, arguments.batches, arguments.rounds)
            assert server.pid is not None
            usages = memory.usage(server.pid)
    text = report.document(rows, ready_s, usages, arguments.rounds, load_average)
    print(text)
    if arguments.write:
        Path(__file__).with_name("RESULTS.md").write_text(text)


if __name__ == "__main__":
    main()
