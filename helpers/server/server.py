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
from helpers.client.endpoint import ADMIN_HEADER, BASE_PORT, GRPC_HEADER_PREFIX, NO_ACCESS, QUERY_TIMEOUT_S, RELOAD_MARK, Access, Address
from helpers.client.problems import TransportError, not_loaded, plainly
from helpers.errors import AccessError, CourseError, ModelError, RequestError, ServerError, SetupError
from helpers.machine import device, serves_here
from helpers.paths import shown
from helpers.server import containers, embedded, lease
from helpers.server import log as server_log
from helpers.server.card import Card
from helpers.server.command import GRACE_S, START_TIMEOUT_S, LaunchSpec
from helpers.server.lease import POLL_S, STOP_TIMEOUT_S, Lease
from helpers.server.listening import Listening
from helpers.server.log import LOG_TAIL_LINES, LOST, RESTART, explain
from helpers.server.ports import triples
from helpers.server.supervisor import Plan
from helpers.tables import without_empty
from helpers.terminal import Progress

# What runs the server. A new runtime is a module with `command` and `dry_command`, and a line here.
RUNTIMES: dict[str, ModuleType] = {"embedded": embedded, **dict.fromkeys(containers.ENGINES, containers)}
_NOT_FROM_HERE = "cannot be reached from here"
_FIX = "Correct the model's folder and type: server.reload(name); server.log() has the whole story."
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
    private: bool | None = None,
    dry_run: bool = False,
) -> Server:
    """Launch a Triton server and return when every model is READY; those that cannot be loaded are named in a :class:`ModelWarning`.

    A second call with the same repository, runtime and name returns the running server, also after a restart of the notebook's kernel.

    Args:
        models: the model repository, a path or a folder of the course such as ``work/models``.
        runtime: ``embedded``, ``apptainer``, ``docker`` or ``podman``.
        base_port: HTTP port; gRPC gets the next and metrics the one after. When one is taken, the next free triple.
        name: a name for a further server of the same repository.
        load: models to load; all by default.
        cache_size_bytes: size of the response cache; 0 turns it off.
        extra_arguments: further arguments for tritonserver.
        image: image for a container, or its ``.sif`` file, in place of the usual one.
        gpu: whether a container gets the GPUs; by default where this machine has some.
        timeout_s: seconds until every model must be READY.
        grace_s: seconds that the server outlives the notebook kernel.
        listen: ``all``, or the address of a network interface, for a server that others may use with ``server.token``.
        private: whether inference needs ``server.headers``, which the course's helpers send by themselves; by default where other people
            use this machine (``COURSE_PRIVATE=yes|no`` decides otherwise).
        dry_run: print the command and start nothing; returns None then.
    """
    spec = LaunchSpec(**{name: value for name, value in locals().items() if name != "dry_run"})
    if not dry_run:
        return _launch(spec.prepared())
    spec = replace(spec.prepared(), ports=(f"{base_port}", f"{base_port + 1}", f"{base_port + 2}"))
    print(_engine(spec).dry_command(spec).shown())
    return None  # type: ignore[return-value]


