"""The steps of a launch, which a single server and a fleet share: start, find again, wait until it serves, say what failed."""

from __future__ import annotations

import contextlib
import secrets
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from helpers.client.endpoint import ADMIN_HEADER
from helpers.client.http import ask
from helpers.errors import RequestError, ServerError
from helpers.machine import LOOPBACK
from helpers.server import in_container, launch_plan, lease, runtimes
from helpers.server import log as server_log
from helpers.server.lease import POLL_S, STOP_TIMEOUT_S
from helpers.server.listening import Listening, listening
from helpers.server.log import LOG_TAIL_LINES
from helpers.server.server import Server
from helpers.server.serving import Serving
from helpers.server.supervisor import Plan
from helpers.server.watch import manner

# Servers launched or found by this process, by their id: keeps their leases while the process lives, whatever happens to variables.
_OWNED: dict[str, Server] = {}


class ModelWarning(UserWarning):
    """Some models of a launched server could not be loaded; the others serve."""


def start(launch: Mapping[str, Any], path: Path) -> lease.Lease:
    """Start a server and return at once; :func:`ready` waits for it.

    Args:
        launch: the arguments of the launch by name.
        path: the model repository.

    Raises:
        SetupError: this machine cannot run this runtime.
        ServerError: the process that owns the server did not start.
    """
    server_id = f"course-{secrets.token_hex(6)}"
    key = secrets.token_urlsafe(24)
    place = listening_of(launch)
    loadable, extra = launch_plan.loadable(path, launch["load"]), tuple(launch["extra_arguments"])
    cache, image, gpu = launch["cache_size_bytes"], launch["image"], launch["gpu"]
    serving = Serving(path, server_id, key, loadable, cache, extra, image=image, gpu=gpu, listening=place)
    run_dir = lease.run_root() / server_id
    command = runtimes.runtime(launch["runtime"]).command(serving, run_dir)
    log = launch_plan.new_log(server_id)
    launch_plan.make_run_dir(run_dir, command)
    plan = Plan(
        run_dir=str(run_dir),
        command=command.public,
        private=command.private,
        environment=command.environment,
        ports=[[first, first + 1, first + 2] for first in launch_plan.candidates(launch["base_port"])],
        log=str(log),
        grace_s=launch["grace_s"],
        stop_s=STOP_TIMEOUT_S,
        server_id=server_id,
        # A restart keeps the token that others have already. A secret of one's own is a new one each time: who takes a dead server's port
        # may have seen the old one.
        about={
            **facts(launch, path),
            "admin_key": key,
            "launch": {**launch, "token": place.token if place.is_beyond else launch["token"]},
            "listening": asdict(place),
            "remark": command.remark,
        },
        after=command.after,
        lifeline=command.lifeline,
        files=place.files(),
        watch={
            "host": LOOPBACK if place.http in (LOOPBACK, "0.0.0.0") else place.http,
            **({"Authorization": f"Bearer {place.token}"} if place.token else {}),
        },
        admin={ADMIN_HEADER: key},
        keep_alive=launch["keep_alive"],
    )
    return lease.start(plan)


