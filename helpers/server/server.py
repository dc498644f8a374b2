"""One server as a notebook sees it: where it is, how its models are, reload them, read its log, stop it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from helpers import run_folder
from helpers.client import http as http_way
from helpers.client import way_to
from helpers.client.endpoint import NO_ACCESS, Access, Address
from helpers.client.problems import Circumstances, TransportError, not_loaded, plainly
from helpers.errors import AccessError, CourseError, ModelError, RequestError, ServerError
from helpers.machine import device, serves_here
from helpers.paths import shown
from helpers.server import lease
from helpers.server.administration import Administration
from helpers.server.card import Card
from helpers.server.listening import THIS_MACHINE, Listening
from helpers.server.log import HUNG, LOG_TAIL_LINES, LOST, RESTART, explain
from helpers.server.model_states import ModelState, completed

__all__ = ["ModelState", "Server"]

_NOT_FROM_HERE = "cannot be reached from here"


def _place(address: Address | None) -> str:
    """Where a port is, with the scheme of an encrypted one."""
    return _NOT_FROM_HERE if address is None else f"{address.scheme}://{address}" if address.secure else str(address)


class Server(Administration):
    """A Triton server: owned when launched here, else only connected to.

    Attributes:
        http: address of the HTTP endpoint; None where it cannot be reached from here.
        grpc: address of the gRPC endpoint; likewise.
        metrics: address of the metrics endpoint; likewise.
        access: token and trusted certificates for every request.
        runtime: ``embedded``, ``apptainer``, ``docker``, ``podman`` or ``remote``.
        repository: the model repository, where it is known.
        log_path: file with the server's output, where it is known.
        listening: where a server of one's own listens, and the token that it wants.
        note: what the card says beside the state, such as a port that was taken.
        key_hidden: whether the administration key is hidden from other users of this machine.
        memory_private: whether the tensors of its Python models are.
    """

    def __init__(
        self,
        http: Address | None,
        grpc: Address | None,
        metrics: Address | None,
        *,
        runtime: str = "remote",
        held: lease.Lease | None = None,
        access: Access = NO_ACCESS,
    ) -> None:
        self.http, self.grpc, self.metrics, self.access = http, grpc, metrics, access
        if http is not None:
            self._way = way_to("http", http, access)
        elif grpc is not None:
            self._way = way_to("grpc", grpc, access)
        else:
            raise ValueError("a server needs an address")
        self.runtime = runtime
        self.note = ""
        # Model -> why the last load of it was refused: what was loaded before goes on serving.
        self.refusals: dict[str, str] = {}
        self._lease = held
        self._kept: lease.Lease | None = None
        state = held.state() if held else {}
        self.repository: Path | None = Path(str(state["repository"])) if state else None
        self.log_path: Path | None = Path(str(state["log"])) if state else None
        self._key = str(state.get("admin_key", ""))
        self.launch_options: dict[str, Any] = dict(state.get("launch", {}))
        self.listening = Listening(**state["listening"]) if state.get("listening") else THIS_MACHINE
        self.key_hidden, self.memory_private = (bool(state.get(fact, True)) for fact in ("key_hidden", "memory_private"))

    # --- where it is and how it is -----------------------------------------------------------------------------------

    @property
    def http_url(self) -> str:
        """Host and port for HTTP requests, such as ``localhost:9000``."""
        return str(self._must_reach(self.http, "HTTP"))

    @property
    def grpc_url(self) -> str:
        """Host and port for gRPC requests, such as ``localhost:9001``."""
        return str(self._must_reach(self.grpc, "gRPC"))

    @property
    def metrics_url(self) -> str:
        """URL of the metrics page, such as ``http://localhost:9002/metrics``."""
        if self.metrics is None:
            raise ServerError(
                f"The metrics page of the server at {self.url} cannot be reached from here.",
                "It has a port of its own, which knows no token, so who runs a server for others keeps it to the server's machine.",
                'server.statistics(model) has a model\'s counters; if the page is elsewhere, type: connect("…", metrics="http://…")',
            )
        return self.metrics.http("/metrics")

    @property
    def metrics_access(self) -> Access:
        """What a request for the metrics page carries: no token to our own, nor in plain text where it otherwise travels encrypted."""
        if self.owned:
            # It asks for none, and its port is the only one that another user could take.
            return Access({}, self.access.ca, direct=self.access.direct)
        encrypted = any(address is not None and address.secure for address in (self.http, self.grpc))
        return NO_ACCESS if encrypted and self.metrics is not None and not self.metrics.secure else self.access

    @property
    def url(self) -> str:
        """Host and port by which it is called here: of HTTP where that can be reached, else of gRPC."""
        return str(self.http or self.grpc)

    @property
    def is_here(self) -> bool:
        """Whether it runs on this very machine, for certain."""
        address = self.http or self.grpc
        return self.owned or (address is not None and serves_here(address.host, address.port))

    def _must_reach(self, address: Address | None, what: str) -> Address:
        if address is None:
            raise ServerError(
                f"The {what} port of the server at {self.url} cannot be reached from here.",
                f"Only its {'gRPC' if what == 'HTTP' else 'HTTP'} port can.",
                "Type: Client(server), which takes that one",
            )
        return address

    @property
    def owned(self) -> bool:
        """Whether this process launched the server (or found it again after a kernel restart)."""
        return self._lease is not None

    def is_alive(self) -> bool:
        """Whether the server answers, ready or not."""
        try:
            return not self._has_ended() and self._way.is_live()
        except TransportError:
            return False

    def is_ready(self) -> bool:
        """Whether the server answers and all its models are READY."""
        try:
            return not self._has_ended() and self._way.is_ready()
        except TransportError:
            return False

    def state(self) -> str:
        """One word: ``running``, ``hung`` (it does not answer any more), ``stopped``, ``died`` (unexpectedly) or ``unreachable``."""
        if self._lease is None:
            return "running" if self.is_alive() else "unreachable"
        state = self._lease.state()
        status = str(state.get("status", "died"))
        return "hung" if status == "running" and state.get("hung") else status

    @property
    def pid(self) -> int | None:
        """Process id of a server of ours; another one when it was started again."""
        return self._lease.state().get("pid") if self._lease is not None else None

    @property
    def remarks(self) -> list[str]:
        """What was noticed of a server of ours since its launch: a crash, a model's process that has ended, silence."""
        return list(self._lease.state().get("remarks", ())) if self._lease is not None else []

    def _has_ended(self) -> bool:
        """True if a server of ours does not run any more: another user's program may listen on its ports by now."""
        return self._lease is not None and self.state() != "running"

    @property
    def returncode(self) -> int | None:
        """With which status a server of ours has ended, negative for a signal; None while it runs, or where nobody saw its end."""
        return self._lease.state().get("returncode") if self._lease is not None else None

    def models(self) -> list[ModelState]:
        """The models in the repository and their states; those that are loaded, on a server that is not ours or whose repository is gone.

        Raises:
            ServerError: the server does not answer.
        """
        if self._key and (self.repository is None or self.repository.is_dir()):
            index = self._administer("index")
            known = [(m["name"], m.get("version", ""), m.get("state", ""), m.get("reason", "")) for m in index]
            return completed(known, self.launch_options.get("load", ()), self.repository, self.log(lines=0))
        with self._or_how_it_ended():
            return [ModelState(counters["name"], counters["version"], "READY") for counters in self._way.statistics()]

    def how_it_ended(self) -> tuple[str, str]:
        """Return how a server of ours ended, or that it hangs, and what to type; two empty texts while it runs."""
        state = self.state() if self.owned else "running"
        if state == "running":
            return "", ""
        if state == "hung":
            return HUNG, RESTART
        return f"{LOST} {self._ended()}" if state == "died" else LOST, RESTART

    def _ended(self) -> str:
        """How it ended, and the end of its log."""
        return explain(self.returncode, self.log(lines=0))

    @contextlib.contextmanager
    def _or_how_it_ended(self) -> Iterator[None]:
        """Where a server of ours does not answer any more, the error says how it ended; then nothing is sent to its port."""
        try:
            if self._has_ended():
                raise ServerError(f"No server answers at {self.url} any more: it is not running.", "", RESTART)
            with plainly(self._way):
                yield
        except AccessError:
            raise
        except ServerError as error:
            if self.state() != "died":
                raise
            raise ServerError(f"No server answers at {self.url} any more.", self._ended(), RESTART) from error

    # --- what it says of its models ----------------------------------------------------------------------------------

    def metadata(self, model: str = "") -> dict[str, Any]:
        """Names, types and shapes of a model's inputs and outputs; without a model, the server's own name and version."""
        if model:
            return self._about(model, self._way.metadata)
        with self._or_how_it_ended():
            return self._way.about()

    def config(self, model: str) -> dict[str, Any]:
        """A model's configuration as the server reports it, with everything that it filled in."""
        return self._about(model, self._way.whole_config)

    def statistics(self, model: str) -> dict[str, Any]:
        """A model's cumulative counts and times (nanoseconds), as Triton's statistics extension defines them."""
        return self._about(model, self._way.statistics)[0]

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
            ready = sorted(name for name, state in states.items() if state.state == "READY")
            why = states[model].reason if model in states else ""
            return not_loaded(model, reason, Circumstances(owned=self.owned, loaded=ready, reason=why))
        return ModelError(f"The server refused {model!r} ({states[model].state}): {reason}")

    @property
    def token(self) -> str:
        """The token that calls to a server of one's own must carry; empty where none is needed."""
        return self.listening.token

    @property
    def headers(self) -> dict[str, str]:
        """What a raw inference request must carry, over HTTP and gRPC alike; ``{}`` where nothing is needed.

        The token is in it twice: HTTP wants it under the usual name, gRPC under one that Triton has chosen. Neither minds the other.
        """
        return self.access.grpc_headers()

    @property
    def headers_file(self) -> Path | None:
        """The same in a file that only you can read, for ``curl -H @FILE``; None where nothing is needed, or the server is not yours."""
        return self._lease.run_dir / run_folder.HEADERS if self._lease is not None and self.token else None

    # --- log and end ---------------------------------------------------------------------------------------------------

    def log(self, lines: int = LOG_TAIL_LINES) -> str:
        """The last lines of the server's log; all of it with ``lines=0``."""
        if self.log_path is None:
            return "The log of a server that was launched elsewhere is not here."
        # A log that was deleted lives on while the server writes to it.
        for path in (self.log_path, Path(f"/proc/{self.pid}/fd/1")):
            with contextlib.suppress(OSError):
                return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
        return f"The log {self.log_path} is not there any more: somebody has deleted it, or its folder."

    def stop(self) -> None:
        """Stop the server if it is ours; returns when it has ended. A server that is only connected to stays as it is."""
        if self._lease is not None:
            with http_way.keeping_none(self._must_reach(self.http, "HTTP")):
                self._lease.stop()
        if self._kept is not None:
            self._kept.close()

    def keep(self, held: lease.Lease) -> None:
        """Hold a lease on a server that another notebook or terminal of the same person has launched, so that it outlives that one."""
        self._kept = held

    def restart(self, **changes: Any) -> Server:
        """Stop the server and launch it again, with other options for :func:`launch_server` if some are given."""
        if not self.owned:
            raise ServerError(f"Only the owner of the server at {self.url} can restart it.")
        from helpers.server import launch_plan
        from helpers.server.launch import launch_server

        options = {**self.launch_options, **changes}
        # A repository that is gone must not cost the server that still serves from it.
        launch_plan.repository(options["models"])
        self.stop()
        return launch_server(**options)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _card(self) -> Card:
        """Return what the card shows: also, when the models cannot be asked for, why not."""
        state = self.state()
        facts = [
            ("runtime", self.runtime),
            ("device", device() if self.is_here else "on another machine"),
            ("HTTP", _place(self.http)),
            ("gRPC", _place(self.grpc)),
            ("metrics", self.metrics.http("/metrics") if self.metrics else _NOT_FROM_HERE),
        ]
        if self.owned:
            facts.append(("inference", self.listening.inference()))
        if self.listening.is_beyond:
            facts.append(("for others", self.listening.for_others([self.http.port, self.grpc.port, 0])))  # type: ignore[union-attr]
        if self.repository:
            facts.append(("repository", shown(self.repository)))
        if self.log_path:
            facts.append(("log", shown(self.log_path)))
        if self.pid:
            facts.append(("pid", str(self.pid)))
        if noticed := self.remarks:
            facts.append(("noticed", noticed[-1]))
        models: list[ModelState] = []
        problem = ""
        if state == "running":
            try:
                models = self.models()
            except CourseError as error:
                problem = str(error)
            if self.repository and not self.repository.is_dir():
                problem += f" The model repository {self.repository} is not there any more; what was loaded from it goes on serving."
            # Models of the repository that nobody asked for are no problem, and many: one line for all of them.
            idle = [model.name for model in models if not model.version and not model.reason and model.state == "UNAVAILABLE"]
            if idle:
                models = [model for model in models if model.name not in idle]
                facts.append(("not loaded", ", ".join(idle)))
        elif state == "hung":
            problem = f"{HUNG} {RESTART}"
        elif state == "died":
            problem = f"{self._ended()}{RESTART}"
        elif state == "unreachable":
            problem = "Nothing answers at this address."
        remarks = [remark for remark in (self.note, problem) if remark]
        return Card(state, facts, models, remarks, self.listening.warning())

    def __repr__(self) -> str:
        return self._card().text()

    def _repr_html_(self) -> str:
        return self._card().html()
