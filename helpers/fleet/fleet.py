"""Several servers of one model repository behind one Envoy: one address, each server's share, more or fewer of them.

Typical use::

    from helpers import launch_fleet, Client
    fleet = launch_fleet("models", servers=2)
    fleet                                        # a card
    Client(fleet).infer("add_sub", ...)          # whichever server has least to do answers
    fleet.shares()
    fleet.grow()
    fleet.stop()
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from helpers import machine, run_folder
from helpers.client import http
from helpers.client.endpoint import QUERY_TIMEOUT_S, Address
from helpers.errors import InputError, RequestError, ServerError, quoted
from helpers.fleet import envoy, front, shares
from helpers.fleet.front import Behind
from helpers.metrics import Snapshot
from helpers.paths import shown
from helpers.server import card, lease
from helpers.server import server as launching
from helpers.server.lease import POLL_S
from helpers.server.listening import Listening
from helpers.server.log import LOG_TAIL_LINES, LOST, explain
from helpers.server.model_states import ModelState
from helpers.server.server import Server, launch_server
from helpers.server.spec import PORTS, PORTS_PER_SERVER, LaunchSpec
from helpers.tables import as_html, as_text

# Seconds that a server which leaves gets for its requests under way.
FLEET_DRAIN_S = 30.0
_RESTART = "Type: fleet = fleet.restart()"


class Fleet:
    """Triton servers of one model repository behind one Envoy, all of them owned.

    Attributes:
        http: address of the front's HTTP port.
        grpc: address of the front's gRPC port.
        runtime: the servers' runtime.
        repository: their model repository.
        log_path: file with the front's output.
        note: what the card says beside the state.
        spec: what it was launched with.
        pid: process id of the front.
        listening: the token that inference through the front needs, if it needs one.
        access: the same, as every request carries it.
    """

    owned = True

    def __init__(self, held: lease.Lease, servers: Sequence[Server]) -> None:
        state = held.state()
        self._lease = held
        self._servers = list(servers)
        self._lock = threading.RLock()
        self.http, self.grpc = (Address("localhost", int(port)) for port in state["ports"][:2])
        self.spec, self._asked_for = LaunchSpec(**state["launch"]), int(state["servers"])
        self.runtime: str = self.spec.runtime
        self.repository = Path(str(state["repository"]))
        self.log_path = Path(str(state["log"]))
        self.pid: int = state["pid"]
        self.listening = Listening(**state["listening"])
        self.access = self.listening.access()
        self.note = ""

    # --- where it is and how it is -----------------------------------------------------------------------------------

    @property
    def http_url(self) -> str:
        """Host and port for HTTP requests."""
        return str(self.http)

    @property
    def grpc_url(self) -> str:
        """Host and port for gRPC requests."""
        return str(self.grpc)

    @property
    def token(self) -> str:
        """The token that inference needs; empty where none is needed."""
        return self.listening.token

    @property
    def headers(self) -> dict[str, str]:
        """What a raw inference request must carry, over HTTP and gRPC alike; ``{}`` where nothing is needed."""
        return self.access.grpc_headers()

    @property
    def headers_file(self) -> Path | None:
        """The same in a file that only you can read, for ``curl -H @FILE``; None where nothing is needed, or the server is not yours."""
        return self._lease.run_dir / run_folder.HEADERS if self.token else None

    @property
    def envoy_config(self) -> str:
        """The configuration that Envoy runs with, as YAML text."""
        return (self._lease.run_dir / envoy.FILE).read_text()

    @property
    def envoy_admin_url(self) -> str:
        """Envoy's admin page: a Unix socket that only you can open. Type ``curl --unix-socket PATH http://front/clusters``."""
        return f"unix://{self._lease.run_dir / 'admin'}"

    def envoy_admin(self, path: str = "/clusters") -> str:
        """What Envoy's admin page says, such as ``/clusters``, ``/stats`` or ``/listeners``."""
        return front.admin(self._lease.run_dir, path)

    @property
    def servers(self) -> list[Server]:
        """The servers. One that was restarted takes the place of the one that died."""
        with self._lock:
            for number, server in enumerate(self._servers):
                again = launching.find(server.spec) if server.spec and server.state() in ("stopped", "died") else None
                if again is not None:
                    self._servers[number] = _at_its_port(again)
            self._tell()
            return list(self._servers)

    def adopt(self, servers: Sequence[Server]) -> None:
        """Put these servers, which run already, behind the front."""
        with self._lock:
            self._servers = list(servers)
            self._tell()
            self._wait(lambda: all(self.in_rotation()), QUERY_TIMEOUT_S)

    def _tell(self, draining: Sequence[Server] = ()) -> None:
        if self.state() == "running":
            front.write_lists(self._lease.run_dir, self._servers, draining)

    def state(self) -> str:
        """One word for the front: ``running``, ``stopped`` or ``died``."""
        return str(self._lease.state().get("status", "died"))

    def how_it_ended(self) -> tuple[str, str]:
        """Return how the front ended and what to type; two empty texts while it runs."""
        state = self.state()
        if state == "running":
            return "", ""
        return f"{LOST} {explain(self.returncode, self.log(lines=0))}" if state == "died" else LOST, _RESTART

    def behind(self) -> dict[str, dict[int, Behind]]:
        """What Envoy thinks of its servers: by protocol, then by their port."""
        return front.behind(self._lease.run_dir)

    def in_rotation(self) -> list[bool]:
        """For each server, whether Envoy sends it requests over both protocols."""
        try:
            seen = self.behind()
        except ServerError:
            seen = {}
        ports = [{protocol: getattr(server, protocol).port for protocol in front.PROTOCOLS} for server in self.servers]
        return [all((known := seen.get(p, {}).get(port)) is not None and known.healthy for p, port in one.items()) for one in ports]

    def is_alive(self) -> bool:
        """Whether a server answers through the front."""
        return self._healthy("live")

    def is_ready(self) -> bool:
        """Whether a server answers through the front that it is ready."""
        return self._healthy("ready")

    def _healthy(self, word: str) -> bool:
        try:
            http.ask(self.http, f"/v2/health/{word}")
        except (ServerError, RequestError):
            return False
        return True

    def models(self) -> list[ModelState]:
        """The models and their states; one that is not READY on every server that runs says where it is not."""
        return _models(self.servers)

    def metadata(self, model: str = "") -> dict[str, Any]:
        """Names, types and shapes of a model's inputs and outputs, or, without a model, what one of the servers says of itself."""
        return http.ask(self.http, f"/v2/models/{model}" if model else "/v2")

    def config(self, model: str) -> dict[str, Any]:
        """A model's configuration as one of the servers reports it."""
        return http.ask(self.http, f"/v2/models/{model}/config")

    # --- who did what ------------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Snapshot]:
        """All servers' counters now, by the address of their HTTP port: the beginning of a measurement."""
        return shares.read(self.servers)

    def shares(self, since: Mapping[str, Snapshot] | None = None, model: str | None = None) -> list[dict[str, Any]]:
        """What each server did, by its own counters.

        Args:
            since: a :meth:`snapshot`; without one, since each server's start.
            model: only requests to this model. A model made of others counts once more for each of them otherwise.

        Returns:
            Rows with the columns server, requests, inferences, share (of the requests, 0 to 1), queue_us (mean per request, in µs).
        """
        servers = self.servers
        return shares.rows(servers, since, shares.read(servers), model)

    # --- more and fewer ----------------------------------------------------------------------------------------------

    def grow(self) -> Server:
        """Add a server; returns it when its models are READY and Envoy sends it requests.

        Raises:
            ServerError: it did not start; the fleet is as it was.
        """
        with self._lock:
            self._must_run()
            number = len(self.servers) + 1
            spec = _spec_of(replace(self.spec, token=self.token).prepared(), number)
            server = _at_its_port(launching.ready(launching.start(spec), spec))
            self._servers.append(server)
            self._tell()
            self._wait(lambda: self.in_rotation()[number - 1], QUERY_TIMEOUT_S)
            return server

    def shrink(self) -> None:
        """Take the last server away: it gets no new requests, answers those that it has, then it is stopped.

        Raises:
            InputError: it is the only one.
        """
        with self._lock:
            self._must_run()
            if len(self._servers) == 1:
                raise InputError("A fleet of one server cannot shrink.", "Expected at least two.", "To end it, type: fleet.stop()")
            leaving = self._servers[-1]
            self._tell(draining=[leaving])
            self._wait(lambda: self._drained(leaving), FLEET_DRAIN_S)
            self._servers.remove(leaving)
            self._tell()
        leaving.stop()

    def _drained(self, server: Server) -> bool:
        """Whether nothing is under way to a server that leaves. Envoy's threads hear of it a moment after its admin page does."""
        for _ in range(2):
            seen = self.behind()
            known = [seen[protocol].get(getattr(server, protocol).port) for protocol in front.PROTOCOLS]
            if any(one is None or not one.draining or one.active for one in known):
                return False
            time.sleep(POLL_S)
        return True

    @staticmethod
    def _wait(fact: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not fact() and time.monotonic() < deadline:
            time.sleep(POLL_S)

    def _must_run(self) -> None:
        if self.state() != "running":
            raise ServerError("The front of this fleet does not run any more.", "", _RESTART)

    def load(self, model: str, config: str | dict[str, Any] | None = None) -> None:
        """Load a model on every server, one after the other, or load it again; see :meth:`helpers.server.Server.load`."""
        for server in self.servers:
            server.load(model, config)

    reload = load

    def unload(self, model: str) -> None:
        """Take a model out of service on every server."""
        for server in self.servers:
            server.unload(model)

    # --- log and end ---------------------------------------------------------------------------------------------------

    @property
    def returncode(self) -> int | None:
        """With which status the front has ended, negative for a signal; None while it runs, or where nobody saw its end."""
        return self._lease.state().get("returncode")

    def log(self, lines: int = LOG_TAIL_LINES) -> str:
        """The last lines of the front's log; all of it with ``lines=0``. Each server has its own: ``fleet.servers[0].log()``."""
        try:
            return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])
        except OSError as error:
            return f"The log cannot be read: {error}"

    def stop(self) -> None:
        """Stop the front, then all servers; returns when they have ended."""
        with self._lock:
            self._lease.stop()
            with ThreadPoolExecutor(len(self._servers)) as pool:
                list(pool.map(Server.stop, self._servers))

    def restart(self, **changes: Any) -> Fleet:
        """Stop the fleet and launch it again, with other options for :func:`launch_fleet` if some are given."""
        self.stop()
        return launch_fleet(**{**self.spec.options(), "servers": self._asked_for, **changes})

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _facts(self) -> tuple[str, list[tuple[str, str]], list[dict[str, Any]], list[str]]:
        """Return state, facts, one row per server, remarks."""
        state = self.state()
        facts = [("HTTP", self.http_url), ("gRPC", self.grpc_url), ("runtime", self.runtime), ("device", machine.device())]
        facts.append(("inference", self.listening.inference()))
        facts += [("repository", shown(self.repository)), ("front's log", shown(self.log_path)), ("front's pid", str(self.pid))]
        remarks = [self.note] if self.note else []
        if state == "died":
            remarks.append(f"{explain(self.returncode, self.log(lines=0))}{_RESTART}")
        if state == "stopped":
            return state, facts, [], remarks
        rows = []
        servers = self.servers
        for number, (server, used, share) in enumerate(zip(servers, self.in_rotation(), self.shares(), strict=True)):
            its_state = server.state()
            rows.append(
                {
                    "server": share["server"],
                    "state": f"{card.MARKS.get(its_state, '?')} {its_state}",
                    "gets requests": "yes" if used else "no",
                    "requests": share["requests"],
                    "share": None if share["share"] is None else f"{share['share']:.0%}",
                    "queue (ms)": None if share["queue_us"] is None else share["queue_us"] / 1000,
                    "gRPC": server.grpc_url,
                    "metrics": server.metrics_url,
                }
            )
            if noticed := server.remarks:
                remarks.append(f"{server.http_url} {noticed[-1]}")
            if its_state == "hung":
                remarks.append(f"{server.http_url} does not answer any more: it gets no requests, and is started again soon.")
            if its_state == "died":
                words = explain(server.returncode, server.log(lines=0))
                remarks.append(f"{server.http_url} has died. {words}To bring it back, type: fleet.servers[{number}].restart()")
        return state, facts, rows, remarks

    def __repr__(self) -> str:
        state, facts, rows, remarks = self._facts()
        lines = [f"Fleet of Triton servers behind Envoy {card.MARKS.get(state, '?')} {state}"]
        lines += [f"  {name:<13}{value}" for name, value in facts]
        lines += [f"  {line}" for line in as_text(rows).splitlines()] if rows else []
        return "\n".join(lines + [f"  {remark}" for remark in remarks])

    def _repr_html_(self) -> str:
        state, facts, rows, remarks = self._facts()
        return card.frame("Fleet of Triton servers behind Envoy", state, facts, as_html(rows) if rows else "", remarks)


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
    spec = LaunchSpec(models, **options)  # type: ignore[arg-type]
    if spec.listen:
        raise InputError(
            f"listen={spec.listen!r} was given to a fleet.",
            "A fleet serves its own machine alone.",
            'Type: launch_server("models", listen="all") for one server that others may use',
        )
    if tls := [name for name in ("tls_cert", "tls_key", "ca") if getattr(spec, name)]:
        raise InputError(
            f"A fleet was asked to encrypt, by {quoted(tls)}.",
            "A fleet serves its own machine alone, where nothing is encrypted.",
            'Type: launch_server("models", listen="all", tls_cert=…, tls_key=…) for one server that others may use',
        )
    spec = spec.prepared()
    front.program()
    if dry_run:
        _print_commands(spec, servers)
        return None  # type: ignore[return-value]
    facts = launching.facts(spec) | {"runtime": front.RUNTIME, "servers_runtime": spec.runtime}
    held = lease.find(**facts)
    there = _running(spec)
    # Those that run have a secret already, or none.
    place = next((server.listening for server in there.values()), spec.place)
    everyone = _servers(replace(spec, token=place.token, place=place), servers, there)
    if held is not None:
        return _found(held, everyone, spec, servers)
    held = front.start(everyone, facts | {"launch": spec.options(), "servers": servers}, spec, place)
    fleet = _ready(held, everyone, spec.timeout_s)
    _OWNED[str(held.state()["server_id"])] = fleet
    if fleet.http.port != spec.base_port:
        fleet.note = f"Port {spec.base_port} or the next is taken, so the front got {fleet.http.port} and {fleet.grpc.port}."
        print(fleet.note)
    fleet.note += launching.seen_by_others(*everyone)
    launching.warn_of_failures(everyone[0])
    return fleet


