"""Connect to a server that somebody else runs: on this machine, on another node, or behind a proxy that wants a token and speaks TLS.

Typical use::

    server = connect("gpu-node:9000")
    server = connect("gpu-node:9000", token="…")                     # the server of a whole class
    server = connect("grpcs://sonic.example.org:443", token="…")      # only gRPC can be reached, encrypted
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from helpers.client import http
from helpers.client.endpoint import BASE_PORT, NO_ACCESS, Access, Address, access_for, parse_address, with_own_secret
from helpers.client.problems import plainly
from helpers.client.ways import way_to
from helpers.errors import AccessError, CourseError, NotAServerError, RequestError, ServerError
from helpers.machine import is_loopback
from helpers.server import lease
from helpers.server.server import Server

# Port of encrypted addresses that name none.
_TLS_PORT = 443


def connect(
    url: str,
    *,
    token: str = "",
    headers: Mapping[str, str] | None = None,
    ca: str | Path | None = None,
    metrics: str = "",
) -> Server:
    """Return a server that somebody else runs, by the address of its HTTP or its gRPC port; nothing is owned.

    By the course's convention HTTP, gRPC and metrics have three ports in a row. Where only one of them can be reached, as behind a proxy,
    everything goes through that one; what cannot be had then, such as the metrics page, is said when it is asked for.

    A server that another notebook of yours has launched on this machine outlives that notebook while this one is connected to it.

    Args:
        url: such as ``gpu-node:9000``, ``http://gpu-node:9000``, ``grpc://gpu-node:9001`` or, encrypted, ``https://…`` and ``grpcs://…``.
        token: what the server's owner has given out, sent as ``Authorization: Bearer TOKEN`` with every request. For a server of your
            own on this machine it is found.
        headers: further headers, sent with every request.
        ca: file with the certificate of the authority that signed the server's, where this machine does not know it.
        metrics: address of the metrics page, where it is not on the third port.

    Raises:
        ServerError: no Triton server answers there.
        AccessError: token, certificate or encryption do not fit.
        InputError: the text is no address, or token, headers or CA file cannot be used.
    """
    given_access = access_for(token, headers, ca)
    given = _address(url)
    page = parse_address(metrics) if metrics else None
    failed: list[CourseError] = []
    for address, scheme in _candidates(given):
        place, access = replace(address, scheme=scheme), with_own_secret(given_access, address)
        over_http = scheme.startswith("http")
        try:
            with closing(way_to("http" if over_http else "grpc", place, access)) as way, plainly(way):
                # Many a web page answers to everything, so the second question counts.
                alive = way.is_live() and bool(way.about())
        except (ServerError, RequestError) as error:
            failed.append(error)
            continue
        if alive:
            return _kept(_triple(place, access, page)) if over_http else _alone(place, access, page)
    # That something is there, and does not let us in or is no server, says more than that there is none.
    for problem in failed:
        if isinstance(problem, AccessError | NotAServerError):
            raise problem
    raise ServerError(
        f"No Triton server answers at {given}.",
        "Expected its HTTP port, such as gpu-node:9000, or its gRPC port.",
        "Ask its owner for server.http_url.",
    ) from (failed[0] if failed else None)


def at(url: str, protocol: str | None, access: Access) -> Server | str:
    """Return the server at one port, which is not asked anything yet: for commands that get an address and, maybe, a token.

    Args:
        url: the address of the port, complete.
        protocol: ``grpc`` or ``http``; None means gRPC, or HTTP when the address says so.
        access: token, and which certificates are trusted.

    Returns:
        A server without its other ports; the address itself where nothing but the address is needed.
    """
    address = parse_address(url)
    access = with_own_secret(access, address)
    if access == NO_ACCESS and not address.secure:
        return url
    over_http = (protocol or address.scheme or "grpc").startswith("http")
    return Server(address if over_http else None, None if over_http else address, None, access=access)


def _address(url: str) -> Address:
    """The address that was given; encrypted ones have the usual port of the web when they name none."""
    secure = isinstance(url, str) and url.strip().lower().startswith(("https://", "grpcs://"))
    return parse_address(url, _TLS_PORT if secure else BASE_PORT)


def _candidates(given: Address) -> list[tuple[Address, str]]:
    """Where a server may answer, and in which protocol, in the order in which it is tried."""
    before = replace(given, port=given.port - 1)
    if given.scheme == "grpcs":
        return [(given, "grpcs")]
    if given.scheme == "https":
        return [(given, "https")]
    if given.scheme == "grpc":
        # Its HTTP port says more, where it can be reached.
        return [(before, "http"), (given, "grpc")]
    return [(given, "http"), (before, "http"), *([(given, "grpc")] if not given.scheme else [])]


def _triple(http: Address, access: Access, page: Address | None) -> Server:
    """The server whose HTTP port answers, with its other ports as far as they can be reached."""
    grpc = replace(http, port=http.port + 1, scheme="grpcs" if http.secure else "grpc")
    metrics = page or _reachable(replace(http, port=http.port + 2), http)
    return Server(http, _reachable(grpc, http), metrics, access=access)


def _alone(grpc: Address, access: Access, page: Address | None) -> Server:
    """The server of which only the gRPC port answers."""
    metrics = replace(grpc, port=grpc.port + 1, secure=False, scheme="http")
    return Server(None, grpc, page or _reachable(metrics, grpc), access=access)


def _kept(server: Server) -> Server:
    """The server, with a lease on it where it is one of this very person on this very machine."""
    if server.http is not None and is_loopback(server.http.host):
        for held in lease.mine(server.http.port):
            # The port may lead elsewhere, through a tunnel.
            with contextlib.suppress(ServerError, RequestError):
                if server.metadata().get("name") == held.state()["server_id"]:
                    server.keep(held)
    return server


def _reachable(address: Address, given: Address) -> Address | None:
    """One of the three ports in a row, where anything listens there; behind the usual port of the web there is no row."""
    return address if given.port != _TLS_PORT and http.listens(address) else None
