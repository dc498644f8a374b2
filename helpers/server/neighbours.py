"""Whether other people use this machine: everything on its loopback interface is in their reach, too. Standard library only.

Another person is an account with a login shell and a person's user id (not in a container, whose accounts come with its image), or the
owner of a running process (not one in a container, which has a network of its own). Everybody is, where one's own account comes from a
directory service, or where ``/proc`` hides the processes of others. Root and the services' accounts are no people; where this process
runs as one of them, one person counts as oneself: the owner of a laptop who became root, or the account that an image brings.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

# Smaller ids are services', nobody's own is none, and those at the end systemd gives to services for as long as they run.
_FIRST_PERSON, _NOBODY = 1000, 65534
_TRANSIENT = range(61184, 65520)
_NO_LOGIN = ("nologin", "false", "sync")
_CONTAINER = ("/.dockerenv", "/run/.containerenv")
_HIDDEN = re.compile(r" /proc \S+ .* - proc \S+ \S*hidepid=(?!0|off)")


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
