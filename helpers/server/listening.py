"""Where a server listens, and who is let in: on the loopback interface for its owner's machine, or beyond it for those with a token.

On the loopback interface every user of the machine can send requests. Where other people use it, inference therefore needs a secret that
only the owner's own programs know; health, metadata and metrics answer everybody. Triton's own means are used: its HTTP and gRPC ports can
demand a header for each group of calls. Its metrics port knows no token, and stays on the loopback interface.
"""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
import socket
from dataclasses import dataclass, field

from helpers import run_folder
from helpers.client.endpoint import ADMIN_HEADER, TOKEN_HEADER, Access, Address
from helpers.errors import InputError
from helpers.machine import LOOPBACK
from helpers.server import neighbours

# The instructor's word on whether inference needs a secret, and how it may read.
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
    """Where a server listens, and who is let in."""

    address: str = LOOPBACK  # of the interface for HTTP and gRPC
    name: str = "localhost"  # by which others call this machine
    token: str = field(default="", repr=False)  # for inference on the loopback interface, and for every call beyond it; empty for none
    why: str = ""  # on the loopback interface, why inference needs the token or does not

    @property
    def is_beyond(self) -> bool:
        """True if others than this machine's own loopback interface lead to it."""
        return self.address != LOOPBACK

    @property
    def host(self) -> str:
        """The host by which the owner's own helpers reach it."""
        return "localhost" if self.address in (LOOPBACK, _ALL) else self.address

    def addresses(self, ports: list[int]) -> tuple[Address, Address, Address]:
        """Return HTTP, gRPC and metrics as the owner's own helpers reach them."""
        http, grpc, metrics = ports
        return Address(self.host, http), Address(self.host, grpc), Address("localhost", metrics)

    def access(self) -> Access:
        """Return what the owner's own requests carry."""
        return Access({TOKEN_HEADER.capitalize(): f"Bearer {self.token}"} if self.token else {})

    def files(self) -> dict[str, str]:
        """Return texts for the server's private folder, by name: what raw requests must carry, if they must carry anything."""
        headers = self.access().grpc_headers()
        return {run_folder.HEADERS: "".join(f"{name}: {value}\n" for name, value in headers.items())} if headers else {}

    def rules(self, admin_key: str) -> list[str]:
        """Return groups of calls and the header that each of them needs, as Triton's options take them."""
        rules = [f"{ADMIN_APIS}:{ADMIN_HEADER}={admin_key}"]
        if self.token:
            rules.append(f"{CLASS_APIS if self.is_beyond else PRIVATE_APIS}:{TOKEN_HEADER}=Bearer {self.token}")
        return rules

    def inference(self) -> str:
        """Return who may send inference requests, for the card."""
        who = "every call needs the token" if self.is_beyond else "needs server.headers" if self.token else "open to this whole machine"
        return f"{who}: {self.why}" if self.why else who

    def warning(self) -> str:
        """Return one paragraph for the card; empty on the loopback interface."""
        if not self.is_beyond:
            return ""
        where = "every interface of this machine" if self.address == _ALL else self.address
        return (
            f"This server listens beyond this machine, on {where}. Every call needs the token. Nothing is encrypted: who can listen on the "
            "network reads the token. The metrics stay on this machine."
        )


THIS_MACHINE = Listening()


def listening(listen: str = "", token: str = "", private: bool | None = None) -> Listening:
    """Return where a server shall listen; the arguments are those of ``launch_server``.

    Raises:
        InputError: there is no such interface, the token is too short or cannot be sent, or what is asked for contradicts itself.
    """
    address, name = _interface(listen)
    if token and not (isinstance(token, str) and _TOKEN.fullmatch(token)):
        raise InputError(
            "The token that was given cannot be used.",
            f"Expected at least {TOKEN_MIN_LENGTH} letters, digits or . _ ~ + / = -, since it is all that keeps others out.",
            "Leave it out, and one is made up: server.token",
        )
    needed, why = (True, "") if address != LOOPBACK else _privacy(private, token)
    if private is False and needed:
        raise InputError(
            "private=False was given together with a token, or for a server that other machines reach.",
            "Such a server lets in only those who know the token.",
            "Leave private out",
        )
    return Listening(address, name, token or (secrets.token_urlsafe(TOKEN_BYTES) if needed else ""), why)


def _privacy(private: bool | None, token: str) -> tuple[bool, str]:
    """Whether inference on the loopback interface needs a token, and why."""
    if token:
        return True, "a token was given"
    if private is not None:
        return private, f"private={private}"
    if said := os.environ.get(PRIVATE_VARIABLE, ""):
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
        address = socket.gethostbyname(listen)
    except (OSError, UnicodeError, TypeError) as error:
        raise InputError(
            f"listen={listen!r} is no address of this machine.", "Expected 'all', or an IPv4 address or name.", _HOW
        ) from error
    if address != listen and ipaddress.IPv4Address(address).is_loopback:
        # Debian's /etc/hosts gives the machine's own name this meaning.
        raise InputError(
            f"listen={listen!r} means {address} on this machine, which other machines cannot reach.",
            "Expected 'all', or the address of a network interface, as `ip address` shows them.",
            _HOW,
        )
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind((address, 0))
    except OSError as error:
        missing = f"This machine has no network interface with the address {address}."
        raise InputError(missing, "Expected one of those that `ip address` shows.", _HOW) from error
    return address, listen
