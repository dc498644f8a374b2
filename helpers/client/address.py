"""Where a server is: one way to read the addresses that people type."""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from helpers.errors import InputError
from helpers.machine import LOCAL_NAMES, LOOPBACK

_SECURE = {"http": False, "grpc": False, "https": True, "grpcs": True}


@dataclass(frozen=True)
class Address:
    """A host and a port, and whether the connection is encrypted.

    Attributes:
        host: name or IP address, without brackets.
        port: TCP port.
        secure: True for ``https://`` and ``grpcs://``.
        scheme: what stood before ``://``, or an empty string.
    """

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
    """Read ``localhost:9001``, ``http://localhost:9000/``, ``grpc://gpu-node:9001``, ``https://host`` or ``[::1]:9000``.

    Args:
        url: the address; a path behind it is ignored.
        default_port: port to use when the address names none.

    Raises:
        InputError: the text is no address, or names no port and there is no default.
    """
    example = 'Type for example "localhost:9001" or "http://localhost:9000".'
    if not isinstance(url, str) or not url.strip():
        raise InputError(f"{url!r} is no address.", "Expected a host and a port.", example)
    text = url.strip()
    scheme = text.split("://", 1)[0].lower() if "://" in text else ""
    if scheme and scheme not in _SECURE:
        raise InputError(f"The address {url!r} begins with {scheme}://.", "Expected http, https, grpc, grpcs or nothing.", example)
    try:
        parts = urlsplit(text if scheme else f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InputError(f"The address {url!r} cannot be read: {error}.", "Expected a host and a port up to 65535.", example) from error
    port = port or default_port
    if not host or any(character.isspace() for character in host):
        raise InputError(f"The address {url!r} names no host.", "Expected a host and a port.", example)
    if not port:
        raise InputError(f"The address {url!r} names no port.", "Expected a host and a port.", example)
    return Address(host, port, _SECURE.get(scheme, False), scheme)
