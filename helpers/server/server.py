"""Launch a server; look at it, reload its models, read its log, restart it, stop it."""

from __future__ import annotations

import contextlib
import json
import secrets
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from helpers import run_folder
from helpers.client import way_to
from helpers.client.endpoint import ADMIN_HEADER, BASE_PORT, GRPC_HEADER_PREFIX, NO_ACCESS, QUERY_TIMEOUT_S, Access, Address
from helpers.client.problems import TransportError, not_loaded, plainly
from helpers.errors import AccessError, CourseError, ModelError, RequestError, ServerError, SetupError
from helpers.machine import device, serves_here
from helpers.paths import shown
from helpers.server import containers, embedded, isolation, lease
from helpers.server import log as server_log
from helpers.server.card import Card
from helpers.server.command import GRACE_S, START_TIMEOUT_S, LaunchSpec
from helpers.server.lease import POLL_S, STOP_TIMEOUT_S
from helpers.server.listening import Listening
from helpers.server.log import LOG_TAIL_LINES, LOST, RESTART, explain
from helpers.server.ports import triples
from helpers.server.supervisor import Plan
from helpers.terminal import Progress

# What runs the server. A new runtime is a module with `command` and `dry_command`, and a line here.
RUNTIMES: dict[str, ModuleType] = {"embedded": embedded, **dict.fromkeys(containers.ENGINES, containers)}
_NOT_FROM_HERE = "cannot be reached from here"
# Servers launched or found by this process, by id and ports: keeps their leases while it lives, whatever happens to variables.
_OWNED: dict[str, Server] = {}


class ModelWarning(UserWarning):
    """Some models of a launched server could not be loaded; the others serve."""


