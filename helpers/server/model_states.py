"""The models of a server and their states, completed with what its index leaves out."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from helpers.server import log as server_log


@dataclass(frozen=True)
class ModelState:
    """One version of a model as the server reports it; ``state`` is READY, UNAVAILABLE, LOADING or UNLOADING."""

    name: str
    version: str
    state: str
    reason: str = ""


def completed(index: list[tuple[str, str, str, str]], load: Collection[str], folder: Path | None, log: str) -> list[ModelState]:
    """The server's index of names, versions, states and reasons, with folders that it leaves out, and reasons that only its log has.

    ``load`` has the names of the models that were to be loaded, or ``*`` for all.
    """
    listed = {name for name, *_ in index}
    # A repository that was deleted meanwhile has no folders; what was loaded from it serves all the same.
    if folder is not None and "*" in load and folder.is_dir():
        folders = (path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        index = index + [(name, "", "", "") for name in sorted(folders) if name not in listed]
    why: dict[str, str] = {}
    if any(state != "READY" and not reason and ("*" in load or name in load) for name, _, state, reason in index):
        from helpers import repository  # loads gRPC, half a second that a launch need not wait for

        why = {**(repository.faults(folder) if folder else {}), **server_log.reasons(log)}
    ended = server_log.processes_ended(log, listed)
    states = []
    for name, version, state, reason in index:
        if state == "READY" and name in ended:  # Triton goes on calling it READY
            state, reason = "UNAVAILABLE", f"Its process has ended {ended[name]}. Type: server.reload({name!r})"
        reason = "" if state == "READY" else server_log.plain(reason) or why.get(name, "")
        states.append(ModelState(name, version, state or "UNAVAILABLE", reason))
    return states
