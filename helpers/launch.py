"""Launch a server of one's own, or connect to one that somebody else runs.

Typical use::

    server = launch_server("models")
    server.http_url                       # "localhost:9000"
    server.reload("add_sub")
    server.stop()
"""

from __future__ import annotations

import secrets
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from helpers import launch_plan, lease, loadlog, rest, runtimes, settings
from helpers.address import Address, parse_address
from helpers.errors import RequestError, ServerError
from helpers.server import Server
from helpers.serving import Serving
from helpers.supervisor import Plan

# Servers launched or found by this process, by their id: keeps their leases while the process lives, whatever happens to variables.
_OWNED: dict[str, Server] = {}


class ModelWarning(UserWarning):
    """Some models of a launched server could not be loaded; the others serve."""


def launch_server(
    models: str | Path = "models",
    *,
    runtime: str = "embedded",
    base_port: int = settings.BASE_PORT,
    name: str = "",
    load: Sequence[str] = ("*",),
    cache_size_bytes: int = 0,
    extra_arguments: Sequence[str] = (),
    timeout_s: float = settings.START_TIMEOUT_S,
    grace_s: float = settings.GRACE_S,
    dry_run: bool = False,
) -> Server:
    """Launch a Triton server and return when every model is READY.

    A second call with the same repository, runtime and name returns the running server, also after a restart of the
    notebook's kernel. Models that cannot be loaded are named in a :class:`ModelWarning`; the others serve.

    Args:
        models: the model repository, a path or a folder of the course such as ``models`` or ``work/models``.
        runtime: ``embedded``, ``apptainer``, ``docker`` or ``podman``.
        base_port: HTTP port; gRPC gets the next and metrics the one after. When one is taken, the next free triple.
        name: a name for a further server of the same repository.
        load: models to load; all by default.
        cache_size_bytes: size of the response cache; 0 turns it off.
        extra_arguments: further arguments for tritonserver.
        timeout_s: seconds until every model must be READY.
        grace_s: seconds that the server outlives the notebook kernel.
        dry_run: print the command and start nothing; returns None then.

    Raises:
        SetupError: the repository is missing or empty, or this machine cannot run this runtime.
        ServerError: the server did not start; the message has the end of its log.
    """
    launch = {"models": str(models), "runtime": runtime, "base_port": base_port, "name": name, "load": list(load)}
    launch |= {"cache_size_bytes": cache_size_bytes, "extra_arguments": list(extra_arguments), "timeout_s": timeout_s, "grace_s": grace_s}
    path = launch_plan.repository(models)
    engine = runtimes.runtime(runtime)
    if dry_run:
        _print_command(engine, path, base_port, launch)
        return None  # type: ignore[return-value]
    facts = {"owner": lease.owner(), "repository": str(path), "runtime": runtime, "name": name}
    held = lease.find(**facts)
    if held and _answers(held, timeout_s):
        return _found(held, launch)
    server_id = f"course-{secrets.token_hex(6)}"
    key = secrets.token_urlsafe(24)
    serving = Serving(path, server_id, key, launch_plan.loadable(path, load), cache_size_bytes, tuple(extra_arguments))
    run_dir = lease.run_root() / server_id
    command = engine.command(serving, run_dir)
    log = launch_plan.new_log(server_id)
    launch_plan.make_run_dir(run_dir, command)
    plan = Plan(
        run_dir=str(run_dir),
        command=command.public,
        private=command.private,
        environment=command.environment,
        ports=[[first, first + 1, first + 2] for first in launch_plan.candidates(base_port)],
        host=settings.HOST,
        log=str(log),
        grace_s=grace_s,
        stop_s=settings.STOP_TIMEOUT_S,
        server_id=server_id,
        about={**facts, "admin_key": key, "launch": launch},
    )
    held = lease.start(plan)
    return _wait(held, base_port, timeout_s)


