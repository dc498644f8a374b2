"""``python -m helpers serve``: launch a server, or several behind one address, and wait until Ctrl-C."""

from __future__ import annotations

import argparse
import os
import signal
import time
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any

from helpers.cli.options import COMMAND_GRACE_S
from helpers.errors import ServerError
from helpers.fleet import Fleet, launch_fleet
from helpers.server import ModelWarning, Server, launch_server
from helpers.server.log import explain

# Seconds between two looks whether the server is still there.
_LOOK_S = 0.5


def serve(args: argparse.Namespace) -> int:
    """Launch what is asked for, print its card and what to try, wait for Ctrl-C or SIGTERM, stop it.

    Returns:
        0.

    Raises:
        CourseError: it did not start, or ended by itself.
    """
    if args.dry_run:
        _launch(args, dry_run=True)
        return 0
    # A closed terminal (SIGHUP, where there is one) and the system's polite request to end count as Ctrl-C.
    signals = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    # Under nohup a closed terminal is ignored, and stays so.
    signals = [number for number in signals if number in (signal.SIGINT, signal.SIGTERM) or signal.getsignal(number) != signal.SIG_IGN]

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    def ignore() -> None:
        # A second Ctrl-C would interrupt the stopping. Not before the first one has got through: Python can drop one.
        for each in signals:
            signal.signal(each, signal.SIG_IGN)

    before = {number: signal.signal(number, interrupt) for number in signals}
    try:
        _serve(args, ignore)
    except KeyboardInterrupt:
        ignore()
        # While models were loading: the server goes as soon as this process has ended.
        print("\nStopped.", flush=True)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def _options(args: argparse.Namespace) -> dict[str, Any]:
    names = ("runtime", "base_port", "gpu", "listen", "private", "keep_alive")
    options = {name: getattr(args, name) for name in names}
    # Not an option of its own: others on this machine can see what is typed.
    return options | {"token": os.environ.get("COURSE_TOKEN", "") if args.listen else ""}


def _launch(args: argparse.Namespace, **options: Any) -> Server | Fleet:
    options |= _options(args)
    # 0 and less are errors that launch_fleet explains.
    return launch_server(args.models, **options) if args.servers == 1 else launch_fleet(args.models, servers=args.servers, **options)


def _serve(args: argparse.Namespace, ignore: Callable[[], None]) -> None:
    with warnings.catch_warnings():
        # The card names the models that are not READY, with the reasons.
        warnings.simplefilter("ignore", ModelWarning)
        server = _launch(args, grace_s=COMMAND_GRACE_S)
    with server:
        try:
            print(server, _to_try(server), sep="\n\n", flush=True)
            said: set[str] = set()
            while server.state() in ("running", "hung"):
                for remark in _remarks(server):
                    if remark not in said:
                        print(remark, flush=True)
                        said.add(remark)
                time.sleep(_LOOK_S)
        except KeyboardInterrupt:
            ignore()
            print(f"\nStopping the server{'s' * isinstance(server, Fleet)} …", flush=True)
        else:
            raise ServerError(
                f"The server at {server.http_url} is gone.",
                explain(server.returncode, server.log(lines=0)),
                "Type: python -m helpers doctor",
            )
    print("Stopped.", flush=True)


def _remarks(server: Server | Fleet) -> list[str]:
    """What was noticed of the server, or of each server of a fleet, with its time."""
    servers = server.servers if isinstance(server, Fleet) else [server]
    return [f"{one.http_url} {remark}" for one in servers for remark in one.remarks]


def _to_try(server: Server | Fleet) -> str:
    model = next((model.name for model in server.models() if model.state == "READY"), "add_sub")
    # Behind one address each server has counters of its own.
    one = server.servers[0] if isinstance(server, Fleet) else server
    assert server.http is not None and one.metrics is not None
    beyond = one.listening.is_beyond
    header = '-H "Authorization: Bearer $COURSE_TOKEN" ' if beyond else ""
    # A token from the variable is known to whoever set it, and must not be on the screen.
    known = os.environ.get("COURSE_TOKEN", "") == one.token
    token = [f"The token for those who may use it: {one.token}", f"  export COURSE_TOKEN={one.token}"] if beyond and not known else []
    if server.token and not beyond:
        # In a file that only its owner can read: what is typed is in the list of processes, for all to see.
        token = ["Inference needs the server's secret. python -m helpers finds it by itself; for other programs it is in a file of yours:"]
        token += [f"  curl -H @{server.headers_file} -d @request.json {server.http.http(f'/v2/models/{model}/infer')}"]
    return "\n".join(
        (
            *token,
            "Try in another terminal:",
            f"  curl -i {header}{server.http.http('/v2/health/ready')}",
            f"  curl {header}{server.http.http(f'/v2/models/{model}/config')}",
            f"  curl {one.metrics_url}",
            f"  python -m helpers infer -m {model} -u {server.grpc_url} -p grpc",
            f"  python -m helpers metrics -u {one.metrics.host}:{one.metrics.port}",
            f"Stop the server{'s' * isinstance(server, Fleet)} here with Ctrl-C.",
        )
    )
