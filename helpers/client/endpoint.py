"""Where a server is and what a request to it carries: its address, a token, and which certificates are trusted."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from helpers import run_folder
from helpers.errors import InputError
from helpers.machine import LOCAL_NAMES, LOOPBACK

# Names of the headers that carry a token, the usual one, so that curl and every proxy know it, and the administration key.
TOKEN_HEADER, ADMIN_HEADER = "authorization", "course-admin-key"
# Triton looks for its restricted protocols' keys in gRPC metadata under their name with this prefix.
GRPC_HEADER_PREFIX = "triton-grpc-protocol-"
# Seconds for questions about the server (health, metadata, metrics): these answer in milliseconds or not at all.
QUERY_TIMEOUT_S = 10.0
# Ports. HTTP gets the base port, gRPC the next, metrics the one after, as in the course text. Not Triton's own 8000:
# on shared nodes JupyterHub sits there.
BASE_PORT = 9000
# A parameter that a reload writes into a config, so that Triton takes it for a new one; what shows a config leaves it out.
RELOAD_MARK = "course_reload"

_SECURE = {"": False, "http": False, "grpc": False, "https": True, "grpcs": True}


@dataclass(frozen=True)
class Address:
    """A host without brackets and a port; ``scheme`` is what stood before ``://``, if anything."""

    host: str
    port: int
    secure: bool = False
    scheme: str = ""

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def dialled(self) -> Address:
        """This address as a connection is made to it: with ``127.0.0.1`` for ``localhost``.

        The name can mean ``::1`` first. There another user may listen on the same port, and would get what is meant for the server.
        With encryption the name stays: the certificate is for it, and shows who answers.
        """
        return self if self.secure or self.host not in LOCAL_NAMES else replace(self, host=LOOPBACK)

    def http(self, path: str = "") -> str:
        """This address as an HTTP URL with a path, such as ``http://localhost:9002/metrics``."""
        return f"{'https' if self.secure else 'http'}://{self}{path}"


def parse_address(url: str, default_port: int | None = None) -> Address:
    """Read ``localhost:9001``, ``http://localhost:9000/``, ``grpc://gpu-node:9001``, ``https://host`` or ``[::1]:9000``."""
    text = url.strip() if isinstance(url, str) else ""
    scheme = text.split("://", 1)[0].lower() if "://" in text else ""
    try:
        parts = urlsplit(text if scheme else f"//{text}")
        host, port = parts.hostname, parts.port or default_port
        if not host or not port or scheme not in _SECURE or any(character.isspace() for character in host):
            raise ValueError("it names no host, no port, or another protocol")
    except ValueError as error:
        expected = 'Expected a host and a port up to 65535, such as "localhost:9001", after http, https, grpc, grpcs or nothing.'
        raise InputError(f"The address {url!r} cannot be used: {error}.", expected) from error
    return Address(host, port, _SECURE[scheme], scheme)


@dataclass(frozen=True)
class Access:
    """How to be let in: a token, which is secret and in no text, and a file of trusted authorities; without one, those of this machine."""

    token: str = field(default="", repr=False)
    ca: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """What a request carries over HTTP and gRPC alike: the token, also under the name by which Triton's gRPC looks for it."""
        names = (TOKEN_HEADER, f"{GRPC_HEADER_PREFIX}{TOKEN_HEADER}")
        return dict.fromkeys(names, f"Bearer {self.token}") if self.token else {}


NO_ACCESS = Access()


def access_for(token: str = "", ca: str | Path | None = None) -> Access:
    """Return the access by a token (``Authorization: Bearer TOKEN``) and a PEM file; no message repeats the token."""
    if not re.fullmatch(r"[ -~]*", token):
        expected = "Expected visible characters of ASCII; a line end at its end often comes from a file."
        raise InputError("The token cannot be sent.", expected, "Type for example: connect(…, token=text.strip())")
    access = Access(token, str(Path(ca).expanduser().resolve()) if ca else "")
    try:
        ssl.create_default_context(cafile=access.ca or None)
    except (OSError, ssl.SSLError) as error:
        happened = f"The file {ca} cannot be used as certificates: {error.strerror or error}."
        raise InputError(happened, "Expected a PEM file that begins with -----BEGIN CERTIFICATE-----.") from error
    return access


def with_own_secret(access: Access, address: Address) -> Access:
    """Return this access, with the secret of a server of one's own where the address is one on this machine and no token was given.

    The secret is looked up in a folder that only its owner can enter: where the server is somebody else's, nothing is found or sent.
    """
    if not access.token and address.host in (*LOCAL_NAMES, LOOPBACK):
        for state in run_folder.states():
            token = state.get("listening", {}).get("token", "")
            if token and address.port in state.get("ports", ()):
                return replace(access, token=token)
    return access


def where(server: Any, protocol: str | None) -> tuple[str, Address]:
    """Return which protocol to speak, and to which address, for a Server or an address and the protocol that was asked for, if any."""
    if protocol not in (None, "grpc", "http"):
        raise InputError(f"protocol={protocol!r} was given.", "Expected 'grpc' or 'http'.")
    if isinstance(server, str):
        address = parse_address(server)
        return protocol or ("http" if address.scheme.startswith("http") else "grpc"), address
    # A server of which only one port can be reached is spoken to there; what has no such port says at its URL why.
    protocol = protocol or ("http" if getattr(server, "grpc", None) is None and getattr(server, "http", None) else "grpc")
    return protocol, getattr(server, protocol, None) or parse_address(getattr(server, f"{protocol}_url", server))
