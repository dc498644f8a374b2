"""``python -m helpers install-server``: the embedded server's environment, from any Python 3.11 or 3.12."""

from __future__ import annotations

import argparse
import sys

from helpers import environments, installed, openvino_environment, perf_fetch, settings
from helpers.files import shown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.add_argument(
        "--without-torch", action="store_true", help="leave PyTorch out: its models stay UNAVAILABLE, little disk is needed"
    )
    parser.add_argument("--without-perf-analyzer", action="store_true", help="the server alone, as an image of it needs")
    parser.add_argument(
        "--openvino", action="store_true", help="make a second environment beside it, whose ONNX Runtime has OpenVINO; no PyTorch in it"
    )


def run(args: argparse.Namespace) -> int:
    """Make ``.server`` if it is not ready, and fetch perf_analyzer if it is not there.

    Raises:
        SetupError: this machine cannot run it, or the installation failed.
    """
    base = getattr(sys, "_base_executable", sys.executable)
    if args.openvino:
        made = openvino_environment.make(base)
        print(f"A server with OpenVINO: COURSE_SERVER_ENV={made} python -m helpers serve --models work/models")
        return 0
    torch = False if args.without_torch else None
    if installed.server_ready(torch):
        print(f"{shown(settings.server_env())} is ready.")
        if not args.without_perf_analyzer:
            perf_fetch.fetch_or_say()
        return 0
    environments.make_server_alone(torch, base, not args.without_perf_analyzer)
    return 0
