"""Several servers of one model repository behind one Envoy: one address, each server's share, one more server."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

import helpers.fleet.envoy as envoy
from helpers import machine, run_folder
from helpers.client import http
from helpers.client.endpoint import QUERY_TIMEOUT_S, Address
from helpers.errors import CourseError, InputError, ModelError, ServerError
from helpers.paths import shown
from helpers.server import card, lease
from helpers.server import server as launching
from helpers.server.command import LaunchSpec
from helpers.server.lease import POLL_S, STOP_TIMEOUT_S
from helpers.server.listening import Listening
from helpers.server.log import explain
from helpers.server.ports import PORTS_PER_SERVER, triples
from helpers.server.server import ModelState, Server
from helpers.server.supervisor import Plan

_TITLE = "Fleet of Triton servers behind Envoy"
_RESTART = "Type: fleet = fleet.restart()"
_NO_COUNTERS = (
    "A fleet has no counters of its own, each of its servers has.",
    "Expected one of them.",
    "Type: scrape(fleet.servers[0]), or fleet.shares() for all together.",
)
# By model: requests, inferences, and the time of all requests in the queue in µs.
_Counts = dict[str, np.ndarray]
# Fleets launched or found by this process, by the id of their front: keeps their leases while the process lives.
_OWNED: dict[str, Fleet] = {}


class Fleet(Server):
    """Triton servers of one model repository behind one Envoy, all of them owned; its own addresses and its own process are the front's."""

    spec: LaunchSpec
    http: Address
    grpc: Address
    repository: Path
    log_path: Path

    def __init__(self, held: lease.Lease, servers: Sequence[Server]) -> None:
        state = held.state()
        http, grpc = (Address("localhost", int(port)) for port in state["ports"][:2])
        access = Listening(**state["listening"]).access()
        super().__init__(http, grpc, None, access, held)
        self._held = held
        self.runtime = str(state["servers_runtime"])
        self._asked_for = int(state["servers"])
        self._servers = list(servers)
        self._lock = threading.RLock()

    @property
    def metrics_url(self) -> NoReturn:
        """A fleet has none."""
        raise InputError(*_NO_COUNTERS)

    def statistics(self, model: str) -> NoReturn:
        """Refuse, as :attr:`metrics_url` does."""
        raise InputError(*_NO_COUNTERS)

    def _must_own(self, what: str) -> None:
        raise ModelError(f"A fleet cannot {what}.", "Each of its servers can.", "Type: fleet.servers[0].reload(…), and so on")

    @property
    def servers(self) -> list[Server]:
        """The servers. One that was restarted takes the place of the one that died."""
        with self._lock:
            for number, server in enumerate(self._servers):
                again = launching.find(server.spec) if server.spec and server.state() in ("stopped", "died") else None
                if again is not None:
                    self._servers[number] = _at_its_port(again)
            if self.state() == "running":
                envoy.write_lists(self._held.run_dir, self._servers)
            return list(self._servers)

    def how_it_ended(self) -> tuple[str, str]:
        """Return how the front ended and what to type; two empty texts while it runs."""
        said, _ = super().how_it_ended()
        return said, _RESTART if said else ""

    def in_rotation(self) -> list[bool]:
        """For each server, whether Envoy sends it requests over both protocols."""
        servers = self.servers
        try:
            seen = envoy.healthy(self._held.run_dir)
        except ServerError:
            return [False for _ in servers]
        return [all(seen[protocol].get(getattr(one, protocol).port, False) for protocol in envoy.PROTOCOLS) for one in servers]

    def models(self) -> list[ModelState]:
        """The models and their states; of one that is READY on some of the servers that run, the state where it is not."""
        states = [state for server in self.servers if server.state() == "running" for state in server.models()]
        states.sort(key=lambda state: (state.name, state.state != "READY"))
        return list({state.name: state for state in states}.values())

    def snapshot(self) -> dict[str, _Counts]:
        """All servers' counters now, by the address of their HTTP port: the beginning of a measurement."""
        return {server.http_url: counts for server in self.servers if (counts := _counts(server)) is not None}

    def shares(self, since: Mapping[str, _Counts] | None = None, model: str | None = None) -> list[dict[str, Any]]:
        """What each server did, by its own counters, since a :meth:`snapshot` or since its start, for one model or for all.

        Rows have server, requests, inferences, share (of the requests, 0 to 1) and queue_us (mean per request, in µs); None in a row
        means that the server does not answer.
        """
        rows: list[dict[str, Any]] = []
        for server in self.servers:
            now, before = _counts(server), (since or {}).get(server.http_url, {})
            row: dict[str, Any] = {"server": server.http_url, "requests": None, "inferences": None, "share": None, "queue_us": None}
            if now is not None:
                # A server that was started again counts from zero.
                again = any(name not in now or now[name][0] < counts[0] for name, counts in before.items())
                rose = [counts - (0 if again else before.get(name, 0)) for name, counts in now.items() if model in (None, name)]
                requests, inferences, queue_us = map(float, sum(rose, np.zeros(3)))
                row |= {"requests": int(requests), "inferences": int(inferences), "queue_us": queue_us / requests if requests else None}
            rows.append(row)
        total = sum(row["requests"] or 0 for row in rows)
        return [row | {"share": row["requests"] / total} if total and row["requests"] is not None else row for row in rows]

    def grow(self) -> Server:
        """Add a server and return it when its models are READY and Envoy sends it requests; if it does not start, nothing changes."""
        with self._lock:
            if self.state() != "running":
                raise ServerError("The front of this fleet does not run any more.", "", _RESTART)
            number = len(self.servers) + 1
            spec = _spec_of(replace(self.spec, token=self.token).prepared(), number)
            self._adopt([*self._servers, _at_its_port(launching.ready(launching.start(spec), spec))])
            return self._servers[-1]

    def _adopt(self, servers: Sequence[Server]) -> None:
        """Put these servers, which run already, behind the front."""
        with self._lock:
            self._servers = list(servers)
            deadline = time.monotonic() + QUERY_TIMEOUT_S
            while not all(self.in_rotation()) and time.monotonic() < deadline:
                time.sleep(POLL_S)

    def stop(self) -> None:
        """Stop the front, then all servers; returns when they have ended."""
        with self._lock:
            super().stop()
            with ThreadPoolExecutor(len(self._servers)) as pool:
                list(pool.map(Server.stop, self._servers))

    def restart(self, **changes: Any) -> Fleet:
        """Stop the fleet and launch it again, with other options for :func:`launch_fleet` if some are given."""
        self.stop()
        return launch_fleet(**{**self.spec.options(), "servers": self._asked_for, **changes})

    def _card(self) -> card.Card:
        """One row per server."""
        state = self.state()
        facts = {"HTTP": self.http_url, "gRPC": self.grpc_url, "runtime": self.runtime, "device": machine.device()}
        facts |= {"inference": self.listening.inference(), "repository": shown(self.repository)}
        facts |= {"front's log": shown(self.log_path), "front's pid": str(self.pid)}
        if state == "stopped":
            return card.Card(_TITLE, state, facts)
        remarks = [self.note, " ".join(self.how_it_ended())]
        rows = []
        for number, (server, used, share) in enumerate(zip(self.servers, self.in_rotation(), self.shares(), strict=True)):
            its_state = server.state()
            row = {"server": share["server"], "state": f"{card.MARKS.get(its_state, '?')} {its_state}"}
            row |= {"gets requests": "yes" if used else "no", "requests": share["requests"]}
            row |= {"share": None if share["share"] is None else f"{share['share']:.0%}"}
            row |= {"queue (ms)": None if share["queue_us"] is None else share["queue_us"] / 1000}
            rows.append(row | {"gRPC": server.grpc_url, "metrics": server.metrics_url})
            remarks += [f"{server.http_url} {server.noticed}"] if server.noticed else []
            if its_state == "died":
                words = explain(server.returncode, server.log(lines=0))
                remarks.append(f"{server.http_url} has died. {words}To bring it back, type: fleet.servers[{number}].restart()")
        return card.Card(_TITLE, state, facts, rows, remarks)


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
        times = row["inference_stats"]
        counts = np.array([times["success"]["count"], row["inference_count"], times["queue"]["ns"] / 1000])
        found[row["name"]] = found.get(row["name"], 0) + counts
    return found


