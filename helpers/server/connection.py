"""Connect to a server that somebody else runs: on this machine, on another node, or behind a proxy that wants a token and speaks TLS."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

from helpers.client import http, way_to
from helpers.client.endpoint import BASE_PORT, Access, Address, access_for, parse_address, with_own_secret
from helpers.client.problems import plainly
from helpers.errors import AccessError, CourseError, NotAServerError, RequestError, ServerError
from helpers.server.server import Server

# Port of encrypted addresses that name none.
_TLS_PORT = 443


def connect(url: str, *, token: str = "", ca: str | Path | None = None, metrics: str = "") -> Server:
    """Return a server that somebody else runs, by the address of its HTTP or its gRPC port; nothing is owned.

    HTTP, gRPC and metrics have three ports in a row; where only one of them can be reached, as behind a proxy, everything goes through it.

    Args:
        url: such as ``gpu-node:9000``, ``http://gpu-node:9000``, ``grpc://gpu-node:9001`` or, encrypted, ``https://…`` and ``grpcs://…``.
        token: what the server's owner has given out; for a server of your own on this machine it is found.
        ca: file with the certificate of the authority that signed the server's, where this machine does not know it.
        metrics: address of the metrics page, where it is not on the third port.
    """
    given_access = access_for(token, ca)
    secure = isinstance(url, str) and url.strip().lower().startswith(("https://", "grpcs://"))
    given = parse_address(url, _TLS_PORT if secure else BASE_PORT)
    page = parse_address(metrics) if metrics else None
    failed: list[CourseError] = []
    for address in _candidates(given):
        access, protocol = with_own_secret(given_access, address), "http" if address.scheme.startswith("http") else "grpc"
        try:
            with closing(way_to(protocol, address, access)) as way, plainly(way):
                way.about()
                return _server(address, access, page)
        except (ServerError, RequestError) as error:
            failed.append(error)
    # That something is there, and does not let us in or is no server, says more than that there is none.
    for problem in failed:
        if isinstance(problem, AccessError | NotAServerError):
            raise problem
    expected = "Expected its HTTP port, such as gpu-node:9000, or its gRPC port; after https:// or grpcs:// where it is encrypted."
    todo = 'Ask its owner for server.http_url. To start one yourself, type: server = launch_server("models")'
    raise ServerError(f"No Triton server answers at {given}.", expected, todo) from next(iter(failed), None)


def _candidates(given: Address) -> list[Address]:
    """Where a server may answer, and in which protocol, in the order in which it is tried."""
    if given.secure:
        return [given]
    here, before = replace(given, scheme="http"), replace(given, scheme="http", port=given.port - 1)
    if given.scheme == "grpc":
        # Its HTTP port says more, where it can be reached.
        return [before, given]
    return [here, before, *([replace(given, scheme="grpc")] if not given.scheme else [])]


def _server(address: Address, access: Access, page: Address | None) -> Server:
    """The server that answers at this address, with its other ports as far as they can be reached."""

    def reachable(other: Address) -> Address | None:
        # Behind the usual port of the web there is no row of three ports.
        return other if address.port != _TLS_PORT and http.listens(other) else None

    if not address.scheme.startswith("http"):
        metrics = page or reachable(Address(address.host, address.port + 1, scheme="http"))
        return Server(None, address, metrics, access)
    grpc = reachable(replace(address, port=address.port + 1, scheme="grpcs" if address.secure else "grpc"))
    return Server(address, grpc, page or reachable(replace(address, port=address.port + 2)), access)
