"""Envoy before a server, as a site runs it: TLS with a certificate of the site's own authority, and a bearer token for every call."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from helpers.client.endpoint import Address
from helpers.client.http import listens
from helpers.server import Server
from tests.support.processes import PATIENCE_S, wait_until

ENVOY = Path(sys.executable).with_name("envoy")
TOKEN = "token-of-the-site-0123456789"


@dataclass(frozen=True)
class Certificates:
    """Files of an authority and of what it signed."""

    ca: Path
    certificate: Path
    key: Path


def make_certificates(folder: Path, names: str = "DNS:localhost,IP:127.0.0.2") -> Certificates:
    """A new authority and a certificate that it signed for these names."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Certificates(folder / "ca.pem", folder / "server.crt", folder / "server.key")
    extensions = folder / "extensions"
    extensions.write_text(f"subjectAltName={names}\nbasicConstraints=CA:FALSE\n")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc"]
    authority = ["-subj", "/CN=Authority of the tests", "-addext", "keyUsage=critical,keyCertSign", "-keyout", "ca.key", "-out", "ca.pem"]
    for command in (
        ["req", "-x509", "-days", "2", *key, *authority],
        ["req", *key, "-subj", "/CN=server", "-keyout", "server.key", "-out", "server.csr"],
        [
            "x509",
            "-req",
            "-days",
            "1",
            "-in",
            "server.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-extfile",
            "extensions",
            "-out",
            "server.crt",
        ],
    ):
        subprocess.run(["openssl", *command], cwd=folder, check=True, capture_output=True)
    return made


@contextmanager
def front(server: Server, port: int, certificates: Certificates, folder: Path) -> Iterator[None]:
    """Envoy on ``port`` for gRPC alone, and on ``port + 3`` for gRPC, HTTP and the metrics page together."""
    assert server.http is not None and server.grpc is not None and server.metrics is not None
    to_grpc = [_route("grpc", grpc={})]
    to_all = [*to_grpc, _route("metrics", prefix="/metrics"), _route("http")]
    config = {
        "static_resources": {
            "listeners": [_listener(port, to_grpc, certificates), _listener(port + 3, to_all, certificates)],
            "clusters": [
                _cluster("grpc", server.grpc.port, http2=True),
                _cluster("http", server.http.port),
                _cluster("metrics", server.metrics.port),
            ],
        }
    }
    path = folder / "envoy.json"
    path.write_text(json.dumps(config))
    with open(folder / "envoy.log", "w") as log:
        envoy = subprocess.Popen([ENVOY, "-c", path, "--disable-hot-restart", "--concurrency", "1"], stdout=log, stderr=log)
    try:
        wait_until(lambda: envoy.poll() is None and listens(Address("127.0.0.1", port + 3)))
        yield
    finally:
        envoy.terminate()
        envoy.wait(PATIENCE_S)


def _route(cluster: str, prefix: str = "/", **match: object) -> dict[str, object]:
    right = {"name": "authorization", "string_match": {"exact": f"Bearer {TOKEN}"}}
    return {"match": {"prefix": prefix, "headers": [right], **match}, "route": {"cluster": cluster, "timeout": "0s"}}


def _listener(port: int, routes: list[dict[str, object]], certificates: Certificates) -> dict[str, object]:
    right = {"name": "authorization", "string_match": {"exact": f"Bearer {TOKEN}"}}
    others = [
        {"match": {"prefix": "/", "headers": [right]}, "direct_response": {"status": 404, "body": {"inline_string": "only gRPC here"}}},
        {"match": {"prefix": "/"}, "direct_response": {"status": 401, "body": {"inline_string": "no valid token"}}},
    ]
    hosts = [{"name": "all", "domains": ["*"], "routes": [*routes, *others]}]
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": f"front_{port}",
        "route_config": {"virtual_hosts": hosts},
        "http_filters": [
            {"name": "router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}},
        ],
    }
    files = {"certificate_chain": {"filename": str(certificates.certificate)}, "private_key": {"filename": str(certificates.key)}}
    tls = {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {"alpn_protocols": ["h2", "http/1.1"], "tls_certificates": [files]},
    }
    chain = {"filters": [{"name": "http", "typed_config": manager}], "transport_socket": {"name": "tls", "typed_config": tls}}
    return {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}, "filter_chains": [chain]}


def _cluster(name: str, port: int, http2: bool = False) -> dict[str, object]:
    place = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}
    options = {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}} if http2 else {"http_protocol_options": {}},
    }
    return {
        "name": name,
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": place}]}]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
    }
