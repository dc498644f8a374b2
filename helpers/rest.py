"""Short questions to a server over HTTP: health, metadata, administration."""

from __future__ import annotations

import http.client
import ipaddress
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from helpers import settings
from helpers.address import Address
from helpers.errors import RequestError, ServerError

# A proxy of the site would be asked for "localhost" too, and would look at its own machine.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_BY_SITE_RULES = urllib.request.build_opener()


def is_loopback(host: str) -> bool:
    """Whether this name or address means this very machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def ask(
    address: Address,
    path: str,
    body: Any = None,
    *,
    headers: Mapping[str, str] | None = None,
    post: bool = False,
    timeout_s: float = settings.QUERY_TIMEOUT_S,
) -> Any:
    """Send one HTTP request and return the answer: an object from JSON, else text.

    Args:
        address: where the server listens.
        path: path of the URL, such as ``/v2/models/add_sub/config``.
        body: object to send as JSON; sending one makes the request a POST.
        headers: further headers.
        post: POST without a body.
        timeout_s: seconds to wait for the answer.

    Raises:
        ServerError: nothing answers at this address, or not in time.
        RequestError: the server refused; the message is the server's own.
    """
    data = json.dumps(body).encode() if body is not None else (b"" if post else None)
    request = urllib.request.Request(
        address.http(path), data=data, headers=dict(headers or {}), method="POST" if data is not None else "GET"
    )
    opener = _DIRECT if is_loopback(address.host) else _BY_SITE_RULES
    try:
        with opener.open(request, timeout=timeout_s) as answer:
            text = answer.read().decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        raise RequestError(
            refusal(error.read().decode("utf-8", "replace")) or f"The server answered {error.code} {error.reason} to {path}."
        ) from error
    except (OSError, http.client.HTTPException) as error:
        # What a gRPC port answers to HTTP is binary.
        reason = "it does not speak HTTP" if isinstance(error, http.client.BadStatusLine) else getattr(error, "reason", error)
        raise ServerError(
            f"No server answers at {address} ({reason}).",
            "Expected a running Triton server.",
            'Type: server = launch_server("models"), or look at server.log() if you have launched one',
        ) from error
    return json.loads(text) if text[:1] in ("{", "[") else text


def refusal(text: str) -> str:
    """The server's reason in an HTTP error body, which is JSON with the key ``error``, or plain text."""
    try:
        return str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        return text.strip()
