"""What only the owner of a server may do: load, reload and unload models, with the key that nobody else has."""

from __future__ import annotations

import json
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.client import http
from helpers.client.endpoint import ADMIN_HEADER, QUERY_TIMEOUT_S, Access, Address
from helpers.errors import ModelError, RequestError
from helpers.server import log as server_log
from helpers.server.lease import POLL_S, STOP_TIMEOUT_S

if TYPE_CHECKING:
    from helpers.server.model_states import ModelState

# Seconds until every model must be READY. PyTorch models with warm-up take longest, on a loaded 2-core machine tens of seconds.
START_TIMEOUT_S = 180.0


class Administration:
    """The part of :class:`~helpers.server.Server` that needs the owner's key."""

    http: Address | None
    repository: Path | None
    access: Access
    refusals: dict[str, str]
    url: Any
    _key: str

    if TYPE_CHECKING:

        def models(self) -> list[ModelState]:
            """The models and their states."""

        def _or_how_it_ended(self) -> AbstractContextManager[None]: ...

        def config(self, model: str) -> dict[str, Any]:
            """A model's configuration as the server reports it."""

        def log(self, lines: int = ...) -> str:
            """The end of the server's log."""

        def _must_reach(self, address: Address | None, what: str) -> Address: ...

        def _model_error(self, model: str, reason: str) -> ModelError: ...

    def admin_headers(self, protocol: str) -> dict[str, str]:
        """The header that administration calls need (``protocol`` is ``http`` or ``grpc``); empty on a server that is not ours."""
        prefix = "triton-grpc-protocol-" if protocol == "grpc" else ""
        return {f"{prefix}{ADMIN_HEADER}": self._key} if self._key else {}

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
        self._load(model, self._config_to_send(model, config))

    def reload(self, model: str, config: str | dict[str, Any] | None = None) -> None:
        """Load a model again: its files, its configuration and its processes are new ones, even where nothing has changed.

        Arguments and errors are those of :meth:`load`.
        """
        self._must_own("load a model")
        new = self._config_to_send(model, config)
        before = self._taken_up(model)
        self._load(model, new)
        begun, current = self._taken_up(model)
        if before != (begun, current) or "ensemble_scheduling" in (current or {}):
            return
        # Triton 2.51 keeps the instances of a model whose configuration is the same and whose files are no newer, even those whose
        # process is gone. A parameter that nobody reads is a difference; what is loaded after that is what was asked for.
        current = new or current or {}
        self._load(model, {**current, "parameters": {**current.get("parameters", {}), "course_reload": {"string_value": "yes"}}})
        self._load(model, new)

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
        served = any(state.name == model and state.state == "READY" for state in self.models())
        try:
            self._administer(f"models/{model}/load", body, timeout_s=START_TIMEOUT_S)
        except RequestError as error:
            keeps = "What was loaded before keeps serving." if served else ""
            reason = server_log.with_stage(server_log.plain(str(error)), {state.name: state.reason for state in self.models()})
            self.refusals[model] = reason
            raise ModelError(f"The server refused to load {model!r}: {reason.rstrip('.')}.", keeps, self._advice(str(error))) from error
        self.refusals.pop(model, None)

    def unload(self, model: str) -> None:
        """Take a model out of service; returns when its instances have ended.

        Raises:
            ModelError: the server refused, or there is no such model.
        """
        self._must_own("unload a model")
        try:
            self._administer(f"models/{model}/unload")
        except RequestError as error:
            raise self._model_error(model, str(error)) from error
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while any(state.name == model and state.state == "UNLOADING" for state in self.models()) and time.monotonic() < deadline:
            time.sleep(POLL_S)

    def _administer(self, what: str, body: Any = None, timeout_s: float = QUERY_TIMEOUT_S) -> Any:
        address = self._must_reach(self.http, "HTTP")
        headers = self.admin_headers("http")
        with self._or_how_it_ended():
            return http.ask(address, f"/v2/repository/{what}", body, headers=headers, post=True, timeout_s=timeout_s, access=self.access)

    def _must_own(self, what: str) -> None:
        if not self._key:
            raise ModelError(
                f"Only the owner of the server at {self.url} can {what}.",
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
