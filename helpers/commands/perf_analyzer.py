"""``python -m helpers perf_analyzer``: NVIDIA's own program, wherever it was found, with the arguments as they were typed."""

from __future__ import annotations

import argparse
import subprocess
import sys

from helpers.access import with_own_secret
from helpers.address import parse_address
from helpers.commands import access_options
from helpers.perf_command import header_arguments, tls_arguments
from helpers.perf_program import find_perf_analyzer

# The program checks them.
PASSES_ON = True
# The program's own choice for an address without a port.
_PORT = 8000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.usage = "%(prog)s [arguments of perf_analyzer …]"
    parser.epilog = "For example: python -m helpers perf_analyzer -m add_sub -u localhost:9001 -i grpc"
    # These two are the tool's own; they are looked at, because the options below depend on them, and passed on.
    parser.add_argument("-u", dest="url", help=argparse.SUPPRESS)
    parser.add_argument("-i", dest="protocol", help=argparse.SUPPRESS)
    access_options.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run it.

    Returns:
        The program's exit status: 0 done, 2 its windows did not agree, 99 it failed.

    Raises:
        SetupError: none runs on this machine.
        InputError: a header or the CA file cannot be used.
    """
    access = access_options.access(args)
    others, protocol = list(args.others), (args.protocol or "").lower()
    if args.url is not None:
        secure = args.url.startswith(("grpcs://", "https://"))
        protocol = protocol or ("grpc" if args.url.startswith("grpc") else "http")
        # The tool takes no scheme but https://.
        url = args.url if args.url.startswith("https://") else args.url.split("://", 1)[-1]
        access = with_own_secret(access, parse_address(args.url, _PORT))
        others += ["-u", url, *tls_arguments(protocol, secure, access)]
    others += ["-i", protocol] if protocol else []
    program = find_perf_analyzer()
    # Not into its output, which may go on into a file.
    print(f"perf_analyzer {program.version}, {program.origin}", file=sys.stderr, flush=True)
    process = program.start(*others, private=header_arguments(protocol or "http", access))
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            # A terminal has sent it the same interrupt: it collects the answers under way, and ends.
            try:
                return process.wait(timeout=10)
            except (KeyboardInterrupt, subprocess.TimeoutExpired):
                process.kill()