@dataclass(frozen=True)
class ModelState:
    """One version of a model as the server reports it; ``state`` is READY, UNAVAILABLE, LOADING or UNLOADING."""

    name: str
    version: str
    state: str
    reason: str = ""


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
        listen: ``all``, or the address of a network interface, for a server that others may use with ``server.token``.
        token: the token that every call needs, in place of one that is made up.
        private: whether inference needs ``server.headers``, which the course's helpers send by themselves; None for yes where other
            people use this machine (``COURSE_PRIVATE=yes|no`` decides otherwise).
        keep_alive: start the server again when it crashes.
        dry_run: print the command and start nothing; returns None then.

    Raises:
        SetupError: the repository is missing or empty, or this machine cannot run this runtime.
        InputError: there is no such port or interface, or the token cannot be used.
        ServerError: the server did not start; the message has the end of its log.
    """
    spec = LaunchSpec(**{name: value for name, value in locals().items() if name != "dry_run"}).prepared()
    engine = _engine(spec)
    if dry_run:
        spec = replace(spec, ports=(f"{base_port}", f"{base_port + 1}", f"{base_port + 2}"))
        print(engine.dry_command(spec.without_secrets()).shown())
        return None  # type: ignore[return-value]
    held = lease.find(**facts(spec))
    if held:
        return _found(ready(held, spec), spec)
    server = ready(start(spec), spec)
    if server.note:
        print(server.note)
    server.note += seen_by_others(server)
    warn_of_failures(server)
    return server


class Server:
    """A Triton server: owned when launched here, else only connected to.

    Attributes:
        http: address of the HTTP endpoint, as ``grpc`` and ``metrics``; None where it cannot be reached from here.
        access: token and trusted certificates for every request.
        owned: whether this process launched the server (or found it again after a kernel restart).
        runtime: ``embedded``, ``apptainer``, ``docker``, ``podman`` or ``remote``.
        repository: the model repository, where it is known.
        spec: what a server of one's own was launched with; None for another one.
        token: what calls to a server of one's own must carry; empty where nothing is needed.
        headers: what a raw inference request must carry, over HTTP and gRPC alike, which want the token under two names.
        headers_file: the same in a file that only you can read, for ``curl -H @FILE``.
        refusals: why the last load of a model was refused, by its name: what was loaded before goes on serving.
    """

    def __init__(
        self,
        http: Address | None,
        grpc: Address | None,
        metrics: Address | None,
        access: Access = NO_ACCESS,
        held: lease.Lease | None = None,
    ) -> None:
        self.http, self.grpc, self.metrics, self.access = http, grpc, metrics, access
        self._way = way_to("http", http, access) if http is not None else way_to("grpc", grpc, access)  # type: ignore[arg-type]
        self.url = str(http or grpc)
        self._lease, self.owned = held, held is not None
        state = held.state() if held else {}
        self.runtime = str(state.get("runtime", "remote"))
        self.repository = Path(str(state["repository"])) if state else None
        self.log_path = Path(str(state["log"])) if state else None
        self.spec = LaunchSpec(**state["launch"]) if state else None
        self._key = str(state.get("admin_key", ""))
        self.listening = Listening(**state.get("listening", {}))
        self.token, self.headers = self.listening.token, access.headers
        self.headers_file = held.run_dir / run_folder.HEADERS if held is not None and self.token else None
        self.refusals: dict[str, str] = {}
        self.note = ""  # what the card says beside the state, such as a port that was taken

    # --- where it is and how it is -----------------------------------------------------------------------------------

    @property
    def http_url(self) -> str:
        """Host and port for HTTP requests, such as ``localhost:9000``."""
        return str(self._must_reach(self.http, "HTTP port", "Type: Client(server), which takes its gRPC port"))

    @property
    def grpc_url(self) -> str:
        """Host and port for gRPC requests, such as ``localhost:9001``."""
        return str(self._must_reach(self.grpc, "gRPC port", "Type: Client(server), which takes its HTTP port"))

    @property
    def metrics_url(self) -> str:
        """URL of the metrics page, such as ``http://localhost:9002/metrics``."""
        todo = 'Type: server.statistics(model); or, if the page is elsewhere: connect("…", metrics="http://…")'
        return self._must_reach(self.metrics, "metrics page", todo).http("/metrics")

    def _must_reach(self, address: Address | None, what: str, todo: str) -> Address:
        if address is None:
            raise ServerError(f"The {what} of the server at {self.url} {_NOT_FROM_HERE}.", "", todo)
        return address

    @property
    def metrics_access(self) -> Access:
        """What a request for the metrics page carries: no token to our own, nor in plain text where it otherwise travels encrypted."""
        # Our own page asks for none, and its port is the only one that another user could take.
        encrypted = any(address is not None and address.secure for address in (self.http, self.grpc))
        if self.owned or (encrypted and self.metrics is not None and not self.metrics.secure):
            return Access(ca=self.access.ca)
        return self.access

    @property
    def is_here(self) -> bool:
        """True if it runs on this very machine, for certain."""
        address = self.http or self.grpc
        return self.owned or (address is not None and serves_here(address.host, address.port))

    def is_alive(self) -> bool:
        """True if the server answers, ready or not."""
        return self._says(self._way.about)

    def is_ready(self) -> bool:
        """True if the server answers and all its models are READY."""
        return self._says(self._way.is_ready)

    def _says(self, question: Callable[[], Any]) -> bool:
        with contextlib.suppress(TransportError):
            return not self._has_ended() and bool(question())
        return False

    def state(self) -> str:
        """One word: ``running``, ``stopped``, ``died`` (unexpectedly) or ``unreachable``."""
        if self._lease is None:
            return "running" if self.is_alive() else "unreachable"
        return str(self._said("status"))

    def _said(self, fact: str) -> Any:
        """What the supervisor of a server of ours says, if anything."""
        return self._lease.state().get(fact) if self._lease is not None else None

    @property
    def pid(self) -> int | None:
        """Process id of a server of ours; another one when it was started again."""
        return self._said("pid")  # type: ignore[no-any-return]

    @property
    def noticed(self) -> str:
        """What was noticed last of a server of ours since its launch, such as a crash after which it was started again."""
        return self._said("noticed") or ""

    @property
    def returncode(self) -> int | None:
        """With which status a server of ours has died, negative for a signal; None while it runs, or where its end was not seen."""
        return self._said("returncode")  # type: ignore[no-any-return]

    def _has_ended(self) -> bool:
        """True if a server of ours does not run any more: another user's program may listen on its ports by now."""
        return self._lease is not None and self.state() != "running"

    def how_it_ended(self) -> tuple[str, str]:
        """Return how a server of ours ended, and what to type; two empty texts while it runs."""
        if not self._has_ended():
            return "", ""
        return f"{LOST} {explain(self.returncode, self.log(lines=0))}" if self.state() == "died" else LOST, RESTART

    @contextlib.contextmanager
    def _or_how_it_ended(self) -> Iterator[None]:
        """Where a server of ours does not answer any more, the error says how it ended; then nothing is sent to its port."""
        try:
            if self._has_ended():
                raise ServerError("It is not running.")
            with plainly(self._way):
                yield
        except ServerError as error:
            if not self._has_ended():
                raise
            raise ServerError(f"No server answers at {self.url} any more.", *self.how_it_ended()) from error

    # --- what it says of its models ----------------------------------------------------------------------------------

    def models(self) -> list[ModelState]:
        """The models in the repository and their states; on another's server, or without its repository, those that are loaded."""
        if not self._key or (self.repository is not None and not self.repository.is_dir()):
            with self._or_how_it_ended():
                return [ModelState(counters["name"], counters["version"], "READY") for counters in self._way.statistics()]
        states = [
            ModelState(m["name"], m.get("version", ""), m.get("state") or "UNAVAILABLE", server_log.plain(m.get("reason", "")))
            for m in self._administer("index")
        ]
        load = self.spec.load if self.spec else ()
        if self.repository is not None and "*" in load:  # the index leaves out folders without a model
            known = {state.name for state in states}
            folders = sorted(path.name for path in self.repository.iterdir() if path.is_dir() and not path.name.startswith("."))
            states += [ModelState(name, "", "UNAVAILABLE") for name in folders if name not in known]
        why: dict[str, str] = {}
        if any(one.state != "READY" and not one.reason and {"*", one.name} & {*load} for one in states):
            from helpers import repository  # loads gRPC, half a second that a launch need not wait for

            why = {**(repository.faults(self.repository) if self.repository else {}), **server_log.reasons(self.log(lines=0))}
        return [replace(one, reason="" if one.state == "READY" else one.reason or why.get(one.name, "")) for one in states]

    def metadata(self, model: str = "") -> dict[str, Any]:
        """Names, types and shapes of a model's inputs and outputs; without a model, the server's own name and version."""
        if model:
            return dict(self._about(model, self._way.metadata))
        with self._or_how_it_ended():
            return dict(self._way.about())

    def config(self, model: str) -> dict[str, Any]:
        """A model's configuration as the server reports it, with everything that it filled in."""
        return dict(self._about(model, self._way.config))

    def statistics(self, model: str) -> dict[str, Any]:
        """A model's cumulative counts and times (nanoseconds), as Triton's statistics extension defines them."""
        return dict(self._about(model, self._way.statistics)[0])

    def _about(self, model: str, question: Callable[[str], Any]) -> Any:
        try:
            with self._or_how_it_ended():
                return question(model)
        except AccessError:
            raise
        except RequestError as error:
            raise self._model_error(model, str(error)) from error

    def _model_error(self, model: str, reason: str) -> ModelError:
        states = {state.name: state for state in self.models()}
        if model not in states or (states[model].state != "READY" and "unknown model" in reason):
            loaded = sorted(name for name, state in states.items() if state.state == "READY")
            return not_loaded(model, reason, loaded, states[model].reason if model in states else "", self.owned)
        return ModelError(f"The server refused {model!r} ({states[model].state}): {reason}")

    # --- what only its owner may do -----------------------------------------------------------------------------------

    def admin_headers(self, protocol: str) -> dict[str, str]:
        """The header that administration calls need (``protocol`` is ``http`` or ``grpc``); empty on a server that is not ours."""
        prefix = GRPC_HEADER_PREFIX if protocol == "grpc" else ""
        return {f"{prefix}{ADMIN_HEADER}": self._key} if self._key else {}

    def load(self, model: str, config: str | dict[str, Any] | None = None) -> None:
        """Load a model, or load it again: its files, configuration and processes are new ones, even where nothing has changed.

        Args:
            model: name of its folder in the repository.
            config: a configuration to use instead of the file, as ``config.pbtxt`` text or as a dictionary.

        Raises:
            ConfigError: the configuration has a fault; nothing was sent, and what was loaded keeps serving.
            ModelError: the server refused it; what was loaded keeps serving.
        """
        self._must_own("load a model")
        new = self._config_to_send(model, config)
        with Progress(f"loading {model}"):
            before = self._taken_up(model)
            self._load(model, new)
            begun, current = self._taken_up(model)
            if before != (begun, current) or "ensemble_scheduling" in (current or {}):
                return
            # Triton 2.51 keeps the instances of a model whose configuration is the same and whose files are no newer, even those whose
            # process is gone. A parameter without a reader is a difference; what is loaded after that is what was asked for.
            other = new or current or {}
            self._load(model, {**other, "parameters": {**other.get("parameters", {}), "course_reload": {"string_value": "yes"}}})
            self._load(model, new)

    reload = load

    def _taken_up(self, model: str) -> tuple[int, dict[str, Any] | None]:
        """How many instances of a model have begun so far, and its configuration; None where it is not loaded."""
        begun = server_log.instances_begun(self.log(lines=0), model)
        try:
            return begun, self.config(model)
        except ModelError:
            return begun, None

    def _config_to_send(self, model: str, config: str | dict[str, Any] | None) -> dict[str, Any] | None:
        """The configuration that was given, else the one in the model's file; None where there is no file."""
        from helpers import repository
        from helpers.repository.folders import raise_first
        from helpers.repository.syntax import as_dict, parse

        folder = self.repository / model if self.repository is not None else None
        if folder is not None and folder.is_dir():
            # Of another configuration than the file's, only what would make Triton wait for ever.
            raise_first([problem for problem in repository.problems(folder) if config is None or problem.hangs], folder)
        if isinstance(config, str):
            return as_dict(parse(config, "the given configuration"))
        if config is None and folder is not None and (folder / "config.pbtxt").exists():
            # Sent along, because Triton does not read a file again that has not changed since, even if the model was loaded
            # with another configuration meanwhile.
            return as_dict(repository.read_config(folder))
        return config

    def _load(self, model: str, config: dict[str, Any] | None) -> None:
        body = {} if config is None else {"parameters": {"config": json.dumps({"name": model, **config})}}
        try:
            self._administer(f"models/{model}/load", body, timeout_s=START_TIMEOUT_S)
        except RequestError as error:
            reason = server_log.with_stage(server_log.plain(str(error)), {state.name: state.reason for state in self.models()})
            self.refusals[model] = reason
            keeps = "What was loaded before keeps serving."
            advice = "Correct its config.pbtxt or its files and type: server.reload(...); server.log() has the whole story."
            raise ModelError(f"The server refused to load {model!r}: {reason.rstrip('.')}.", keeps, advice) from error
        self.refusals.pop(model, None)

    def unload(self, model: str) -> None:
        """Take a model out of service; returns when its instances have ended."""
        self._must_own("unload a model")
        try:
            self._administer(f"models/{model}/unload")
        except RequestError as error:
            raise self._model_error(model, str(error)) from error
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while any(state.name == model and state.state == "UNLOADING" for state in self.models()) and time.monotonic() < deadline:
            time.sleep(POLL_S)

    def _administer(self, what: str, body: Any = None, timeout_s: float = QUERY_TIMEOUT_S) -> Any:
        with self._or_how_it_ended():
            return self._way.ask(f"/v2/repository/{what}", body or {}, headers=self.admin_headers("http"), timeout_s=timeout_s)

    def _must_own(self, what: str) -> None:
        if not self._key:
            said = f"Only the owner of the server at {self.url} can {what}."
            raise ModelError(said, "You are connected to it, but you did not launch it.", 'Type: server = launch_server("models")')

    # --- log and end ---------------------------------------------------------------------------------------------------

    def log(self, lines: int = LOG_TAIL_LINES) -> str:
        """The last lines of the server's log; all of it with ``lines=0``."""
        if self.log_path is None:
            return "The log of a server that was launched elsewhere is not here."
        with contextlib.suppress(OSError):
            return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])
        return f"The log {self.log_path} is not there any more: somebody has deleted it, or its folder."

    def stop(self) -> None:
        """Stop the server if it is ours; returns when it has ended. A server that is only connected to stays as it is."""
        if self._lease is not None:
            self._way.close()  # Triton waits for every connection to its HTTP port before it unloads its models
            with Progress("stopping the server"):
                self._lease.stop()

    def restart(self, **changes: Any) -> Server:
        """Stop the server and launch it again, with other options for :func:`launch_server` if some are given."""
        if self.spec is None:
            raise ServerError(f"Only the owner of the server at {self.url} can restart it.")
        spec = replace(self.spec, **changes)
        # A repository that is gone, or a wrong option, must not cost the server that still serves.
        _engine(spec.prepared())
        self.stop()
        return launch_server(**spec.options())

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _card(self) -> Card:
        """What the card shows: also, when the models cannot be asked for, why not."""
        state = self.state()
        facts = {
            "runtime": self.runtime,
            "device": device() if self.is_here else "on another machine",
            "HTTP": _shown(self.http),
            "gRPC": _shown(self.grpc),
            "metrics": self.metrics.http("/metrics") if self.metrics else _NOT_FROM_HERE,
            "inference": self.listening.inference() if self.owned else "",
            "for others": f'connect("{self.listening.name}:{self.http.port}", token="…")' if self.listening.is_beyond and self.http else "",
            "repository": shown(self.repository) if self.repository else "",
            "log": shown(self.log_path) if self.log_path else "",
            "pid": str(self.pid or ""),
            "noticed": self.noticed,
        }
        models: list[ModelState] = []
        remarks = [self.note]
        if state == "running":
            try:
                models = self.models()
            except CourseError as error:
                remarks.append(str(error))
            if self.repository and not self.repository.is_dir():
                remarks.append(f"The model repository {self.repository} is not there any more; what was loaded from it goes on serving.")
        elif state == "unreachable":
            remarks = ["Nothing answers at this address."]
        else:  # how it was launched says nothing of one that has ended
            remarks = list(self.how_it_ended()) if state == "died" else []
        # Models of the repository that were not asked for are no problem, and many: one line for all of them.
        idle = [m.name for m in models if not m.version and not m.reason and m.state == "UNAVAILABLE"]
        facts["not loaded"] = ", ".join(idle)
        rows = []
        for m in models:
            if m.name not in idle:
                row = {"model": m.name, "version": m.version, "state": f"{'✔' if m.state == 'READY' else '✖'} {m.state}"}
                rows.append(row | ({"why": m.reason} if m.reason else {}))
        return Card("Triton server", state, facts, rows, remarks, self.listening.warning())

    def __repr__(self) -> str:
        return self._card().text()

    def _repr_html_(self) -> str:
        return self._card().html()


