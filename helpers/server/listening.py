"""Where a server listens, and who is let in: on the loopback interface for its owner's machine, or beyond it for those with a token.

On the loopback interface every user of the machine can send requests. Where other people use it, inference therefore needs a secret that
only the owner's own programs know; health, metadata and metrics answer everybody. Triton's ports for HTTP and gRPC can demand a header for
each group of calls; its metrics port knows no token, and stays on the loopback interface.

Another person is an account with a login shell and a person's user id (not in a container, whose accounts come with its image), or the
owner of a running process (not one in a container, which has a network of its own). Everybody is, where one's own account comes from a
directory service, or where ``/proc`` hides the processes of others. Root and the services' accounts are no people; where this process
runs as one of them, one person counts as oneself: the owner of a laptop who became root, or the account that an image brings.
"""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
import socket
from dataclasses import dataclass, field
from pathlib import Path

from helpers import run_folder
from helpers.client.endpoint import ADMIN_HEADER, TOKEN_HEADER, Access, Address
from helpers.errors import InputError
from helpers.machine import LOOPBACK

# The instructor's word on whether inference needs a secret: yes or no.
PRIVATE_VARIABLE = "COURSE_PRIVATE"
# Characters of a class's token at least, and random bytes of one that is made up: too many to guess over a network.
TOKEN_MIN_LENGTH, TOKEN_BYTES = 12, 18
# The protocol group that needs the server's secret on a machine that other people use: all whose requests Triton parses. The other
# groups' calls carry nothing but a name.
PRIVATE_APIS = "inference"
# The protocol groups that need the class's token on a server that listens beyond this machine: all that Triton 2.51 knows but the owner's.
CLASS_APIS = "health,metadata,inference,model-config,statistics"
# The protocol groups that need the key: through these, everybody who reaches the port could run code or read memory as the owner.
ADMIN_APIS = "model-repository,shared-memory,trace,logging"

# Smaller ids are services', nobody's own is none, and those at the end systemd gives to services for as long as they run.
_FIRST_PERSON, _NOBODY = 1000, 65534
_TRANSIENT = range(61184, 65520)
_NO_LOGIN = ("nologin", "false", "sync")
_CONTAINER = ("/.dockerenv", "/run/.containerenv")
_HIDDEN = re.compile(r" /proc \S+ .* - proc \S+ \S*hidepid=(?!0|off)")

_ALL = "0.0.0.0"
# What Triton's option takes without mistaking a part of it for something else.
_TOKEN = re.compile(rf"[A-Za-z0-9._~+/=-]{{{TOKEN_MIN_LENGTH},}}")


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
        return Access(self.token)

    def files(self) -> dict[str, str]:
        """Return texts for the server's private folder, by name: what raw requests must carry, if they must carry anything."""
        headers = self.access().headers
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
    """Return where a server shall listen; the arguments are those of ``launch_server``. Beyond this machine a token is always needed."""
    address, name = _interface(listen)
    if token and not (isinstance(token, str) and _TOKEN.fullmatch(token)):
        raise InputError(
            "The token that was given cannot be used.",
            f"Expected at least {TOKEN_MIN_LENGTH} letters, digits or . _ ~ + / = -, since it is all that keeps others out.",
            "Leave it out, and one is made up: server.token",
        )
    needed, why = (True, "") if address != LOOPBACK else _privacy(private, token)
    return Listening(address, name, token or (secrets.token_urlsafe(TOKEN_BYTES) if needed else ""), why)


def _privacy(private: bool | None, token: str) -> tuple[bool, str]:
    """Whether inference on the loopback interface needs a token, and why."""
    if token:
        return True, "a token was given"
    if private is not None:
        return private, f"private={private}"
    if said := os.environ.get(PRIVATE_VARIABLE, ""):
        return said.lower() not in ("no", "false", "0"), f"{PRIVATE_VARIABLE}={said}"
    others = others_here()
    return bool(others), others or "nobody else uses it"


def _interface(listen: str) -> tuple[str, str]:
    """Its address, and the name by which others call it."""
    if listen in ("", "localhost", LOOPBACK):
        return LOOPBACK, "localhost"
    if listen in ("all", _ALL):
        return _ALL, socket.gethostname()
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind((str(ipaddress.IPv4Address(listen)), 0))
    except (OSError, ValueError) as error:
        how = "Expected 'all', or the address of a network interface, as `ip address` shows them.", 'Type: launch_server(listen="all")'
        raise InputError(f"listen={listen!r} is no address of this machine.", *how) from error
    return listen, listen


def others_here() -> str:
    """Return who else uses this machine, in a few words; empty on a machine of one's own."""
    if not hasattr(os, "getuid"):  # Windows, where no server runs
        return ""
    me = os.getuid()
    accounts = _accounts()
    if _HIDDEN.search(_text("/proc/self/mountinfo")):
        return "this machine hides its users' processes from each other"
    if _is_person(me) and me not in accounts and _name(me):
        return f"the account {_name(me)} comes from a directory service"
    people = _owners_of_processes() | ({uid for uid, login in accounts.items() if login} if not _in_container() else set())
    others = sorted(people - {me})
    if not _is_person(me):
        others = others[1:]
    names = ", ".join(_name(uid) or f"user {uid}" for uid in others[:3])
    return f"{names}{' and others' if len(others) > 3 else ''} can use this machine, too" if others else ""


def _is_person(uid: int) -> bool:
    return uid >= _FIRST_PERSON and uid != _NOBODY and uid not in _TRANSIENT


def _accounts() -> dict[int, bool]:
    """The people of ``/etc/passwd``, and whether they can log in."""
    rows = [line.split(":") for line in _text("/etc/passwd").splitlines() if line.count(":") == 6]
    return {int(row[2]): not row[6].endswith(_NO_LOGIN) for row in rows if row[2].isdigit() and _is_person(int(row[2]))}


def _owners_of_processes() -> set[int]:
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        facts = dict(line.split(":", 1) for line in _text(entry / "status").splitlines() if ":" in line)
        if "Uid" in facts and len(facts.get("NSpid", "").split()) < 2:
            found.add(int(facts["Uid"].split()[0]))
    return set(filter(_is_person, found))


def _in_container() -> bool:
    return any(Path(path).exists() for path in _CONTAINER) or "KUBERNETES_SERVICE_HOST" in os.environ


def _name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:  # a process that has ended meanwhile, or a system without this file
        return ""
