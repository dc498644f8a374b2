"""Where a server listens, and who is let in: on the loopback interface for its owner's machine, or beyond it for those with a token.

On the loopback interface every user of the machine can send requests. Where other people use it, inference therefore needs a secret that
only the owner's own programs know; health, metadata and metrics answer everybody.

Triton's own means are used: its HTTP and gRPC ports can demand a header for each group of calls, and its gRPC port speaks TLS. Its HTTP
port speaks no TLS and its metrics port knows no token, so with TLS the first, and always the second, stay on the loopback interface.
"""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from helpers import run_folder
from helpers.client.endpoint import ADMIN_HEADER, TOKEN_HEADER, Access, Address
from helpers.errors import InputError, quoted
from helpers.machine import LOOPBACK
from helpers.server import neighbours

# The instructor's word on that, and how it may read.
PRIVATE_VARIABLE = "COURSE_PRIVATE"
_YES_NO = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}

# Characters of a class's token at least, and random bytes of one that is made up: too many to guess over a network.
TOKEN_MIN_LENGTH, TOKEN_BYTES = 12, 18

# The protocol group that needs the server's secret on a machine that other people use: all whose requests Triton parses. The other
# groups' calls carry nothing but a name.
PRIVATE_APIS = "inference"

# The protocol groups that need the class's token on a server that listens beyond this machine: all that Triton 2.51 knows but the owner's.
CLASS_APIS = "health,metadata,inference,model-config,statistics"

# The protocol groups that need the key: through these, everybody who reaches the port could run code or read memory as the owner.
ADMIN_APIS = "model-repository,shared-memory,trace,logging"

_ALL = "0.0.0.0"
# What Triton's option takes without mistaking a part of it for something else.
_TOKEN = re.compile(rf"[A-Za-z0-9._~+/=-]{{{TOKEN_MIN_LENGTH},}}")
_HOW = 'Type for example: launch_server(listen="all"), or the address of one network interface'


@dataclass(frozen=True)
class Listening:
    """Where a server listens, and who is let in.

    Attributes:
        http: address of the interface for HTTP.
        grpc: address of the interface for gRPC.
        name: by which others call this machine.
        token: that calls must carry: inference on the loopback interface, every call beyond it; empty where none is needed.
        certificate: PEM file with the certificate of the gRPC port; empty for no TLS.
        private_key: PEM file with its key.
        ca: PEM file with the authority that signed it.
        why: on the loopback interface, why inference needs the token or does not.
    """

    http: str = LOOPBACK
    grpc: str = LOOPBACK
    name: str = "localhost"
    token: str = field(default="", repr=False)
    certificate: str = ""
    private_key: str = ""
    ca: str = ""
    why: str = ""

    @property
    def is_beyond(self) -> bool:
        """True if others than this machine's own loopback interface lead to it."""
        return self.grpc != LOOPBACK

    def addresses(self, ports: list[int]) -> tuple[Address, Address, Address]:
        """Return HTTP, gRPC and metrics as the owner's own helpers reach them."""
        http, grpc, metrics = ports
        here = "localhost" if self.http in (LOOPBACK, _ALL) else self.http
        secure = bool(self.certificate)
        to_grpc = self.name if secure or self.grpc not in (LOOPBACK, _ALL) else "localhost"
        return (
            Address(here, http),
            Address(to_grpc, grpc, secure, "grpcs" if secure else ""),
            Address("localhost", metrics),
        )

    def access(self) -> Access:
        """Return what the owner's own requests carry."""
        headers = {TOKEN_HEADER.capitalize(): f"Bearer {self.token}"} if self.token else {}
        return Access(headers, self.ca, direct=True)

    def files(self) -> dict[str, str]:
        """Return texts for the server's private folder, by name: what raw requests must carry, if they must carry anything."""
        headers = self.access().grpc_headers()
        return {run_folder.HEADERS: "".join(f"{name}: {value}\n" for name, value in headers.items())} if headers else {}

    def rules(self, admin_key: str) -> list[str]:
        """Return groups of calls and the header that each of them needs, as Triton's options take them."""
        rules = [f"{ADMIN_APIS}:{ADMIN_HEADER}={admin_key}"]
        if self.token:
            guarded = CLASS_APIS if self.is_beyond else PRIVATE_APIS
            rules.append(f"{guarded}:{TOKEN_HEADER}=Bearer {self.token}")
        return rules

    def for_others(self, ports: list[int]) -> str:
        """Return what others type to connect."""
        http, grpc, _ = ports
        return f'connect("grpcs://{self.name}:{grpc}", token="…")' if self.certificate else f'connect("{self.name}:{http}", token="…")'

    def inference(self) -> str:
        """Return who may send inference requests, for the card."""
        who = "every call needs the token" if self.is_beyond else "needs server.headers" if self.token else "open to this whole machine"
        return f"{who}: {self.why}" if self.why else who

    def warning(self) -> str:
        """Return one paragraph for the card; empty on the loopback interface."""
        if not self.is_beyond:
            return ""
        where = "every interface of this machine" if self.grpc == _ALL else self.grpc
        if self.certificate:
            how = "gRPC is encrypted; HTTP, which Triton cannot encrypt, and the metrics stay on this machine."
        else:
            how = "Nothing is encrypted: who can listen on the network reads the token. The metrics stay on this machine."
        return f"This server listens beyond this machine, on {where}. Every call needs the token. {how}"


