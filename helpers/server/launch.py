"""Launch a server of one's own, or connect to one that somebody else runs.

Typical use::

    server = launch_server("models")
    server.http_url                       # "localhost:9000"
    server.reload("add_sub")
    server.stop()
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from helpers.client.endpoint import BASE_PORT
from helpers.server import launch_plan, lease, runtimes
from helpers.server.administration import START_TIMEOUT_S
from helpers.server.listening import Listening
from helpers.server.remote import connect
from helpers.server.server import Server
from helpers.server.serving import Serving
from helpers.server.starting import ModelWarning, answers, facts, listening_of, ready, seen_by_others, server_of, start, warn_of_failures

# Seconds that a server outlives the notebook kernel that owned it: enough for "Restart kernel", short enough that nothing is left behind.
GRACE_S = 15.0

# The embedded server is no complete program, as an image is.
_NOT_ALONE = (
    "To be read, not to be pasted: launch_server also makes the folder of backends, and sets LD_LIBRARY_PATH, PATH and the key.\n"
    "# In a terminal type: python -m helpers serve"
)

__all__ = ["ModelWarning", "arguments", "connect", "launch_server"]


def launch_server(
    models: str | Path = "models",
    *,
    runtime: str = "embedded",
    base_port: int = BASE_PORT,
    name: str = "",
    load: Sequence[str] = ("*",),
    cache_size_bytes: int = 0,
    extra_arguments: Sequence[str] = (),
    image: str = "",
    gpu: bool | None = None,
    timeout_s: float = START_TIMEOUT_S,
    grace_s: float = GRACE_S,
    listen: str = "",
    token: str = "",
    tls_cert: str | Path | None = None,
    tls_key: str | Path | None = None,
    ca: str | Path | None = None,
    private: bool | None = None,
    keep_alive: bool = False,
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
        listen: ``all``, or the address or name of a network interface, for a server that others may use: then every call needs
            ``server.token``. By default only this machine reaches it.
        token: the token that every call needs, in place of one that is made up.
        tls_cert: PEM file with a certificate; then gRPC is encrypted, and HTTP stays on this machine.
        tls_key: PEM file with the certificate's key.
        ca: PEM file with the authority that signed it, unless the certificate is its own.
        private: whether inference needs the server's own secret, ``server.headers``, which the course's helpers send by themselves; None
            for yes where other people use this machine (``COURSE_PRIVATE=yes|no`` decides otherwise).
        keep_alive: start the server again when it crashes or hangs, and load models again whose process has ended.
        dry_run: print the command and start nothing; returns None then.

    Raises:
        SetupError: the repository is missing or empty, or this machine cannot run this runtime.
        InputError: there is no such port or interface, or token and TLS files cannot be used.
        ServerError: the server did not start; the message has the end of its log.
    """
    launch = {"models": str(models), "runtime": runtime, "base_port": base_port, "name": name, "load": list(load)}
    launch |= {"cache_size_bytes": cache_size_bytes, "extra_arguments": list(extra_arguments), "timeout_s": timeout_s, "grace_s": grace_s}
    launch |= {"image": image, "gpu": gpu, "listen": listen, "token": token, "private": private, "keep_alive": keep_alive}
    launch |= {name: str(file or "") for name, file in (("tls_cert", tls_cert), ("tls_key", tls_key), ("ca", ca))}
    place = listening_of(launch)
    path = launch_plan.repository(models)
    engine = runtimes.runtime(runtime)
    if dry_run:
        _print_command(engine, path, base_port, launch, place)
        return None  # type: ignore[return-value]
    held = lease.find(**facts(launch, path))
    if held and answers(held, timeout_s):
        return _found(held, launch)
    server = ready(start(launch, path), launch)
    if server.note:
        print(server.note)
    server.note += seen_by_others(server)
    warn_of_failures(server)
    return server


def arguments(models: str | Path, **options: Any) -> dict[str, Any]:
    """The arguments of a launch by name, with the defaults of :func:`launch_server` for those that are not given."""
    bound = inspect.signature(launch_server).bind(models, **options)
    bound.apply_defaults()
    given = {name: list(value) if isinstance(value, tuple) else value for name, value in bound.arguments.items() if name != "dry_run"}
    return given | {"models": str(models)}


def _print_command(
    engine: runtimes.Embedded | runtimes.Container, path: Path, base_port: int, launch: dict[str, Any], place: Listening
) -> None:
    ports = tuple(str(base_port + step) for step in range(3))
    options = {option: launch[option] for option in ("load", "cache_size_bytes", "extra_arguments", "image", "gpu")}
    serving = Serving(path, "course", "$COURSE_ADMIN_KEY", ports=ports, listening=place, **options)
    if isinstance(engine, runtimes.Container):
        command = engine.dry_command(serving)
    else:
        command = replace(engine.command(serving, Path("/tmp/course")), remark=_NOT_ALONE)
    print(command.shown())


def _found(held: lease.Lease, launch: dict[str, Any]) -> Server:
    server = server_of(held)
    server.note = "Already running: this is the same server as before."
    before = dict(held.state()["launch"])
    # A token that was made up is no other one.
    launch = {**launch, "token": launch["token"] or before.get("token", "")}
    if launch["private"] is None or launch["private"] == bool(server.token):
        launch["private"] = before["private"]
    different = sorted(option for option, value in launch.items() if before.get(option, "") != value)
    if different:
        server.note += f" It was launched with another {' and '.join(different)}; for a change type server.restart(...)."
    print(f"{server.note} {server.http_url}, pid {server.pid}")
    return server
