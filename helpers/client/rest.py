"""Short questions to a server over HTTP: health, metadata, administration."""

from __future__ import annotations

import base64
import functools
import http.client
import json
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from helpers import settings
from helpers.client import access_errors
from helpers.client.access import NO_ACCESS, Access
from helpers.client.address import Address
from helpers.client.transport import elsewhere
from helpers.errors import RequestError, ServerError
from helpers.machine import is_loopback


@functools.cache
def _opener(proxy: str, ca: str) -> urllib.request.OpenerDirector:
    through = urllib.request.ProxyHandler({"http": proxy, "https": proxy} if proxy else {})
    return urllib.request.build_opener(through, _Stay(), urllib.request.HTTPSHandler(context=Access(ca=ca).context()))


class _Stay(urllib.request.HTTPRedirectHandler):
    """Goes nowhere that an answer sends it: a key or a token is for the server that was named, not for another port or host."""

    def redirect_request(self, *_: Any) -> None:
        """Refuse, so that the answer arrives as an error."""


@dataclass(frozen=True)
class Proxy:
    """A proxy of the site.

    Attributes:
        url: as the environment variable has it.
        address: where it listens.
        headers: what a request to it carries: who we are, where its URL says so.
    """

    url: str = field(repr=False)
    address: Address
    headers: Mapping[str, str] = field(repr=False)


def proxy_of(address: Address, access: Access) -> Proxy | None:
    """Return the proxy of the site through which a request to this address goes, as ``http_proxy`` and its kin say it."""
    # A proxy would be asked for "localhost" too, and would look at its own machine.
    if access.direct or is_loopback(address.host) or urllib.request.proxy_bypass(str(address)):
        return None
    url = urllib.request.getproxies().get("https" if address.secure else "http", "")
    if not url:
        return None
    parts = urlsplit(url if "://" in url else f"http://{url}")
    who = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else ""
    headers = {"Proxy-Authorization": f"Basic {base64.b64encode(who.encode()).decode()}"} if who else {}
    return Proxy(url, Address(parts.hostname or "", parts.port or 80), headers)


def ask(
    address: Address,
    path: str,
    body: Any = None,
    *,
    headers: Mapping[str, str] | None = None,
    post: bool = False,
    timeout_s: float = settings.QUERY_TIMEOUT_S,
    access: Access = NO_ACCESS,
) -> Any:
    """Send one HTTP request and return the answer: an object from JSON, else text.

    Args:
        address: where the server listens.
        path: path of the URL, such as ``/v2/models/add_sub/config``.
        body: object to send as JSON; sending one makes the request a POST.
        headers: further headers.
        post: POST without a body.
        timeout_s: seconds to wait for the answer.
        access: token, and which certificates are trusted.

    Raises:
        ServerError: nothing answers at this address, or not in time.
        AccessError: the token, the certificate or the encryption does not fit.
        RequestError: the server refused; the message is the server's own.
    """
    data = json.dumps(body).encode() if body is not None else (b"" if post else None)
    request = urllib.request.Request(
        address.dialled.http(path),
        data=data,
        headers={**(headers or {}), **access.http_headers()},
        method="POST" if data is not None else "GET",
    )
    proxy = proxy_of(address, access)
    opener = _opener(proxy.url if proxy else "", access.ca)
    try:
        with opener.open(request, timeout=timeout_s) as answer:
            text = answer.read().decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        with error:
            words = error.read().decode("utf-8", "replace")
        if 300 <= error.code < 400:
            raise access_errors.sent_elsewhere(address, elsewhere(error.code, error.headers.get("Location"))) from error
        if proxy and not address.secure and access_errors.is_from_proxy(error.code, words):
            raise access_errors.not_passed_on(address, str(proxy.address), f"{error.code} {error.reason}: {words}") from error
        said = refusal(words) or f"The server answered {error.code} {error.reason} to {path}."
        if access_errors.needs_token(error.code, said):
            raise access_errors.refused(address, said, access) from error
        raise RequestError(said) from error
    except (OSError, http.client.HTTPException) as error:
        if proxy and not isinstance(getattr(error, "reason", error), ssl.SSLError):
            raise access_errors.not_passed_on(address, str(proxy.address), str(getattr(error, "reason", error))) from error
        quiet = isinstance(getattr(error, "reason", error), TimeoutError | ConnectionRefusedError | socket.gaierror)
        if not quiet and (problem := access_errors.encryption(address, str(error), access)):
            raise problem from error
        # What a gRPC port answers to HTTP is binary.
        reason = "it does not speak HTTP" if isinstance(error, http.client.BadStatusLine) else getattr(error, "reason", error)
        raise ServerError(
            f"No server answers at {address} ({reason}).",
            "Expected a running Triton server.",
            'Type: server = launch_server("models"), or look at server.log() if you have launched one',
        ) from error
    if text[:1] not in ("{", "["):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def listens(address: Address) -> bool:
    """Whether anything accepts connections at this address."""
    try:
        socket.create_connection((address.dialled.host, address.port), timeout=settings.LOOK_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def refusal(text: str) -> str:
    """The server's reason in an HTTP error body, which is JSON with the key ``error``, or plain text."""
    try:
        return str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        return text.strip()