def _running(spec: LaunchSpec) -> dict[int, Server]:
    """The servers of this fleet that run already, by their number."""
    wanted = launching.facts(spec)
    begin = _server_name(spec.name)

    def ours(state: dict[str, Any]) -> bool:
        return str(state.get("name", "")).startswith(begin) and all(state.get(n) == v for n, v in wanted.items() if n != "name")

    found = {}
    for held in lease.running(ours):
        number = int(str(held.state()["name"]).removeprefix(begin))
        if launching.answers(held, spec.timeout_s):
            found[number] = _at_its_port(launching.server_of(held))
    return found


def _servers(spec: LaunchSpec, servers: int, there: Mapping[int, Server]) -> list[Server]:
    """All servers, those that are missing launched side by side.

    Raises:
        ServerError: one did not start; those launched with it were stopped again.
    """
    numbers = range(1, max(servers, *there, 1) + 1)
    missing = {number: _spec_of(spec, number) for number in numbers if number not in there}
    begun: list[lease.Lease] = []
    try:
        # One by one into the list, so that those begun are known when a later one fails.
        begun.extend(map(launching.start, missing.values()))
        fresh = {number: _at_its_port(launching.ready(held, missing[number])) for number, held in zip(missing, begun, strict=True)}
    except BaseException:
        for held in begun:
            held.stop()
        raise
    return [there.get(number) or fresh[number] for number in numbers]