def _shown(address: Address | None) -> str:
    """Where a port is, with the scheme of an encrypted one."""
    return _NOT_FROM_HERE if address is None else f"{address.scheme}://{address}" if address.secure else str(address)


def _engine(spec: LaunchSpec) -> ModuleType:
    """What runs the server; an error where there is no runtime of this name."""
    if spec.runtime not in RUNTIMES:
        todo = 'Type: server = launch_server("models", runtime="embedded")'
        raise SetupError(f"There is no runtime {spec.runtime!r}.", f"The runtimes are {', '.join(RUNTIMES)}.", todo)
    return RUNTIMES[spec.runtime]


# --- a launch, step by step; a fleet takes the same steps ---------------------------------------------------------------------


def start(spec: LaunchSpec) -> lease.Lease:
    """Start a server with a prepared specification and return at once; :func:`ready` waits for it."""
    spec = replace(spec, server_id=f"course-{secrets.token_hex(6)}", admin_key=secrets.token_urlsafe(24))
    place, run_dir = spec.place, run_folder.run_root() / spec.server_id
    command = _engine(spec).command(spec.loadable(), run_dir)
    log = run_folder.new_log(spec.server_id)
    run_folder.make(run_dir, command.make_links)
    # A restart keeps the token that others have already. A secret of one's own is a new one each time: who takes a dead server's port may
    # have seen the old one.
    launch = spec.options() | {"token": place.token if place.is_beyond else spec.token}
    about = {"admin_key": spec.admin_key, "launch": launch, "listening": asdict(place), "remark": command.remark}
    return lease.start(
        Plan(
            run_dir=str(run_dir),
            command=command.public,
            private=command.private,
            environment=command.environment,
            ports=triples(spec.base_port),
            log=str(log),
            grace_s=spec.grace_s,
            stop_s=STOP_TIMEOUT_S,
            server_id=spec.server_id,
            about={**facts(spec), **about},
            lifeline=command.lifeline,
            files=place.files(),
            keep_alive=spec.keep_alive,
        )
    )


