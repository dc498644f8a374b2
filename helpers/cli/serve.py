"""``python -m helpers serve``: launch a server, or several behind one address, and wait until Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import time
import warnings
from typing import Any

from helpers.errors import ServerError
from helpers.fleet import Fleet, launch_fleet
from helpers.server import ModelWarning, Server, launch_server
from helpers.server.log import explain

# Seconds that the server of a command outlives that command when it is killed: nobody comes back to it, as a restarted notebook does.
GRACE_S = 2.0
# Seconds between two looks whether the server is still there.
_LOOK_S = 0.5


def serve(args: argparse.Namespace) -> int:
    """Launch what is asked for, print its card and what to try, wait for Ctrl-C or SIGTERM, stop it."""
    if args.dry_run:
        _launch(args, dry_run=True)
        return 0
    # A closed terminal (SIGHUP) and the system's polite request to end count as Ctrl-C; under nohup a closed terminal is ignored.
    ends = {signal.SIGINT, signal.SIGTERM}
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        ends.add(signal.SIGHUP)
    for number in ends:
        signal.signal(number, signal.default_int_handler)
    try:
        with warnings.catch_warnings():
            # The card names the models that are not READY, with the reasons.
            warnings.simplefilter("ignore", ModelWarning)
            server = _launch(args, grace_s=GRACE_S)
        with server:
            try:
                _wait(server)
            except KeyboardInterrupt:
                print(f"\nStopping the server{'s' * isinstance(server, Fleet)} …", flush=True)
                raise
    except KeyboardInterrupt:
        # While models were loading: the server goes as soon as this process has ended.
        print("Stopped.", flush=True)
    return 0


def _launch(args: argparse.Namespace, **options: Any) -> Server | Fleet:
    options |= {name: getattr(args, name) for name in ("runtime", "base_port", "gpu", "listen", "private")}
    # 0 and less are errors that launch_fleet explains.
    return launch_server(args.models, **options) if args.servers == 1 else launch_fleet(args.models, servers=args.servers, **options)


def _wait(server: Server | Fleet) -> None:
    """Print what there is to know, and what is noticed of each server, until it is gone."""
    print(server, _to_try(server), sep="\n\n", flush=True)
    said: dict[str, str] = {}
    while server.state() == "running":
        for one in server.servers if isinstance(server, Fleet) else [server]:
            if one.noticed != said.get(one.url, ""):
                said[one.url] = one.noticed
                print(one.http_url, one.noticed, flush=True)
        time.sleep(_LOOK_S)
    why = explain(server.returncode, server.log(lines=0))
    raise ServerError(f"The server at {server.http_url} is gone.", why, "Type: python -m helpers doctor")


def _to_try(server: Server | Fleet) -> str:
    model = next((model.name for model in server.models() if model.state == "READY"), "add_sub")
    # Behind one address each server has counters of its own.
    one = server.servers[0] if isinstance(server, Fleet) else server
    assert server.http is not None and one.metrics is not None
    header, lines = "", []
    if one.listening.is_beyond:
        header = '-H "Authorization: Bearer $COURSE_TOKEN" '
        lines = [f"For those who may use it: export COURSE_TOKEN={one.token}"]
    elif server.token:
        # In a file that only its owner can read: what is typed is in the list of processes, for all to see.
        lines = ["Inference needs the server's secret. python -m helpers finds it by itself; for other programs it is in a file of yours:"]
        lines += [f"  curl -H @{server.headers_file} -d @request.json {server.http.http(f'/v2/models/{model}/infer')}"]
    lines += [
        "Try in another terminal:",
        f"  curl -i {header}{server.http.http('/v2/health/ready')}",
        f"  curl {header}{server.http.http(f'/v2/models/{model}/config')}",
        f"  curl {one.metrics_url}",
        f"  python -m helpers infer -m {model} -u {server.grpc_url} -p grpc",
        f"  python -m helpers metrics -u {one.metrics.host}:{one.metrics.port}",
        f"Stop the server{'s' * isinstance(server, Fleet)} here with Ctrl-C.",
    ]
    return "\n".join(lines)
