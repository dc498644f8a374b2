"""What stands beside a measurement: server, device, processor, and how the model was set up."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from helpers import machine
from helpers.client.client import Connection
from helpers.client.problems import TransportError
from helpers.gpu import placed_on
from helpers.here import runs_here
from helpers.repository.configs import instances_of


def facts(connection: Connection, model: str) -> dict[str, Any]:
    """The columns of a row that do not change while a model is measured.

    Args:
        connection: to its server.
        model: name of the model.

    Returns:
        ``device`` (``CPU``, or the GPU's name), ``cpu``, ``server_version``, ``instances``, ``config`` (a short name of the
        configuration, which changes with it). What a server elsewhere does not tell is None.
    """
    config = reported_config(connection, model)
    groups = config.get("instance_group", [])
    here = getattr(connection.server, "owned", False) or runs_here(connection.address)
    on_gpu = any("GPU" in group.get("kind", "") for group in groups)
    if on_gpu and getattr(connection.server, "runtime", "") == "embedded":
        # Asked for a GPU that its library cannot use, a model runs on the processor.
        on_gpu = placed_on(connection.server.log(lines=0), model) != "CPU"
    return {
        "device": ((machine.device() if here else "GPU") if on_gpu else "CPU") if groups else None,
        "cpu": machine.cpu() if here else None,
        "server_version": _server_version(connection),
        "instances": instances_of(config) if groups else None,
        "config": config_name(config),
    }


def reported_config(connection: Connection, model: str) -> dict[str, Any]:
    """The model's config as the server reports it, with everything that it filled in."""
    return connection.ask(lambda: connection.transport.config(model, ""), model)


def config_name(config: dict[str, Any]) -> str:
    """A short name for a configuration, the same for equal ones."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:8]


def _server_version(connection: Connection) -> str | None:
    try:
        return str(connection.transport.about()["version"])
    except (TransportError, KeyError):
        return None
