"""What the servers of a fleet are called and asked to be, and what they serve together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from helpers.server.launch_plan import PORTS_PER_SERVER
from helpers.server.server import ModelState, Server


def options_of(options: Mapping[str, Any], number: int) -> dict[str, Any]:
    """The arguments for the launch of one server of a fleet.

    Args:
        options: the arguments of the fleet's launch by name.
        number: which server, from 1.
    """
    own = {name: value for name, value in options.items() if name != "servers"}
    # Ready as soon as it answers: one model that cannot be loaded must not take the others out of service.
    extra = [*options["extra_arguments"], "--strict-readiness=false"]
    base_port = options["base_port"] + number * PORTS_PER_SERVER
    own |= {"name": f"{server_name(options['name'])}{number}", "base_port": base_port, "extra_arguments": extra}
    return own | {"keep_alive": True}


def server_name(fleet: str) -> str:
    """What the names of a fleet's servers begin with; a number follows."""
    return f"fleet {fleet}/" if fleet else "fleet/"


def at_its_port(server: Server) -> Server:
    """The same server; when it is restarted it asks for the very ports that Envoy knows."""
    server.launch_options["base_port"] = server.http.port
    return server


def models(servers: Sequence[Server]) -> list[ModelState]:
    """The models of all servers that run and their states; one that is not READY on every server says where it is not."""
    running = [server for server in servers if server.state() == "running"]
    states = [{state.name: state for state in server.models()} for server in running]
    together: dict[str, ModelState] = {}
    for server, known in zip(running, states, strict=True):
        for name, state in known.items():
            ready_elsewhere = any(other.get(name) and other[name].state == "READY" for other in states)
            if state.state != "READY" and ready_elsewhere:
                state = ModelState(name, state.version, state.state, f"on {server.http_url}. {state.reason}".strip())
            if name not in together or together[name].state == "READY":
                together[name] = state
    return [together[name] for name in sorted(together)]