class Server:
    """A Triton server: owned when launched here, else only connected to.

    Attributes:
        http: address of the HTTP endpoint, as ``grpc`` and ``metrics``; None where it cannot be reached from here.
        owned: whether this process launched the server (or found it again after a kernel restart).
        runtime: ``embedded``, ``apptainer``, ``docker``, ``podman`` or ``remote``.
        repository: the model repository, where it is known.
        token: what calls to a server of one's own must carry; empty where nothing is needed.
        headers: what a raw inference request must carry, over HTTP and gRPC alike, which want the token under two names.
        headers_file: the same in a file that only you can read, for ``curl -H @FILE``.
        refusals: why the last load of a model was refused, by its name: what was loaded before goes on serving.
    """

    def __init__(
        self, http: Address | None, grpc: Address | None, metrics: Address | None, access: Access = NO_ACCESS, held: Lease | None = None
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
        # No token to the metrics page of our own, whose port is the only one that another user could take, nor in plain text.
        in_plain_text = self._way.address.secure and metrics is not None and not metrics.secure
        self.metrics_access = Access(ca=access.ca) if self.owned or in_plain_text else access
        self.refusals: dict[str, str] = {}
        self.note = ""  # what the card says beside the state, such as a port that was taken

    @property
    def http_url(self) -> str:
        """Host and port for HTTP requests, such as ``localhost:9000``."""
        return str(self._must_reach(self.http, "HTTP port"))

    @property
    def grpc_url(self) -> str:
        """Host and port for gRPC requests, such as ``localhost:9001``."""
        return str(self._must_reach(self.grpc, "gRPC port"))

    @property
    def metrics_url(self) -> str:
        """URL of the metrics page, such as ``http://localhost:9002/metrics``."""
        return self._must_reach(self.metrics, "metrics page").http("/metrics")

    def _must_reach(self, address: Address | None, what: str) -> Address:
        if address is None:
            todo = 'Client(server) takes a port that can; counters: server.statistics(model), or connect("…", metrics="http://…")'
            raise ServerError(f"The {what} of the server at {self.url} {_NOT_FROM_HERE}.", "", todo)
        return address

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

    def models(self) -> list[ModelState]:
        """The models in the repository and their states; on another's server, or without its repository, those that are loaded."""
        if not self._key or self.repository is None or not self.repository.is_dir():
            with self._or_how_it_ended():
                return [ModelState(counters["name"], counters["version"], "READY") for counters in self._way.statistics()]
        from helpers import repository  # loads gRPC, half a second

        rows = self._administer("index")
        # The index leaves out folders without a model, and has no reason where a load was not even tried.
        why = server_log.reasons(self.log(lines=0)) | repository.faults(self.repository)
        rows += [{"name": name} for name in why if name not in {row["name"] for row in rows} and (self.repository / name).is_dir()]
        states = []
        for row in rows:
            state = row.get("state") or "UNAVAILABLE"
            reason = server_log.plain(row.get("reason") or why.get(row["name"], "").partition("\n")[0])
            states.append(ModelState(row["name"], row.get("version", ""), state, reason if state != "READY" else ""))
        return states

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

    def admin_headers(self, protocol: str) -> dict[str, str]:
        """The header that administration calls need (``protocol`` is ``http`` or ``grpc``); empty on a server that is not ours."""
        prefix = GRPC_HEADER_PREFIX if protocol == "grpc" else ""
        return {f"{prefix}{ADMIN_HEADER}": self._key} if self._key else {}

    def load(self, model: str, config: str | dict[str, Any] | None = None) -> None:
        """Load a model, or load it again: its files, configuration and processes are new ones, even where nothing has changed.

        ``config`` is a configuration to use instead of the file, as ``config.pbtxt`` text or as a dictionary. Where it has a fault
        (ConfigError), or the server refuses it (ModelError), what was loaded keeps serving.
        """
        self._must_own("load a model")
        new = self._config_to_send(model, config)
        # Triton 2.51 keeps the instances of a model whose configuration is the same and whose files are no newer, even those whose
        # process is gone. A parameter without a reader, another one each time, is a difference.
        mark = {RELOAD_MARK: {"string_value": secrets.token_hex(4)}}
        body = {"parameters": {"config": json.dumps({"name": model, **new, "parameters": {**new.get("parameters", {}), **mark}})}}
        try:
            with Progress(f"loading {model}"):
                self._administer(f"models/{model}/load", body, timeout_s=START_TIMEOUT_S)
        except RequestError as error:
            self.refusals[model] = reason = server_log.plain(str(error)).rstrip(".")
            keeps = "What was loaded before keeps serving."
            raise ModelError(f"The server refused to load {model!r}: {reason}.", keeps, _FIX) from error
        self.refusals.pop(model, None)

    reload = load

    def _config_to_send(self, model: str, config: str | dict[str, Any] | None) -> dict[str, Any]:
        """The configuration that was given, else the one in the model's file; empty where there is no file."""
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
        return config or {}

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

    def log(self, lines: int = LOG_TAIL_LINES) -> str:
        """The last lines of the server's log; all of it with ``lines=0``."""
        if self.log_path is None:
            return "The log of a server that was launched elsewhere is not here."
        if not self.log_path.exists():
            return f"The log {self.log_path} is not there any more."
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

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
        # A repository that is gone, or a wrong option, must not cost the server that still serves.
        spec = replace(self.spec, **changes).prepared()
        _engine(spec)
        self.stop()
        return _launch(spec)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _card(self) -> Card:
        """What the card shows: also, when the models cannot be asked for, why not."""
        state = self.state()
        facts = {
            "runtime": self.runtime,
            "device": device() if self.owned or serves_here(self._way.address.host, self._way.address.port) else "on another machine",
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
        else:  # how it was launched says nothing of one that has ended
            remarks = list(self.how_it_ended()) if state == "died" else []
        # Models of the repository that were not asked for are no problem, and many: one line for all of them.
        idle = [m.name for m in models if not m.version and not m.reason and m.state == "UNAVAILABLE"]
        facts["not loaded"] = ", ".join(idle)
        rows = [
            {"model": m.name, "version": m.version, "state": f"{'✔' if m.state == 'READY' else '✖'} {m.state}", "why": m.reason}
            for m in models
            if m.name not in idle
        ]
        return Card("Triton server", state, facts, without_empty(rows), remarks, self.listening.warning())

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


def _launch(spec: LaunchSpec) -> Server:
    """Find or start the server of a prepared specification; return it when it is ready."""
    _engine(spec)
    if held := lease.find(**facts(spec)):
        server = ready(held, spec)
        server.note = "Already running: this is the same server as before. For other options, type: server = server.restart(…)"
        print(f"{server.http_url}, pid {server.pid}. {server.note}")
        return server
    server = ready(start(spec), spec)
    if server.note:
        print(server.note)
    warn_of_failures(server)
    return server


def start(spec: LaunchSpec) -> Lease:
    """Start a server with a prepared specification and return at once; :func:`ready` waits for it."""
    from helpers import repository  # loads gRPC, which a call that finds a running server need not wait for

    server_id, admin_key, place = f"course-{secrets.token_hex(6)}", secrets.token_urlsafe(24), spec.place
    run_dir = run_folder.run_root() / server_id
    # With one of these Triton would wait for ever, and serve nothing.
    loadable = spec.without(repository.faults(spec.repository, hanging=True))
    command = _engine(spec).command(replace(loadable, server_id=server_id, admin_key=admin_key), run_dir)
    log = run_folder.new_log(server_id)
    run_folder.make(run_dir, command.make_links)
    # A restart keeps the token that others have already. A secret of one's own is a new one each time: who takes a dead server's port may
    # have seen the old one.
    launch = spec.options() | {"token": place.token if place.is_beyond else spec.token}
    about = {"admin_key": admin_key, "launch": launch, "listening": asdict(place)}
    return lease.start(
        Plan(
            run_dir=str(run_dir),
            command=command.words,
            environment=command.environment,
            ports=triples(spec.base_port),
            log=str(log),
            grace_s=spec.grace_s,
            stop_s=STOP_TIMEOUT_S,
            about=facts(spec) | about,
            files=place.files(),
            lifeline=command.lifeline,
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


def server_of(held: Lease) -> Server:
    """Return the Server object of a lease: the one that this process has already, else (after a restart of the kernel) a new one."""
    state = held.state()
    # A server that was started again because a program was faster with its ports has others.
    name = f"{state['server_id']} {state['ports']}"
    if name not in _OWNED:
        place = Listening(**state["listening"])
        _OWNED[name] = Server(*place.addresses(state["ports"]), access=place.access(), held=held)
    return _OWNED[name]


def ready(held: Lease, spec: LaunchSpec) -> Server:
    """Return a server that was started or found when it answers, which it does not before all its models are loaded."""
    deadline = time.monotonic() + spec.timeout_s
    with Progress(lambda: server_log.starting(Path(held.state()["log"]).read_text(errors="replace"))):
        while (state := held.state())["status"] == "running":
            # Not what answers at its port before its supervisor has seen that another program was faster.
            if (server := server_of(held)).is_alive() and server.metadata().get("name") == state["server_id"]:
                first, _, last = state["ports"]
                taken = f"Port {spec.base_port} or one of the two after it is taken, so this server got {first} to {last}."
                server.note = taken if first != spec.base_port else ""
                return server
            if time.monotonic() > deadline:
                state["reason"] = f"not ready after {spec.timeout_s:.0f} s"
                break
            time.sleep(POLL_S)
    held.stop()
    raise not_started(state)


def warn_of_failures(server: Server) -> None:
    """Say in one message which models could not be loaded, why, and what to do."""
    models = server.models()
    wanted = server.spec.load if server.spec else ()
    bad = [model for model in models if model.state != "READY" and {"*", model.name} & {*wanted}]
    if bad:
        reasons = "\n".join(f"  {model.name}: {model.reason or 'the server gives no reason'}" for model in bad)
        serving = ", ".join(model.name for model in models if model.state == "READY") or "none"
        said = f"{len(bad)} of {len(models)} models could not be loaded:\n{reasons}\nServing: {serving}. {_FIX}"
        warnings.warn(said, ModelWarning, stacklevel=4)


def not_started(state: dict[str, Any]) -> ServerError:
    """Return the error to raise for a server that did not start, with the end of its log."""
    reason = f": {state['reason']}." if "reason" in state else f". {server_log.how(state.get('returncode'))}"
    words = f"What its log {state['log']} says:\n{server_log.meaningful(Path(state['log']).read_text(errors='replace'))}\n"
    container = "A container fails? containers/README.md has what helps; without the GPU: launch_server(…, gpu=False)"
    advice = container if state.get("runtime") in containers.ENGINES else "Type: python -m helpers doctor"
    return ServerError(f"The server did not start{reason}", words, advice)