THIS_MACHINE = Listening()


def listening(
    listen: str = "",
    token: str = "",
    tls_cert: str | Path | None = None,
    tls_key: str | Path | None = None,
    ca: str | Path | None = None,
    private: bool | None = None,
) -> Listening:
    """Return where a server shall listen.

    Args:
        listen: empty for the loopback interface alone, ``all``, or the address or name of one interface.
        token: that calls must carry; one is made up where it is needed and none is given.
        tls_cert: PEM file with the certificate of the gRPC port.
        tls_key: PEM file with its key.
        ca: PEM file with the authority that signed it; the certificate itself where it is its own authority.
        private: whether inference needs a token on the loopback interface, too; None for what ``COURSE_PRIVATE`` says, else for
            yes where other people use this machine.

    Raises:
        InputError: there is no such interface, the token is too short or cannot be sent, the files do not fit, or what is asked for
            contradicts itself.
    """
    address, name = _interface(listen)
    if token and not (isinstance(token, str) and _TOKEN.fullmatch(token)):
        raise InputError(
            "The token that was given cannot be used.",
            f"Expected at least {TOKEN_MIN_LENGTH} letters, digits or . _ ~ + / = -, since it is all that keeps others out.",
            "Leave it out, and one is made up: server.token",
        )
    needed, why = (True, "") if address != LOOPBACK else _privacy(private, token)
    if private is False and (token or needed):
        raise InputError(
            "private=False was given together with a token, or for a server that other machines reach.",
            "Such a server lets in only those who know the token.",
            "Leave private out",
        )
    if not token and needed:
        token = secrets.token_urlsafe(TOKEN_BYTES)
    if not tls_cert and not tls_key and not ca:
        return Listening(address, address, name, token, why=why)
    certificate, key = _tls_files(tls_cert, tls_key)
    return Listening(LOOPBACK, address, name, token, certificate, key, str(Path(ca).expanduser().resolve()) if ca else certificate, why)


def _privacy(private: bool | None, token: str) -> tuple[bool, str]:
    """Whether inference on the loopback interface needs a token, and why."""
    if token:
        return True, "a token was given"
    if private is not None:
        return private, f"private={private}"
    said = os.environ.get(PRIVATE_VARIABLE, "")
    if said:
        if said.lower() not in _YES_NO:
            raise InputError(
                f"The environment variable {PRIVATE_VARIABLE} is {said!r}.",
                "Expected yes or no: whether inference on this machine needs the server's own secret.",
                f"Type: export {PRIVATE_VARIABLE}=yes",
            )
        return _YES_NO[said.lower()], f"{PRIVATE_VARIABLE}={said}"
    others = neighbours.others_here()
    return bool(others), others or "nobody else uses it"


def _interface(listen: str) -> tuple[str, str]:
    """Its address, and the name by which others call it."""
    if listen in ("", "localhost", LOOPBACK):
        return LOOPBACK, "localhost"
    if listen in ("all", _ALL):
        return _ALL, socket.gethostname()
    try:
        address = str(ipaddress.IPv4Address(listen))
    except ValueError:
        try:
            address = socket.gethostbyname(listen)
        except (OSError, UnicodeError, TypeError) as error:
            raise InputError(
                f"listen={listen!r} is no address of this machine.", "Expected 'all', or an IPv4 address or name.", _HOW
            ) from error
        if ipaddress.IPv4Address(address).is_loopback:
            # Debian's /etc/hosts gives the machine's own name this meaning.
            raise InputError(
                f"listen={listen!r} means {address} on this machine, which other machines cannot reach.",
                f"Expected 'all', or the address of a network interface: this machine has {quoted(_addresses())}.",
                _HOW,
            ) from None
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind((address, 0))
    except OSError as error:
        raise InputError(
            f"This machine has no network interface with the address {address}.", "Expected one of those that `ip address` shows.", _HOW
        ) from error
    # By this name the machine means only itself.
    return address, listen


def _addresses() -> list[str]:
    """The IPv4 addresses of this machine by which others may reach it."""
    import psutil  # an environment of the server, from which images are made, does not have it

    found = [entry.address for entries in psutil.net_if_addrs().values() for entry in entries if entry.family == socket.AF_INET]
    return [address for address in found if not ipaddress.IPv4Address(address).is_loopback]


def _tls_files(tls_cert: str | Path | None, tls_key: str | Path | None) -> tuple[str, str]:
    how = 'Type: launch_server(listen="all", tls_cert="server.crt", tls_key="server.key")'
    if not tls_cert or not tls_key:
        raise InputError("Only one of the files for TLS was given.", "Expected the certificate and its key.", how)
    certificate, key = (str(Path(path).expanduser().resolve()) for path in (tls_cert, tls_key))
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise InputError(
            f"The files {tls_cert} and {tls_key} cannot be used for TLS: {error.strerror or error}.",
            "Expected a PEM certificate and its own key, without a password, which you may read.",
            how,
        ) from error
    return certificate, key