def _found(held: lease.Lease, everyone: list[Server], spec: LaunchSpec, servers: int) -> Fleet:
    state = held.state()
    fleet = _OWNED.setdefault(str(state["server_id"]), Fleet(held, everyone))
    fleet.adopt(everyone)
    fleet.note = "Already running: this is the same fleet as before."
    if spec.private is None or spec.private == bool(fleet.token):
        spec = replace(spec, private=fleet.spec.private)
    if different := spec.differences(fleet.spec):
        fleet.note += f" It was launched with another {' and '.join(different)}; for a change type fleet.restart(...)."
    if len(everyone) > servers:
        fleet.note += f" It has {len(everyone)} servers."
    print(f"{fleet.note} {fleet.http_url}, pid {fleet.pid}")
    return fleet


def _ready(held: lease.Lease, everyone: list[Server], timeout_s: float) -> Fleet:
    """Wait until Envoy answers and sends requests to all servers."""
    deadline = time.monotonic() + timeout_s
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
            raise _not_started(state if failed else {**state, "reason": f"not ready after {timeout_s:.0f} s"})
        time.sleep(POLL_S)


def _not_started(state: Mapping[str, Any]) -> ServerError:
    error = launching.not_started(dict(state))
    error.happened = error.happened.replace("The server", "Envoy, the front of the fleet,")
    return ServerError(error.happened, error.expected, error.todo)