def launch_fleet(models: str | Path = "models", *, servers: int = 2, **options: Any) -> Fleet:
    """Launch servers of one model repository behind one Envoy; returns when all models are READY.

    A second call with the same repository, runtime and name returns the running fleet, also after a restart of the notebook's
    kernel; servers that it has too few of, because some have died or more are asked for, are launched. Options are those of
    :func:`~helpers.launch_server`; ``base_port`` is the front's, and the servers get the next triples.
    """
    if servers < 1:
        raise InputError(f"servers={servers} was given.", "Expected 1 or more.", 'Type: launch_fleet("models", servers=2)')
    for name in ("listen", "dry_run"):
        if options.get(name):
            happened = f"A fleet was given {name}={options[name]!r}."
            raise InputError(happened, "It serves its own machine alone.", f"Type: launch_server(…, {name}={options[name]!r})")
    spec = LaunchSpec(models, **options).prepared()  # type: ignore[arg-type]
    envoy.command(Path())  # or it says what is missing
    facts = launching.facts(spec) | {"runtime": "envoy", "servers_runtime": spec.runtime}
    held = lease.find(**facts)
    there = _running(spec)
    # Those that run have a secret already, or none.
    place = next((server.listening for server in there.values()), spec.place)
    everyone = _servers(replace(spec, token=place.token, place=place), servers, there)
    if held is None:
        fleet = _front(everyone, facts | {"launch": spec.options(), "servers": servers}, spec, place)
        if fleet.http.port != spec.base_port:
            fleet.note = f"Port {spec.base_port} or the next is taken, so the front got {fleet.http.port} and {fleet.grpc.port}."
            print(fleet.note)
        fleet.note += launching.seen_by_others(*everyone)
        launching.warn_of_failures(everyone[0])
        return fleet
    fleet = _OWNED.setdefault(str(held.state()["server_id"]), Fleet(held, everyone))
    fleet._adopt(everyone)
    fleet.note = "Already running: this is the same fleet as before."
    if spec.private is None or spec.private == bool(fleet.token):
        spec = replace(spec, private=fleet.spec.private)
    if different := spec.differences(fleet.spec):
        fleet.note += f" It was launched with another {' and '.join(different)}; for a change type fleet.restart(...)."
    print(f"{fleet.note} {fleet.http_url}, pid {fleet.pid}, {len(everyone)} servers")
    return fleet