def connect(url: str) -> Server:
    """A server that somebody else runs, by the address of its HTTP or its gRPC port; nothing is owned.

    Args:
        url: such as ``gpu-node:9000``, ``http://gpu-node:9000`` or ``grpc://gpu-node:9001``.

    Raises:
        ServerError: no Triton server answers there.
        InputError: the text is no address.
    """
    given = parse_address(url, settings.BASE_PORT)
    base = [given.port - 1] if given.scheme.startswith("grpc") else [given.port, given.port - 1]
    problem: Exception | None = None
    for port in base:
        http, grpc, metrics = (Address(given.host, port + step, given.secure) for step in range(3))
        try:
            rest.ask(http, "/v2/health/live")
            return Server(http, grpc, metrics)
        except (ServerError, RequestError) as error:
            problem = problem or error
    raise ServerError(
        f"No Triton server answers at {given}.",
        "Expected its HTTP port, such as gpu-node:9000, or its gRPC port.",
        "Ask its owner for server.http_url.",
    ) from problem


def _print_command(engine: runtimes.Embedded | runtimes.Container, path: Path, base_port: int, launch: dict[str, Any]) -> None:
    ports = tuple(str(base_port + step) for step in range(3))
    serving = Serving(path, "course", "$COURSE_ADMIN_KEY", launch["load"], launch["cache_size_bytes"], launch["extra_arguments"], ports)
    command = engine.dry_command(serving) if isinstance(engine, runtimes.Container) else engine.command(serving, Path("/tmp/course"))
    print(command.shown())


def _answers(held: lease.Lease, timeout_s: float) -> bool:
    """Whether a server that was found serves: it may still be loading, or may have died this very moment."""
    deadline = time.monotonic() + timeout_s
    while (state := held.state()).get("status") == "running":
        try:
            rest.ask(Address("localhost", int(state["ports"][0])), "/v2/health/live")
            return True
        except (ServerError, RequestError):
            if time.monotonic() > deadline:
                return True
            time.sleep(settings.POLL_S)
    held.close()
    return False


def _found(held: lease.Lease, launch: dict[str, Any]) -> Server:
    state = held.state()
    server = _OWNED.get(str(state["server_id"]))
    if server is None:
        server = _server(held)  # the kernel was restarted
    else:
        held.close()
    server.note = "Already running: this is the same server as before."
    different = sorted(option for option, value in launch.items() if dict(state["launch"]).get(option) != value)
    if different:
        server.note += f" It was launched with another {' and '.join(different)}; for a change type server.restart(...)."
    print(f"{server.note} {server.http_url}, pid {server.pid}")
    return server


def _server(held: lease.Lease) -> Server:
    state = held.state()
    http, grpc, metrics = (Address("localhost", int(port)) for port in state["ports"])
    server = Server(http, grpc, metrics, runtime=str(state["runtime"]), held=held)
    _OWNED[str(state["server_id"])] = server
    return server


def _wait(held: lease.Lease, base_port: int, timeout_s: float) -> Server:
    """Wait until the server answers and no model is loading any more."""
    deadline = time.monotonic() + timeout_s
    while True:
        state = held.state()
        if state.get("status") in ("died", "stopped", "failed"):
            held.close()
            raise _not_started(state)
        if state.get("ports"):
            server = _server(held)
            if server.is_alive() and server.metadata().get("name") == state["server_id"]:
                break
        if time.monotonic() > deadline:
            held.stop()
            raise _not_started({**state, "reason": f"not ready after {timeout_s:.0f} s"})
        time.sleep(settings.POLL_S)
    if server.http.port != base_port:
        server.note = (
            f"Port {base_port} or one of the two after it is taken, so this server got {server.http.port} to {server.metrics.port}."
        )
        print(server.note)
    if not state.get("key_hidden"):
        server.note += " Other users of this machine can read this server's administration key, since tracing is not allowed here."
    if not state.get("memory_private"):
        server.note += " Other users of this machine can read the tensors of its Python models, since filters are not allowed here."
    _warn_of_failures(server)
    return server


def _warn_of_failures(server: Server) -> None:
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
            f"{len(bad)} of {len(models)} models could not be loaded:\n{reasons}\nServing: {serving}. {advice}", ModelWarning, stacklevel=4
        )


def _not_started(state: dict[str, Any]) -> ServerError:
    log = Path(str(state.get("log", "")))
    tail = loadlog.meaningful(log.read_text(errors="replace"), settings.LOG_TAIL_LINES) if log.is_file() else ""
    if state.get("reason") == "no free ports":
        return ServerError("No three free ports in a row were found.", "", "Type: launch_server(base_port=20000)")
    reason = state.get("reason") or f"it ended with status {state.get('returncode')}"
    return ServerError(f"The server did not start: {reason}.", f"What its log {log} says:\n{tail}\n", "Type: python -m helpers doctor")
