"""Several servers behind one Envoy, as a notebook sees them: one address, each server's share, more or fewer of them.

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
from pathlib import Path
from typing import Any

from helpers import run_folder
from helpers.client import http
from helpers.client.endpoint import QUERY_TIMEOUT_S, Address
from helpers.errors import InputError, RequestError, ServerError
from helpers.fleet import card, envoy, front, plan, shares
from helpers.fleet.front import Behind
from helpers.metrics import Snapshot
from helpers.server import lease, starting
from helpers.server.lease import POLL_S
from helpers.server.listening import Listening
from helpers.server.log import LOG_TAIL_LINES
from helpers.server.server import ModelState, Server

# Seconds that a server which leaves gets for its requests under way.
FLEET_DRAIN_S = 30.0


class Fleet:
    """Triton servers of one model repository behind one Envoy, all of them owned.

    Attributes:
        http: address of the front's HTTP port.
        grpc: address of the front's gRPC port.
        runtime: the servers' runtime.
        repository: their model repository.
        log_path: file with the front's output.
        note: what the card says beside the state.
        launch_options: the arguments of the launch by name.
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
        self.launch_options: dict[str, Any] = dict(state["launch"])
        self.runtime: str = self.launch_options["runtime"]
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
                again = starting.find(server.launch_options) if server.state() in ("stopped", "died") else None
                if again is not None:
                    self._servers[number] = plan.at_its_port(again)
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
        return plan.models(self.servers)

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
            options = plan.options_of(self.launch_options | {"token": self.token}, number)
            server = plan.at_its_port(starting.ready(starting.start(options, self.repository), options))
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
            raise ServerError("The front of this fleet does not run any more.", "", "Type: fleet = fleet.restart()")

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
        from helpers.fleet.launch import launch_fleet

        self.stop()
        return launch_fleet(**{**self.launch_options, **changes})

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return card.text(self)

    def _repr_html_(self) -> str:
        return card.html(self)