def _running(spec: LaunchSpec) -> dict[int, Server]:
    """The servers of this fleet that run already, by their number."""
    wanted = {name: value for name, value in launching.facts(spec).items() if name != "name"}
    begin = _server_name(spec.name)
    found = {}
    for held in lease.running(lambda state: str(state.get("name")).startswith(begin) and all(state.get(n) == v for n, v in wanted.items())):
        number = int(held.state()["name"].removeprefix(begin))
        found[number] = _at_its_port(launching.ready(held, _spec_of(spec, number)))
    return found


def _servers(spec: LaunchSpec, servers: int, there: Mapping[int, Server]) -> list[Server]:
    """All servers, those that are missing launched side by side; if one does not start, those launched with it are stopped again."""
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


def _front(servers: Sequence[Server], facts: Mapping[str, Any], spec: LaunchSpec, place: Listening) -> Fleet:
    """Start Envoy, and wait until it answers and sends requests to all servers."""
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
    held = lease.start(plan)
    deadline = time.monotonic() + spec.timeout_s
    while (state := held.state()).get("status") not in ("died", "stopped", "failed"):
        if state.get("ports"):
            fleet = Fleet(held, servers)
            if all(fleet.in_rotation()) and fleet.is_ready():
                return _OWNED.setdefault(server_id, fleet)
        if time.monotonic() > deadline:
            state["reason"] = f"not ready after {spec.timeout_s:.0f} s"
            break
        time.sleep(POLL_S)
    held.stop()
    for server in servers:
        server.stop()
    error = launching.not_started(state)
    raise ServerError(f"Envoy, the front of the fleet: {error.happened}", error.expected, error.todo)


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