def facts(spec: LaunchSpec) -> dict[str, Any]:
    """Return what tells a server apart from the others on this machine."""
    return {"owner": lease.owner(), "repository": str(spec.repository), "runtime": spec.runtime, "name": spec.name}


def find(spec: LaunchSpec) -> Server | None:
    """Return the server that was launched with these arguments, if it runs; it may still be loading its models."""
    held = lease.find(**facts(spec.prepared()))
    return server_of(held) if held else None


def server_of(held: lease.Lease) -> Server:
    """Return the Server object of a lease: the one that this process has already, else (after a restart of the kernel) a new one."""
    state = held.state()
    # A server that was started again because a program was faster with its ports has others.
    name = f"{state['server_id']} {state['ports']}"
    if name not in _OWNED:
        place = Listening(**state["listening"])
        _OWNED[name] = Server(*place.addresses(state["ports"]), access=place.access(), held=held)
    return _OWNED[name]


def ready(held: lease.Lease, spec: LaunchSpec) -> Server:
    """Return a server that was started or found when it answers, which it does not before all its models are loaded."""
    deadline = time.monotonic() + spec.timeout_s
    with Progress(lambda: server_log.starting(_log_of(held.state()))):
        while (state := held.state())["status"] == "running":
            # Not what answers at its port before its supervisor has seen that another program was faster.
            if (server := server_of(held)).is_alive() and server.metadata().get("name") == state["server_id"]:
                break
            if time.monotonic() > deadline:
                state = {**state, "status": "late", "reason": f"not ready after {spec.timeout_s:.0f} s"}
                break
            time.sleep(POLL_S)
    if state["status"] != "running":
        held.stop()
        raise not_started(state)
    first, _, last = state["ports"]
    taken = f"Port {spec.base_port} or one of the two after it is taken, so this server got {first} to {last}."
    server.note = f"{state['remark']} {taken if first != spec.base_port else ''}".strip()
    return server


