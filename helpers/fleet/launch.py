"""Launch a fleet: several servers of one model repository, and Envoy before them.

Typical use::

    fleet = launch_fleet("models", servers=2, load=["particlenet_AK4"])
    fleet.grpc_url                        # one address for all
    fleet.stop()
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from helpers.errors import InputError, ServerError, quoted
from helpers.fleet import envoy, front
from helpers.fleet.fleet import Fleet
from helpers.fleet.plan import at_its_port, options_of, server_name
from helpers.server import launch, launch_plan, lease, starting
from helpers.server.lease import POLL_S
from helpers.server.server import Server

# Fleets launched or found by this process, by the id of their front: keeps their leases while the process lives.
_OWNED: dict[str, Fleet] = {}


def launch_fleet(models: str | Path = "models", *, servers: int = 2, dry_run: bool = False, **options: Any) -> Fleet:
    """Launch servers of one model repository behind one Envoy; returns when all models are READY.

    A second call with the same repository, runtime and name returns the running fleet, also after a restart of the notebook's
    kernel; servers that it has too few of, because some have died or more are asked for, are launched.

    Args:
        models: the model repository, as for :func:`~helpers.launch_server`.
        servers: how many servers.
        dry_run: print the commands and Envoy's configuration, and start nothing; returns None then.
        options: as for :func:`~helpers.launch_server`: ``runtime``, ``base_port`` (of the front; the servers get the next
            triples), ``name``, ``load`` and so on.

    Raises:
        SetupError: the repository is missing or empty, or this machine cannot run this runtime or Envoy.
        ServerError: a server or the front did not start; the message has the end of its log.
        InputError: this is no number of servers, or others shall reach them.
    """
    if not isinstance(servers, int) or isinstance(servers, bool) or servers < 1:
        raise InputError(
            f"servers={servers!r} was given.", "Expected how many servers, 1 or more.", 'Type: launch_fleet("models", servers=2)'
        )
    asked = launch.arguments(models, **options) | {"servers": servers}
    if asked["listen"]:
        raise InputError(
            f"listen={asked['listen']!r} was given to a fleet.",
            "A fleet serves its own machine alone.",
            'Type: launch_server("models", listen="all") for one server that others may use',
        )
    if tls := [name for name in ("tls_cert", "tls_key", "ca") if asked[name]]:
        raise InputError(
            f"A fleet was asked to encrypt, by {quoted(tls)}.",
            "A fleet serves its own machine alone, where nothing is encrypted.",
            'Type: launch_server("models", listen="all", tls_cert=…, tls_key=…) for one server that others may use',
        )
    place = starting.listening_of(asked)
    path = launch_plan.repository(models)
    front.program()
    if dry_run:
        _print_commands(asked, place.token)
        return None  # type: ignore[return-value]
    facts = starting.facts(asked, path) | {"runtime": front.RUNTIME, "servers_runtime": asked["runtime"]}
    held = lease.find(**facts)
    there = _running(asked, path)
    # Those that run have a secret already, or none.
    place = next((server.listening for server in there.values()), place)
    everyone = _servers(asked | {"token": place.token}, path, there)
    if held is not None:
        return _found(held, everyone, asked)
    held = front.start(everyone, facts | {"launch": asked}, asked["base_port"], asked["grace_s"], place)
    fleet = _ready(held, everyone, asked)
    _OWNED[str(held.state()["server_id"])] = fleet
    if fleet.http.port != asked["base_port"]:
        fleet.note = f"Port {asked['base_port']} or the next is taken, so the front got {fleet.http.port} and {fleet.grpc.port}."
        print(fleet.note)
    fleet.note += starting.seen_by_others(*everyone)
    starting.warn_of_failures(everyone[0])
    return fleet


def _running(asked: Mapping[str, Any], path: Path) -> dict[int, Server]:
    """The servers of this fleet that run already, by their number."""
    wanted = starting.facts(asked, path)
    begin = server_name(asked["name"])

    def ours(state: dict[str, Any]) -> bool:
        return str(state.get("name", "")).startswith(begin) and all(state.get(n) == v for n, v in wanted.items() if n != "name")

    found = {}
    for held in lease.running(ours):
        number = int(str(held.state()["name"]).removeprefix(begin))
        if starting.answers(held, asked["timeout_s"]):
            found[number] = at_its_port(starting.server_of(held))
    return found


def _servers(asked: Mapping[str, Any], path: Path, there: Mapping[int, Server]) -> list[Server]:
    """All servers, those that are missing launched side by side.

    Raises:
        ServerError: one did not start; those launched with it were stopped again.
    """
    numbers = range(1, max(asked["servers"], *there, 1) + 1)
    missing = {number: options_of(asked, number) for number in numbers if number not in there}
    begun: list[lease.Lease] = []
    try:
        # One by one into the list, so that those begun are known when a later one fails.
        begun.extend(starting.start(options, path) for options in missing.values())
        fresh = {number: at_its_port(starting.ready(held, missing[number])) for number, held in zip(missing, begun, strict=True)}
    except BaseException:
        for held in begun:
            held.stop()
        raise
    return [there.get(number) or fresh[number] for number in numbers]


def _found(held: lease.Lease, everyone: list[Server], asked: dict[str, Any]) -> Fleet:
    state = held.state()
    fleet = _OWNED.setdefault(str(state["server_id"]), Fleet(held, everyone))
    fleet.adopt(everyone)
    fleet.note = "Already running: this is the same fleet as before."
    before = dict(fleet.launch_options)
    if asked["private"] is None or asked["private"] == bool(fleet.token):
        asked["private"] = before["private"]
    different = sorted(option for option, value in asked.items() if before.get(option) != value and option != "servers")
    if different:
        fleet.note += f" It was launched with another {' and '.join(different)}; for a change type fleet.restart(...)."
    if len(everyone) > asked["servers"]:
        fleet.note += f" It has {len(everyone)} servers."
    print(f"{fleet.note} {fleet.http_url}, pid {fleet.pid}")
    return fleet


def _ready(held: lease.Lease, everyone: list[Server], asked: Mapping[str, Any]) -> Fleet:
    """Wait until Envoy answers and sends requests to all servers."""
    deadline = time.monotonic() + asked["timeout_s"]
    while True:
        state = held.state()
        failed = state.get("status") in ("died", "stopped", "failed")
        if not failed and state.get("ports"):
            fleet = Fleet(held, everyone)
            if all(fleet.in_rotation()) and fleet.is_ready():
                return fleet
        if failed or time.monotonic() > deadline:
            held.stop()
            for server in everyone:
                server.stop()
            raise _not_started(state if failed else {**state, "reason": f"not ready after {asked['timeout_s']:.0f} s"})
        time.sleep(POLL_S)


def _not_started(state: Mapping[str, Any]) -> ServerError:
    error = starting.not_started(dict(state))
    error.happened = error.happened.replace("The server", "Envoy, the front of the fleet,")
    return ServerError(error.happened, error.expected, error.todo)


def _print_commands(asked: Mapping[str, Any], token: str) -> None:
    for number in range(1, asked["servers"] + 1):
        launch.launch_server(**options_of(asked, number), dry_run=True)
        print()
    folder = Path("/tmp/course")
    ports = {"{http}": str(asked["base_port"]), "{grpc}": str(asked["base_port"] + 1)}
    text = envoy.front(folder, "$COURSE_TOKEN" if token else "")
    for place, port in ports.items():
        text = text.replace(place, port)
    print(" ".join(front.command(folder)), f"# {folder / envoy.FILE}:\n{text}", sep="\n\n")
