"""Launch a server of one's own, or connect to one that somebody else runs.

Typical use::

    server = launch_server("models")
    server.http_url                       # "localhost:9000"
    server.reload("add_sub")
    server.stop()
"""

from __future__ import annotations

import inspect
import secrets
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from helpers import container_start, launch_plan, lease, loadlog, rest, runtimes, settings
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
    image: str = "",
    gpu: bool | None = None,
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
        image: image for a container, or its ``.sif`` file, where it is not the usual one.
        gpu: whether a container gets the GPUs; None for yes where this machine has some.
        timeout_s: seconds until every model must be READY.
        grace_s: seconds that the server outlives the notebook kernel.
        dry_run: print the command and start nothing; returns None then.

    Raises:
        SetupError: the repository is missing or empty, or this machine cannot run this runtime.
        ServerError: the server did not start; the message has the end of its log.
    """
    launch = {"models": str(models), "runtime": runtime, "base_port": base_port, "name": name, "load": list(load)}
    launch |= {"cache_size_bytes": cache_size_bytes, "extra_arguments": list(extra_arguments), "timeout_s": timeout_s, "grace_s": grace_s}
    launch |= {"image": image, "gpu": gpu}
    path = launch_plan.repository(models)
    engine = runtimes.runtime(runtime)
    if dry_run:
        _print_command(engine, path, base_port, launch)
        return None  # type: ignore[return-value]
    held = lease.find(**facts(launch, path))
    if held and answers(held, timeout_s):
        return _found(held, launch)
    server = ready(start(launch, path), launch)
    if server.note:
        print(server.note)
    if not server.key_hidden:
        server.note += " Other users of this machine can read this server's administration key, since tracing is not allowed here."
    warn_of_failures(server)
    return server


def arguments(models: str | Path, **options: Any) -> dict[str, Any]:
    """The arguments of a launch by name, with the defaults of :func:`launch_server` for those that are not given."""
    bound = inspect.signature(launch_server).bind(models, **options)
    bound.apply_defaults()
    given = {name: list(value) if isinstance(value, tuple) else value for name, value in bound.arguments.items() if name != "dry_run"}
    return given | {"models": str(models)}


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
    loadable, extra = launch_plan.loadable(path, launch["load"]), tuple(launch["extra_arguments"])
    cache, image, gpu = launch["cache_size_bytes"], launch["image"], launch["gpu"]
    serving = Serving(path, server_id, key, loadable, cache, extra, image=image, gpu=gpu)
    run_dir = lease.run_root() / server_id
    command = runtimes.runtime(launch["runtime"]).command(serving, run_dir)
    log = launch_plan.new_log(server_id)
    run_dir.mkdir(mode=0o700)
    command.make_backends(run_dir)
    plan = Plan(
        run_dir=str(run_dir),
        command=command.public,
        private=command.private,
        environment=command.environment,
        ports=[[first, first + 1, first + 2] for first in launch_plan.candidates(launch["base_port"])],
        host=settings.HOST,
        log=str(log),
        grace_s=launch["grace_s"],
        stop_s=settings.STOP_TIMEOUT_S,
        server_id=server_id,
        about={**facts(launch, path), "admin_key": key, "launch": dict(launch), "remark": command.remark},
        after=command.after,
        lifeline=command.lifeline,
    )
    return lease.start(plan)


def facts(launch: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """What tells a server apart from the others on this machine."""
    return {"owner": lease.owner(), "repository": str(path), "runtime": launch["runtime"], "name": launch["name"]}


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
    options = {option: launch[option] for option in ("load", "cache_size_bytes", "extra_arguments", "image", "gpu")}
    serving = Serving(path, "course", "$COURSE_ADMIN_KEY", ports=ports, **options)
    command = engine.dry_command(serving) if isinstance(engine, runtimes.Container) else engine.command(serving, Path("/tmp/course"))
    print(command.shown())


def answers(held: lease.Lease, timeout_s: float) -> bool:
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
    server = server_of(held)
    server.note = "Already running: this is the same server as before."
    before = dict(held.state()["launch"])
    different = sorted(option for option, value in launch.items() if before.get(option) != value)
    if different:
        server.note += f" It was launched with another {' and '.join(different)}; for a change type server.restart(...)."
    print(f"{server.note} {server.http_url}, pid {server.pid}")
    return server


def find(options: Mapping[str, Any]) -> Server | None:
    """The server that was launched with these arguments, if it runs; it may still be loading its models."""
    held = lease.find(**facts(options, launch_plan.repository(options["models"])))
    return server_of(held) if held else None


def server_of(held: lease.Lease) -> Server:
    """The Server object of a lease: the one that this process has already, else (after a restart of the kernel) a new one."""
    state = held.state()
    server = _OWNED.get(str(state["server_id"]))
    if server is None:
        http, grpc, metrics = (Address("localhost", int(port)) for port in state["ports"])
        server = _OWNED[str(state["server_id"])] = Server(http, grpc, metrics, runtime=str(state["runtime"]), held=held)
    return server


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
        time.sleep(settings.POLL_S)
    if server.http.port != launch["base_port"]:
        got = f"{server.http.port} to {server.metrics.port}"
        server.note = f"Port {launch['base_port']} or one of the two after it is taken, so this server got {got}."
    server.note = f"{state.get('remark', '')} {server.note}".strip()
    # Inside a container its own launcher hides the key, and says in the log where it could not.
    server.key_hidden = server.key_hidden and container_start.KEY_SEEN not in server.log(lines=0)
    return server


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
    tail = loadlog.meaningful(log.read_text(errors="replace"), settings.LOG_TAIL_LINES) if log.is_file() else ""
    if state.get("reason") == "no free ports":
        return ServerError("No three free ports in a row were found.", "", "Type: launch_server(base_port=20000)")
    reason = state.get("reason") or f"it ended with status {state.get('returncode')}"
    return ServerError(f"The server did not start: {reason}.", f"What its log {log} says:\n{tail}\n", "Type: python -m helpers doctor")
