"""Several servers of one model repository behind one Envoy: one address, each server's share, one more server."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

import helpers.fleet.envoy as envoy
from helpers import machine, run_folder
from helpers.client.endpoint import QUERY_TIMEOUT_S, Address
from helpers.client.problems import TransportError
from helpers.errors import InputError, ModelError, ServerError
from helpers.paths import shown
from helpers.server import card, lease
from helpers.server import server as launching
from helpers.server.command import LaunchSpec
from helpers.server.lease import POLL_S, STOP_TIMEOUT_S
from helpers.server.listening import Listening
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
# By server (its HTTP address) and model: requests, inferences, and the time of all requests in the queue in µs.
_Counts = dict[tuple[str, str], np.ndarray]
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
        super().__init__(http, grpc, None, Listening(**state["listening"]).access(), held)
        self._held = held
        self.runtime = str(state["servers_runtime"])
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
        used: set[int] = set()
        with suppress(ServerError):
            used = envoy.healthy(self._held.run_dir)
        return [{getattr(server, protocol).port for protocol in envoy.PROTOCOLS} <= used for server in self.servers]

    def models(self) -> list[ModelState]:
        """The models and their states; READY where each of the servers that run serves it."""
        states = [state for server in self.servers if server.state() == "running" for state in server.models()]
        states.sort(key=lambda state: (state.name, state.state != "READY"))
        return list({state.name: state for state in states}.values())

    def snapshot(self) -> _Counts:
        """The counters of all servers that answer, all versions of a model together: the beginning of a measurement."""
        found: _Counts = {}
        # No question goes to the port of a dead one: it may be another program's by now.
        for server in (one for one in self.servers if one.state() == "running"):
            with suppress(TransportError):
                for row in server._way.statistics():
                    times, place = row["inference_stats"], (server.http_url, row["name"])
                    counts = np.array([times["success"]["count"], row["inference_count"], times["queue"]["ns"] / 1000])
                    found[place] = found.get(place, 0) + counts
        return found

    def shares(self, since: _Counts | None = None, model: str | None = None) -> list[dict[str, Any]]:
        """What each server did, by its own counters, since a :meth:`snapshot` or since its start, for one model or for all.

        Rows have server, requests, inferences, share (of the requests, 0 to 1) and queue_us (mean per request, in µs); None in a row
        means that the server does not answer.
        """
        now, before = self.snapshot(), since or {}
        rows: list[dict[str, Any]] = []
        for server in self.servers:
            own = {name: counts for (url, name), counts in now.items() if url == server.http_url}
            rose = np.zeros(3)
            for name, counts in own.items():
                old = before.get((server.http_url, name), np.zeros(3))
                if model in (None, name):
                    rose += counts - old if counts[0] >= old[0] else counts  # one that was started again counts from zero
            requests, mean_us = int(rose[0]), float(rose[2] / rose[0]) if rose[0] else None
            figures = {"requests": requests, "inferences": int(rose[1]), "share": None, "queue_us": mean_us}
            rows.append({"server": server.http_url, **(figures if own else dict.fromkeys(figures))})
        total = sum(row["requests"] or 0 for row in rows)
        return [row | {"share": row["requests"] / total} if total and row["requests"] is not None else row for row in rows]

    def grow(self) -> Server:
        """Add a server and return it when its models are READY and Envoy sends it requests; if it does not start, nothing changes."""
        if self.state() != "running":
            raise ServerError("The front of this fleet does not run any more.", "", _RESTART)
        spec = _spec_of(replace(self.spec, token=self.token).prepared(), len(self.servers) + 1)
        self._adopt([*self._servers, _at_its_port(launching.ready(launching.start(spec), spec))])
        return self._servers[-1]

    def _adopt(self, servers: Sequence[Server]) -> None:
        """Put these servers, which run already, behind the front."""
        self._servers = list(servers)
        deadline = time.monotonic() + QUERY_TIMEOUT_S
        while not all(self.in_rotation()) and time.monotonic() < deadline:
            time.sleep(POLL_S)

    def stop(self) -> None:
        """Stop the front, then all servers; returns when they have ended."""
        super().stop()
        with ThreadPoolExecutor(len(self._servers)) as pool:
            list(pool.map(Server.stop, self._servers))

    def restart(self, **changes: Any) -> Fleet:
        """Stop the fleet and launch it again, with other options for :func:`launch_fleet` if some are given."""
        self.stop()
        return launch_fleet(**{**self.spec.options(), "servers": len(self._servers), **changes})

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
            row = {"server": share["server"], "state": f"{card.MARKS.get(server.state(), '?')} {server.state()}"}
            row |= {"gets requests": "yes" if used else "no", "requests": share["requests"]}
            row |= {"share": None if share["share"] is None else f"{share['share']:.0%}"}
            rows.append(row | {"gRPC": server.grpc_url, "metrics": server.metrics_url})
            ended, _ = server.how_it_ended()
            remarks += [f"{server.http_url} {server.noticed}"] if server.noticed else []
            remarks += [f"{server.http_url}: {ended} To bring it back, type: fleet.servers[{number}].restart()"] if ended else []
        return card.Card(_TITLE, state, facts, rows, remarks)


def launch_fleet(models: str | Path = "models", *, servers: int = 2, **options: Any) -> Fleet:
    """Launch servers of one model repository behind one Envoy; returns when all models are READY.

    A second call with the same repository, runtime and name returns the running fleet, also after a restart of the kernel, and launches
    servers that are missing. Options are those of :func:`~helpers.launch_server`; the servers' ports follow those of the front.
    """
    if servers < 1:
        raise InputError(f"servers={servers} was given.", "Expected 1 or more.", 'Type: launch_fleet("models", servers=2)')
    for name in ("listen", "dry_run"):
        if options.get(name):
            raise InputError(f"A fleet was given {name}={options[name]!r}.", "It serves its own machine alone.", "Type: launch_server(…)")
    spec = LaunchSpec(models, **options).prepared()  # type: ignore[arg-type]
    envoy.command(Path())  # or it says what is missing
    facts = launching.facts(spec) | {"runtime": "envoy", "servers_runtime": spec.runtime}
    held, everyone = lease.find(**facts), _servers(spec, servers)
    if held is not None:
        fleet = _OWNED.setdefault(str(held.state()["server_id"]), Fleet(held, everyone))
        fleet._adopt(everyone)
        fleet.note = "Already running: this is the same fleet as before. For other options, type: fleet = fleet.restart(…)"
        print(f"{fleet.http_url}, pid {fleet.pid}, {len(everyone)} servers. {fleet.note}")
        return fleet
    fleet = _front(everyone, facts | {"launch": spec.options()}, spec)
    if fleet.http.port != spec.base_port:
        fleet.note = f"Port {spec.base_port} or the next is taken, so the front got {fleet.http.port} and {fleet.grpc.port}."
        print(fleet.note)
    launching.warn_of_failures(everyone[0])
    return fleet


def _servers(spec: LaunchSpec, servers: int) -> list[Server]:
    """All servers, those that are missing launched side by side; if one does not start, those launched with it are stopped again."""
    leases: list[lease.Lease | None] = []
    while (found := lease.find(**launching.facts(_spec_of(spec, len(leases) + 1)))) or len(leases) < servers:
        leases.append(found)
    # Those that run have a secret already, or none.
    place = next((Listening(**each.state()["listening"]) for each in leases if each), spec.place)
    specs = [_spec_of(replace(spec, token=place.token, place=place), number) for number, _ in enumerate(leases, 1)]
    begun: list[lease.Lease] = []
    try:
        for number, one in enumerate(specs):
            if leases[number] is None:
                begun.append(launching.start(one))
                leases[number] = begun[-1]
        return [_at_its_port(launching.ready(each, one)) for each, one in zip(leases, specs, strict=True) if each]
    except BaseException:
        for each in begun:
            each.stop()
        raise


def _front(servers: Sequence[Server], facts: Mapping[str, Any], spec: LaunchSpec) -> Fleet:
    """Start Envoy, and wait until it answers and sends requests to all servers."""
    server_id, place = f"course-{secrets.token_hex(6)}", servers[0].listening
    folder = run_folder.run_root() / server_id
    run_folder.make(folder, lambda made: None)
    plan = Plan(
        run_dir=str(folder),
        command=envoy.command(folder),
        environment=dict(os.environ),
        ports=triples(spec.base_port),
        log=str(run_folder.new_log(server_id)),
        grace_s=spec.grace_s,
        stop_s=STOP_TIMEOUT_S,
        about={**facts, "listening": asdict(place)},
        files={envoy.FILE: envoy.configuration(folder, place.token), **envoy.lists(servers), **place.files()},
        lifeline=False,
        keep_alive=False,
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
        name=f"fleet {spec.name}/{number}",
        base_port=spec.base_port + number * PORTS_PER_SERVER,
        # Ready as soon as it answers: one model that cannot be loaded must not take the others out of service.
        extra_arguments=(*spec.extra_arguments, "--strict-readiness=false"),
        keep_alive=True,
    )


def _at_its_port(server: Server) -> Server:
    """The same server; when it is restarted it asks for the very ports that Envoy knows."""
    assert server.spec is not None and server.http is not None
    server.spec = replace(server.spec, base_port=server.http.port)
    return server