def facts(launch: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """What tells a server apart from the others on this machine."""
    return {"owner": lease.owner(), "repository": str(path), "runtime": launch["runtime"], "name": launch["name"]}


def answers(held: lease.Lease, timeout_s: float) -> bool:
    """Whether a server that was found serves: it may still be loading, or may have died this very moment."""
    deadline = time.monotonic() + timeout_s
    while (state := held.state()).get("status") == "running":
        place = _place(state)
        with contextlib.suppress(ServerError, RequestError):
            ask(place.addresses(state["ports"])[0], "/v2/health/live", access=place.access())
            return True
        if time.monotonic() > deadline:
            return True
        time.sleep(POLL_S)
    held.close()
    return False


def find(options: Mapping[str, Any]) -> Server | None:
    """The server that was launched with these arguments, if it runs; it may still be loading its models."""
    held = lease.find(**facts(options, launch_plan.repository(options["models"])))
    return server_of(held) if held else None


def server_of(held: lease.Lease) -> Server:
    """The Server object of a lease: the one that this process has already, else (after a restart of the kernel) a new one."""
    state = held.state()
    server = _OWNED.get(str(state["server_id"]))
    if server is None:
        place = _place(state)
        server = Server(*place.addresses(state["ports"]), runtime=str(state["runtime"]), held=held, access=place.access())
        _OWNED[str(state["server_id"])] = server
    return server


def _place(state: Mapping[str, Any]) -> Listening:
    return Listening(**state.get("listening", {}))


def listening_of(launch: Mapping[str, Any]) -> Listening:
    """Where a server of these arguments shall listen.

    Raises:
        InputError: there is no such interface, the token cannot be used, or the files do not fit.
    """
    return listening(launch["listen"], launch["token"], launch["tls_cert"], launch["tls_key"], launch["ca"], launch["private"])


def ready(held: lease.Lease, launch: Mapping[str, Any]) -> Server:
    """Wait until a server answers and no model is loading any more.

    Args:
        held: the lease that :func:`start` gave.
        launch: the arguments of the launch by name.

    Raises:
        ServerError: it did not start, or not in time; the message has the end of its log.
    """
    deadline = time.monotonic() + launch["timeout_s"]
    while True:
        state = held.state()
        if state.get("status") in ("died", "stopped", "failed"):
            held.close()
            raise not_started(state)
        if state.get("ports"):
            server = server_of(held)
            if server.is_alive() and server.metadata().get("name") == state["server_id"]:
                break
        if time.monotonic() > deadline:
            held.stop()
            raise not_started({**state, "reason": f"not ready after {launch['timeout_s']:.0f} s"})
        time.sleep(POLL_S)
    if server.http.port != launch["base_port"]:
        got = f"{server.http.port} to {server.metrics.port}"
        server.note = f"Port {launch['base_port']} or one of the two after it is taken, so this server got {got}."
    server.note = f"{state.get('remark', '')} {server.note}".strip()
    # Inside a container its own launcher hides the key and the tensors, and says in the log where it could not.
    log = server.log(lines=0)
    server.key_hidden = server.key_hidden and in_container.KEY_SEEN not in log
    server.memory_private = server.memory_private and in_container.MEMORY_SEEN not in log
    return server


def seen_by_others(*servers: Server) -> str:
    """What other users of this machine can see of these servers, since it cannot be hidden here; usually nothing."""
    seen = ""
    if not all(server.key_hidden for server in servers):
        seen += " Other users of this machine can read the administration key, since tracing is not allowed here."
    if not all(server.memory_private for server in servers):
        seen += " Other users of this machine can read the tensors of Python models, since filters are not allowed here."
    return seen


def warn_of_failures(server: Server) -> None:
    """Say in one message which models could not be loaded, why, and what to do."""
    models = server.models()
    bad = [
        model
        for model in models
        if model.state != "READY" and ("*" in server.launch_options["load"] or model.name in server.launch_options["load"])
    ]
    if bad:
        reasons = "\n".join(f"  {model.name}: {model.reason or 'the server gives no reason'}" for model in bad)
        serving = ", ".join(model.name for model in models if model.state == "READY") or "none"
        advice = "Mend the model's folder and type server.reload(name); server.log() has the whole story."
        warnings.warn(
            f"{len(bad)} of {len(models)} models could not be loaded:\n{reasons}\nServing: {serving}. {advice}", ModelWarning, stacklevel=3
        )


def not_started(state: dict[str, Any]) -> ServerError:
    """The error to raise for a server that did not start, with the end of its log."""
    log = Path(str(state.get("log", "")))
    tail = server_log.meaningful(log.read_text(errors="replace"), LOG_TAIL_LINES) if log.is_file() else ""
    if state.get("reason") == "no free ports":
        return ServerError("No three free ports in a row were found.", "", "Type: launch_server(base_port=20000)")
    code = state.get("returncode")
    reason = state.get("reason") or f"it ended {'with the process that owned it' if code is None else manner(int(code))}"
    return ServerError(f"The server did not start: {reason}.", f"What its log {log} says:\n{tail}\n", "Type: python -m helpers doctor")
