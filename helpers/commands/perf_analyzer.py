"""``python -m helpers perf_analyzer``: NVIDIA's own program, wherever it was found, with the arguments as they were typed."""

from __future__ import annotations

import argparse
import subprocess
import sys

from helpers.perf_program import find_perf_analyzer

# The program checks them.
PASSES_ON = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.usage = "%(prog)s [arguments of perf_analyzer …]"
    parser.epilog = "For example: python -m helpers perf_analyzer -m add_sub -u localhost:9001 -i grpc"


def run(args: argparse.Namespace) -> int:
    """Run it.

    Returns:
        The program's exit status: 0 done, 2 its windows did not agree, 99 it failed.

    Raises:
        SetupError: none runs on this machine.
    """
    program = find_perf_analyzer()
    # Not into its output, which may go on into a file.
    print(f"perf_analyzer {program.version}, {program.origin}", file=sys.stderr, flush=True)
    process = program.start(*args.others)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            # A terminal has sent it the same interrupt: it collects the answers under way, and ends.
            try:
                return process.wait(timeout=10)
            except (KeyboardInterrupt, subprocess.TimeoutExpired):
                process.kill()
