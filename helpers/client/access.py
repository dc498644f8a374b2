"""What a request to a server elsewhere carries besides its question: a token or other headers, and which certificates it trusts.

Typical use::

    access = access_for(token="…", ca="ca.pem")
    access.http_headers()                 # {"Authorization": "Bearer …"}
    access.grpc_headers()                 # the same for gRPC, and for a server of this course
"""

from __future__ import annotations

import functools
import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from helpers import run_folder, settings
from helpers.client.address import Address
from helpers.errors import InputError
from helpers.machine import LOCAL_NAMES, LOOPBACK

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@dataclass(frozen=True)
class Access:
    """How to be let in. Its headers are secret: they are in no text that this class makes.

    Attributes:
        headers: sent with each request.
        ca: file with the certificates of the authorities that are trusted; empty for those that this machine trusts.
        direct: whether a proxy of the site is passed by, as it must be for a server on this machine.
    """

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    ca: str = ""
    direct: bool = False

    def http_headers(self) -> dict[str, str]:
        """The headers for HTTP."""
        return dict(self.headers)

    def grpc_headers(self) -> dict[str, str]:
        """The headers for gRPC, whose names are in lower case; the token also under the name by which Triton itself looks for it."""
        lower = {name.lower(): value for name, value in self.headers.items()}
        token = {f"{settings.GRPC_HEADER_PREFIX}{settings.TOKEN_HEADER}": lower[settings.TOKEN_HEADER]} if self.sends_token else {}
        return {**lower, **token}

    @property
    def sends_token(self) -> bool:
        """Whether an ``Authorization`` header is among the headers."""
        return any(name.lower() == settings.TOKEN_HEADER for name in self.headers)

    def context(self) -> ssl.SSLContext:
        """The rules by which certificates are checked."""
        return _context(self.ca)


@functools.cache
def _context(ca: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca or None)


NO_ACCESS = Access()


def access_for(token: str = "", headers: Mapping[str, str] | None = None, ca: str | Path | None = None) -> Access:
    """The access that these make.

    Args:
        token: sent as ``Authorization: Bearer TOKEN``.
        headers: further headers.
        ca: PEM file with the certificate of the authority that signed the server's.

    Raises:
        InputError: one of them cannot be sent or read. The message does not repeat a secret.
    """
    sent: dict[str, str] = {}
    for name, value in (headers or {}).items():
        if not isinstance(name, str) or not _NAME.fullmatch(name) or not isinstance(value, str) or not _is_visible(value):
            raise InputError(
                f"The header {name!r} cannot be sent.",
                "Expected a name without blanks and colons, and a value of visible characters.",
                'Type for example: connect(…, headers={"X-Api-Key": "…"})',
            )
        sent[name] = value
    if token:
        if not isinstance(token, str) or not _is_visible(token) or " " in token:
            raise InputError(
                "The token that was given cannot be sent.",
                "Expected visible characters of ASCII without blanks; a line end at its end often comes from a file.",
                "Type for example: connect(…, token=text.strip())",
            )
        sent = {name: value for name, value in sent.items() if name.lower() != settings.TOKEN_HEADER}
        sent[settings.TOKEN_HEADER.capitalize()] = f"Bearer {token}"
    path = str(Path(ca).expanduser().resolve()) if ca else ""
    if path:
        try:
            _context(path)
        except (OSError, ssl.SSLError) as error:
            raise InputError(
                f"The file {ca} cannot be used as certificates: {error.strerror or error}.",
                "Expected a PEM file that begins with -----BEGIN CERTIFICATE-----.",
                'Ask whoever runs the server for its CA file and type: connect(…, ca="ca.pem")',
            ) from error
    return Access(sent, path)


def with_own_secret(access: Access, address: Address) -> Access:
    """Return this access, with the secret of a server of one's own where the address is one on this machine and no token was given.

    The secret is looked up in a folder that only its owner can enter: where the server is somebody else's, nothing is found or sent.
    """
    if access.sends_token:
        return access
    for state in _own_servers(address):
        if token := state.get("listening", {}).get("token", ""):
            return replace(access, headers={**access.headers, settings.TOKEN_HEADER.capitalize(): f"Bearer {token}"}, direct=True)
    return access


def own_key(address: Address) -> str:
    """Return the administration key of a server of one's own at this address; empty where the server is somebody else's."""
    return next((str(state["admin_key"]) for state in _own_servers(address) if state.get("admin_key")), "")


def _own_servers(address: Address) -> Iterator[dict[str, Any]]:
    """The states of this user's servers of which this is a port on this machine: one, or none."""
    if address.host in (*LOCAL_NAMES, LOOPBACK):
        yield from (state for state in run_folder.states() if address.port in state.get("ports", ()))


def _is_visible(text: str) -> bool:
    return bool(text) and text.isascii() and text.isprintable()
