"""Several servers of one model repository behind one Envoy: one address, each server's share, one more server.

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

import os
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from helpers import machine, run_folder
from helpers.client import http
from helpers.client.endpoint import QUERY_TIMEOUT_S, Address
from helpers.errors import CourseError, InputError, RequestError, ServerError
from helpers.fleet import envoy
from helpers.paths import shown
from helpers.server import card, lease
from helpers.server import server as launching
from helpers.server.command import LaunchSpec
from helpers.server.lease import POLL_S, STOP_TIMEOUT_S
from helpers.server.listening import Listening
from helpers.server.log import LOG_TAIL_LINES, LOST, explain
from helpers.server.model_states import ModelState
from helpers.server.ports import PORTS_PER_SERVER, triples
from helpers.server.server import Server, launch_server
from helpers.server.supervisor import Plan
from helpers.tables import as_html, as_text

_RESTART = "Type: fleet = fleet.restart()"
# By model: requests, inferences, and the time of all requests in the queue in µs.
_Counts = dict[str, tuple[int, int, float]]
# Fleets launched or found by this process, by the id of their front: keeps their leases while the process lives.
_OWNED: dict[str, Fleet] = {}


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
        """The same in a file that only you can read, for ``curl -H @FILE``; None where nothing is needed."""
        return self._lease.run_dir / run_folder.HEADERS if self.token else None

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

    def _tell(self) -> None:
        if self.state() == "running":
            envoy.write_lists(self._lease.run_dir, self._servers)

    def state(self) -> str:
        """One word for the front: ``running``, ``stopped`` or ``died``."""
        return str(self._lease.state().get("status", "died"))

    def how_it_ended(self) -> tuple[str, str]:
        """Return how the front ended and what to type; two empty texts while it runs."""
        state = self.state()
        if state == "running":
            return "", ""
        return f"{LOST} {self._ended()}" if state == "died" else LOST, _RESTART

    def _ended(self) -> str:
        return explain(self._lease.state().get("returncode"), self.log(lines=0))

    def behind(self) -> dict[str, dict[int, envoy.Behind]]:
        """What Envoy thinks of its servers: by protocol, then by their port."""
        return envoy.behind(self._lease.run_dir)

    def in_rotation(self) -> list[bool]:
        """For each server, whether Envoy sends it requests over both protocols."""
        try:
            seen = self.behind()
        except ServerError:
            return [False for _ in self.servers]
        healthy = {(protocol, port) for protocol, hosts in seen.items() for port, host in hosts.items() if host.healthy}
        return [all((protocol, getattr(one, protocol).port) in healthy for protocol in envoy.PROTOCOLS) for one in self.servers]

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
        states = [(server, state) for server in self.servers if server.state() == "running" for state in server.models()]
        ready = {state.name for _, state in states if state.state == "READY"}
        together: dict[str, ModelState] = {}
        for server, state in states:
            if state.state != "READY" and state.name in ready:
                state = ModelState(state.name, state.version, state.state, f"on {server.http_url}. {state.reason}".strip())
            if state.name not in together or together[state.name].state == "READY":
                together[state.name] = state
        return [together[name] for name in sorted(together)]

    def metadata(self, model: str = "") -> dict[str, Any]:
        """Names, types and shapes of a model's inputs and outputs, or, without a model, what one of the servers says of itself."""
        return dict(http.ask(self.http, f"/v2/models/{model}" if model else "/v2"))

    def config(self, model: str) -> dict[str, Any]:
        """A model's configuration as one of the servers reports it."""
        return dict(http.ask(self.http, f"/v2/models/{model}/config"))

    # --- who did what ------------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, _Counts]:
        """All servers' counters now, by the address of their HTTP port: the beginning of a measurement."""
        return {server.http_url: counts for server in self.servers if (counts := _counts(server)) is not None}

    def shares(self, since: Mapping[str, _Counts] | None = None, model: str | None = None) -> list[dict[str, Any]]:
        """What each server did, by its own counters.

        Args:
            since: a :meth:`snapshot`; without one, since each server's start.
            model: only requests to this model. A model made of others counts once more for each of them otherwise.

        Returns:
            Rows with the columns server, requests, inferences, share (of the requests, 0 to 1), queue_us (mean per request, in µs). A
            server that does not answer has None in all of them.
        """
        rows: list[dict[str, Any]] = []
        for server in self.servers:
            now, before = _counts(server), (since or {}).get(server.http_url, {})
            row: dict[str, Any] = {"server": server.http_url, "requests": None, "inferences": None, "share": None, "queue_us": None}
            if now is not None:
                # A server that was started again counts from zero.
                before = {} if any(number > now.get(name, (0,))[0] for name, (number, *_) in before.items()) else before
                rose = [
                    [after - earlier for after, earlier in zip(counted, before.get(name, (0, 0, 0.0)), strict=True)]
                    for name, counted in now.items()
                    if model in (None, name)
                ]
                requests, inferences, queue_us = (sum(column) for column in zip((0, 0, 0.0), *rose, strict=True))
                row |= {"requests": requests, "inferences": inferences, "queue_us": queue_us / requests if requests else None}
            rows.append(row)
        total = sum(row["requests"] or 0 for row in rows)
        return [row | {"share": row["requests"] / total} if total and row["requests"] is not None else row for row in rows]

    # --- more servers, log and end -----------------------------------------------------------------------------------

    def grow(self) -> Server:
        """Add a server; returns it when its models are READY and Envoy sends it requests.

        Raises:
            ServerError: it did not start; the fleet is as it was.
        """
        with self._lock:
            if self.state() != "running":
                raise ServerError("The front of this fleet does not run any more.", "", _RESTART)
            number = len(self.servers) + 1
            spec = _spec_of(replace(self.spec, token=self.token).prepared(), number)
            server = _at_its_port(launching.ready(launching.start(spec), spec))
            launching.warn_of_failures(server, among=self._servers[0])
            self._adopt([*self._servers, server])
            return server

    def _adopt(self, servers: Sequence[Server]) -> None:
        """Put these servers, which run already, behind the front."""
        with self._lock:
            self._servers = list(servers)
            self._tell()
            deadline = time.monotonic() + QUERY_TIMEOUT_S
            while not all(self.in_rotation()) and time.monotonic() < deadline:
                time.sleep(POLL_S)

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

    # --- card ----------------------------------------------------------------------------------------------------------

    def _facts(self) -> tuple[str, list[tuple[str, str]], list[dict[str, Any]], list[str]]:
        """Return state, facts, one row per server, remarks."""
        state = self.state()
        facts = [("HTTP", self.http_url), ("gRPC", self.grpc_url), ("runtime", self.runtime), ("device", machine.device())]
        facts += [("inference", self.listening.inference()), ("repository", shown(self.repository))]
        facts += [("front's log", shown(self.log_path)), ("front's pid", str(self.pid))]
        if state == "stopped":
            return state, facts, [], []
        remarks = [self.note] if self.note else []
        if state == "died":
            remarks.append(f"{self._ended()}{_RESTART}")
        rows = []
        for number, (server, used, share) in enumerate(zip(self.servers, self.in_rotation(), self.shares(), strict=True)):
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
            remarks += [f"{server.http_url} {remark}" for remark in server.remarks[-1:]]
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