def _print_commands(spec: LaunchSpec, servers: int) -> None:
    for number in range(1, servers + 1):
        launch_server(**_spec_of(spec, number).options(), dry_run=True)
        print()
    folder = Path("/tmp/course")
    text = envoy.front(folder, "$COURSE_TOKEN" if spec.place.token else "")
    for place, port in zip(PORTS, (spec.base_port, spec.base_port + 1), strict=False):
        text = text.replace(place, str(port))
    print(" ".join(front.command(folder)), f"# {folder / envoy.FILE}:\n{text}", sep="\n\n")


def _spec_of(spec: LaunchSpec, number: int) -> LaunchSpec:
    """What one server of a fleet is launched with, from 1 on."""
    return replace(
        spec,
        name=f"{_server_name(spec.name)}{number}",
        base_port=spec.base_port + number * PORTS_PER_SERVER,
        # Ready as soon as it answers: one model that cannot be loaded must not take the others out of service.
        extra_arguments=(*spec.extra_arguments, "--strict-readiness=false"),
        keep_alive=True,
    )


def _server_name(fleet: str) -> str:
    """What the names of a fleet's servers begin with; a number follows."""
    return f"fleet {fleet}/" if fleet else "fleet/"


def _at_its_port(server: Server) -> Server:
    """The same server; when it is restarted it asks for the very ports that Envoy knows."""
    assert server.spec is not None and server.http is not None
    server.spec = replace(server.spec, base_port=server.http.port)
    return server


def _models(servers: Sequence[Server]) -> list[ModelState]:
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