def _log_of(state: dict[str, Any]) -> str:
    """The log so far of a server that may not have one yet."""
    with contextlib.suppress(OSError):
        return Path(str(state.get("log"))).read_text(encoding="utf-8", errors="replace")
    return ""


def _found(server: Server, spec: LaunchSpec) -> Server:
    assert server.spec is not None
    before = server.spec
    server.note = "Already running: this is the same server as before."
    # A token that was made up is no other one.
    spec = replace(spec, token=spec.token or before.token)
    if spec.private is None or spec.private == bool(server.token):
        spec = replace(spec, private=before.private)
    if different := spec.differences(before):
        server.note += f" It was launched with another {' and '.join(different)}; for a change type server.restart(...)."
    print(f"{server.note} {server.http_url}, pid {server.pid}")
    return server


def seen_by_others(*servers: Server) -> str:
    """Return what other users of this machine can see of these servers, since it cannot be hidden here; usually nothing."""
    logs = [server.log(lines=0) for server in servers]
    return "".join(f" {sentence}" for sentence in (isolation.KEY_SEEN, isolation.MEMORY_SEEN) if any(sentence in log for log in logs))


def warn_of_failures(server: Server) -> None:
    """Say in one message which models could not be loaded, why, and what to do."""
    models = server.models()
    assert server.spec is not None
    bad = [model for model in models if model.state != "READY" and {"*", model.name} & {*server.spec.load}]
    if bad:
        reasons = "\n".join(f"  {model.name}: {model.reason or 'the server gives no reason'}" for model in bad)
        serving = ", ".join(model.name for model in models if model.state == "READY") or "none"
        advice = "Correct the model's folder and type server.reload(name); server.log() has the whole story."
        warnings.warn(
            f"{len(bad)} of {len(models)} models could not be loaded:\n{reasons}\nServing: {serving}. {advice}", ModelWarning, stacklevel=3
        )


def not_started(state: dict[str, Any]) -> ServerError:
    """Return the error to raise for a server that did not start, with the end of its log."""
    if state.get("reason") == "no free ports":
        return ServerError("No three free ports in a row were found.", "", "Type: launch_server(base_port=20000)")
    tail = server_log.meaningful(_log_of(state))
    code = state.get("returncode")
    reason = state.get("reason") or f"it ended {'with the process that owned it' if code is None else isolation.manner(int(code))}"
    advice = (containers.hint(tail) if state.get("runtime") != "embedded" else "") or "Type: python -m helpers doctor"
    return ServerError(f"The server did not start: {reason}.", f"What its log {state.get('log')} says:\n{tail}\n", advice)
