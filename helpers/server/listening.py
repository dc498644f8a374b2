"""Where a server listens, and who is let in: on the loopback interface for its owner's machine, or beyond it for those with a token.

On the loopback interface every user of the machine can send requests. Where other people use it, inference therefore needs a secret that
only the owner's own programs know; health, metadata and metrics answer everybody. Triton's ports for HTTP and gRPC can demand a header for
each group of calls; its metrics port knows no token, and stays on the loopback interface.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import pwd
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
# Variables that hold a server's secrets for the one who starts it.
KEY_VARIABLE, TOKEN_VARIABLE = "COURSE_ADMIN_KEY", "COURSE_TOKEN"
# Random bytes of a secret: too many to guess over a network.
TOKEN_BYTES = 18
# Groups of calls that need the key: through these, everybody who reaches the port could run code or read memory as the owner.
ADMIN_APIS = "model-repository,shared-memory,trace,logging"
# Those that need the secret where other people use the machine: all whose requests Triton parses. The others carry nothing but a name.
PRIVATE_APIS = "inference"
# Those that need the token of a server that listens beyond this machine: all that Triton 2.51 knows but the owner's.
CLASS_APIS = "health,metadata,inference,model-config,statistics"

# Smaller ids are services', nobody's own is none, and those at the end systemd gives to services for as long as they run.
_FIRST_PERSON, _NOBODY, _TRANSIENT = 1000, 65534, range(61184, 65520)
_NO_LOGIN = ("nologin", "false", "sync")
_CONTAINER = ("/.dockerenv", "/run/.containerenv")
_HIDDEN = re.compile(r" /proc \S+ .* - proc \S+ \S*hidepid=(?!0|off)")

_ALL = "0.0.0.0"


@dataclass(frozen=True)
class Listening:
    """Where a server listens, and who is let in."""

    address: str = LOOPBACK  # of the interface for HTTP and gRPC
    name: str = "localhost"  # by which others call this machine
    token: str = field(default="", repr=False)  # for inference on the loopback interface, and for every call beyond it; empty for none

    @property
    def is_beyond(self) -> bool:
        """True if other machines can reach it."""
        return self.address != LOOPBACK

    def addresses(self, ports: list[int]) -> tuple[Address, Address, Address]:
        """Return HTTP, gRPC and metrics as the owner's own helpers reach them."""
        http, grpc, metrics = ports
        host = "localhost" if self.address in (LOOPBACK, _ALL) else self.address
        return Address(host, http), Address(host, grpc), Address("localhost", metrics)

    def access(self) -> Access:
        """Return what the owner's own requests carry."""
        return Access(self.token)

    def files(self) -> dict[str, str]:
        """Return texts for the server's private folder, by name: what raw requests must carry, if they must carry anything."""
        headers = self.access().headers
        return {run_folder.HEADERS: "".join(f"{name}: {value}\n" for name, value in headers.items())} if headers else {}

    def rules(self) -> list[str]:
        """Return groups of calls and the header that each of them needs, as Triton's options take them, with variables for the secrets."""
        rules = [f"{ADMIN_APIS}:{ADMIN_HEADER}=${KEY_VARIABLE}"]
        if self.token:
            rules.append(f"{CLASS_APIS if self.is_beyond else PRIVATE_APIS}:{TOKEN_HEADER}=Bearer ${TOKEN_VARIABLE}")
        return rules

    def inference(self) -> str:
        """Return who may send inference requests, for the card."""
        return "every call needs the token" if self.is_beyond else "needs server.headers" if self.token else "open to this whole machine"

    def warning(self) -> str:
        """Return one paragraph for the card; empty on the loopback interface."""
        where = "every interface of this machine" if self.address == _ALL else self.address
        said = f"This server listens beyond this machine, on {where}. Every call needs the token."
        return f"{said} Nothing is encrypted: who can listen on the network reads the token." if self.is_beyond else ""


THIS_MACHINE = Listening()


def listening(listen: str = "", token: str = "", private: bool | None = None) -> Listening:
    """Return where a server shall listen, by the options of ``launch_server``; a server that had a token goes on to need it."""
    address, name = _interface(listen)
    said = os.environ.get(PRIVATE_VARIABLE, "")
    if private is None:
        private = said.lower() not in ("no", "false", "0") if said else is_shared()
    needed = private or address != LOOPBACK
    return Listening(address, name, token or (secrets.token_urlsafe(TOKEN_BYTES) if needed else ""))


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


def is_shared() -> bool:
    """Return True if other people can use this machine, too.

    A person is an account with a login shell and a person's user id (not in a container, whose accounts come with its image), or the owner
    of a running process (not one in a container, which has a network of its own). Where one's own account comes from a directory service,
    or where ``/proc`` hides the processes of others, there are some. Where this process runs as root or a service, one person counts as
    oneself: the owner of a laptop who became root, or the account that an image brings.
    """
    me, accounts = os.getuid(), _accounts()
    from_directory = _is_person(me) and me not in accounts and _has_name(me)
    if from_directory or _HIDDEN.search(_text("/proc/self/mountinfo")):
        return True
    people = _owners_of_processes() | ({uid for uid, login in accounts.items() if login} if not _in_container() else set())
    return len(people - {me}) > (0 if _is_person(me) else 1)


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


def _has_name(uid: int) -> bool:
    with contextlib.suppress(KeyError):
        return bool(pwd.getpwuid(uid).pw_name)
    return False


def _text(path: str | Path) -> str:
    with contextlib.suppress(OSError):  # a process that has ended meanwhile, or a system without this file
        return Path(path).read_text(errors="replace")
    return ""
