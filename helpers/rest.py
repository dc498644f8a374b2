"""Short questions to a server over HTTP: health, metadata, administration."""

from __future__ import annotations

import functools
import http.client
import json
import socket
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from helpers import access_errors, settings
from helpers.access import NO_ACCESS, Access
from helpers.address import Address
from helpers.errors import RequestError, ServerError
from helpers.machine import is_loopback
from helpers.transport import elsewhere


@functools.cache
def _opener(direct: bool, ca: str) -> urllib.request.OpenerDirector:
    # A proxy of the site would be asked for "localhost" too, and would look at its own machine.
    rules = [urllib.request.ProxyHandler({})] if direct else []
    return urllib.request.build_opener(*rules, _Stay(), urllib.request.HTTPSHandler(context=Access(ca=ca).context()))


class _Stay(urllib.request.HTTPRedirectHandler):
    """Goes nowhere that an answer sends it: a key or a token is for the server that was named, not for another port or host."""

    def redirect_request(self, *_: Any) -> None:
        """Refuse, so that the answer arrives as an error."""


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
    opener = _opener(access.direct or is_loopback(address.host), access.ca)
    try:
        with opener.open(request, timeout=timeout_s) as answer:
            text = answer.read().decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        with error:
            words = error.read().decode("utf-8", "replace")
        if 300 <= error.code < 400:
            raise access_errors.sent_elsewhere(address, elsewhere(error.code, error.headers.get("Location"))) from error
        said = refusal(words) or f"The server answered {error.code} {error.reason} to {path}."
        if access_errors.needs_token(error.code, said):
            raise access_errors.refused(address, said, access) from error
        raise RequestError(said) from error
    except (OSError, http.client.HTTPException) as error:
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
    return json.loads(text) if text[:1] in ("{", "[") else text


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