def _counts(server: Server) -> _Counts | None:
    """A server's own counters by model, all versions together; None where it does not answer: they went with it."""
    try:
        if server.state() != "running" or server.http is None:
            return None
        rows = http.ask(server.http, "/v2/models/stats", access=server.access)["model_stats"]
    except CourseError:
        return None
    found: _Counts = {}
    for row in rows:
        requests, inferences, queue_us = found.get(row["name"], (0, 0, 0.0))
        times = row["inference_stats"]
        found[row["name"]] = (
            requests + times["success"]["count"],
            inferences + row["inference_count"],
            queue_us + times["queue"]["ns"] / 1000,
        )
    return found


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
            f"A fleet was given listen={spec.listen!r}.",
            "It serves its own machine alone.",
            'Type: launch_server("models", listen="all") for one server that others may use',
        )
    spec = spec.prepared()
    envoy.command(Path())  # or it says what is missing
    if dry_run:
        _print_commands(spec, servers)
        return None  # type: ignore[return-value]
    facts = launching.facts(spec) | {"runtime": "envoy", "servers_runtime": spec.runtime}
    held = lease.find(**facts)
    there = _running(spec)
    # Those that run have a secret already, or none.
    place = next((server.listening for server in there.values()), spec.place)
    everyone = _servers(replace(spec, token=place.token, place=place), servers, there)
    if held is not None:
        return _found(held, everyone, spec, servers)
    held = _start_front(everyone, facts | {"launch": spec.options(), "servers": servers}, spec, place)
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
    fleet._adopt(everyone)
    fleet.note = "Already running: this is the same fleet as before."
    if spec.private is None or spec.private == bool(fleet.token):
        spec = replace(spec, private=fleet.spec.private)
    if different := spec.differences(fleet.spec):
        fleet.note += f" It was launched with another {' and '.join(different)}; for a change type fleet.restart(...)."
    if len(everyone) > servers:
        fleet.note += f" It has {len(everyone)} servers."
    print(f"{fleet.note} {fleet.http_url}, pid {fleet.pid}")
    return fleet


def _start_front(servers: Sequence[Server], facts: Mapping[str, Any], spec: LaunchSpec, place: Listening) -> lease.Lease:
    server_id = f"course-{secrets.token_hex(6)}"
    folder = run_folder.run_root() / server_id
    log = run_folder.new_log(server_id)
    run_folder.make(folder, lambda made: None)
    plan = Plan(
        run_dir=str(folder),
        command=envoy.command(folder),
        private=[],
        environment=dict(os.environ),
        ports=triples(spec.base_port),
        log=str(log),
        grace_s=spec.grace_s,
        stop_s=STOP_TIMEOUT_S,
        server_id=server_id,
        about={**facts, "listening": asdict(place)},
        files={envoy.FILE: envoy.configuration(folder, place.token), **envoy.lists(servers), **place.files()},
    )
    return lease.start(plan)


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
            error = launching.not_started(state if failed else {**state, "reason": f"not ready after {timeout_s:.0f} s"})
            error.happened = error.happened.replace("The server", "Envoy, the front of the fleet,")
            raise ServerError(error.happened, error.expected, error.todo)
        time.sleep(POLL_S)


def _print_commands(spec: LaunchSpec, servers: int) -> None:
    for number in range(1, servers + 1):
        launch_server(**_spec_of(spec, number).options(), dry_run=True)
        print()
    folder, token = Path("/tmp/course"), "$COURSE_TOKEN" if spec.place.token else ""
    text = envoy.configuration(folder, token, str(spec.base_port), str(spec.base_port + 1))
    print(" ".join(envoy.command(folder)), f"# {folder / envoy.FILE}:\n{text}", sep="\n\n")


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
