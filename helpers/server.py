"""One server as a notebook sees it: where it is, how its models are, reload them, read its log, stop it."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers import card, ending, lease, loadlog, rest, settings
from helpers.address import Address
from helpers.errors import ModelError, RequestError, ServerError


@dataclass(frozen=True)
class ModelState:
    """One version of a model as the server reports it; ``state`` is READY, UNAVAILABLE, LOADING or UNLOADING."""

    name: str
    version: str
    state: str
    reason: str = ""


class Server:
    """A Triton server: owned when launched here, else only connected to.

    Attributes:
        http: address of the HTTP endpoint.
        grpc: address of the gRPC endpoint.
        metrics: address of the metrics endpoint.
        runtime: ``embedded``, ``apptainer``, ``docker``, ``podman`` or ``remote``.
        repository: the model repository, where it is known.
        log_path: file with the server's output, where it is known.
        note: what the card says beside the state, such as a port that was taken.
    """

    def __init__(self, http: Address, grpc: Address, metrics: Address, *, runtime: str = "remote", held: lease.Lease | None = None) -> None:
        self.http, self.grpc, self.metrics = http, grpc, metrics
        self.runtime = runtime
        self.note = ""
        self._lease = held
        state = held.state() if held else {}
        self.repository: Path | None = Path(str(state["repository"])) if state else None
        self.log_path: Path | None = Path(str(state["log"])) if state else None
        self._key = str(state.get("admin_key", ""))
        self.launch_options: dict[str, Any] = dict(state.get("launch", {}))
        self.pid: int | None = state.get("pid")

    # --- where it is and how it is -----------------------------------------------------------------------------------

    @property
    def http_url(self) -> str:
        """Host and port for HTTP requests, such as ``localhost:9000``."""
        return str(self.http)

    @property
    def grpc_url(self) -> str:
        """Host and port for gRPC requests, such as ``localhost:9001``."""
        return str(self.grpc)

    @property
    def metrics_url(self) -> str:
        """URL of the metrics page, such as ``http://localhost:9002/metrics``."""
        return self.metrics.http("/metrics")

    @property
    def owned(self) -> bool:
        """Whether this process launched the server (or found it again after a kernel restart)."""
        return self._lease is not None

    def is_alive(self) -> bool:
        """Whether the server answers, ready or not."""
        try:
            rest.ask(self.http, "/v2/health/live")
        except (ServerError, RequestError):
            return False
        return True

    def is_ready(self) -> bool:
        """Whether the server answers and all its models are READY."""
        try:
            rest.ask(self.http, "/v2/health/ready")
        except (ServerError, RequestError):
            return False
        return True

    def state(self) -> str:
        """One word: ``running``, ``stopped``, ``died`` (it ended without being told to) or ``unreachable``."""
        if self._lease is None:
            return "running" if self.is_alive() else "unreachable"
        return str(self._lease.state().get("status", "died"))

    @property
    def returncode(self) -> int | None:
        """With which status a server of ours has ended, negative for a signal; None while it runs, or where nobody saw its end."""
        return self._lease.state().get("returncode") if self._lease is not None else None

    def models(self) -> list[ModelState]:
        """The models in the repository and their states; on a server that is not ours, those that its metrics name.

        Raises:
            ServerError: the server does not answer.
        """
        if self._key:
            index = self._ask("/v2/repository/index", headers=self.admin_headers("http"), post=True)
            return self._with_reasons([(m["name"], m.get("version", ""), m.get("state", ""), m.get("reason", "")) for m in index])
        lines = rest.ask(self.metrics, "/metrics").splitlines()
        counters = (line.split('"') for line in lines if line.startswith("nv_inference_request_success{"))
        return [ModelState(parts[1], parts[3], "READY") for parts in counters]

    def _with_reasons(self, index: list[tuple[str, str, str, str]]) -> list[ModelState]:
        """The server's index, completed: folders that it leaves out, and reasons that only its log has."""
        listed, load = {name for name, *_ in index}, self.launch_options.get("load", ())
        # A repository that was deleted meanwhile has no folders; what was loaded from it serves all the same.
        if self.repository is not None and "*" in load and self.repository.is_dir():
            folders = (path.name for path in self.repository.iterdir() if path.is_dir() and not path.name.startswith("."))
            index = index + [(name, "", "", "") for name in sorted(folders) if name not in listed]
        why: dict[str, str] = {}
        if any(state != "READY" and not reason and ("*" in load or name in load) for name, _, state, reason in index):
            from helpers import repository  # loads gRPC, half a second that a launch need not wait for

            why = {**(repository.faults(self.repository) if self.repository else {}), **loadlog.reasons(self.log(lines=0))}
        return [
            ModelState(name, version, state or "UNAVAILABLE", "" if state == "READY" else loadlog.one_line(reason) or why.get(name, ""))
            for name, version, state, reason in index
        ]

    def _ask(self, path: str, body: Any = None, **options: Any) -> Any:
        """:func:`rest.ask`, with how the server ended where it has."""
        try:
            return rest.ask(self.http, path, body, **options)
        except ServerError as error:
            if self.state() != "died":
                raise
            raise ServerError(f"No server answers at {self.http} any more.", ending.explain(self), ending.RESTART) from error

    # --- what it says of its models ----------------------------------------------------------------------------------

    def metadata(self, model: str = "") -> dict[str, Any]:
        """Names, types and shapes of a model's inputs and outputs; without a model, the server's own name and version."""
        return self._about(model, "") if model else self._ask("/v2")

    def config(self, model: str) -> dict[str, Any]:
        """A model's configuration as the server reports it, with everything that it filled in."""
        return self._about(model, "/config")

    def statistics(self, model: str) -> dict[str, Any]:
        """A model's cumulative counts and times (nanoseconds), as Triton's statistics extension defines them."""
        return self._about(model, "/stats")["model_stats"][0]

    def _about(self, model: str, what: str) -> dict[str, Any]:
        try:
            return self._ask(f"/v2/models/{model}{what}")
        except RequestError as error:
            raise self._model_error(model, str(error)) from error

    def _model_error(self, model: str, reason: str) -> ModelError:
        states = {state.name: state for state in self.models()}
        if model not in states:
            return ModelError(f"The server has no model {model!r}.", f"Its models are: {', '.join(sorted(states)) or 'none'}.")
        return ModelError(f"The server refused {model!r} ({states[model].state}): {reason}")

    # --- administration: needs the owner's key -----------------------------------------------------------------------

    def admin_headers(self, protocol: str) -> dict[str, str]:
        """The header that administration calls need (``protocol`` is ``http`` or ``grpc``); empty on a server that is not ours."""
        prefix = "triton-grpc-protocol-" if protocol == "grpc" else ""
        return {f"{prefix}{settings.ADMIN_HEADER}": self._key} if self._key else {}

    def load(self, model: str, config: str | dict[str, Any] | None = None) -> None:
        """Load a model, or load it again with what is now in its folder.

        Args:
            model: name of its folder in the repository.
            config: a configuration to use instead of the file, as ``config.pbtxt`` text or as a dictionary.

        Raises:
            ConfigError: the configuration has a fault; nothing was sent, and what was loaded keeps serving.
            ModelError: the server refused it; what was loaded keeps serving.
        """
        self._must_own("load a model")
        from helpers import config_text, repository

        if isinstance(config, str):
            config = config_text.as_dict(config_text.parse(config, "the given configuration"))
        elif config is None and self.repository is not None and (self.repository / model / "config.pbtxt").exists():
            repository.validate(self.repository / model)
            # Sent along, because Triton does not read a file again that has not changed since, even if the model was loaded
            # with another configuration meanwhile.
            config = config_text.as_dict(repository.read_config(self.repository / model))
        body = {} if config is None else {"parameters": {"config": json.dumps({"name": model, **config})}}
        served = any(state.name == model and state.state == "READY" for state in self.models())
        try:
            self._ask(
                f"/v2/repository/models/{model}/load",
                body,
                headers=self.admin_headers("http"),
                post=True,
                timeout_s=settings.START_TIMEOUT_S,
            )
        except RequestError as error:
            keeps = "What was loaded before keeps serving." if served else ""
            raise ModelError(f"The server refused to load {model!r}: {error}", keeps, self._advice(str(error))) from error

    reload = load

    def unload(self, model: str) -> None:
        """Take a model out of service; returns when its instances have ended.

        Raises:
            ModelError: the server refused, or there is no such model.
        """
        self._must_own("unload a model")
        try:
            self._ask(f"/v2/repository/models/{model}/unload", headers=self.admin_headers("http"), post=True)
        except RequestError as error:
            raise self._model_error(model, str(error)) from error
        deadline = time.monotonic() + settings.STOP_TIMEOUT_S
        while any(state.name == model and state.state == "UNLOADING" for state in self.models()) and time.monotonic() < deadline:
            time.sleep(settings.POLL_S)

    def _must_own(self, what: str) -> None:
        if not self._key:
            raise ModelError(
                f"Only the owner of the server at {self.http} can {what}.",
                "You are connected to it, but you did not launch it.",
                'Type: server = launch_server("models")',
            )

    @staticmethod
    def _advice(reason: str) -> str:
        return (
            "Mend its config.pbtxt or its files and type: server.reload(...)"
            if "config" in reason
            else "Look at server.log() for the whole story."
        )

    # --- log and end ---------------------------------------------------------------------------------------------------

    def log(self, lines: int = settings.LOG_TAIL_LINES) -> str:
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
            self._lease.stop()

    def restart(self, **changes: Any) -> Server:
        """Stop the server and launch it again, with other options for :func:`launch_server` if some are given."""
        if not self.owned:
            raise ServerError(f"Only the owner of the server at {self.http} can restart it.")
        from helpers.launch import launch_server

        self.stop()
        return launch_server(**{**self.launch_options, **changes})

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return card.text(self)

    def _repr_html_(self) -> str:
        return card.html(self)
